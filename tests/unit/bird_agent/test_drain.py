"""A node that leaves: in which order its peers are told, and what the others make of it."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import msgspec
import pytest

from bird_agent.bestpath import Path, Peer, local_preference_of
from bird_agent.drain import Drain, Phase, Situation, honoured, shaped
from bird_agent.exabgp import commands, events
from bird_agent.exabgp.commands import Announcement
from bird_agent.exabgp.decoder import Decoder
from bird_agent.exabgp.events import PathAttributes
from tests.unit.bird_agent.agent_world import BLOCKS, node, running
from tests.unit.bird_agent.test_policy import session
from weft.datastore.syncer import Upserted
from weft.model import drain
from weft.model.address import IPAddress
from weft.model.node import Node

A, B = ip_address("10.0.0.2"), ip_address("10.0.0.3")
PREFIX = ip_network("10.65.0.0/26")
BOTH = frozenset({A, B})


def situation(up: frozenset[IPAddress] = BOTH, announcing: bool = True) -> Situation:
    return Situation(True, up, announcing)


def asked(one: Drain, now: float) -> int | None:
    """The number of the question that the speaker is asked, if any."""
    said = one.questions(now)
    return int(said[0].split()[2]) if said else None


def wished(wait: str | None) -> Upserted:
    upserted = node(1)
    assert isinstance(upserted.value, Node)
    annotations = {} if wait is None else {drain.WISH: wait}
    metadata = msgspec.structs.replace(upserted.value.metadata, annotations=annotations)
    return Upserted(upserted.key, msgspec.structs.replace(upserted.value, metadata=metadata), 2)


def test_routes_are_withdrawn_when_all_peers_know_and_have_had_their_time() -> None:
    one = Drain()
    one.on_wish(5.0)
    assert one.step(0.0, situation())
    assert one.phase is Phase.LEAVING
    first = asked(one, 0.0)
    assert first is not None
    one.on_unsent(first, [B])
    one.step(1.0, situation())
    assert one.state() == "draining: GRACEFUL_SHUTDOWN sent to 1 of 2 peers, not yet 10.0.0.3"
    assert not one.step(60.0, situation())  # however long the other one takes
    assert asked(one, 60.0) == first
    one.on_unsent(first, [])
    assert not one.step(61.0, situation())
    assert not one.step(65.9, situation())
    assert one.step(66.0, situation())
    assert one.phase is Phase.WITHDRAWN
    assert one.state() == "draining: withdrawn from 0 of 2 peers, not yet 10.0.0.2, 10.0.0.3"
    one.on_unsent(first, [])  # the answer to an earlier question says nothing
    one.step(66.1, situation())
    second = asked(one, 66.1)
    assert second is not None
    assert not drain.is_drained(one.state())
    one.on_unsent(second, [])
    one.step(66.2, situation())
    assert drain.is_drained(one.state())


def test_a_peer_that_goes_away_is_not_waited_for() -> None:
    one = Drain()
    one.on_wish(0.0)
    one.step(0.0, situation())
    number = asked(one, 0.0)
    assert number is not None
    one.on_unsent(number, [B])
    assert not one.step(1.0, situation())
    assert one.step(2.0, situation(frozenset({A})))


def test_a_node_that_announces_nothing_is_drained_at_once() -> None:
    one = Drain()
    one.on_wish(5.0)
    assert one.step(0.0, situation(announcing=False))
    assert one.phase is Phase.WITHDRAWN


def test_nothing_is_begun_before_the_speaker_has_said_how_everything_stands() -> None:
    one = Drain()
    one.on_wish(5.0)
    assert not one.step(0.0, Situation(False, BOTH, False))
    assert one.phase is Phase.ANNOUNCING
    assert one.questions(0.0) == []


def test_a_drain_that_is_taken_back_is_over_when_all_have_the_routes_again() -> None:
    one = Drain()
    one.on_wish(5.0)
    one.step(0.0, situation())
    one.on_wish(None)
    assert one.step(1.0, situation())
    assert one.phase is Phase.ANNOUNCING
    assert one.state() == "undraining: routes announced again to 0 of 2 peers, not yet 10.0.0.2, 10.0.0.3"
    number = asked(one, 1.0)
    assert number is not None
    one.on_unsent(number, [])
    one.step(1.1, situation())
    assert one.state() is None


@pytest.mark.parametrize(("internal", "preference"), [(True, 0), (False, None)], ids=["internal", "external"])
def test_a_leaving_node_is_the_last_choice_by_community_and_inside_the_as_by_preference(
    internal: bool, preference: int | None
) -> None:
    config, next_hop = session(internal), ip_address("10.1.0.1")
    normal = Announcement(next_hop, communities=("1:2",), local_preference=100 if internal else None)
    assert shaped(Phase.LEAVING, config, {PREFIX: normal}) == {
        PREFIX: Announcement(next_hop, communities=("1:2", "65535:0"), local_preference=preference)
    }
    assert shaped(Phase.ANNOUNCING, config, {PREFIX: normal}) == {PREFIX: normal}
    assert shaped(Phase.WITHDRAWN, config, {PREFIX: normal}) == {}


@pytest.mark.parametrize("internal", [True, False])
@pytest.mark.parametrize("preference", [None, 500])
def test_a_path_with_graceful_shutdown_is_the_last_choice_here(internal: bool, preference: int | None) -> None:
    peer = Peer(A, ip_address("10.0.0.2"), 64512, internal, 64512, 0)  # type: ignore[arg-type]
    leaving = PathAttributes(local_preference=200, communities=((1, 2), (65535, 0)))
    path = Path(peer, A, leaving, preference)
    assert local_preference_of(honoured(path)) == 0
    other = Path(peer, A, PathAttributes(communities=((1, 2),)), preference)
    assert honoured(other) == other


def test_a_wish_in_the_node_goes_all_the_way_to_the_peers_and_back() -> None:
    world = running(2, 3)
    world.agent.on_datastore([wished("2s")])
    world.step()
    for peer in (A, B):
        said = world.speaker.peers[peer].attributes[PREFIX]
        assert "local-preference 0 " in said
        assert "65535:0" in said
    world.step(1.0)
    assert world.agent.drain_state == ("draining: GRACEFUL_SHUTDOWN sent to 2 of 2 peers", None)
    world.step(2.0)
    world.step(1.0)
    assert world.agent.drain_state == ("drained: nothing is announced", None)
    for peer in (A, B):
        assert world.agent.announcer.told(peer) == {}
        assert world.speaker.peers[peer].remembered == set()
    world.speaker.up("10.0.0.2")
    world.step()
    assert world.speaker.peers[A].remembered == set()  # a session that comes up is told nothing
    world.agent.on_datastore([wished(None)])
    world.step()
    assert [note for note in world.notes if note.startswith("graceful shutdown")] == [
        "graceful shutdown: all routes are announced with GRACEFUL_SHUTDOWN",
        "graceful shutdown: all routes are withdrawn, the sessions stay",
        "graceful shutdown: over, all routes are announced again",
    ]
    assert world.speaker.peers[A].remembered == {ip_network(BLOCKS[0])}
    world.step(1.0)
    assert world.agent.drain_state == (None, None)


def test_a_wish_in_words_that_make_no_sense_is_named_and_drains_all_the_same() -> None:
    world = running(2)
    world.agent.on_datastore([wished("soon")])
    world.step()
    assert world.agent.drain_state[0] is not None
    assert [each.subject for each in world.agent.problems(world.now)] == ["Node/n1"]


def test_the_speakers_answer_names_who_has_not_been_sent_everything() -> None:
    assert commands.unsent(7) == b"weft unsent 7\n"
    line = b'{"type":"weft-unsent","number":7,"peers":["10.0.0.3","fd00::2"]}'
    assert list(Decoder().decode(line)) == [events.UnsentReport(7, (B, ip_address("fd00::2")))]


@pytest.mark.parametrize(("text", "seconds"), [("5s", 5.0), ("0", 0.0), ("0.5s", 0.5), ("3600s", 3600.0)])
def test_a_time_is_seconds(text: str, seconds: float) -> None:
    assert drain.parse_wait(text) == seconds
    assert drain.parse_wait(drain.wait_text(seconds)) == seconds


@pytest.mark.parametrize("text", ["", "s", "-1s", "5m", "3601s", "nan", "1e3", "٥s"])
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="time in seconds"):
        drain.parse_wait(text)
