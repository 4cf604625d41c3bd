"""The agent's decisions, driven by a speaker that refuses like ExaBGP."""

from __future__ import annotations

from ipaddress import IPv4Interface, ip_address, ip_network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bird_agent.agent import Agent, Step
from bird_agent.bfd.packet import Diagnostic, State
from bird_agent.bfd.wire import Report
from bird_agent.exabgp import events, link
from bird_agent.exabgp.events import PathAttributes
from bird_agent.nexthops import Underlay
from tests.fakes.speaker import FakeSpeaker
from weft.datastore.syncer import Deleted, InSync, Upserted
from weft.model import keys
from weft.model.base import Metadata
from weft.model.bgp import BGPFilter, BGPFilterRuleV4, BGPFilterSpec, BGPPeer, BGPPeerSpec
from weft.model.ipam import AffinityValue
from weft.model.keys import AffinityKey, Key, Owner
from weft.model.node import Node, NodeBGPSpec, NodeSpec
from weft.model.pool import IPPool, IPPoolSpec
from weft.model.values import AsNumber
from weft.netlink.route import Hop, via

PEERS = ["10.0.0.2", "10.0.0.3"]
BLOCKS = [f"10.65.{number}.0/26" for number in range(3)]
UNDERLAY = Underlay({ip_network("10.0.0.0/24"): frozenset({2})}, {}, frozenset({2}))
BORROWED = ["10.65.2.7/32", "10.65.9.1/32"]  # the first lies in one of the blocks
POOL = IPPool(metadata=Metadata(name="pool"), spec=IPPoolSpec(cidr=ip_network("10.65.0.0/16")))
LEARNT = ip_network("10.66.0.0/26")


def node(number: int) -> Upserted:
    bgp = NodeBGPSpec(ipv4_address=IPv4Interface(f"10.0.0.{number}/24"))
    resource = Node(metadata=Metadata(name=f"n{number}"), spec=NodeSpec(bgp=bgp))
    return Upserted(keys.of(resource), resource, 1)


def block_key(cidr: str) -> Key:
    return AffinityKey(Owner("host", "n1"), ip_network(cidr))


def block(cidr: str, state: Any = "confirmed") -> Upserted:
    return Upserted(block_key(cidr), AffinityValue(state=state), 1)


class World:
    """An agent with its speaker, and the kernel's routes as told by the steps."""

    def __init__(self, *peers: int) -> None:
        self.agent = Agent("n1", started_at=0.0)
        self.agent.on_underlay(UNDERLAY)
        self.speaker = FakeSpeaker(self.agent)
        self.now = 0.0
        self.kernel: dict[Any, Any] = {}
        self.swept = False
        self.notes: list[str] = []
        self.peers = peers

    def begin(self, *more: Upserted) -> None:
        self.agent.on_datastore([node(1), *(node(number) for number in self.peers), *more, InSync()])
        self.step()
        self.speaker.configure(f"10.0.0.{number}" for number in self.peers)

    def step(self, seconds: float = 0.01) -> list[Step]:
        """Until there is nothing more to do."""
        steps = []
        self.now += seconds
        for _ in range(10):
            step = self.agent.step(self.now)
            steps.append(step)
            self.notes += step.notes
            self.swept = self.swept or step.sweep
            for prefix, target in step.routes.items():
                if target is None:
                    self.kernel.pop(prefix, None)
                else:
                    self.kernel[prefix] = target
            if not step.commands:
                return steps
            self.speaker.obey(step.commands)
        raise AssertionError("the agent never comes to rest")

    def learn(self, peer: str, prefix: Any = LEARNT) -> None:
        address = ip_address(peer)
        self.speaker.tell(events.RoutesReceived(address, PathAttributes(0), ((prefix, address),), ()))

    def sent(self, peer: str) -> list[str]:
        return self.speaker.peers[ip_address(peer)].sent


def running(*peers: int, blocks: list[str] = BLOCKS[:1]) -> World:
    """Attached, all sessions up, everything announced."""
    world = World(*peers)
    world.begin(*map(block, blocks))
    world.speaker.attach()
    world.step()
    for number in peers:
        world.speaker.up(f"10.0.0.{number}")
    world.step()
    return world


def test_nothing_is_done_before_the_datastore_has_been_read() -> None:
    world = World(2)
    world.agent.on_datastore([node(1), node(2), block(BLOCKS[0])])
    (step,) = world.step()
    assert (step.peering, step.commands, step.routes, step.sweep) == (None, [], {}, False)


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


