"""Host endpoints with real packets: each stage at its hook, and a node that nobody can lock himself out of."""

import socket
from collections.abc import Callable, Iterator
from ipaddress import ip_address, ip_network

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from felix.calc.delta import Failsafe, LocalEndpoint, LocalHostEndpoint, NodeDelta, Settings
from lab.netns import NetNs
from tests.fakes import computed_policies as computed
from tests.functional.policy.node import PolicyNode
from tests.unit.calc.world import NodeState
from weft.model.keys import ResourceKey
from weft.policy.host import Interface, Path, host_verdict
from weft.policy.matching import Flow
from weft.policy.values import (
    Action,
    Direction,
    EndpointPolicy,
    Entity,
    HostPolicy,
    Policy,
    PortRange,
    Rule,
    TierPolicies,
)

pytestmark = pytest.mark.root

HOST, OUTSIDE, WORKLOAD = "169.254.1.1", "10.9.9.9", "10.0.0.1"
KEY = ResourceKey("GlobalNetworkPolicy", "policy")
UDP = 17


@pytest.fixture
def node(netns: Callable[[str], NetNs]) -> Iterator[PolicyNode]:
    made = PolicyNode(netns)
    yield made
    made.close()


def _to_port(action: Action, *ports: int) -> Rule:
    return Rule(action=action, protocol=UDP, destination=Entity(ports=tuple(PortRange(port, port) for port in ports)))


def _asked(*directions: Direction) -> EndpointPolicy:
    ingress, egress = ((KEY,) if one in directions else () for one in Direction)
    return EndpointPolicy((TierPolicies("default", Action.DENY, ingress, egress),))


BOTH, OPEN = _asked(*Direction), EndpointPolicy(profiles=(computed.OPEN,))


def _delta(rules: tuple[Rule, ...], policy: HostPolicy, interface: str = "eth0", **more: object) -> NodeDelta:
    """One host endpoint with one policy, the same in both directions, and two workloads that everything is allowed."""
    workloads = {
        name: LocalEndpoint(ResourceKey("WorkloadEndpoint", name, "one"), name, (), "", OPEN)
        for name in ("cali1", "cali2")
    }
    return NodeDelta(
        policies={
            KEY: Policy(key=KEY, ingress=rules, egress=rules),
            computed.OPEN: Policy(key=computed.OPEN, ingress=computed.ALLOW, egress=computed.ALLOW),
        },
        endpoints=workloads,
        host_endpoints={interface: LocalHostEndpoint(ResourceKey("HostEndpoint", "one"), interface, policy)},
        settings=Settings(**more),  # type: ignore[arg-type]
    )


def _passing(node: PolicyNode, *flows: tuple[str, str, int]) -> list[tuple[str, str, int]]:
    return [(source, to, port) for source, to, port in flows if node.passes(source, 1000, to, port)]


def test_normal_policy_is_for_the_node_itself_in_both_directions(node: PolicyNode) -> None:
    node.program(_delta((_to_port(Action.ALLOW, 80),), HostPolicy(normal=BOTH)))
    assert _passing(
        node,
        (OUTSIDE, HOST, 80),
        (OUTSIDE, HOST, 85),
        (HOST, OUTSIDE, 80),
        (HOST, OUTSIDE, 85),
        (OUTSIDE, WORKLOAD, 85),
        (WORKLOAD, OUTSIDE, 85),
        (HOST, WORKLOAD, 85),
    ) == [
        (OUTSIDE, HOST, 80),
        (HOST, OUTSIDE, 80),
        (OUTSIDE, WORKLOAD, 85),
        (WORKLOAD, OUTSIDE, 85),
        (HOST, WORKLOAD, 85),
    ]


