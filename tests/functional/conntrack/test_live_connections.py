"""A live connection that policy refuses is cut, one that it allows is left alone, one that it allows again goes on."""

import itertools
from collections.abc import Callable, Iterator
from ipaddress import ip_network

import pytest

from lab.netns import NetNs
from tests.fakes.conntrack_entries import batches, many
from tests.functional.conntrack.live import ADDRESSES, SERVICE, Live, Node, policy, speaking, workload
from weft.model.base import Metadata
from weft.model.endpoint import HostEndpoint, HostEndpointSpec
from weft.model.policy import EntityRule, GlobalNetworkSet, NetworkSetSpec
from weft.netlink.socket import NETLINK_NETFILTER, NetlinkSocket

pytestmark = pytest.mark.root

RESUMED_S = 5.0
REFUSED, KEPT, FAILSAFE = 81, 82, 22
W1, W2 = workload("w1", {"role": "server"}), workload("w2", {"role": "client"})
Connect = Callable[[str, int, int], Live]


@pytest.fixture
def node(netns: Callable[[str], NetNs]) -> Iterator[Node]:
    made = Node(netns)
    yield made
    made.close()


WAYS = {
    "ingress": ("ingress", "out", "w1", {}),
    "ingress through DNAT": ("ingress", "out", "w1", SERVICE),
    "egress masqueraded": ("egress", "w1", "out", {}),
    "egress through DNAT to another workload": ("egress", "w2", "w1", SERVICE),
    "ingress from another workload": ("ingress", "w2", "w1", {}),
}


@pytest.mark.parametrize("way", WAYS)
def test_what_a_changed_policy_refuses_is_cut_and_nothing_else(node: Node, way: str) -> None:
    direction, client, server, at = WAYS[way]
    node.start(W1, W2, policy("p", direction, REFUSED, KEPT))
    refused, kept = (
        [
            node.connect(kind, client, server, port, version, at=at.get(version, ""))
            for kind in ("tcp", "udp")
            for version in (4, 6)
        ]
        for port in (REFUSED, KEPT)
    )
    node.apply([policy("p", direction, KEPT)])
    assert node.cut_ports() == {REFUSED}
    assert speaking(refused) == []
    for one in kept:
        assert one.passes_both_ways(1), one.name
    assert speaking(refused, 0) == [], "nothing arrived meanwhile either"
    node.apply([policy("p", direction, REFUSED, KEPT)])
    assert node.cut_ports() == set()
    for one in (*refused, *kept):
        assert one.passes_both_ways(RESUMED_S), one.name


@pytest.fixture
def both(node: Node) -> Connect:
    """Connects TCP over IPv4 and UDP over IPv6 from the outside host to w1."""
    return lambda kind, version, port: node.connect(kind, "out", "w1", port, version)


def _all(connect: Connect, port: int) -> list[Live]:
    return [connect(kind, version, port) for kind, version in (("tcp", 4), ("udp", 6), ("udp", 4))]


def test_a_label_that_takes_an_endpoint_into_a_policy_cuts(node: Node, both: Connect) -> None:
    open_to_all, closed = (
        policy("a", "ingress", REFUSED, KEPT, chooses="role == 'server'"),
        policy("b", "ingress", KEPT, chooses="role == 'closed'"),
    )
    node.start(W1, open_to_all, closed)
    refused, kept = _all(both, REFUSED), _all(both, KEPT)
    node.apply([workload("w1", {"role": "closed"})])
    assert speaking(refused) == []
    assert all(one.passes_both_ways(1) for one in kept)
    node.apply([W1])
    assert all(one.passes_both_ways(RESUMED_S) for one in (*refused, *kept))


def test_a_label_of_the_other_end_cuts(node: Node) -> None:
    node.start(W1, W2, policy("p", "ingress", KEPT, source=_from("role == 'client'")))
    live = [node.connect(kind, "w2", "w1", KEPT, version) for kind, version in (("tcp", 4), ("udp", 6))]
    node.apply([workload("w2", {"role": "stranger"})])
    assert speaking(live) == []
    node.apply([W2])
    assert all(one.passes_both_ways(RESUMED_S) for one in live)


def _from(selector: str) -> EntityRule:
    return EntityRule(selector=selector)


def _outside(*networks: str) -> GlobalNetworkSet:
    nets = tuple(ip_network(one) for one in networks)
    return GlobalNetworkSet(metadata=Metadata(name="out", labels={"set": "friends"}), spec=NetworkSetSpec(nets=nets))


@pytest.mark.parametrize("narrower", ["10.9.0.0/16", "10.9.9.9/32"], ids=["prefixes", "addresses"])
def test_a_network_set_that_loses_the_other_end_cuts(node: Node, both: Connect, narrower: str) -> None:
    there = [f"{ADDRESSES['out'][4]}/32", f"{ADDRESSES['out'][6]}/128"]
    node.start(W1, _outside(narrower, *there), policy("p", "ingress", KEPT, source=_from("set == 'friends'")))
    live = _all(both, KEPT)
    node.apply([_outside(narrower)])
    assert speaking(live) == []
    node.apply([_outside(narrower, *there)])
    assert all(one.passes_both_ways(RESUMED_S) for one in live)


