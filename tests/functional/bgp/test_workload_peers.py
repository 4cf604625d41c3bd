"""A router inside a workload of the node, found by a `localWorkloadSelector`: real BIRD in a namespace of its own."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import IPv4Address, ip_network
from pathlib import Path

import pytest

from lab.netns import CommandError, NetNs, link
from tests.functional.bgp.fabric import AgentNode, Bird, Store, bird_configuration, segment, wait_until
from weft.model import keys
from weft.model.base import Metadata
from weft.model.endpoint import WorkloadEndpoint, WorkloadEndpointSpec

pytestmark = pytest.mark.root

VIRTUAL, INSIDE, OTHER = "169.254.0.179", "10.65.0.5", "10.65.0.6"
BLOCK, CHILD, ELSEWHERE = "10.65.0.0/26", "10.99.1.0/24", "203.0.113.0/24"

TO_KERNEL = "protocol kernel { ipv4 { export all; }; }"


def endpoint(name: str, address: str, **labels: str) -> WorkloadEndpoint:
    spec = WorkloadEndpointSpec(
        orchestrator="k8s",
        node="n1",
        pod=name,
        endpoint="eth0",
        ip_networks=(ip_network(address),),
        interface_name=f"cali{name}",
    )
    return WorkloadEndpoint(
        metadata=Metadata(name=f"n1-k8s-{name}-eth0", namespace="default", labels=labels), spec=spec
    )


def wire(node: NetNs, inside: NetNs, name: str, address: str) -> None:
    """As felix wires a workload."""
    link(inside, "eth0", node, name)
    inside.ip("link", "set", "lo", "up")
    inside.ip("address", "add", f"{address}/32", "dev", "eth0")
    mac = node.ip_json("link", "show", "dev", name)[0]["address"]
    inside.ip("route", "add", "169.254.1.1", "dev", "eth0", "scope", "link")
    inside.ip("route", "add", "default", "via", "169.254.1.1")
    inside.ip("neighbor", "add", "169.254.1.1", "lladdr", mac, "dev", "eth0")
    node.ip("route", "add", f"{address}/32", "dev", name, "proto", "80", "scope", "link")


def answers(inside: NetNs, target: str) -> bool:
    try:
        inside.run(["ping", "-c", "1", "-W", "1", target])
    except CommandError:
        return False
    return True


def virtual(node: AgentNode) -> set[str]:
    found = node.netns.ip_json("-4", "address", "show", "dev", "lo")
    return {one["local"] for each in found for one in each["addr_info"]} - {"127.0.0.1"}


def test_a_workload_that_is_chosen_peers_with_its_node_and_is_led_to(
    node: AgentNode, store: Store, netns: Callable[[str], NetNs], tmp_path: Path
) -> None:
    tor, inside = netns("tor"), netns("work")
    node.netns.ip("link", "set", "lo", "up")
    node.netns.run(["sysctl", "-qw", "net.ipv4.ip_forward=1"])
    segment(node.netns, tor, "up0", "10.1.0.1/24", "10.1.0.254/24")
    wire(node.netns, inside, "caliwork", INSIDE)
    inside.ip("address", "add", "10.99.1.1/32", "dev", "lo")
    store.node("n1", "10.1.0.1/24")
    store.pool("pool", "10.65.0.0/16")
    store.pool("child", "10.99.0.0/16")
    store.block("n1", BLOCK)
    store.configuration(local_workload_peering_ip_v4=IPv4Address(VIRTUAL))
    for resource in (endpoint("work", INSIDE, role="router"), endpoint("plain", OTHER)):
        store.put(keys.of(resource), resource)
    store.peer("inside", local_workload_selector="role == 'router'", as_number=65100)
    store.peer("tor", peer_ip="10.1.0.254", as_number=65001)
    up = "local 10.1.0.254 as 65001; neighbor 10.1.0.1 as 64512; hold time 9;"
    outside = Bird(tor, tmp_path / "tor", bird_configuration("10.1.0.254", [up], [], extra=TO_KERNEL))
    outside.start()
    body = f"local {INSIDE} as 65100; neighbor {VIRTUAL} as 64512; multihop; hold time 9;"
    router = Bird(inside, tmp_path / "inside", bird_configuration(INSIDE, [body], [CHILD, ELSEWHERE]))
    router.start()
    node.start()
    learnt = {CHILD: {INSIDE}, ELSEWHERE: {INSIDE}}
    wait_until("the node leads to the workload's networks", lambda: node.routes() == learnt)
    wait_until("the workload hears of the node's block", lambda: router.routes("p0") == {BLOCK})
    assert router.attributes(BLOCK, "p0")["next_hop"] == VIRTUAL
    wait_until("the ToR hears of what lies in a pool", lambda: outside.routes("p0") == {BLOCK, CHILD})
    assert outside.attributes(CHILD, "p0")["as_path"] == "64512 65100"
    wait_until("packets reach the workload's network", lambda: answers(tor, "10.99.1.1"))
    assert virtual(node) == {VIRTUAL}
    # The next agent finds the session, and that the address is its own.
    connection = router.connection()
    node.kill()
    node.start()
    wait_until("the next agent has learnt all", lambda: "everything has been learnt" in node.log())
    assert (node.routes(), router.connection(), virtual(node)) == (learnt, connection, {VIRTUAL})
    # A workload that loses the label loses the session, and with the last one goes the address.
    plain = endpoint("work", INSIDE)
    store.put(keys.of(plain), plain)
    wait_until("its networks are gone", lambda: not node.routes())
    wait_until("and the address too", lambda: virtual(node) == set())
    wait_until("and at the ToR", lambda: outside.routes("p0") == {BLOCK})