def test_a_host_endpoint_without_any_policy_closes_the_node_but_for_failsafes_and_answers(node: PolicyNode) -> None:
    failsafes = {
        "failsafe_inbound": (Failsafe(UDP, 80), Failsafe(UDP, 85, ip_network("10.1.0.0/16")), Failsafe(6, 443)),
        "failsafe_outbound": (Failsafe(UDP, 443),),
    }
    node.program(_delta((), HostPolicy(), **failsafes))
    assert _passing(
        node,
        (OUTSIDE, HOST, 80),
        (OUTSIDE, HOST, 85),
        (OUTSIDE, HOST, 443),
        (HOST, OUTSIDE, 80),
        (HOST, OUTSIDE, 443),
        (OUTSIDE, WORKLOAD, 85),
    ) == [(OUTSIDE, HOST, 80), (HOST, OUTSIDE, 443), (OUTSIDE, WORKLOAD, 85)]
    assert node.passes(OUTSIDE, 1000, HOST, 80)
    node.endpoint(HOST, 80).sendto(b"answer", (OUTSIDE, 1000))
    assert node.endpoint(OUTSIDE, 1000).recv(100) == b"answer"


def test_a_node_closed_by_every_stage_still_takes_its_failsafe_ports(node: PolicyNode) -> None:
    """TCP, so that the answers must come back, too; and IPv6, whose neighbours must be found again."""
    closed = HostPolicy(BOTH, BOTH, _asked(Direction.INGRESS), BOTH)
    failsafes = {"failsafe_inbound": (Failsafe(6, 22),), "failsafe_outbound": (Failsafe(6, 443),)}
    node.program(_delta((Rule(action=Action.DENY),), closed, **failsafes))
    node.host.ip("address", "add", "fd02::1/128", "dev", "lo", "nodad")
    for where in (node.host, node.behind["eth0"]):
        where.ip("-6", "neighbour", "flush", "all")
    outside = node.behind["eth0"]
    for address in (HOST, "fd02::1"):
        assert _connects(node.host, outside, address, 22)
        assert not _connects(node.host, outside, address, 80)
    assert _connects(outside, node.host, OUTSIDE, 443)
    assert not _connects(outside, node.host, OUTSIDE, 80)
    assert _connects(node.host, node.host, "127.0.0.1", 80), "loopback is nobody's business"


def _connects(server: NetNs, client: NetNs, address: str, port: int) -> bool:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with server.enter():
        listener = socket.create_server((address, port), family=family)
    with client.enter():
        connecting = socket.socket(family, socket.SOCK_STREAM)
    with listener, connecting:
        connecting.settimeout(0.2)
        try:
            connecting.connect((address, port))
        except (TimeoutError, PermissionError):
            return False
        return True


def test_forward_policy_is_for_what_goes_through(node: PolicyNode) -> None:
    node.program(_delta((_to_port(Action.ALLOW, 80),), HostPolicy(normal=BOTH, forward=BOTH)))
    assert _passing(
        node,
        (OUTSIDE, WORKLOAD, 80),
        (OUTSIDE, WORKLOAD, 85),
        (WORKLOAD, OUTSIDE, 80),
        (WORKLOAD, OUTSIDE, 85),
        (WORKLOAD, "10.0.0.2", 85),
    ) == [(OUTSIDE, WORKLOAD, 80), (WORKLOAD, OUTSIDE, 80), (WORKLOAD, "10.0.0.2", 85)]


def test_all_interfaces_are_those_of_workloads_too_but_only_for_what_is_forwarded(node: PolicyNode) -> None:
    policy = HostPolicy(normal=BOTH, forward=BOTH)
    node.program(_delta((_to_port(Action.ALLOW, 80),), policy, "*", endpoint_to_host="Accept"))
    assert _passing(
        node,
        (OUTSIDE, HOST, 80),
        (OUTSIDE, HOST, 85),
        (WORKLOAD, "10.0.0.2", 80),
        (WORKLOAD, "10.0.0.2", 85),
        (WORKLOAD, HOST, 85),
        (HOST, WORKLOAD, 85),
    ) == [(OUTSIDE, HOST, 80), (WORKLOAD, "10.0.0.2", 80), (WORKLOAD, HOST, 85), (HOST, WORKLOAD, 85)]


