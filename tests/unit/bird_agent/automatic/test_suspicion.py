"""When a reflector counts as dead: three things must come together."""

from __future__ import annotations

import pytest

from bird_agent.automatic.decision import Shared
from bird_agent.automatic.suspicion import STARTING_S, Suspicions
from weft.model.reflectors import AttachmentRecord, ReflectorRecord
from weft.reflectors.plan import Plan

AFTER_S = 60.0
REFLECTORS = {"": ("r1", "r2")}
NODES = ("n1", "n2", "n3", "n4", "r1", "r2")
BOTH, OTHER = ("r1", "r2"), ("r2",)


def shared(**attached: tuple[str, ...]) -> Shared:
    records = {name: AttachmentRecord(epoch=1, attached=names, complete=True) for name, names in attached.items()}
    return Shared(Plan("reflectors", 1, REFLECTORS, dict.fromkeys(NODES, "")), records)


def watch(beats: list[int | None], step_s: float = 10.0) -> tuple[Suspicions, float]:
    """n1 has no session with r1 and reads r1's signs of life every ten seconds; None: the datastore does not answer."""
    suspicions, now = Suspicions("n1"), 1000.0
    suspicions.on_sessions(frozenset(BOTH), frozenset(OTHER))
    for beat in beats:
        assert suspicions.to_read(AFTER_S, now) == ["r1"]
        if beat is None:
            suspicions.on_unread()
        else:
            suspicions.on_beat("r1", beat, now)
        now += step_s
    return suspicions, now - step_s


def test_no_session_no_sign_of_life_and_no_other_client_either_is_dead() -> None:
    suspicions, now = watch([7] * 7)
    why = suspicions.dead(shared(n2=OTHER, n3=OTHER, n4=OTHER), AFTER_S, now)
    assert why == {"r1": "no sign of life and no session with n1 for 60 s, and none with 3 of 3 other clients"}


@pytest.mark.parametrize(
    ("beats", "records"),
    [
        pytest.param([7] * 6, {"n2": OTHER}, id="not yet"),
        pytest.param([7, 7, 7, 8, 8, 8, 8], {"n2": OTHER}, id="a sign of life meanwhile: this node is cut off"),
        pytest.param(
            [7, 7, 7, None, 7, 7, 7], {"n2": OTHER}, id="the datastore was away, perhaps for the reflector, too"
        ),
        pytest.param([7] * 7, {"n2": BOTH, "n3": BOTH, "n4": OTHER}, id="it serves others: it has lost the datastore"),
        pytest.param([7] * 7, {"n2": BOTH, "n3": OTHER}, id="the others do not agree"),
        pytest.param([0] * 7, {"n2": BOTH}, id="a client says that it serves, although it never gave a sign of life"),
    ],
)
def test_less_than_that_is_not(beats: list[int | None], records: dict[str, tuple[str, ...]]) -> None:
    suspicions, now = watch(beats)
    assert suspicions.dead(shared(**records), AFTER_S, now) == {}


def test_a_session_that_is_back_begins_the_time_anew() -> None:
    suspicions, now = watch([7] * 7)
    suspicions.on_sessions(frozenset(BOTH), frozenset(BOTH))
    suspicions.on_sessions(frozenset(BOTH), frozenset(OTHER))
    assert suspicions.dead(shared(n2=OTHER), AFTER_S, now) == {}


def test_what_others_said_before_the_last_turn_of_the_fabric_does_not_count() -> None:
    suspicions, now = watch([7] * 7)
    old = Shared(shared().plan, {"n2": AttachmentRecord(epoch=0, attached=BOTH)})
    assert set(suspicions.dead(old, AFTER_S, now)) == {"r1"}


def test_a_reflector_that_has_just_been_chosen_has_time_to_start() -> None:
    suspicions = Suspicions("n1")
    suspicions.on_sessions(frozenset(BOTH), frozenset(OTHER))
    for now in range(0, 31, 1):
        suspicions.to_read(2.0, float(now))
        suspicions.on_beat("r1", 0, float(now))
        assert bool(suspicions.dead(shared(n2=OTHER), 2.0, float(now))) == (now >= STARTING_S)


@pytest.mark.parametrize(
    ("beats", "attached", "expected"),
    [
        pytest.param([7] * 7, OTHER, ["old"], id="no sign of life, and nobody has a session"),
        pytest.param([7] * 6, OTHER, [], id="not yet"),
        pytest.param([7, 7, 7, 8, 8, 8, 8], OTHER, [], id="a sign of life"),
        pytest.param([7] * 7, ("old",), [], id="somebody is its client still"),
    ],
)
def test_a_record_of_a_dead_node_that_is_no_longer_chosen_is_a_leftover(
    beats: list[int], attached: tuple[str, ...], expected: list[str]
) -> None:
    suspicions, now = Suspicions("n1"), 1000.0
    said = shared(n2=attached)
    said = Shared(said.plan, said.attached, {"old": ReflectorRecord(up=True), "r2": ReflectorRecord(up=True)})
    suspicions.on_sessions(frozenset(("old", "r1", "r2")), frozenset(("r1", "r2")))
    for beat in beats:
        suspicions.to_read(AFTER_S, now)
        suspicions.on_beat("old", beat, now)
        now += 10.0
    assert suspicions.leftovers(said, AFTER_S, now - 10.0) == expected
    assert suspicions.dead(said, AFTER_S, now - 10.0) == {}
