"""Host endpoints of this node: which interfaces they protect, and with what."""

from ipaddress import ip_address
from itertools import permutations
from typing import Any

import pytest

from felix.calc.delta import NodeDelta
from tests.unit.calc.test_graph import Node, from_app, policy, workload
from weft.model import keys
from weft.model.base import Metadata
from weft.model.endpoint import EndpointPort, HostEndpoint, HostEndpointSpec
from weft.model.keys import ResourceKey
from weft.model.policy import EntityRule, Profile, ProfileSpec, Rule
from weft.model.values import Port, Protocol
from weft.policy.values import AddressPort, Direction, EndpointPolicy, Stage

A1, A2 = ip_address("192.0.2.1"), ip_address("192.0.2.2")
INTERFACES = {"eth0": frozenset({A1}), "eth1": frozenset({A2, ip_address("fd00::2")}), "cali1": frozenset({A1})}
TCP = Protocol.parse("TCP")


def host(name: str, interface: str = "", *expected: str, node: str = "here", **spec: Any) -> HostEndpoint:
    return HostEndpoint(
        metadata=Metadata(name=name, labels={"role": "host"}),
        spec=HostEndpointSpec(
            node=node, interface_name=interface, expected_ips=tuple(map(ip_address, expected)), **spec
        ),
    )


def node_with(*resources: Any) -> Node:
    node = Node()
    node.graph.on_interfaces(INTERFACES)
    node.first = node.put(*resources)
    return node


def owners(delta: NodeDelta) -> dict[str, str]:
    return {interface: one.key.name if one else "" for interface, one in delta.host_endpoints.items()}


@pytest.mark.parametrize(
    ("endpoint", "protects"),
    [
        (host("h", "eth0"), {"eth0"}),
        (host("h", "eth9"), {"eth9"}),
        (host("h", "*"), {"*"}),
        (host("h", "", "192.0.2.2"), {"eth1"}),
        (host("h", "", "192.0.2.1", "fd00::2"), {"eth0", "eth1"}),
        (host("h", "eth0", "192.0.2.2"), {"eth0"}),
        (host("h", "*", "192.0.2.2"), {"*"}),
        (host("h", "eth0", node="there"), set()),
        (host("h", "", "192.0.2.9"), set()),
        (host("h"), set()),
        (host("h", "cali1"), set()),
        (host("h", "weftdel1"), set()),
        (host("h", 'eth0"; drop'), set()),
        (host("h", "a-name-that-is-too-long"), set()),
        (host("h", ".."), set()),
    ],
    ids=lambda one: (
        one.spec.interface_name or ",".join(map(str, one.spec.expected_ips)) if isinstance(one, HostEndpoint) else ""
    ),
)
def test_an_interface_is_protected_by_name_by_address_or_with_all_others(
    endpoint: HostEndpoint, protects: set[str]
) -> None:
    first = node_with(endpoint).first
    assert first.host_endpoints.keys() == protects
    reported = endpoint.spec.node == "here" and not protects
    assert (keys.of(endpoint) in first.not_enforced) is reported


def test_of_several_for_one_interface_the_first_by_name_has_it_and_the_others_are_reported() -> None:
    several = (host("b", "eth0"), host("a", "", "192.0.2.1"), host("c", "eth0"), host("z", "*"), host("y", "*"))
    for order in permutations(several):
        node = node_with(*order)
        assert owners(node.first) == {"eth0": "a", "*": "y"}
        assert node.first.not_enforced == {
            keys.of(several[0]): ("interfaceName: eth0 belongs to a",),
            keys.of(several[2]): ("interfaceName: eth0 belongs to a",),
            keys.of(several[3]): ("interfaceName: * belongs to y",),
        }
    after = node.remove(several[1])
    assert owners(after) == {"eth0": "b"}
    assert after.not_enforced[keys.of(several[0])] is None


