"""The agent's decisions, driven by a speaker that refuses like ExaBGP."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

from hypothesis import given
from hypothesis import strategies as st

from bird_agent.exabgp import events, link
from tests.fakes.speaker import FakeSpeaker
from tests.unit.bird_agent.agent_world import (
    BLOCKS,
    BORROWED,
    LEARNT,
    PEERS,
    POOL,
    World,
    block,
    block_key,
    node,
    running,
)
from weft.datastore.syncer import Deleted, Upserted
from weft.model import keys
from weft.netlink.route import Hop, via


def test_nothing_is_done_before_the_datastore_has_been_read() -> None:
    world = World(2)
    world.agent.on_datastore([node(1), node(2), block(BLOCKS[0])])
    (step,) = world.step()
    assert (step.peering, step.commands, step.routes, step.sweep) == (None, [], {}, False)


def test_a_command_that_the_speaker_refuses_is_logged_and_everything_else_goes_on() -> None:
    world = running(2)
    world.speaker.tell(events.CommandRefused("weft announce 18", "a prefix of 24 bits in 0 bytes"))
    world.agent.on_datastore([block(BLOCKS[1])])
    world.step()
    assert world.notes[-1] == "the speaker refused a command (a prefix of 24 bits in 0 bytes): weft announce 18"
    assert world.sent("10.0.0.2")[-1] == BLOCKS[1]


def test_our_end_of_rib_comes_behind_everything_we_announce() -> None:
    world = running(2, blocks=BLOCKS[:2])
    assert world.sent("10.0.0.2") == [*BLOCKS[:2], "eor"]


def test_a_change_is_told_once_and_only_the_change() -> None:
    world = running(2, 3)
    world.agent.on_datastore([block(BLOCKS[1]), block(BLOCKS[2], "pending")])
    world.step()
    world.agent.on_datastore([Deleted(block_key(BLOCKS[0]))])
    world.step()
    for peer in PEERS:
        assert world.sent(peer) == [BLOCKS[0], "eor", BLOCKS[1], f"-{BLOCKS[0]}"]


def test_a_new_peer_is_told_everything_once_the_speaker_knows_it() -> None:
    world = running(2)
    world.agent.on_datastore([node(3)])
    (step, *_) = world.step()
    assert step.peering is not None
    assert world.speaker.ignored == []
    world.speaker.configure(PEERS)
    world.speaker.up("10.0.0.3")
    world.step()
    assert world.sent("10.0.0.3") == [BLOCKS[0], "eor"]
    assert world.sent("10.0.0.2") == [BLOCKS[0], "eor"]
    assert world.speaker.ignored == []


def test_a_new_agent_withdraws_what_the_last_one_announced_and_nobody_has_any_more() -> None:
    world = World(2)
    world.speaker.configure(["10.0.0.2"])
    world.speaker.up("10.0.0.2")
    peer = world.speaker.peers[ip_address("10.0.0.2")]
    peer.remembered = {ip_network(BLOCKS[0]), ip_network(BLOCKS[2])}
    world.begin(block(BLOCKS[0]))
    world.agent.conversation.on_speaker_found()
    world.speaker.attach()
    world.step()
    assert peer.sent == [f"-{BLOCKS[2]}", "eor"]
    assert peer.remembered == {ip_network(BLOCKS[0])}


def test_leftovers_go_only_when_every_session_that_is_there_has_told_all() -> None:
    world = running(2)
    assert not world.swept
    world.speaker.tell(events.EndOfRib(ip_address("10.0.0.2"), "ipv4 unicast"))
    world.step()
    assert world.swept


def test_an_absent_peer_holds_leftovers_no_longer_than_its_routes_would_be_kept() -> None:
    world = World(2)
    world.begin()
    world.speaker.attach()
    world.step()
    world.step(119)
    assert not world.swept
    world.step(2)
    assert world.swept


def test_a_history_told_again_takes_no_route_away_half_way() -> None:
    world = running(2)
    world.learn("10.0.0.2")
    world.step()
    route = {LEARNT: via(Hop(ip_address("10.0.0.2"), 2))}
    assert world.kernel == route
    world.speaker.detach()
    world.step()
    world.speaker.attach()  # the history begins with dropping everything
    assert world.agent.step(world.now).routes == {}
    world.step()
    assert world.kernel == route


def test_an_incomplete_history_is_made_up_for_by_a_refresh() -> None:
    world = running(2)
    world.learn("10.0.0.2")
    world.step()
    world.speaker.complete = False
    world.speaker.detach()
    world.speaker.attach()
    world.step()
    peer = ip_address("10.0.0.2")
    assert world.speaker.refreshed == [peer]
    assert LEARNT in world.kernel
    world.speaker.tell(events.RefreshMark(peer, "ipv4 unicast", True))
    world.learn("10.0.0.2", ip_network("10.67.0.0/26"))
    world.speaker.tell(events.RefreshMark(peer, "ipv4 unicast", False))
    world.step()
    assert set(world.kernel) == {ip_network("10.67.0.0/26")}


def test_a_new_speaker_is_told_everything_and_no_route_goes_meanwhile() -> None:
    world = running(2)
    world.learn("10.0.0.2")
    world.step()
    world.speaker.detach()
    world.speaker = FakeSpeaker(world.agent, pid=200)
    world.speaker.configure(["10.0.0.2"])
    world.speaker.attach()
    world.step()
    world.speaker.up("10.0.0.2")
    world.step()
    assert world.sent("10.0.0.2") == [BLOCKS[0], "eor"]
    assert LEARNT in world.kernel
    world.speaker.tell(events.EndOfRib(ip_address("10.0.0.2"), "ipv4 unicast"))
    world.step()
    assert world.kernel == {}


def test_a_removed_node_takes_its_routes_with_it() -> None:
    world = running(2)
    world.learn("10.0.0.2")
    world.step()
    world.agent.on_datastore([Deleted(node(2).key)])
    world.step()
    assert world.kernel == {}


def test_a_peer_that_is_taken_away_and_given_back_before_the_speaker_hears_of_it_is_asked_for_everything() -> None:
    world, peer = running(2), ip_address("10.0.0.2")
    world.learn("10.0.0.2")
    world.step()
    world.agent.on_datastore([Deleted(node(2).key)])
    world.step()
    assert world.kernel == {}
    world.agent.on_datastore([node(2)])
    world.step()
    world.speaker.configure(["10.0.0.2"])  # for the speaker nothing has changed
    world.step()
    session = world.agent.sessions.get(peer)
    assert session is not None
    assert session.established
    assert world.speaker.refreshed == [peer]
    world.learn("10.0.0.2")
    world.step()
    assert set(world.kernel) == {LEARNT}


def test_a_node_that_is_no_longer_registered_ends_its_sessions() -> None:
    world = running(2)
    world.agent.on_datastore([Deleted(node(1).key)])
    (step, *_) = world.step()
    assert step.peering is not None
    assert step.peering.sessions == {}
    world.speaker.configure([])
    world.agent.on_datastore([node(1)])
    (step, *_) = world.step()
    assert step.peering is not None
    assert set(step.peering.sessions) == {ip_address("10.0.0.2")}


def test_a_peer_that_is_taken_away_is_first_told_that_we_have_nothing() -> None:
    world = running(2, 3)
    world.agent.on_datastore([Deleted(node(2).key)])
    world.step()
    assert world.sent("10.0.0.2") == [BLOCKS[0], "eor", f"-{BLOCKS[0]}"]
    assert world.sent("10.0.0.3") == [BLOCKS[0], "eor"]
    world.agent.on_datastore([node(2)])  # given back before the speaker is told
    world.step()
    assert world.sent("10.0.0.2")[-1] == BLOCKS[0]


def test_a_speaker_that_cannot_be_started_again_costs_the_routes_after_the_restart_time() -> None:
    world = running(2)
    world.learn("10.0.0.2")
    world.step()
    world.speaker.detach()
    world.agent.conversation.on_speaker_ended()
    world.step(100)
    session = world.agent.sessions.get(ip_address("10.0.0.2"))
    assert session is not None
    assert not session.established
    assert set(world.kernel) == {LEARNT}
    world.step(21)
    assert world.kernel == {}


def test_a_history_told_again_is_not_counted_again() -> None:
    world, peer = running(2), ip_address("10.0.0.2")
    world.learn("10.0.0.2")
    world.speaker.tell(events.SessionDown(peer, world.now, "closing connection", None))
    world.speaker.up("10.0.0.2")
    world.step()
    for _ in range(2):
        session = world.agent.sessions.get(peer)
        assert session is not None
        assert (session.flaps, session.updates) == (1, 1)
        world.speaker.detach()
        world.speaker.attach()
        world.step()


def test_a_history_that_nobody_ends_stops_nothing_for_ever() -> None:
    world = running(2)
    world.learn("10.0.0.2")
    world.step()
    world.speaker.detach()
    world.agent.conversation.on_attached(link.Hello(1, 100, 102))
    world.agent.conversation.on_replaying(ip_address("10.0.0.2"), True)
    world.speaker.detach()
    world.step()
    assert set(world.kernel) == {LEARNT}
    world.step(120)
    assert world.kernel == {}


def test_a_block_that_is_ours_is_not_learnt_and_is_when_it_is_somebody_elses() -> None:
    world = running(2, blocks=[])
    for prefix in (BLOCKS[0], "10.65.0.0/27", "10.65.0.7/32"):
        world.learn("10.0.0.2", ip_network(prefix))
    world.step()
    everything = set(world.kernel)
    assert len(everything) == 3
    world.agent.on_datastore([block(BLOCKS[0])])
    world.step()
    assert set(world.kernel) == {ip_network("10.65.0.7/32")}
    world.agent.on_datastore([Deleted(block_key(BLOCKS[0]))])
    world.step()
    assert set(world.kernel) == everything


changes = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["start", "stop"]), st.sampled_from(BORROWED)),
        st.tuples(st.just("block"), st.sampled_from(BLOCKS)),
        st.tuples(st.just("release"), st.sampled_from(BLOCKS)),
        st.tuples(st.sampled_from(["detach", "attach", "restart", "join", "configure", "step"]), st.just("")),
        st.tuples(st.sampled_from(["up", "down"]), st.sampled_from(PEERS)),
    ),
    max_size=25,
)


@given(changes)
def test_whatever_happened_every_peer_has_exactly_what_is_ours_in_the_end(history: list[tuple[str, str]]) -> None:
    world, blocks, wanted = running(2), {BLOCKS[0]}, {"10.0.0.2"}
    workloads: set[str] = set()
    world.agent.on_datastore([Upserted(keys.of(POOL), POOL, 1)])
    for name, what in history:
        speaker = world.speaker
        peer = speaker.peers.get(ip_address(what)) if name in ("up", "down") else None
        if name == "block":
            world.agent.on_datastore([block(what)])
            blocks.add(what)
        elif name == "release":
            world.agent.on_datastore([Deleted(block_key(what))])
            blocks.discard(what)
        elif name == "start":
            world.agent.on_workloads({ip_network(what): "cali0"}, [])
            workloads.add(what)
        elif name == "stop":
            world.agent.on_workloads({}, [ip_network(what)])
            workloads.discard(what)
        elif name == "join":
            world.agent.on_datastore([node(3)])
            wanted.add("10.0.0.3")
        elif name == "detach" and speaker.attached:
            speaker.detach()
        elif name == "attach" and not speaker.attached:
            speaker.attach()
        elif name == "restart":
            if speaker.attached:
                speaker.detach()
            world.speaker = FakeSpeaker(world.agent, speaker.pid + 2)
            world.speaker.configure(map(str, speaker.peers))
        elif name == "configure":
            speaker.configure(wanted)
        elif name == "up" and peer is not None and not peer.up:
            speaker.up(what)
        elif name == "down" and peer is not None and peer.up:
            peer.up = False
            speaker.tell(events.SessionDown(ip_address(what), world.now, "closing connection", None))
        elif name == "step":
            world.step()
    world.step()
    world.speaker.configure(wanted)
    if not world.speaker.attached:
        world.speaker.attach()
    world.step()
    for address, known in world.speaker.peers.items():
        if not known.up:
            world.speaker.up(str(address))
    world.step()
    for known in world.speaker.peers.values():
        borrowed = {one for one in workloads if not (one == BORROWED[0] and BLOCKS[2] in blocks)}
        assert known.remembered == {ip_network(cidr) for cidr in blocks | borrowed}
        assert known.sent.count("eor") >= 1
        told = known.sent[: known.sent.index("eor")]
        assert {one for one in told if not one.startswith("-")} <= {*BLOCKS, *BORROWED}
