"""Session states and the graceful-restart helper."""

from __future__ import annotations

from ipaddress import IPv4Address, ip_address
from typing import Any

import pytest

from bird_agent.exabgp.events import PeerOpen, SessionDown
from bird_agent.sessions import DropAll, DropStale, FallSilent, MarkStale, Sessions, explain

PEER = ip_address("10.1.0.2")
V4 = "ipv4 unicast"


def opened(restart: dict[str, bool] | None, time_s: int = 90, enhanced: bool = True) -> PeerOpen:
    return PeerOpen(65001, IPv4Address("10.1.0.2"), 9, True, enhanced, time_s, restart)


def down(reason: str = "closing connection", at: float = 100, **more: Any) -> SessionDown:
    return SessionDown(PEER, at, reason, more.pop("notification", None), **more)


def established(restart: dict[str, bool] | None = None, time_s: int = 90) -> Sessions:
    sessions = Sessions()
    sessions.configure({PEER: ("ipv4 unicast",)})
    sessions.on_open(PEER, opened(restart, time_s))
    sessions.on_up(PEER, 10)
    sessions.on_end_of_rib(PEER, V4)
    return sessions


NEW_SETTINGS = "graceful restarted negotiated, closing without sending any notification"
KEPT = [MarkStale(PEER, V4)]


@pytest.mark.parametrize(
    ("restart", "time_s", "event", "kept"),
    [
        pytest.param({V4: False}, 90, down(), True, id="connection lost"),
        pytest.param(None, 90, down(NEW_SETTINGS), True, id="our own new settings"),
        pytest.param(None, 90, down("stop, message [shutting down]"), True, id="our speaker is stopped"),
        pytest.param(None, 90, down("stop, message [removed]"), True, id="our own new address"),
        pytest.param({V4: False}, 0, down(), False, id="a restart time of zero"),
        pytest.param({"ipv6 unicast": True}, 90, down(), False, id="capability without this family"),
        pytest.param(None, 90, down(), False, id="no capability"),
        pytest.param({V4: False}, 90, down("x", notification=(6, 2)), False, id="administrative shutdown"),
        pytest.param({V4: False}, 90, down("x", notification=(4, 0), sent=True), False, id="hold timer"),
    ],
)
def test_only_a_lost_connection_keeps_routes(
    restart: dict[str, bool] | None, time_s: int, event: SessionDown, kept: bool
) -> None:
    sessions = established(restart, time_s)
    assert sessions.on_down(event) == (KEPT if kept else [DropAll(PEER, explain(event))])
    session = sessions.get(PEER)
    assert session is not None
    assert (session.restarting, session.established) == (kept, False)


def test_kept_routes_go_when_the_restart_time_is_over() -> None:
    sessions = established({V4: False})
    sessions.on_down(down())
    assert sessions.on_down(down(at=120)) == []  # attempts to come back change nothing
    assert sessions.on_tick(189) == []
    assert sessions.on_tick(190) == [DropStale(PEER, V4, "its restart time is over")]
    assert sessions.on_tick(500) == []


def test_kept_routes_go_at_the_end_of_rib_of_the_peer_that_is_back() -> None:
    sessions = established({V4: False})
    sessions.on_down(down())
    assert sessions.on_open(PEER, opened({V4: True})) == []
    sessions.on_up(PEER, 150)
    assert sessions.on_tick(200) == []
    assert sessions.on_end_of_rib(PEER, V4) == [DropStale(PEER, V4, "not announced again")]


@pytest.mark.parametrize("restart", [{V4: False}, {}, None], ids=["not kept", "family gone", "capability gone"])
def test_a_peer_that_did_not_keep_forwarding_loses_what_was_kept_at_once(restart: dict[str, bool] | None) -> None:
    sessions = established({V4: False})
    sessions.on_down(down())
    why = "the peer did not keep forwarding over its restart"
    assert sessions.on_open(PEER, opened(restart)) == [DropStale(PEER, V4, why)]


def test_when_it_was_our_speaker_that_died_the_peer_need_not_have_restarted() -> None:
    sessions = established(None)
    assert sessions.on_speaker_lost(100) == KEPT
    assert sessions.on_open(PEER, opened({V4: False})) == []
    sessions.on_up(PEER, 101)
    assert sessions.on_end_of_rib(PEER, V4) == [DropStale(PEER, V4, "not announced again")]