def test_an_interface_with_its_own_host_endpoint_is_not_among_all_others(node: PolicyNode) -> None:
    delta = _delta((_to_port(Action.ALLOW, 80),), HostPolicy(normal=BOTH, forward=BOTH), "*")
    own = LocalHostEndpoint(ResourceKey("HostEndpoint", "own"), "eth0", HostPolicy(normal=OPEN))
    node.program(delta)
    assert not node.passes(OUTSIDE, 1000, HOST, 85)
    node.program(NodeDelta(host_endpoints={"eth0": own}))
    assert node.passes(OUTSIDE, 1000, HOST, 85)
    assert node.passes(HOST, 1000, OUTSIDE, 85)
    assert not node.passes(WORKLOAD, 1000, OUTSIDE, 85), "it leaves the workload's interface as one of all"


def _nat(node: PolicyNode, hook: str, rule: str) -> None:
    """Somebody else's table."""
    node.host.run(["nft", f"table ip other {{ chain c {{ type nat hook {hook} priority -100\n{rule}\n}}\n}}"])


@pytest.mark.parametrize(("action", "arrives"), [(Action.ALLOW, True), (Action.DENY, False)])
def test_pre_dnat_policy_sees_the_port_before_translation(node: PolicyNode, action: Action, arrives: bool) -> None:
    """What it allows is not asked about by forward policy."""
    _nat(node, "prerouting", f"ip daddr {HOST} udp dport 1000 dnat to {WORKLOAD}:85")
    rules = (_to_port(action, 1000), _to_port(Action.DENY, 443), Rule(action=Action.DENY))
    node.program(_delta(rules, HostPolicy(pre_dnat=_asked(Direction.INGRESS))))
    receiver = node.endpoint(WORKLOAD, 85)
    receiver.settimeout(0.1)
    node.endpoint(OUTSIDE, 443).sendto(b"translated", (HOST, 1000))
    try:
        assert receiver.recv(100) == b"translated"
        assert arrives
    except TimeoutError:
        assert not arrives


def test_what_pre_dnat_policy_allows_passes_forward_and_normal_policy(node: PolicyNode) -> None:
    deny = ResourceKey("GlobalNetworkPolicy", "deny")
    closed = EndpointPolicy((TierPolicies("default", Action.DENY, (deny,), (deny,)),))
    delta = _delta((_to_port(Action.ALLOW, 80),), HostPolicy(closed, closed, _asked(Direction.INGRESS)))
    node.program(NodeDelta(policies={deny: Policy(key=deny, ingress=(), egress=())}))
    node.program(delta)
    flows = [(OUTSIDE, to, port) for to in (HOST, WORKLOAD) for port in (80, 85)]
    assert _passing(node, *flows) == [(OUTSIDE, HOST, 80), (OUTSIDE, WORKLOAD, 80)]


def test_policy_of_the_node_sees_where_its_own_traffic_really_goes(node: PolicyNode) -> None:
    """The route of 192.0.2.1 leads to a workload's interface: output still sees that one after translation."""
    node.host.ip("route", "add", "192.0.2.1/32", "dev", "cali1")
    _nat(node, "output", f"ip daddr 192.0.2.1 dnat to {OUTSIDE}")
    node.program(_delta((_to_port(Action.ALLOW, 80),), HostPolicy(normal=BOTH)))
    seen = []
    for port in (80, 85):
        receiver = node.endpoint(OUTSIDE, port)
        receiver.settimeout(0.1)
        try:
            node.endpoint(HOST, 1000).sendto(b"x", ("192.0.2.1", port))
            receiver.recv(100)
            seen.append(port)
        except (TimeoutError, PermissionError):
            pass
    assert seen == [80]


