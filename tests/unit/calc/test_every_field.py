"""No field of a resource is silently without effect: it changes what this node has, it is reported as not enforced, or
it is listed here with the reason why policy and routes do not depend on it."""

from collections.abc import Callable, Mapping
from ipaddress import ip_address, ip_network
from typing import Any

import msgspec
import pytest
from msgspec.structs import fields, replace

from felix.calc import setting_words
from felix.calc.graph import Graph
from tests.unit.calc.world import NodeState
from weft.model import keys
from weft.model.address import IPNetwork
from weft.model.base import Metadata, Resource
from weft.model.endpoint import (
    IPNAT,
    HostEndpoint,
    HostEndpointSpec,
    QoSControls,
    WorkloadEndpoint,
    WorkloadEndpointPort,
    WorkloadEndpointSpec,
)
from weft.model.felix_configuration import FelixConfiguration, FelixConfigurationSpec, ProtoPort
from weft.model.policy import (
    EntityRule,
    GlobalNetworkPolicy,
    GlobalNetworkPolicySpec,
    HttpMatch,
    IcmpFields,
    NetworkPolicy,
    NetworkPolicySpec,
    NetworkSet,
    NetworkSetSpec,
    Profile,
    ProfileSpec,
    Rule,
    ServiceAccountMatch,
    ServiceMatch,
    Tier,
    TierSpec,
)
from weft.model.pool import IPPool, IPPoolSpec
from weft.model.values import Port, Protocol

TCP, ICMP = Protocol.parse("TCP"), Protocol.parse("ICMP")
NET = ip_network("10.1.0.0/16")
ALLOW = Rule(action="Allow", protocol=TCP)
ICMP_RULE = Rule(action="Allow", protocol=ICMP)

WORKLOAD = WorkloadEndpointSpec(
    node="here", orchestrator="k8s", ip_networks=(ip_network("10.0.0.1/32"),), interface_name="cali1", profiles=("p",)
)
POLICY = NetworkPolicySpec(ingress=(ALLOW,), egress=(ALLOW,))
GLOBAL_POLICY = GlobalNetworkPolicySpec(ingress=(ALLOW,), egress=(ALLOW,))
IDENTITY = "names the workload to people and tools; labels and interface are what counts"
IPAM = "IPAM's: which addresses are given out"

Build = Callable[[Any], Resource]


def _policy(spec: Any) -> Resource:
    return NetworkPolicy(metadata=Metadata(name="np", namespace="one"), spec=spec)


def _rule(rule: Any) -> Resource:
    return _policy(NetworkPolicySpec(ingress=(rule,)))


def _entity(entity: Any) -> Resource:
    return _rule(replace(ALLOW, source=entity))


