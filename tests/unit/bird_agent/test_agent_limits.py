"""What the agent takes of a peer: how many prefixes, and what its filters leave."""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from typing import Any

from bird_agent.exabgp import events
from bird_agent.nexthops import Underlay
from tests.unit.bird_agent.agent_world import BLOCKS, LEARNT, UNDERLAY, World, running
from weft.datastore.syncer import Upserted
from weft.model import keys
from weft.model.base import Metadata
from weft.model.bgp import BGPFilter, BGPFilterRuleV4, BGPFilterSpec, BGPPeer, BGPPeerSpec
from weft.model.values import AsNumber


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
