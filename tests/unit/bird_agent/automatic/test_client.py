"""When a node looks again, what it remembers, and when it writes for all."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest

from bird_agent import status
from bird_agent.automatic.client import STRANGER_AFTER_S, Automatic
from bird_agent.automatic.sight import Group
from bird_agent.node_status import PEER_TYPES
from bird_agent.reflector import status as reflector_status
from bird_agent.session_config import SessionKind
from tests.unit.reflectors.fabrics import ON, SETTINGS, fabric, zones
from weft.model.keys import ReflectorKey
from weft.model.reflectors import AttachmentRecord, ReflectorRecord, ReflectorState, Replacement

FABRIC = fabric(zones(6, "a"))


def automatic(name: str = "n1", state: ReflectorState | None = ON, fresh: bool = False) -> Automatic:
    made = Automatic(name, fresh)
    made.records.put(ReflectorKey("settings"), SETTINGS, 1)
    if state is not None:
        made.records.put(ReflectorKey("state"), state, 2)
    made.on_fabric(FABRIC)
    return made


def serve(made: Automatic) -> tuple[str, ...]:
    """The reflectors of the node are up."""
    ours = made.plan.reflectors_for("n1")
    for number, name in enumerate(ours):
        record = ReflectorRecord(addresses=(ip_address(f"10.9.0.{number + 1}"),), up=True, meshed=ours)
        made.records.put(ReflectorKey("serving", name), record, 3)
    made.on_records()
    return ours


def looks(mesh: Group = Group(), reflectors: Group = Group()):  # type: ignore[no-untyped-def]  # noqa: B008
    return lambda kind: mesh if kind is SessionKind.MESH else reflectors


def all_of(names: tuple[str, ...]) -> Group:
    there = frozenset(names)
    return Group(there, there, there, {})


def test_where_nothing_is_configured_a_node_has_its_mesh_and_says_nothing() -> None:
    made = Automatic("n1")
    made.on_fabric(FABRIC)
    assert not made.decide(looks(), 0.0)
    assert (made.record, made.next_state(0.0, 0.0), made.due(100.0)) == (None, None, False)


def test_nodes_stand_in_line_to_turn_the_fabric() -> None:
    at_once = [name for name in FABRIC.nodes if automatic(name, state=None).next_state(0.0, 0.0) is not None]
    assert len(at_once) == 1
    last = automatic("n1", state=None)
    last.next_state(0.0, 0.0)
    wanted = last.next_state(10.0, 0.0)
    assert wanted is not None
    assert (wanted.mode, wanted.epoch, wanted.by) == ("reflectors", 1, "n1")


def test_a_restarted_agent_keeps_the_sessions_that_it_said_it_had() -> None:
    made = automatic()
    serve(made)
    old = "n6" if "n6" not in made.plan.chosen else "n5"
    made.records.put(ReflectorKey("serving", old), ReflectorRecord(addresses=(ip_address("10.9.0.9"),), up=True), 3)
    made.records.put(ReflectorKey("attached", "n1"), AttachmentRecord(epoch=1, attached=(old,), complete=True), 4)
    made.on_records()
    made.decide(looks(), 0.0)
    assert set(made.sessions.reflectors) == {old, *made.plan.reflectors_for("n1")}


def test_a_node_that_boots_into_a_fabric_with_reflectors_asks_nobody_for_a_mesh_session() -> None:
    booted, restarted = automatic(fresh=True), automatic(fresh=False)
    for made in (booted, restarted):
        serve(made)
        for name in ("n2", "n3", "n4", "n5", "n6"):
            made.records.put(ReflectorKey("attached", name), AttachmentRecord(epoch=1, complete=True), 4)
        made.decide(looks(), 0.0)
    assert len(booted.sessions.without_mesh) == 5
    assert booted.record is not None
    assert booted.record.complete
    assert not restarted.sessions.without_mesh


@pytest.mark.parametrize("complete", [False, True])
def test_a_restarted_agent_keeps_the_sessions_with_nodes_that_have_said_nothing(complete: bool) -> None:
    """n6 is a stranger, or its agent was restarted, too, before it could say anything."""
    made = automatic()
    ours = serve(made)
    for name in ("n1", "n2", "n3", "n4", "n5"):
        made.records.put(ReflectorKey("attached", name), AttachmentRecord(epoch=1, attached=ours, complete=complete), 4)
    made.decide(looks(), 0.0)
    assert made.sessions.without_mesh == {"n2", "n3", "n4", "n5"} - (set() if complete else FABRIC.nodes.keys())
    made.decide(looks(all_of(("n6",)), all_of(ours)), 1.0)
    assert "n6" not in made.sessions.without_mesh


def test_a_node_that_says_nothing_gets_a_mesh_session_after_a_while_because_it_is_not_ours() -> None:
    made = automatic(fresh=True)
    ours = serve(made)
    made.decide(looks(reflectors=all_of(ours)), 0.0)
    assert "n6" in made.sessions.without_mesh
    assert made.decide(looks(reflectors=all_of(ours)), STRANGER_AFTER_S)
    assert "n6" not in made.sessions.without_mesh


def in_two_domains() -> Automatic:
    """n1, and reflectors that all serve."""
    made = Automatic("n1")
    made.records.put(ReflectorKey("settings"), SETTINGS, 1)
    made.records.put(ReflectorKey("state"), ON, 2)
    made.on_fabric(fabric(zones(8, "a", "b")))
    for number, name in enumerate(sorted(made.plan.chosen)):
        record = ReflectorRecord(addresses=(ip_address(f"10.9.0.{number + 1}"),), up=True)
        made.records.put(ReflectorKey("serving", name), record, 3)
    made.on_records()
    return made


def test_without_an_answer_from_its_own_reflectors_a_node_asks_those_of_the_next_domain() -> None:
    made = in_two_domains()
    own, reserve = made.plan.reflectors_for("n1"), made.plan.reserve_for("n1")
    made.decide(looks(), 0.0)
    assert set(made.sessions.reflectors) == set(own)
    made.decide(looks(), 10.0)
    assert set(made.sessions.reflectors) == {*own, *reserve}


def test_a_node_whose_reflectors_have_all_fallen_silent_asks_the_next_domain_at_once() -> None:
    for silent, asks in ((2, True), (1, False)):
        made = Automatic("n1", fresh=True)
        made.records.put(ReflectorKey("settings"), SETTINGS, 1)
        made.records.put(ReflectorKey("state"), ON, 2)
        made.on_fabric(fabric(zones(8, "a", "b")))
        for number, name in enumerate(sorted(made.plan.chosen)):
            record = ReflectorRecord(addresses=(ip_address(f"10.9.0.{number + 1}"),), up=True)
            made.records.put(ReflectorKey("serving", name), record, 3)
        made.on_records()
        own, reserve = made.plan.reflectors_for("n1"), made.plan.reserve_for("n1")
        made.decide(looks(reflectors=all_of(own)), 0.0)
        made.decide(looks(reflectors=Group(frozenset(own), silent=frozenset(own[:silent]))), 1.0)
        assert set(made.sessions.reflectors) == {*own, *(reserve if asks else ())}


def test_a_node_that_still_has_its_mesh_asks_no_other_reflectors_however_long_its_own_take() -> None:
    made = in_two_domains()
    mesh = all_of(tuple(sorted(made.plan.domain_of.keys() - {"n1"})))
    own, reserve = made.plan.reflectors_for("n1"), made.plan.reserve_for("n1")
    for now in (0.0, 60.0):
        made.decide(looks(mesh), now)
        assert set(made.sessions.reflectors) == set(own)
    made.records.put(ReflectorKey("attached", "n1"), AttachmentRecord(epoch=ON.epoch, complete=True), 4)
    made.on_records()
    for now, asked in ((61.0, {*own}), (71.0, {*own, *reserve})):
        made.decide(looks(mesh), now)
        assert set(made.sessions.reflectors) == asked


def test_a_dead_reflector_that_is_replaced_goes_when_others_bring_what_is_kept_of_it() -> None:
    made = automatic(fresh=True)
    ours = serve(made)
    kept = {name: frozenset([ip_network("10.65.7.0/26")]) for name in ours}
    there = frozenset(ours)
    made.decide(looks(reflectors=Group(there, there, there, kept)), 0.0)
    state = ReflectorState(mode="reflectors", epoch=1, replaced=tuple(Replacement(node=name) for name in ours))
    made.records.put(ReflectorKey("state"), state, 5)
    for name in ours:
        made.records.remove(ReflectorKey("serving", name))
    made.on_records()
    new = made.plan.reflectors_for("n1")
    for number, name in enumerate(new):
        record = ReflectorRecord(addresses=(ip_address(f"10.9.0.{number + 11}"),), up=True, meshed=new)
        made.records.put(ReflectorKey("serving", name), record, 6)
    made.on_records()
    made.decide(looks(reflectors=Group(there, learnt=kept)), 60.0)
    assert set(made.sessions.reflectors) == {*ours, *new}, "what it left behind is all there is"
    up = frozenset(new)
    made.decide(looks(reflectors=Group(there | up, up, up, kept)), 61.0)
    assert set(made.sessions.reflectors) == {*ours, *new}, "the new ones do not bring it yet"
    brought = dict.fromkeys(new, kept[ours[0]])
    made.decide(looks(reflectors=Group(there | up, up, up, kept | brought)), 62.0)
    assert set(made.sessions.reflectors) == set(new)


def test_a_session_that_is_lost_for_a_moment_is_no_news() -> None:
    made = automatic(fresh=True)
    ours = serve(made)
    made.decide(looks(reflectors=all_of(ours)), 0.0)
    down = Group(frozenset(ours), frozenset(ours[1:]), frozenset(ours[1:]), {})
    for now, attached in ((5.0, ours), (11.0, ours[1:])):
        made.decide(looks(reflectors=down), now)
        assert made.record is not None
        assert made.record.attached == tuple(sorted(attached))


def test_a_node_that_was_replaced_and_lives_asks_to_be_a_candidate_again_after_a_while() -> None:
    state = ReflectorState(mode="reflectors", epoch=1, replaced=(Replacement(node="n1"),))
    made = automatic(state=state)
    assert made.next_state(0.0, 0.0) is None
    made.next_state(600.0, 0.0)
    wanted = made.next_state(606.0, 0.0)
    assert wanted is not None
    assert [each.node for each in wanted.replaced if each.returned is None] == []


def test_settings_that_cannot_be_read_leave_those_in_force_that_could() -> None:
    made = automatic()
    before = made.plan
    made.records.on_unreadable(ReflectorKey("settings"), "aboveNodes: 0 is not valid")
    made.on_records()
    assert made.plan == before
    assert [each.subject for each in made.records.problems] == ["/calico/weft/v1/reflectors/settings"]


def test_the_way_to_every_other_nodes_reflector_is_its_node_whether_there_is_a_session_or_not() -> None:
    made = automatic()
    addresses = (ip_address("10.9.0.3"), ip_address("fd09::3"))
    for name, said in (("n1", (ip_address("10.9.0.1"),)), ("n3", addresses), ("n99", (ip_address("10.9.0.99"),))):
        made.records.put(ReflectorKey("serving", name), ReflectorRecord(addresses=said), 3)
    assert made.ways == {ip_address("10.9.0.3"): ip_address("10.0.0.3")}
    stranger = automatic("n99")
    stranger.records.put(ReflectorKey("serving", "n3"), ReflectorRecord(addresses=addresses), 3)
    assert stranger.ways == {}


def test_sessions_with_reflectors_have_a_name_for_whoever_asks() -> None:
    assert set(SessionKind) == set(status._TYPES) == set(reflector_status._TYPES)
    assert SessionKind.REFLECTOR in PEER_TYPES