def test_a_link_that_goes_down_withdraws_at_once_and_ends_the_session() -> None:
    world = running(2)
    world.learn("10.0.0.2")
    world.step()
    world.agent.on_underlay(Underlay(UNDERLAY.connected, {}, frozenset()))
    (step, *_) = world.step()
    assert step.commands[0] == b"neighbor 10.0.0.2 teardown 6\n"
    assert world.kernel == {}
    assert world.notes[-1] == "BGP session with 10.0.0.2 (AS 64512, Node/n2) down: interface down"


def test_a_network_that_is_gone_takes_the_sessions_in_it_along() -> None:
    world = running(2)
    world.learn("10.0.0.2")
    world.step()
    world.agent.on_underlay(Underlay({}, {}, frozenset({2})))
    (step, *_) = world.step()
    assert step.commands[0] == b"neighbor 10.0.0.2 teardown 6\n"
    assert world.kernel == {}
    assert world.notes[-1].endswith("down: interface down, or its network was removed")


def test_what_a_peer_said_before_the_speaker_heard_that_its_path_is_lost_counts_no_more() -> None:
    world, peer = running(2), ip_address("10.0.0.2")
    world.agent.on_underlay(Underlay(UNDERLAY.connected, {}, frozenset()))
    world.agent.step(world.now)
    world.learn("10.0.0.2")  # on its way already
    world.speaker.tell(events.SessionDown(peer, world.now, "peer reset, message (teardown)", None))
    world.agent.on_underlay(UNDERLAY)
    world.step()
    assert (world.kernel, world.agent.rib.received(peer)) == ({}, 0)


@pytest.mark.parametrize("next_hop", ["10.0.0.1", "0.0.0.0", "224.0.0.5", "127.0.0.1"])
def test_a_path_that_leads_to_this_node_or_to_no_host_hides_no_other(next_hop: str) -> None:
    world = World(2, 3)
    world.begin()
    world.speaker.attach()
    world.step()
    for number in (2, 3):
        world.speaker.up(f"10.0.0.{number}")
    default = {ip_network("0.0.0.0/0"): via(Hop(ip_address("10.0.0.9"), 2))}
    world.agent.on_underlay(Underlay(UNDERLAY.connected, default, frozenset({2})))
    preferred = PathAttributes(0, local_preference=200)
    hop = ip_address(next_hop)
    world.speaker.tell(events.RoutesReceived(ip_address("10.0.0.2"), preferred, ((LEARNT, hop),), ()))
    world.learn("10.0.0.3")
    world.step()
    assert world.kernel == {LEARNT: via(Hop(ip_address("10.0.0.3"), 2))}


def test_a_neighbour_that_answers_no_arp_any_more_is_gone_and_a_stranger_is_not_asked() -> None:
    world = running(2)
    world.learn("10.0.0.2")
    world.step()
    world.agent.on_silent(ip_address("10.0.0.9"))
    assert world.step()[0].commands == []
    world.agent.on_silent(ip_address("10.0.0.2"))
    assert world.step()[0].commands[0] == b"neighbor 10.0.0.2 teardown 6\n"
    assert world.kernel == {}
    world.agent.on_silent(ip_address("10.0.0.2"))  # its session is down already
    assert world.step()[0].commands == []


def test_a_path_that_bfd_finds_dead_withdraws_at_once_and_tells_the_peer_why() -> None:
    world, peer = running(2), ip_address("10.0.0.2")
    metadata = Metadata(name="two", annotations={"weft/bfd": "100ms x 3"})
    resource = BGPPeer(metadata=metadata, spec=BGPPeerSpec(peer_ip="10.0.0.2", as_number=AsNumber(64512)))
    world.agent.on_datastore([Upserted(keys.of(resource), resource, 1)])
    world.learn("10.0.0.2")
    world.step()
    (wanted,) = world.agent.bfd_wanted()
    assert (wanted.peer, wanted.local, wanted.multihop) == (peer, ip_address("10.0.0.1"), False)
    world.agent.on_bfd(Report(peer, State.UP, Diagnostic.NONE))
    world.step()
    assert set(world.kernel) == {LEARNT}
    world.agent.on_bfd(Report(peer, State.DOWN, Diagnostic.DETECTION_TIME_EXPIRED))
    world.step()
    assert world.kernel == {}
    assert world.speaker.ceased == ["10.0.0.2 10"]
    assert world.notes[-1] == "BGP session with 10.0.0.2 (AS 64512, BGPPeer/two) down: BFD: the path is dead"
    session = world.agent.sessions.get(peer)
    assert session is not None
    assert (session.flaps, session.last_error) == (1, "BFD: the path is dead")


