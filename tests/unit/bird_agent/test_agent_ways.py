"""The agent and the ways to its peers and next hops: links, networks, neighbours, BFD and gateways."""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from typing import Any

import pytest

from bird_agent.bfd.packet import Diagnostic, State
from bird_agent.bfd.wire import Report
from bird_agent.exabgp import events
from bird_agent.exabgp.events import PathAttributes
from bird_agent.nexthops import Underlay
from tests.unit.bird_agent.agent_world import LEARNT, UNDERLAY, World, running
from weft.datastore.syncer import Deleted, Upserted
from weft.model import keys
from weft.model.base import Metadata
from weft.model.bgp import BGPPeer, BGPPeerSpec
from weft.model.values import AsNumber
from weft.netlink.route import Hop, via


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
