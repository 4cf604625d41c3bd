"""Real packets through the rendered table: the kernel decides as the evaluator, and protects what no policy names."""

import itertools
import random
from collections.abc import Callable, Iterator
from ipaddress import ip_address, ip_network

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from felix.calc.delta import LocalEndpoint, NodeDelta, Settings
from felix.rules.changes import first_table
from felix.rules.render import Renderer
from lab.netns import NetNs
from tests.fakes import computed_policies as computed
from tests.functional.policy.first_packets import ECHO_REQUESTS, ICMP, ICMPV6, SCTP, TCP
from tests.functional.policy.node import PORTS, UDP, PolicyNode
from tests.unit.calc.world import NodeState
from weft.model.address import IPAddress
from weft.model.keys import ResourceKey
from weft.policy.values import Action, Direction, EndpointPolicy, Policy, Rule
from weft.policy.verdict import Flow, verdict

pytestmark = pytest.mark.root


@pytest.fixture
def node(netns: Callable[[str], NetNs]) -> Iterator[PolicyNode]:
    made = PolicyNode(netns)
    yield made
    made.close()


def _some_flows(node: PolicyNode, seed: int, count: int) -> list[Flow]:
    """Of every protocol, between addresses behind different interfaces."""
    pairs = [
        (source, destination)
        for source, destination in itertools.permutations(node.interface_of, 2)
        if source.version == destination.version and node.interface_of[source] != node.interface_of[destination]
    ]
    chosen = random.Random(seed)
    return [_flow(chosen, source, destination) for source, destination in chosen.choices(pairs, k=count)]


def _flow(chosen: random.Random, source: IPAddress, destination: IPAddress) -> Flow:
    version = source.version
    protocol = chosen.choice((UDP, UDP, TCP, SCTP, ICMP if version == 4 else ICMPV6))
    if protocol in (ICMP, ICMPV6):
        code = chosen.choice((0, 1))
        return Flow(
            source=source, destination=destination, protocol=protocol, icmp_type=ECHO_REQUESTS[version], icmp_code=code
        )
    return Flow(
        source=source,
        destination=destination,
        protocol=protocol,
        source_port=chosen.choice(PORTS),
        destination_port=chosen.choice(PORTS),
    )


def test_the_kernel_decides_as_the_evaluator(node: PolicyNode) -> None:
    state = NodeState()
    outcomes = set()

    @given(desired=computed.deltas(), seed=st.integers(0, 10_000))
    @settings(max_examples=30, suppress_health_check=list(HealthCheck))
    def check(desired: NodeDelta, seed: int) -> None:
        delta = computed.difference(state, desired)
        state.add(delta)
        report = node.program(delta)
        assert report.in_kernel
        assert report.failed == {}
        for flow in _some_flows(node, seed, 10):
            expected = True
            for address, direction in ((flow.source, Direction.EGRESS), (flow.destination, Direction.INGRESS)):
                endpoint = state.endpoints.get(node.interface_of[address])
                if endpoint is not None:
                    members = computed.Members(state)
                    expected &= verdict(endpoint.policy, state.policies, members, flow, direction).allowed
            assert node.passes_flow(flow) == expected, flow
            outcomes.add((flow.protocol, expected))

    check()
    assert {passes for _, passes in outcomes} == {True, False}
    assert {protocol for protocol, _ in outcomes} == {UDP, TCP, SCTP, ICMP, ICMPV6}


def test_first_packets_of_every_protocol_arrive_where_everything_is_allowed(node: PolicyNode) -> None:
    """What the test above relies on: where they do not arrive, it was policy."""
    node.program(_open("cali1", "cali2"))
    for one, two, icmp in (("10.0.0.1", "10.0.0.2", ICMP), ("fd00::1", "fd00::2", ICMPV6)):
        ends = {"source": ip_address(one), "destination": ip_address(two)}
        for protocol in (UDP, TCP, SCTP):
            assert node.passes_flow(Flow(**ends, protocol=protocol, source_port=80, destination_port=85))
        assert node.passes_flow(
            Flow(**ends, protocol=icmp, icmp_type=ECHO_REQUESTS[ends["source"].version], icmp_code=0)
        )


OPEN = ResourceKey("Profile", "open")
ALLOW = (Rule(action=Action.ALLOW),)


def _open(*interfaces: str, endpoint_settings: Settings | None = None, **more: object) -> NodeDelta:
    """Workloads that everything is allowed to and from."""
    policy = EndpointPolicy(profiles=(OPEN,))
    endpoints = {
        name: LocalEndpoint(ResourceKey("WorkloadEndpoint", name, "one"), name, (), "", policy) for name in interfaces
    }
    return NodeDelta(
        policies={OPEN: Policy(key=OPEN, ingress=ALLOW, egress=ALLOW)},
        endpoints=endpoints,
        settings=endpoint_settings,
        **more,  # type: ignore[arg-type]
    )