def test_a_named_port_that_moves_cuts(node: Node, both: Connect) -> None:
    named = policy("p", "ingress", "web")
    node.start(workload("w1", {}, {"web": REFUSED}), named)
    live = _all(both, REFUSED)
    node.apply([workload("w1", {}, {"web": KEPT})])
    assert speaking(live) == []
    node.apply([workload("w1", {}, {"web": REFUSED})])
    assert all(one.passes_both_ways(RESUMED_S) for one in live)


def test_a_change_that_came_while_the_agent_was_away_cuts_when_it_is_back(node: Node, both: Connect) -> None:
    node.start(W1, policy("p", "ingress", REFUSED, KEPT))
    refused, kept = _all(both, REFUSED), _all(both, KEPT)
    node.stop()
    assert all(one.passes_both_ways(1) for one in (*refused, *kept))
    node.start(W1, policy("p", "ingress", KEPT))
    assert speaking(refused) == []
    assert all(one.passes_both_ways(1) for one in kept)
    node.stop()
    node.start(W1, policy("p", "ingress", KEPT, REFUSED))
    assert node.cutter.cut_total == 0
    assert all(one.passes_both_ways(RESUMED_S) for one in (*refused, *kept))


def test_what_stays_allowed_loses_no_packet(node: Node, both: Connect) -> None:
    """Packets are sent between all steps of the work, and every one of them arrives."""
    node.start(W1, policy("p", "ingress", REFUSED, KEPT))
    refused, [kept] = _all(both, REFUSED), [both("udp", 4, KEPT)]
    for round_ in range(20):
        ports = (KEPT,) if round_ % 2 else (REFUSED, KEPT)
        node.programmer.on_events([])
        node.apply([policy("p", "ingress", *ports)], cut=False)
        assert kept.passes_both_ways(1)
        while node.programmer.cut_connections():
            assert kept.passes_both_ways(1)
    assert node.cutter.cut_total == node.cutter.resumed_total + len(refused)
    assert node.cut_ports() == {REFUSED}


@pytest.mark.parametrize("version", [4, 6])
def test_what_the_node_itself_says_to_its_workload_is_never_cut(node: Node, version: int) -> None:
    node.start(W1, policy("p", "ingress", REFUSED))
    probes = [node.connect(kind, "host", "w1", KEPT, version) for kind in ("tcp", "udp")]
    node.apply([policy("p", "ingress")])
    assert all(one.passes_both_ways(1) for one in probes)
    assert node.cut_ports() == set()


@pytest.mark.parametrize("interface", ["eth0", "*"])
def test_what_a_host_endpoint_refuses_of_the_nodes_own_connections_is_cut(node: Node, interface: str) -> None:
    """But for failsafe ports, and what its workloads have with it."""
    uplink = HostEndpoint(
        metadata=Metadata(name="uplink", labels={"host": "yes"}),
        spec=HostEndpointSpec(node="node1", interface_name=interface),
    )
    ours = policy("ours", "ingress", REFUSED, KEPT, chooses="host == 'yes'")
    node.start(uplink, W1, policy("workloads", "ingress", KEPT, chooses="role == 'server'"), ours)
    refused = [node.connect(kind, "out", "host", REFUSED, 4) for kind in ("tcp", "udp")]
    kept = [
        *(node.connect(kind, "out", "host", KEPT, 4) for kind in ("tcp", "udp")),
        node.connect("tcp", "out", "host", FAILSAFE, 4),
        node.connect("udp", "host", "w1", KEPT, 4),
    ]
    node.apply([policy("ours", "ingress", KEPT, chooses="host == 'yes'")])
    assert speaking(refused) == []
    assert [one.name for one in kept if not one.passes_both_ways(1)] == []
    node.apply([ours])
    assert [one.name for one in (*refused, *kept) if not one.passes_both_ways(RESUMED_S)] == []


def test_one_connection_is_found_among_very_many(node: Node, both: Connect) -> None:
    node.start(W1, policy("p", "ingress", REFUSED, KEPT))
    refused, kept = _all(both, REFUSED), _all(both, KEPT)
    with node.host.enter(), NetlinkSocket(NETLINK_NETFILTER) as kernel:
        for batch in batches(itertools.chain(many(2_000, 0x0B000000, ADDRESSES["w1"][4], REFUSED), _of_others(98_000))):
            assert kernel.request(batch) == []
    node.apply([policy("p", "ingress", KEPT)])
    assert speaking(refused) == []
    assert all(one.passes_both_ways(1) for one in kept)
    assert node.cutter.cut_total == 2_000 + len(refused)


def _of_others(count: int) -> Iterator[bytes]:
    return many(count, 0x0C000000, "10.99.0.1")
