"""FelixConfiguration's effects on real packets: tunnels out of workloads, addresses of services that nobody serves."""

import socket
from collections.abc import Callable, Iterator
from ipaddress import ip_network

import pytest

from felix.calc.delta import LocalEndpoint, NodeDelta, Settings
from lab.netns import NetNs
from tests.fakes import computed_policies as computed
from tests.functional.policy.node import PolicyNode
from weft.model.keys import ResourceKey
from weft.policy.values import EndpointPolicy, Policy

pytestmark = pytest.mark.root

OUTSIDE, WORKLOAD = "10.9.9.9", "10.0.0.1"


@pytest.fixture
def node(netns: Callable[[str], NetNs]) -> Iterator[PolicyNode]:
    made = PolicyNode(netns)
    yield made
    made.close()


def _open(**settings: object) -> NodeDelta:
    policy = EndpointPolicy(profiles=(computed.OPEN,))
    key = ResourceKey("WorkloadEndpoint", "cali1", "one")
    return NodeDelta(
        policies={computed.OPEN: Policy(key=computed.OPEN, ingress=computed.ALLOW, egress=computed.ALLOW)},
        endpoints={"cali1": LocalEndpoint(key, "cali1", (), "", policy)},
        settings=Settings(**settings),  # type: ignore[arg-type]
    )


@pytest.mark.parametrize("allowed", [False, True])
def test_vxlan_leaves_a_workload_only_when_it_may(node: PolicyNode, allowed: bool) -> None:
    node.program(_open(vxlan_port=85, allow_vxlan_from_workloads=allowed))
    assert node.passes(WORKLOAD, 1000, OUTSIDE, 85) == allowed
    assert node.passes(WORKLOAD, 1000, OUTSIDE, 80)
    assert node.passes(OUTSIDE, 1000, WORKLOAD, 85), "to a workload it may"


@pytest.mark.parametrize("allowed", [False, True])
def test_ip_in_ip_leaves_a_workload_only_when_it_may(node: PolicyNode, allowed: bool) -> None:
    node.program(_open(allow_ipip_from_workloads=allowed))
    with node.behind["eth0"].enter():
        receiver = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_IPIP)
    with node.behind["cali1"].enter():
        sender = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_IPIP)
    with receiver, sender:
        receiver.settimeout(0.1)
        sender.sendto(b"tunnelled", (OUTSIDE, 0))
        try:
            assert receiver.recv(100).endswith(b"tunnelled")
            arrived = True
        except TimeoutError:
            arrived = False
    assert arrived == allowed


@pytest.mark.parametrize(("prevention", "arrives"), [("Drop", False), ("Reject", False), ("Disabled", True)])
def test_a_service_that_nobody_serves_is_not_sent_to_the_uplink(
    node: PolicyNode, prevention: str, arrives: bool
) -> None:
    """10.9.9.9 stands for an address of a service, and the outside for the router that would send it back."""
    node.program(_open(service_loop_prevention=prevention))
    assert node.passes(WORKLOAD, 1000, OUTSIDE, 80)
    node.program(NodeDelta(service_ranges={ip_network("10.9.9.0/24"): True, ip_network("fd99::/64"): True}))
    assert node.passes(WORKLOAD, 1000, OUTSIDE, 80) == arrives
    assert node.passes(OUTSIDE, 1000, WORKLOAD, 80), "from it, anything"
    node.program(NodeDelta(service_ranges={ip_network("10.9.9.0/24"): None}))
    assert node.passes(WORKLOAD, 1000, OUTSIDE, 80)