def test_untracked_policy_leaves_no_trace_in_connection_tracking(node: PolicyNode) -> None:
    node.program(_delta((_to_port(Action.ALLOW, 80), _to_port(Action.DENY, 85)), HostPolicy(untracked=BOTH)))
    for there, here in ((HOST, OUTSIDE), (OUTSIDE, HOST)):
        assert node.passes(here, 1000, there, 80), "normal policy would refuse it"
        assert not _tracked(node, 80)
        assert not node.passes(here, 1000, there, 85)
        assert not node.passes(here, 1000, there, 443), "undecided, so normal policy is asked"
    assert node.passes(OUTSIDE, 1000, WORKLOAD, 443)
    assert _tracked(node, 443)


def _tracked(node: PolicyNode, port: int) -> bool:
    return f"dport={port} " in node.host.run(["cat", "/proc/net/nf_conntrack"])


def test_a_denied_packet_can_be_answered_with_an_error(node: PolicyNode) -> None:
    node.program(_delta((_to_port(Action.ALLOW, 80),), HostPolicy(BOTH, BOTH, BOTH, BOTH), reject=True))
    assert node.driver.problems_of("eth0") == []
    refused = node.endpoint(OUTSIDE, 443)
    refused.connect((WORKLOAD, 85))
    refused.settimeout(0.5)
    refused.send(b"x")
    with pytest.raises(OSError, match=r"No route|Permission|refused|unreachable"):
        refused.recv(100)


def test_the_kernel_asks_host_endpoints_as_the_evaluator(node: PolicyNode) -> None:
    state, outcomes = NodeState(), set()
    ends = {HOST: "", OUTSIDE: "eth0", WORKLOAD: "cali1"}
    pairs = [(OUTSIDE, HOST), (HOST, OUTSIDE), (OUTSIDE, WORKLOAD), (WORKLOAD, OUTSIDE), (WORKLOAD, HOST)]

    @given(desired=computed.host_deltas(), ports=st.lists(st.sampled_from((80, 85, 443, 1000)), min_size=5, max_size=5))
    @settings(max_examples=25, suppress_health_check=list(HealthCheck))
    def check(desired: NodeDelta, ports: list[int]) -> None:
        delta = computed.difference(state, desired)
        state.add(delta)
        report = node.program(delta)
        assert report.in_kernel
        assert report.failed == {}
        for (source, destination), port in zip(pairs, ports, strict=True):
            flow = Flow(
                source=ip_address(source),
                destination=ip_address(destination),
                protocol=UDP,
                source_port=1000,
                destination_port=port,
            )
            expected = _allowed(desired, state, flow, ends[source], ends[destination])
            assert node.passes_flow(flow) == expected, flow
            outcomes.add(expected)

    check()
    assert outcomes == {True, False}


def _allowed(desired: NodeDelta, state: NodeState, flow: Flow, iif: str, oif: str) -> bool:
    """The workload behind cali1 refuses nothing itself."""
    assert desired.settings is not None
    path = Path.FORWARDED if iif and oif else Path.LOCAL
    found = True
    for interface, direction, failsafes in (
        (iif, Direction.INGRESS, desired.settings.failsafe_inbound),
        (oif, Direction.EGRESS, desired.settings.failsafe_outbound),
    ):
        host = desired.host_endpoints.get(interface) or desired.host_endpoints.get("*")
        if not interface or host is None:
            continue
        policy, of_path = host.policy, path
        if interface.startswith("cali"):
            policy, of_path = HostPolicy(forward=policy.forward, pre_dnat=policy.pre_dnat), Path.FORWARDED
            if path is Path.LOCAL:
                policy = HostPolicy(pre_dnat=policy.pre_dnat)
        at = Interface(policy, failsafes)
        found &= host_verdict(at, state.policies, computed.Members(state), flow, direction, of_path).allowed
    return found