# Struct -> (how a resource is made of it, what it is without the field, field -> sample or the reason it has no effect)
CASES: dict[type, tuple[Build, Any, Mapping[str, Any]]] = {
    NetworkPolicySpec: (
        _policy,
        POLICY,
        {
            "tier": "other",
            "order": 5.0,
            "ingress": (),
            "egress": (),
            "selector": "app == 'db'",
            "types": ("Egress",),
            "service_account_selector": "role == 'x'",
            "performance_hints": "when to compute it; we compute what is used",
        },
    ),
    GlobalNetworkPolicySpec: (
        lambda spec: GlobalNetworkPolicy(metadata=Metadata(name="gnp"), spec=spec),
        GLOBAL_POLICY,
        {
            "tier": "other",
            "order": 5.0,
            "ingress": (),
            "egress": (),
            "selector": "app == 'db'",
            "types": ("Egress",),
            "do_not_track": True,
            "pre_dnat": True,
            "apply_on_forward": True,
            "service_account_selector": "role == 'x'",
            "namespace_selector": "global()",
            "performance_hints": "when to compute it; we compute what is used",
        },
    ),
    Rule: (
        _rule,
        ALLOW,
        {
            "action": "Deny",
            "ip_version": 4,
            "protocol": ICMP,
            "not_protocol": ICMP,
            "icmp": IcmpFields(type=8),
            "not_icmp": IcmpFields(type=8),
            "source": EntityRule(nets=(NET,)),
            "destination": EntityRule(nets=(NET,)),
            "http": HttpMatch(methods=("GET",)),
            "metadata": "annotations for people",
        },
    ),
    EntityRule: (
        _entity,
        EntityRule(),
        {
            "nets": (NET,),
            "selector": "app == 'web'",
            "namespace_selector": "team == 'x'",
            "services": ServiceMatch(name="s", namespace="one"),
            "ports": (Port(80, 80),),
            "not_nets": (NET,),
            "not_selector": "app == 'web'",
            "not_ports": (Port(80, 80),),
            "service_accounts": ServiceAccountMatch(names=("sa",)),
        },
    ),
    ServiceAccountMatch: (
        lambda match: _entity(EntityRule(service_accounts=match)),
        ServiceAccountMatch(names=("a",)),
        {"names": ("b",), "selector": "role == 'x'"},
    ),
    IcmpFields: (
        lambda icmp: _rule(replace(ICMP_RULE, icmp=icmp)),
        IcmpFields(type=8),
        {"type": 0, "code": 1},
    ),
    TierSpec: (
        lambda spec: Tier(metadata=Metadata(name="first"), spec=spec),
        TierSpec(order=1.0),
        {"order": 2e6, "default_action": "Pass"},
    ),
    ProfileSpec: (
        lambda spec: Profile(metadata=Metadata(name="p"), spec=spec),
        ProfileSpec(),
        {"ingress": (ALLOW,), "egress": (ALLOW,), "labels_to_apply": {"role": "chosen"}},
    ),
    NetworkSetSpec: (
        lambda spec: NetworkSet(metadata=Metadata(name="ns", namespace="one", labels={"role": "chosen"}), spec=spec),
        NetworkSetSpec(),
        {"nets": (NET,)},
    ),
    WorkloadEndpointSpec: (
        lambda spec: WorkloadEndpoint(metadata=Metadata(name="w", namespace="one", labels={"app": "web"}), spec=spec),
        WORKLOAD,
        {
            "orchestrator": "is a label: see test_the_orchestrator_is_a_label",
            "workload": IDENTITY,
            "node": "there",
            "container_id": IDENTITY,
            "pod": IDENTITY,
            "endpoint": IDENTITY,
            "service_account_name": "is a label: see test_the_orchestrator_is_a_label",
            "ip_networks": (ip_network("10.0.0.2/32"),),
            "ip_nats": (IPNAT(internal_ip=ip_address("10.0.0.1"), external_ip=ip_address("10.0.0.9")),),
            "ipv4_gateway": "what the workload was told when it was wired",
            "ipv6_gateway": "what the workload was told when it was wired",
            "profiles": ("q",),
            "interface_name": "cali2",
            "mac": "ee:ee:ee:ee:ee:01",
            "ports": (WorkloadEndpointPort(name="web", protocol=TCP, port=80),),
            "allow_spoofed_source_prefixes": (NET,),
            "qos_controls": QoSControls(ingress_bandwidth=1_000_000),
        },
    ),
    HostEndpointSpec: (
        lambda spec: HostEndpoint(metadata=Metadata(name="h", labels={"role": "chosen"}), spec=spec),
        HostEndpointSpec(node="here", interface_name="eth1"),
        {
            "node": "there",
            "interface_name": "*",
            "expected_ips": (ip_address("10.3.0.1"),),
            "profiles": ("p",),
            "ports": "as those of workloads, with expectedIPs; see test_hosts",
        },
    ),
    IPPoolSpec: (
        lambda spec: IPPool(metadata=Metadata(name="pool"), spec=spec),
        IPPoolSpec(cidr=NET),
        {
            "cidr": ip_network("10.2.0.0/16"),
            "vxlan_mode": "Always",
            "ipip_mode": "CrossSubnet",
            "nat_outgoing": True,
            "disabled": IPAM,
            "disable_bgp_export": "the BGP agent's",
            "block_size": IPAM,
            "node_selector": IPAM,
            "namespace_selector": IPAM,
            "allowed_uses": IPAM,
            "assignment_mode": IPAM,
        },
    ),
}
WEB = EntityRule(ports=(Port(name="web"),))
WORLD: tuple[Resource, ...] = (
    HostEndpoint(metadata=Metadata(name="own"), spec=HostEndpointSpec(node="here", interface_name="eth0")),
    CASES[WorkloadEndpointSpec][0](WORKLOAD),
    Profile(metadata=Metadata(name="p"), spec=ProfileSpec()),
    GlobalNetworkPolicy(
        metadata=Metadata(name="looks"),
        spec=GlobalNetworkPolicySpec(
            tier="first",
            ingress=(
                Rule(action="Deny", source=EntityRule(selector="role == 'chosen'")),
                Rule(action="Deny", protocol=TCP, destination=WEB),
            ),
        ),
    ),
    Tier(metadata=Metadata(name="first"), spec=TierSpec(order=1.0)),
    GlobalNetworkPolicy(metadata=Metadata(name="base"), spec=GlobalNetworkPolicySpec(ingress=(ALLOW,))),
)


