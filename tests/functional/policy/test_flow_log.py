"""What a real kernel logs of denied and of allowed packets, and that neither costs anybody else anything."""

import select
from collections.abc import Callable, Iterator
from ipaddress import ip_network

import pytest

from felix.calc.delta import LocalEndpoint, NodeDelta, Settings
from felix.dataplane.flow_socket import FlowSocket
from felix.rules import operations as op
from felix.rules.render_actions import FLOW_LOG_GROUP, flow_id
from felix.rules.values import Count
from lab.netns import NetNs
from tests.functional.policy.node import PolicyNode
from weft.model.keys import ResourceKey
from weft.netlink.nflog import LoggedPacket, headers
from weft.policy.values import Action, EndpointPolicy, Entity, Policy, PortRange, Rule, TierPolicies

pytestmark = pytest.mark.root
GUARD = ResourceKey("GlobalNetworkPolicy", "guard")
OPEN = ResourceKey("Profile", "open")


def _ports(action: Action, name: str, port: int) -> Rule:
    return Rule(action=action, id=name, protocol=17, destination=Entity(ports=(PortRange(port, port),)))


ALLOWED, DENIED = _ports(Action.ALLOW, "a", 80), _ports(Action.DENY, "d", 443)
POLICIES = {
    GUARD: Policy(key=GUARD, ingress=(ALLOWED, DENIED), egress=None),
    OPEN: Policy(key=OPEN, ingress=(Rule(action=Action.ALLOW, id="o"),), egress=(Rule(action=Action.ALLOW, id="o"),)),
}


def _endpoint(interface: str, address: str, *tiers: TierPolicies) -> LocalEndpoint:
    key = ResourceKey("WorkloadEndpoint", f"node1-cni-{interface}-eth0", "default")
    return LocalEndpoint(key, interface, (ip_network(address),), "", EndpointPolicy(tiers, (OPEN,)))


ENDPOINTS = {
    "cali1": _endpoint("cali1", "10.0.0.1"),
    "cali2": _endpoint("cali2", "10.0.0.2", TierPolicies("default", Action.DENY, ingress=(GUARD,))),
}
SOMEBODYS_MARK = "table inet other { chain f { type filter hook forward priority -5; meta mark set 0x77; }; }"


@pytest.fixture
def node(netns: Callable[[str], NetNs]) -> Iterator[PolicyNode]:
    made = PolicyNode(netns)
    yield made
    made.close()


def _listen(node: PolicyNode) -> FlowSocket:
    with node.host.enter():
        return FlowSocket(FLOW_LOG_GROUP)


def _received(source: FlowSocket, wanted: int) -> list[LoggedPacket]:
    """Until so many have come, or no more come."""
    found: list[LoggedPacket] = []
    while len(found) < wanted and select.select([source], [], [], 1.0)[0]:
        found += source.receive()
    return found


@pytest.mark.parametrize("reject", [False, True])
def test_a_denied_packet_carries_its_rule_as_mark(node: PolicyNode, reject: bool) -> None:
    source = _listen(node)
    report = node.program(NodeDelta(endpoints=ENDPOINTS, policies=POLICIES, settings=Settings(reject=reject)))
    assert report.failed == {}
    assert node.passes("10.0.0.1", 1000, "10.0.0.2", 80)
    assert not node.passes("10.0.0.1", 1000, "10.0.0.2", 443)
    assert not node.passes("10.0.0.1", 1000, "10.0.0.2", 85)
    found = _received(source, 2)
    source.close()
    marks = {flow_id("ingress/gnp/guard/deny-d"): 443, flow_id("ingress/tier/default/end"): 85}
    assert [marks[one.mark] for one in found] == [443, 85]
    for one in found:
        seen = headers(one.payload)
        assert seen is not None
        assert (str(seen.source), str(seen.destination), seen.source_port) == ("10.0.0.1", "10.0.0.2", 1000)
        assert seen.destination_port == marks[one.mark]
        assert one.in_index != one.out_index


def test_on_request_an_allowed_packet_is_logged_and_keeps_its_mark(node: PolicyNode) -> None:
    node.host.run(["nft", "-f", "-"], stdin=SOMEBODYS_MARK)
    source = _listen(node)
    assert node.program(NodeDelta(endpoints=ENDPOINTS, policies=POLICIES, settings=Settings(flow_logs="All"))).in_kernel
    assert node.passes("10.0.0.1", 1000, "10.0.0.2", 80)
    found = _received(source, 2)
    source.close()
    counters = ("egress/profile/open/allow-o", "ingress/gnp/guard/allow-a")
    assert [one.prefix for one in found] == [f"weft allow {flow_id(counter):08x}" for counter in counters]
    assert {one.mark for one in found} == {0x77}


def test_without_flow_logs_denied_packets_are_counted_and_dropped(node: PolicyNode) -> None:
    source = _listen(node)
    disabled = Settings(flow_logs="Disabled")
    assert node.program(NodeDelta(endpoints=ENDPOINTS, policies=POLICIES, settings=disabled)).in_kernel
    assert not node.passes("10.0.0.1", 1000, "10.0.0.2", 443)
    assert node.kernel.all_counts()["ingress/gnp/guard/deny-d"].packets == 1
    assert node.kernel.all_counts()["egress/profile/open/allow-o"].packets == 1
    assert source.receive() == []
    source.close()


def test_a_flood_is_logged_within_the_limit_and_counted_in_full(node: PolicyNode) -> None:
    source = _listen(node)
    node.program(NodeDelta(endpoints=ENDPOINTS, policies=POLICIES, settings=Settings()))
    sender = node.endpoint("10.0.0.1", 1000)
    for _ in range(3000):
        sender.sendto(b"x", ("10.0.0.2", 443))
    found = _received(source, 1000)
    source.close()
    assert 400 <= len(found) < 2000
    assert source.lost == 0
    assert node.kernel.all_counts()["ingress/gnp/guard/deny-d"].packets == 3000


def test_a_refused_batch_leaves_counters_and_policy_as_they_were(node: PolicyNode) -> None:
    node.program(NodeDelta(endpoints=ENDPOINTS, policies=POLICIES, settings=Settings()))
    assert not node.passes("10.0.0.1", 1000, "10.0.0.2", 443)
    before = node.kernel.read()
    batch = [
        op.FlushChain("ingress/gnp/guard"),
        op.DeleteCounter("ingress/gnp/guard/deny-d"),
        op.CreateCounter("ingress/gnp/guard/retired-deny", Count(1, 29)),
        op.DeleteCounter("ingress/gnp/guard/never-was"),
    ]
    assert node.kernel.commit(batch)
    assert node.kernel.read() == before
    assert before.counters["ingress/gnp/guard/deny-d"].packets == 1
