"""The agent of a node that passes on what it learns, driven by a speaker that refuses like ExaBGP."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Interface, ip_address, ip_network

import pytest

from bird_agent.exabgp import events
from bird_agent.exabgp.events import PathAttributes
from bird_agent.passing import Area
from tests.unit.bird_agent.agent_world import BLOCKS, POOL, World, block
from weft.datastore.syncer import Deleted, InSync, Upserted
from weft.model import keys
from weft.model.base import Metadata
from weft.model.bgp import BGPConfiguration, BGPConfigurationSpec, BGPPeer, BGPPeerSpec, ServiceBlock
from weft.model.felix_configuration import FelixConfiguration, FelixConfigurationSpec
from weft.model.node import Node, NodeBGPSpec, NodeSpec
from weft.model.pool import IPPool

CLIENTS = ("10.0.0.2", "10.0.0.3")
LEARNT = "10.65.8.0/26"
INTERNAL = PathAttributes(0, local_preference=(1 << 31) - 1 - 1024)


def member(number: int, cluster: str | None = None) -> Upserted:
    bgp = NodeBGPSpec(
        ipv4_address=IPv4Interface(f"10.0.0.{number}/24"),
        route_reflector_cluster_id=None if cluster is None else IPv4Address(cluster),
    )
    labels = {} if cluster is None else {"role": "reflector"}
    resource = Node(metadata=Metadata(name=f"n{number}", labels=labels), spec=NodeSpec(bgp=bgp))
    return Upserted(keys.of(resource), resource, 1)


def stored(resource: BGPPeer | BGPConfiguration | IPPool) -> Upserted:
    return Upserted(keys.of(resource), resource, 1)


REFLECTORS = stored(BGPPeer(metadata=Metadata(name="r"), spec=BGPPeerSpec(peer_selector="role == 'reflector'")))


def reflector(*, up: bool = True) -> World:
    """n1 reflects between n2 and n3."""
    world = World(2, 3)
    world.agent.on_datastore(
        [member(1, "244.0.0.1"), member(2), member(3), REFLECTORS, stored(POOL), block(BLOCKS[0]), InSync()]
    )
    world.step()
    world.speaker.configure(CLIENTS)
    world.speaker.attach()
    world.step()
    for peer in CLIENTS if up else ():
        world.speaker.up(peer, world.now)
        world.speaker.tell(events.EndOfRib(ip_address(peer), "ipv4 unicast"))
    world.step()
    return world


def learn(world: World, peer: str, prefix: str = LEARNT, attributes: PathAttributes = INTERNAL) -> None:
    world.speaker.tell(
        events.RoutesReceived(ip_address(peer), attributes, ((ip_network(prefix), ip_address(peer)),), ())
    )


def withdraw(world: World, peer: str, prefix: str = LEARNT) -> None:
    world.speaker.tell(events.RoutesReceived(ip_address(peer), PathAttributes(), (), (ip_network(prefix),)))


def test_a_client_hears_of_another_and_never_of_itself_and_hears_when_it_is_over() -> None:
    world = reflector()
    learn(world, CLIENTS[0])
    world.step()
    assert world.sent(CLIENTS[1])[-1] == LEARNT
    assert LEARNT not in world.sent(CLIENTS[0])
    withdraw(world, CLIENTS[0])
    world.step()
    assert world.sent(CLIENTS[1])[-1] == f"-{LEARNT}"


def test_another_node_that_changes_costs_no_look_at_what_was_learnt(monkeypatch: pytest.MonkeyPatch) -> None:
    world = reflector()
    learn(world, CLIENTS[0])
    world.step()
    looked_at: list[object] = []
    monkeypatch.setattr(Area, "refusal", lambda self, prefix, path: looked_at.append(prefix))
    world.agent.on_datastore([member(9, "244.0.0.9")])
    world.agent.on_datastore([REFLECTORS])
    world.step()
    assert looked_at == []


def test_when_the_best_path_moves_each_client_hears_of_the_other() -> None:
    world = reflector()
    learn(world, CLIENTS[0])
    learn(world, CLIENTS[1], attributes=PathAttributes(0, local_preference=50))
    world.step()
    withdraw(world, CLIENTS[0])
    world.step()
    assert world.sent(CLIENTS[0])[-1] == LEARNT
    assert world.sent(CLIENTS[1])[-1] == f"-{LEARNT}"


def test_a_change_of_attributes_alone_is_passed_on() -> None:
    world = reflector()
    learn(world, CLIENTS[0])
    world.step()
    learn(world, CLIENTS[0], attributes=PathAttributes(0, local_preference=7, communities=((1, 2),)))
    world.agent.step(world.now)  # kernel: nothing new
    told = world.agent.announcer.told(ip_address(CLIENTS[1]))[ip_network(LEARNT)]
    assert (told.local_preference, told.communities) == (7, ("1:2",))


def test_a_client_that_is_lost_without_a_restart_in_view_takes_its_routes_from_the_others() -> None:
    world = reflector()
    learn(world, CLIENTS[0])
    world.step()
    world.speaker.peers[ip_address(CLIENTS[0])].up = False
    world.speaker.tell(events.SessionDown(ip_address(CLIENTS[0]), world.now, "notification sent (4,0)", (4, 0), True))
    world.step()
    assert world.sent(CLIENTS[1])[-1] == f"-{LEARNT}"


def restarted(world: World) -> World:
    """Another agent, attached to the same speaker."""
    world.speaker.detach()
    fresh = World(2, 3)
    fresh.now = 1000.0
    fresh.agent = type(world.agent)("n1", started_at=1000.0)
    fresh.speaker = world.speaker
    fresh.speaker.agent = fresh.agent
    fresh.agent.on_underlay(world.agent.forwarding.underlay)
    fresh.agent.conversation.on_speaker_found()
    fresh.agent.on_datastore(
        [member(1, "244.0.0.1"), member(2), member(3), REFLECTORS, stored(POOL), block(BLOCKS[0]), InSync()]
    )
    fresh.step()
    return fresh


def test_a_restarted_agent_that_is_told_the_history_says_nothing_new() -> None:
    world = reflector()
    learn(world, CLIENTS[0])
    world.step()
    before = {peer: list(world.sent(peer)) for peer in CLIENTS}
    world = restarted(world)
    world.speaker.attach()
    world.step()
    assert {peer: [one for one in world.sent(peer) if one != "eor"] for peer in CLIENTS} == {
        peer: [one for one in before[peer] if one != "eor"] for peer in CLIENTS
    }


def test_a_restarted_agent_with_a_gap_withdraws_nothing_before_everything_was_heard_again() -> None:
    world = reflector()
    learn(world, CLIENTS[0])
    world.step()
    before = {peer: len(world.sent(peer)) for peer in CLIENTS}
    world.speaker.complete = False
    world = restarted(world)
    world.speaker.attach()
    world.step()
    assert {peer: world.sent(peer)[before[peer] :] for peer in CLIENTS} == {peer: [] for peer in CLIENTS}
    assert set(world.speaker.refreshed) == {ip_address(peer) for peer in CLIENTS}
    for peer in CLIENTS:
        world.speaker.tell(events.EndOfRib(ip_address(peer), "ipv4 unicast"))
    world.step()
    # Nobody said it again: now it goes, and everybody is told that this is all.
    assert world.sent(CLIENTS[1])[before[CLIENTS[1]] :] == [f"-{LEARNT}", "eor"]


def test_a_reflector_whose_speaker_is_new_says_that_it_is_done_only_when_it_has_heard_its_clients() -> None:
    world = reflector(up=False)
    world.agent.conversation.on_speaker_started()
    world.speaker.up(CLIENTS[0], world.now)
    world.step()
    assert world.sent(CLIENTS[0]) == [BLOCKS[0]]
    world.speaker.up(CLIENTS[1], world.now)
    learn(world, CLIENTS[1])
    world.step()
    assert world.sent(CLIENTS[0]) == [BLOCKS[0], LEARNT]
    for peer in CLIENTS:
        world.speaker.tell(events.EndOfRib(ip_address(peer), "ipv4 unicast"))
    world.step()
    assert world.sent(CLIENTS[0]) == [BLOCKS[0], LEARNT, "eor"]


def test_clients_that_were_started_at_the_same_time_do_not_wait_for_one_another() -> None:
    world = reflector(up=False)
    world.agent.conversation.on_speaker_started()
    world.speaker.up(CLIENTS[0], world.now, restarting=True)
    world.speaker.up(CLIENTS[1], world.now)
    world.step()
    assert "eor" not in world.sent(CLIENTS[0])  # the other tells everything first
    world.speaker.tell(events.EndOfRib(ip_address(CLIENTS[1]), "ipv4 unicast"))
    world.step()
    assert world.sent(CLIENTS[0]) == [BLOCKS[0], "eor"]
    assert not world.agent.swept  # what an earlier run left in the kernel stays until the first has told all, too


def test_a_client_that_is_asked_again_long_after_its_start_is_waited_for() -> None:
    world = reflector(up=False)
    for peer in CLIENTS:
        world.speaker.up(peer, world.now, restarting=True)
        world.speaker.tell(events.EndOfRib(ip_address(peer), "ipv4 unicast"))
    learn(world, CLIENTS[0])
    world.step()
    before = len(world.sent(CLIENTS[1]))
    world.speaker.complete = False
    world = restarted(world)
    world.speaker.attach()
    world.step()
    assert world.sent(CLIENTS[1])[before:] == []


def test_an_absent_client_delays_that_for_a_minute_and_no_longer() -> None:
    world = reflector(up=False)
    world.speaker.up(CLIENTS[0], world.now)
    world.step()
    world.step(59.0)
    assert "eor" not in world.sent(CLIENTS[0])
    world.step(2.0)
    assert world.sent(CLIENTS[0]) == [BLOCKS[0], "eor"]


def test_a_service_range_is_passed_on_by_a_reflector_and_is_not_for_its_kernel() -> None:
    world = reflector()
    spec = BGPConfigurationSpec(service_external_ips=(ServiceBlock(cidr=ip_network("192.0.2.0/24")),))
    world.agent.on_datastore([stored(BGPConfiguration(metadata=Metadata(name="default"), spec=spec))])
    learn(world, CLIENTS[0], "192.0.2.7/32")
    world.step()
    assert world.sent(CLIENTS[1])[-1] == "192.0.2.7/32"
    assert ip_network("192.0.2.7/32") not in world.kernel


def test_a_pool_that_comes_or_goes_decides_again() -> None:
    world = reflector()
    learn(world, CLIENTS[0])
    world.agent.on_datastore([Deleted(keys.of(POOL))])
    world.step()
    told = world.sent(CLIENTS[1])
    assert told.count(LEARNT) == told.count(f"-{LEARNT}")
    world.agent.on_datastore([stored(POOL)])
    world.step()
    assert world.sent(CLIENTS[1])[-1] == LEARNT


def test_a_node_that_is_no_reflector_any_more_withdraws_what_it_passed_on() -> None:
    world = reflector()
    learn(world, CLIENTS[0])
    world.step()
    world.agent.on_datastore([member(1)])
    world.step()
    assert world.sent(CLIENTS[1])[-1] == f"-{LEARNT}"


def test_cluster_routes_are_left_to_nobody_only_where_neither_agent_shall_have_them() -> None:
    world = reflector()
    learn(world, CLIENTS[0])
    world.step()
    assert ip_network(LEARNT) in world.kernel
    spec = BGPConfigurationSpec(program_cluster_routes="Disabled")
    world.agent.on_datastore([stored(BGPConfiguration(metadata=Metadata(name="default"), spec=spec))])
    world.step()
    assert ip_network(LEARNT) not in world.kernel
    felix = FelixConfiguration(
        metadata=Metadata(name="default"), spec=FelixConfigurationSpec(program_cluster_routes="Enabled")
    )
    world.agent.on_datastore([Upserted(keys.of(felix), felix, 1)])
    world.step()
    assert ip_network(LEARNT) in world.kernel