def state_with(resource: Resource) -> NodeState:
    graph, state = Graph("here"), NodeState()
    graph.on_in_sync()
    for one in (*WORLD, resource):
        graph.on_update(keys.of(one), one)
    state.add(graph.flush())
    return state


@pytest.mark.parametrize("struct", CASES, ids=lambda struct: struct.__name__)
def test_every_field_is_known_here(struct: type[msgspec.Struct]) -> None:
    assert list(CASES[struct][2]) == [one for one in CASES[struct][2] if one in {f.name for f in fields(struct)}]
    assert CASES[struct][2].keys() == {one.name for one in fields(struct)}


def _is_reason(sample: object) -> bool:
    return isinstance(sample, str) and " " in sample and "=" not in sample


ENFORCED = [
    pytest.param(struct, name, id=f"{struct.__name__}.{name}")
    for struct, (_, _, samples) in CASES.items()
    for name, sample in samples.items()
    if not _is_reason(sample)
]


@pytest.mark.parametrize(("struct", "name"), ENFORCED)
def test_a_field_that_is_set_changes_something_or_is_reported(struct: type, name: str) -> None:
    build, plain, samples = CASES[struct]
    assert getattr(plain, name) != samples[name]
    assert state_with(build(replace(plain, **{name: samples[name]}))) != state_with(build(plain))


@pytest.mark.parametrize("name", ["orchestrator", "service_account_name"])
def test_the_orchestrator_is_a_label(name: str) -> None:
    label = {"orchestrator": "orchestrator", "service_account_name": "serviceaccount"}[name]
    spec = replace(GLOBAL_POLICY, selector=f"projectcalico.org/{label} == 'x'")
    policy = GlobalNetworkPolicy(metadata=Metadata(name="gnp"), spec=spec)
    graph = Graph("here")
    graph.on_in_sync()
    for one in (*WORLD, policy, CASES[WorkloadEndpointSpec][0](replace(WORKLOAD, **{name: "x"}))):
        graph.on_update(keys.of(one), one)
    assert keys.of(policy) in graph.flush().policies


def _setting(name: str, value: object) -> NodeState:
    spec = FelixConfigurationSpec(**{name: value})
    return state_with(FelixConfiguration(metadata=Metadata(name="default"), spec=spec))


SPOOFER = replace(WORKLOAD, allow_spoofed_source_prefixes=(NET,))
SETTINGS: Mapping[str, object] = {
    "default_endpoint_to_host_action": "Accept",
    "service_loop_prevention": "Reject",
    "nftables_filter_deny_action": "Reject",
    "iptables_filter_deny_action": "Reject",
    "allow_ipip_packets_from_workloads": True,
    "allow_vxlan_packets_from_workloads": True,
    "disable_conntrack_invalid_check": True,
    "failsafe_inbound_host_ports": (),
    "failsafe_outbound_host_ports": (ProtoPort(port=53),),
    "interface_prefix": "tap",
    "log_action_rate_limit": "10/minute",
    "log_action_rate_limit_burst": -1,
    "log_prefix": "weft",
    "node_selector": "has(gpu)",
    "vxlan_port": 4790,
}
"""Samples of the settings that are taken in."""


@pytest.mark.parametrize("name", [one.name for one in fields(FelixConfigurationSpec)])
def test_every_setting_has_an_effect_is_reported_or_is_irrelevant(name: str) -> None:
    """Where nobody looks at the value but to see that it is set, it need not be of the field's type."""
    if name == "workload_source_spoofing":
        return  # see test_spoofing_is_a_setting
    unset = _setting("go_gc_threshold", None)
    if setting_words.is_irrelevant(name):
        assert _setting(name, "x") == unset
    elif name in setting_words.TAKEN_IN:
        assert _setting(name, SETTINGS[name]) != unset
    else:
        assert _setting(name, "Accept") != unset
        if name in setting_words.AS_WE_DO:
            assert _setting(name, setting_words.AS_WE_DO[name]) == unset


def test_spoofing_is_a_setting() -> None:
    def may_send_as(*resources: Resource) -> tuple[IPNetwork, ...]:
        graph = Graph("here")
        graph.on_in_sync()
        for one in (CASES[WorkloadEndpointSpec][0](SPOOFER), *resources):
            graph.on_update(keys.of(one), one)
        endpoint = graph.flush().endpoints["cali1"]
        assert endpoint is not None
        return endpoint.may_send_as

    spec = FelixConfigurationSpec(workload_source_spoofing="Any")
    assert may_send_as() == ()
    assert may_send_as(FelixConfiguration(metadata=Metadata(name="default"), spec=spec)) == (NET,)