@pytest.mark.parametrize(("one", "two"), [("10.0.0.1", "10.0.0.2"), ("fd00::1", "fd00::2")], ids=["IPv4", "IPv6"])
def test_a_workload_without_computed_policy_passes_nothing(node: PolicyNode, one: str, two: str) -> None:
    outside, gateway = ("10.9.9.9", "169.254.1.1") if "." in one else ("fd01::1", "fd01::1")
    node.program(_open("cali1"))
    assert node.passes(one, 80, outside, 80)
    assert not node.passes(one, 80, two, 80)
    assert not node.passes(two, 80, one, 80)
    assert not node.passes(two, 80, outside, 80)
    assert not node.passes(outside, 80, two, 80)
    if gateway != outside:
        assert node.passes(gateway, 85, one, 80)
        assert not node.passes(gateway, 85, two, 80)


@pytest.mark.parametrize(("action", "reaches"), [("Drop", False), ("Accept", True), ("Return", True)])
def test_a_workload_reaches_its_host_only_when_told_to(node: PolicyNode, action: str, reaches: bool) -> None:
    settings = Settings(endpoint_to_host=action)  # type: ignore[arg-type]
    node.program(_open("cali1", "cali2", endpoint_settings=settings))
    assert node.passes("10.0.0.1", 80, "169.254.1.1", 443) == reaches
    assert node.passes("169.254.1.1", 443, "10.0.0.1", 80)
    assert node.passes("10.9.9.9", 80, "169.254.1.1", 1000), "others reach the host as before"


def test_the_host_gets_answers_to_what_it_asked(node: PolicyNode) -> None:
    node.program(_open("cali1"))
    assert node.passes("169.254.1.1", 443, "10.0.0.1", 80)
    workload, host = node.endpoint("10.0.0.1", 80), node.endpoint("169.254.1.1", 443)
    workload.sendto(b"answer", ("169.254.1.1", 443))
    assert host.recv(100) == b"answer"
    node.host.run(["ping", "-c1", "-W1", "10.0.0.1"])
    node.host.run(["ping", "-c1", "-W1", "fd00::1"])


def test_neighbours_are_found_through_the_rules(node: PolicyNode) -> None:
    node.program(_open("cali1", "cali2"))
    for where in (node.host, *node.behind.values()):
        where.ip("neighbour", "flush", "all")
        where.ip("-6", "neighbour", "flush", "all")
    node.behind["cali1"].run(["ping", "-c1", "-W3", "10.0.0.2"])
    node.behind["cali1"].run(["ping", "-c1", "-W3", "fd00::2"])


def test_a_pool_with_nat_outgoing_is_masqueraded_outside_of_all_pools(node: PolicyNode) -> None:
    pools = {ip_network("10.0.0.0/25"): True, ip_network("10.0.0.128/25"): False}
    node.program(_open("cali1", "cali2", pools=pools))
    seen = {}
    for source, destination in (("10.0.0.1", "10.9.9.9"), ("10.0.0.200", "10.9.9.9"), ("10.0.0.1", "10.0.0.2")):
        node.forget_connections()
        node.endpoint(source, 85).sendto(b"x", (destination, 1000)) if node.endpoint(destination, 1000) else None
        _, (address, *_) = node.endpoint(destination, 1000).recvfrom(100)
        seen[source, destination] = address
    assert seen == {
        ("10.0.0.1", "10.9.9.9"): "169.254.1.1",
        ("10.0.0.200", "10.9.9.9"): "10.0.0.200",
        ("10.0.0.1", "10.0.0.2"): "10.0.0.1",
    }
    node.program(NodeDelta(pools={ip_network("10.0.0.0/25"): None}))
    assert "masquerade" not in node.host.run(["nft", "list", "ruleset"])


def test_a_workload_cannot_send_as_another_over_ipv6(node: PolicyNode) -> None:
    node.program(_open("cali1", "cali2"))
    node.behind["cali1"].ip("address", "add", "fd00::99/128", "dev", "eth0", "nodad")
    node.interface_of[ip_address("fd00::99")] = "cali1"
    assert not node.passes("fd00::99", 80, "fd01::1", 80)
    node.host.ip("route", "add", "fd00::99/128", "dev", "cali1")
    assert node.passes("fd00::99", 80, "fd01::1", 80)


def test_a_deleted_interface_passes_nothing(node: PolicyNode) -> None:
    node.program(_open("cali1", "cali2"))
    node.host.ip("link", "set", "cali2", "down")
    node.host.ip("link", "set", "cali2", "name", "weftdel1")
    node.host.ip("link", "set", "weftdel1", "up")
    node.host.ip("route", "add", "10.0.0.2/32", "dev", "weftdel1")
    assert node.passes("10.0.0.1", 80, "10.9.9.9", 80)
    assert not node.passes("10.0.0.1", 80, "10.0.0.2", 80)
    assert not node.passes("10.0.0.2", 80, "10.9.9.9", 80)
    assert not node.passes("169.254.1.1", 80, "10.0.0.2", 80)


def test_the_table_is_what_a_fresh_agent_would_write(node: PolicyNode) -> None:
    """A restarted agent finds everything right and writes nothing."""
    desired = _open("cali1", "cali2", pools={ip_network("10.0.0.0/25"): True})
    node.program(desired)
    report = type(node.driver)(node.kernel).start(first_table(Renderer().render(desired)), 0.0)
    assert report.in_kernel
    assert report.operations == 0