@pytest.mark.parametrize("reason", [NEW_SETTINGS, "stop, message [shutting down]"])
def test_a_session_that_we_begin_anew_keeps_its_routes_until_they_are_heard_again(reason: str) -> None:
    sessions = established({V4: False})
    assert sessions.on_down(down(reason, at=100)) == KEPT
    assert sessions.on_open(PEER, opened({V4: False})) == []
    sessions.on_up(PEER, 101)
    assert sessions.on_end_of_rib(PEER, V4) == [DropStale(PEER, V4, "not announced again")]


def test_what_was_stale_already_is_not_kept_over_a_second_loss() -> None:
    sessions = established({V4: False})
    sessions.on_down(down())
    sessions.on_open(PEER, opened({V4: True}))
    sessions.on_up(PEER, 110)
    again = sessions.on_down(down(at=111))
    assert again == [DropStale(PEER, V4, "lost again before it was announced again"), *KEPT]


def test_of_a_lost_connection_only_the_families_are_kept_that_the_peer_named() -> None:
    sessions = Sessions()
    sessions.configure({PEER: (V4, "ipv6 unicast")})
    sessions.on_open(PEER, opened({V4: False}))
    sessions.on_up(PEER, 10)
    assert sessions.on_down(down()) == [
        MarkStale(PEER, "ipv6 unicast"),
        DropStale(PEER, "ipv6 unicast", "connection lost"),
        *KEPT,
    ]


def test_a_peer_without_end_of_rib_has_told_all_when_it_is_quiet() -> None:
    sessions = Sessions()
    sessions.configure({PEER: ("ipv4 unicast",)})
    sessions.on_open(PEER, opened(None))
    sessions.on_up(PEER, 10)
    sessions.on_heard(PEER, 12)
    session = sessions.get(PEER)
    assert session is not None
    assert sessions.on_tick(14.9) == []
    assert session.learning
    sessions.on_tick(15)
    assert not session.learning


def test_a_refresh_marks_everything_and_ends_with_its_mark_or_in_time() -> None:
    sessions = established({V4: False})
    assert sessions.on_refresh(PEER, 50) == KEPT
    session = sessions.get(PEER)
    assert session is not None
    assert session.learning
    assert sessions.on_end_of_rib(PEER, V4) == [DropStale(PEER, V4, "not announced again")]
    assert not session.learning


@pytest.mark.parametrize("restart", [None, {V4: False}], ids=["plain", "graceful restart"])
def test_a_peer_that_marks_no_end_of_a_refresh_has_the_time_that_it_takes(restart: dict[str, bool] | None) -> None:
    sessions = established(restart)
    sessions.on_open(PEER, opened(restart, enhanced=False))
    assert sessions.on_refresh(PEER, 50) == KEPT
    for at in (52, 54, 56):  # a large table
        sessions.on_heard(PEER, at)
        assert sessions.on_tick(at + 2.9) == []
    assert sessions.on_tick(59) == [DropStale(PEER, V4, "not announced again")]
    session = sessions.get(PEER)
    assert session is not None
    assert not session.learning


def test_an_interface_that_goes_down_withdraws_even_what_was_kept() -> None:
    sessions = established({V4: False})
    sessions.on_down(down())
    assert sessions.on_path_lost(PEER, 101, "interface down") == [DropAll(PEER, "interface down")]
    assert sessions.on_path_lost(PEER, 102, "interface down") == []


def test_a_peer_that_is_no_longer_configured_loses_everything() -> None:
    sessions = established()
    assert sessions.configure({}) == [DropAll(PEER, "no longer configured")]
    assert sessions.on_down(down()) == []


@pytest.mark.parametrize(
    ("event", "words"),
    [
        pytest.param(down(), "connection lost", id="lost"),
        pytest.param(down("x", notification=(4, 0), sent=True), "hold timer expired", id="our hold timer"),
        pytest.param(
            down("x", notification=(4, 0)), "hold timer expired (received from the peer)", id="the peer's hold timer"
        ),
        pytest.param(
            down("x", notification=(6, 2)), "cease: administrative shutdown (received from the peer)", id="shutdown"
        ),
        pytest.param(
            down("x", notification=(2, 2), sent=True), "OPEN message error, subcode 2 (sent to the peer)", id="bad AS"
        ),
    ],
)
def test_why_a_session_ended_is_said_in_words(event: SessionDown, words: str) -> None:
    assert explain(event) == words