def test_why_bfd_refuses_a_peer_is_said_once_and_noticed_as_long_as_it_does() -> None:
    world, peer = running(2), ip_address("10.0.0.2")
    metadata = Metadata(name="two", annotations={"weft/bfd": "100ms x 3"})
    resource = BGPPeer(metadata=metadata, spec=BGPPeerSpec(peer_ip="10.0.0.2", as_number=AsNumber(64512)))
    world.agent.on_datastore([Upserted(keys.of(resource), resource, 1)])
    world.step()
    for _ in range(2):
        world.agent.on_bfd(Report(peer, State.DOWN, Diagnostic.NONE, refused="it is another's"))
    world.step()
    said = "is not watched: BFD refuses what comes from there: it is another's"
    assert [note for note in world.notes if "BFD" in note] == [
        f"BGP session with 10.0.0.2 (AS 64512, BGPPeer/two) {said}"
    ]
    assert "BGPPeer/two" in [problem.subject for problem in world.agent.problems(0.0)]
    world.agent.on_bfd(Report(peer, State.INIT, Diagnostic.NONE))
    assert world.agent.problems(0.0) == []


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


def test_a_next_hop_that_becomes_reachable_and_then_moves_takes_its_routes_along() -> None:
    world = running(2, 3)
    two, three, loopback = ip_address("10.0.0.2"), ip_address("10.0.0.3"), ip_address("172.16.0.1")
    leading = ip_network("172.16.0.1/32")
    preferred = PathAttributes(0, local_preference=200)

    def by(gateway: Any) -> Any:
        return via(Hop(gateway, 2))

    world.learn("10.0.0.3")
    world.speaker.tell(events.RoutesReceived(two, preferred, ((LEARNT, loopback),), ()))
    world.step()
    assert world.kernel == {LEARNT: by(three)}
    world.learn("10.0.0.2", leading)
    world.step()
    assert world.kernel == {LEARNT: by(two), leading: by(two)}
    world.speaker.tell(events.RoutesReceived(two, PathAttributes(), (), (leading,)))
    world.learn("10.0.0.3", leading)
    world.step()
    assert world.kernel == {LEARNT: by(three), leading: by(three)}


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


def limited_peer(limit: str) -> Upserted:
    metadata = Metadata(name="two", annotations={"weft/max-prefixes": limit})
    resource = BGPPeer(metadata=metadata, spec=BGPPeerSpec(peer_ip="10.0.0.2", as_number=AsNumber(64512)))
    return Upserted(keys.of(resource), resource, 1)


def flooded(limit: str = "2") -> World:
    """A peer that has announced three prefixes where it may announce two."""
    world = running(2)
    world.agent.on_datastore([limited_peer(limit)])
    world.step()
    for number in range(3):
        world.learn("10.0.0.2", ip_network(f"10.67.{number}.0/26"))
    world.step()
    return world


def test_what_is_kept_of_a_peer_over_its_restart_is_not_counted_with_what_it_announces_anew() -> None:
    world, peer = running(2), ip_address("10.0.0.2")
    world.agent.on_datastore([limited_peer("2")])
    for number in range(2):
        world.learn("10.0.0.2", ip_network(f"10.67.{number}.0/26"))
    world.speaker.tell(events.SessionDown(peer, world.now, "closing connection", None))
    world.speaker.up("10.0.0.2", world.now)
    for number in range(2):
        world.learn("10.0.0.2", ip_network(f"10.68.{number}.0/26"))
    world.step()
    assert world.speaker.ceased == []
    assert len(world.kernel) == 4
    world.learn("10.0.0.2", ip_network("10.68.2.0/26"))
    world.step()
    assert world.speaker.ceased == ["10.0.0.2 1 stay-down"]


def test_a_peer_that_announces_too_much_is_told_so_and_held_down() -> None:
    world = flooded()
    assert world.speaker.ceased == ["10.0.0.2 1 stay-down"]
    assert world.kernel == {}
    assert world.agent.peering is not None
    assert world.agent.peering.sessions == {}
    (problem,) = world.agent.problems(world.now + 100)
    assert problem.subject == "BGPPeer/two"
    assert "held down for 200 s more: it announced more than 2 prefixes" in problem.text
    assert world.notes[-1].endswith("down: it announced more than 2 prefixes; held down for now")
    (step, *_) = world.step(301)
    assert step.peering is not None
    assert set(step.peering.sessions) == {ip_address("10.0.0.2")}
    assert world.agent.problems(world.now) == []