def test_addresses_that_move_take_their_host_endpoint_with_them() -> None:
    node = node_with(host("h", "", "192.0.2.1"))
    node.graph.on_interfaces({"eth0": frozenset({A2}), "eth7": frozenset({A1})})
    assert owners(node.graph.flush()) == {"eth0": "", "eth7": "h"}
    node.graph.on_interfaces({})
    gone = node.graph.flush()
    assert owners(gone) == {"eth7": ""}
    assert "no interface of this node" in gone.not_enforced[ResourceKey("HostEndpoint", "h")][0]  # type: ignore[index]
    node.graph.on_interfaces(INTERFACES)
    assert owners(node.graph.flush()) == {"eth0": "h"}


def test_what_is_said_about_workloads_interfaces_changes_nothing() -> None:
    node = node_with(host("h", "", "192.0.2.1"))
    node.graph.on_interfaces({**INTERFACES, "cali1": frozenset(), "cali2": frozenset({A1})})
    assert not node.graph.flush()


def _names(policy: EndpointPolicy, direction: Direction = Direction.INGRESS) -> list[str]:
    return [key.name for tier in policy.tiers for key in tier.policies(direction)]


POLICIES = (
    policy("normal", Rule(action="Deny"), selector="role == 'host'"),
    policy("forward", Rule(action="Deny"), selector="role == 'host'", apply_on_forward=True),
    policy("nat", Rule(action="Deny"), selector="role == 'host'", apply_on_forward=True, pre_dnat=True),
    policy("raw", Rule(action="Deny"), selector="role == 'host'", apply_on_forward=True, do_not_track=True),
    policy("others", Rule(action="Deny"), selector="app == 'web'"),
)


def test_each_policy_is_asked_at_its_stages() -> None:
    first = node_with(host("h", "eth0"), *POLICIES).first
    endpoint = first.host_endpoints["eth0"]
    assert endpoint is not None
    assert {stage: _names(endpoint.policy.of(stage)) for stage in Stage} == {
        Stage.NORMAL: ["forward", "normal"],
        Stage.FORWARD: ["forward"],
        Stage.PRE_DNAT: ["nat"],
        Stage.UNTRACKED: ["raw"],
    }
    assert {key.name for key in first.policies} == {"normal", "forward", "nat", "raw"}


def test_a_policy_for_hosts_only_is_not_in_use_where_it_chooses_workloads_only() -> None:
    raw = policy("raw", from_app("db"), do_not_track=True)
    node = node_with(workload("1", profiles=()), raw)
    assert not node.first.policies
    assert node.put(host("h", "eth0")).policies.keys() == {keys.of(raw)}
    assert node.remove(host("h", "eth0")).policies == {keys.of(raw): None}


def test_a_policy_that_becomes_one_for_hosts_only_leaves_workloads() -> None:
    node = node_with(workload("1", profiles=()), policy("p", Rule(action="Allow")))
    delta = node.put(policy("p", Rule(action="Allow"), pre_dnat=True))
    assert delta.endpoints["cali1"].policy.tiers == ()  # type: ignore[union-attr]
    assert list(delta.policies.values()) == [None]


def test_a_host_endpoint_has_labels_and_rules_of_its_profiles() -> None:
    profile = Profile(metadata=Metadata(name="p"), spec=ProfileSpec(labels_to_apply={"env": "prod"}))
    first = node_with(host("h", "eth0", profiles=("p",)), policy("prod", selector="env == 'prod'"), profile).first
    endpoint = first.host_endpoints["eth0"]
    assert endpoint is not None
    assert _names(endpoint.policy.normal) == ["prod"]
    assert endpoint.policy.normal.profiles == (keys.of(profile),)
    assert keys.of(profile) in first.policies


def test_a_named_port_of_a_host_endpoint_is_a_port_of_its_expected_addresses() -> None:
    ports = (EndpointPort(name="api", protocol=TCP, port=6443),)
    rule = Rule(action="Allow", protocol=TCP, destination=EntityRule(ports=(Port(name="api"),)))
    far = host("far", "eth0", "192.0.2.7", node="there", ports=ports)
    (change,) = node_with(workload("1", profiles=()), policy("p", rule), far).first.sets.values()
    assert change.added == {AddressPort(ip_address("192.0.2.7"), 6, 6443)}