BOTH = ("ipv4 unicast", "ipv6 unicast")


def both(families: Any = frozenset(BOTH)) -> Sessions:
    sessions = Sessions()
    sessions.configure({PEER: BOTH})
    kept = dict.fromkeys(BOTH, True)
    sessions.on_open(PEER, PeerOpen(65001, IPv4Address(1), 90, True, True, 120, kept, families))
    sessions.on_up(PEER, 100.0)
    return sessions


def test_a_session_of_two_families_has_told_all_when_it_has_told_both() -> None:
    sessions = both()
    session = sessions.get(PEER)
    assert session is not None
    sessions.on_end_of_rib(PEER, "ipv6 unicast")
    assert session.learning
    sessions.on_end_of_rib(PEER, "ipv4 unicast")
    assert not session.learning
    assert set(sessions.on_speaker_lost(101.0)) == {MarkStale(PEER, family) for family in BOTH}
    # What was only offered is not waited for.
    sessions = both(frozenset({"ipv6 unicast"}))
    assert sessions.on_refresh(PEER, 102.0) == [MarkStale(PEER, "ipv6 unicast")]
    lost = sessions.on_down(SessionDown(PEER, 103.0, "closing connection", None))
    assert MarkStale(PEER, "ipv6 unicast") in lost
    assert MarkStale(PEER, "ipv4 unicast") not in lost


NODE = frozenset([ip_address("10.1.0.3")])


def of_a_reflector(restart: dict[str, bool] | None = None) -> Sessions:
    sessions = Sessions()
    sessions.configure({PEER: (V4,)}, {PEER: NODE})
    sessions.on_open(PEER, opened(restart))
    sessions.on_up(PEER, 10)
    sessions.on_end_of_rib(PEER, V4)
    return sessions


HOLD = down("x", notification=(4, 0), sent=True)


@pytest.mark.parametrize("by", ["hold timer", "BFD"])
def test_routes_of_a_silent_peer_that_forwards_nothing_stay_for_its_restart_time(by: str) -> None:
    sessions = of_a_reflector({V4: True})
    why = "hold timer expired" if by == "hold timer" else "BFD: the path is dead"
    said = sessions.on_down(HOLD) if by == "hold timer" else sessions.on_path_lost(PEER, 100, why, silent=True)
    assert said == [*KEPT, FallSilent(PEER, NODE, why)]
    session = sessions.get(PEER)
    assert session is not None
    assert (session.silent, session.restarting) == (True, True)
    assert sessions.on_tick(189) == []
    assert sessions.on_tick(190) == [DropStale(PEER, V4, "its restart time is over")]
    assert session.silent
    sessions.on_up(PEER, 200)
    assert not session.silent


@pytest.mark.parametrize(
    "event",
    [
        pytest.param(down("x", notification=(6, 3)), id="it said so"),
        pytest.param(down("x", notification=(4, 0)), id="it does not hear us"),
        pytest.param(None, id="interface down"),
    ],
)
def test_in_any_other_way_such_a_peer_loses_its_routes_as_every_peer(event: SessionDown | None) -> None:
    sessions = of_a_reflector({V4: True})
    lost = sessions.on_path_lost(PEER, 100, "interface down") if event is None else sessions.on_down(event)
    assert lost == [DropAll(PEER, "interface down" if event is None else explain(event))]
    session = sessions.get(PEER)
    assert session is not None
    assert not session.silent


def test_any_other_peer_that_falls_silent_loses_its_routes_at_once() -> None:
    assert established({V4: True}).on_path_lost(PEER, 100, "BFD", silent=True) == [DropAll(PEER, "BFD")]


def test_what_a_silent_peer_has_not_announced_again_since_an_earlier_loss_goes() -> None:
    sessions = of_a_reflector({V4: True})
    sessions.on_down(down())
    sessions.on_open(PEER, opened({V4: True}))
    sessions.on_up(PEER, 110)
    assert sessions.on_down(HOLD)[0] == DropStale(PEER, V4, "lost again before it was announced again")