def test_a_new_limit_ends_the_waiting() -> None:
    world = flooded()
    world.agent.on_datastore([limited_peer("3")])
    (step, *_) = world.step()
    assert step.peering is not None
    assert set(step.peering.sessions) == {ip_address("10.0.0.2")}


def test_a_limit_that_is_kept_disturbs_nobody() -> None:
    world = flooded("3")
    assert world.speaker.ceased == []
    assert len(world.kernel) == 3


def test_a_limit_is_looked_at_when_a_history_has_been_told_and_not_before() -> None:
    world = flooded("3")
    world.speaker.detach()
    world.agent.on_datastore([limited_peer("2")])
    world.step()
    world.speaker.attach()
    assert world.speaker.ceased == []
    world.step()
    assert world.speaker.ceased == ["10.0.0.2 1 stay-down"]


def filtered(**rules: Any) -> list[Upserted]:
    resources = [
        BGPPeer(
            metadata=Metadata(name="two"),
            spec=BGPPeerSpec(peer_ip="10.0.0.2", as_number=AsNumber(64512), filters=("f",)),
        ),
        BGPFilter(metadata=Metadata(name="f"), spec=BGPFilterSpec(**rules)),
    ]
    return [Upserted(keys.of(resource), resource, 1) for resource in resources]


def test_a_filter_that_changes_takes_effect_both_ways_and_only_what_differs_is_told() -> None:
    world = running(2, 3, blocks=BLOCKS[:2])
    world.learn("10.0.0.2")
    world.step()
    sent = len(world.sent("10.0.0.2"))
    first = BGPFilterRuleV4(action="Reject", cidr=ip_network(BLOCKS[0]), match_operator="Equal")
    everything = BGPFilterRuleV4(action="Reject")
    world.agent.on_datastore(filtered(export_v4=(first,), import_v4=(everything,)))
    world.step()
    assert world.sent("10.0.0.2")[sent:] == [f"-{BLOCKS[0]}"]
    assert world.kernel == {}
    connected = BGPFilterRuleV4(action="Accept", cidr=ip_network("10.0.0.0/24"), match_operator="Equal")
    world.agent.on_datastore(filtered(export_v4=(connected,))[1:])
    world.step()
    assert sorted(world.sent("10.0.0.2")[sent + 1 :]) == ["10.0.0.0/24", BLOCKS[0]]
    assert set(world.kernel) == {LEARNT}
    world.agent.on_underlay(Underlay(links_up=frozenset({2})))
    world.step()
    assert world.sent("10.0.0.2")[-1] == "-10.0.0.0/24"
    assert world.sent("10.0.0.3") == [*BLOCKS[:2], "eor"]


def test_a_filter_that_asks_for_interfaces_judges_again_when_the_way_changes() -> None:
    world = running(2)
    world.learn("10.0.0.2")
    rule = BGPFilterRuleV4(action="Reject", interface="up1")
    world.agent.on_datastore(filtered(import_v4=(rule,)))
    world.step()
    assert set(world.kernel) == {LEARNT}
    for name, expected in (("up1", set()), ("up0", {LEARNT})):
        world.agent.on_underlay(Underlay(UNDERLAY.connected, {}, frozenset({2}), names={2: name}))
        world.step()
        assert set(world.kernel) == expected


def test_a_peer_reachable_by_a_gateway_has_a_host_route_there_that_nothing_learnt_replaces() -> None:
    world = running(2)
    spec = BGPPeerSpec(peer_ip="192.0.2.9", as_number=AsNumber(64512), reachable_by=ip_address("10.0.0.254"))
    far = BGPPeer(metadata=Metadata(name="far"), spec=spec)
    world.agent.on_datastore([Upserted(keys.of(far), far, 1)])
    world.step()
    host, by_gateway = ip_network("192.0.2.9/32"), via(Hop(ip_address("10.0.0.254"), 2))
    assert world.kernel == {host: by_gateway}
    world.learn("10.0.0.2", host)
    world.speaker.configure(["10.0.0.2", "192.0.2.9"])
    world.step()
    world.speaker.up("192.0.2.9")
    world.learn("192.0.2.9")
    world.step()
    assert world.kernel == {host: by_gateway, LEARNT: by_gateway}
    world.agent.on_datastore([Deleted(keys.of(far))])
    world.step()
    assert world.kernel == {host: via(Hop(ip_address("10.0.0.2"), 2))}


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
