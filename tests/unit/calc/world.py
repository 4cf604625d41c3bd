"""A small world of resources: few enough of each that random histories make them meet."""

from collections.abc import Iterator, Mapping
from ipaddress import ip_address, ip_network
from typing import Any

import msgspec
from hypothesis import strategies as st

from felix.calc.graph import Graph
from tests.unit.calc.node_state import NodeState as NodeState
from weft.model import codec
from weft.model.base import Metadata, Resource
from weft.model.bgp import BGPConfiguration, BGPConfigurationSpec, ServiceBlock
from weft.model.endpoint import (
    HostEndpoint,
    HostEndpointSpec,
    WorkloadEndpoint,
    WorkloadEndpointPort,
    WorkloadEndpointSpec,
)
from weft.model.endpoint_slice import SERVICE_LABEL, KubernetesEndpointSlice, SliceEndpoint, SlicePort
from weft.model.errors import ValidationError
from weft.model.felix_configuration import FelixConfiguration, FelixConfigurationSpec, ProtoPort
from weft.model.ipam import AffinityValue
from weft.model.keys import AffinityKey, Key, Owner, ResourceKey
from weft.model.kinds import KINDS
from weft.model.node import Node, NodeSpec
from weft.model.policy import (
    EntityRule,
    GlobalNetworkPolicy,
    GlobalNetworkPolicySpec,
    GlobalNetworkSet,
    HttpMatch,
    NetworkPolicy,
    NetworkPolicySpec,
    NetworkSet,
    NetworkSetSpec,
    Profile,
    ProfileSpec,
    Rule,
    ServiceMatch,
    Tier,
    TierSpec,
)
from weft.model.pool import IPPool, IPPoolSpec
from weft.model.staged import (
    StagedGlobalNetworkPolicy,
    StagedGlobalNetworkPolicySpec,
    StagedNetworkPolicy,
    StagedNetworkPolicySpec,
)
from weft.model.values import Port, Protocol

NODE = "here"
INTERFACES = "interfaces"
Update = tuple[Key | str, Any]
"""A resource, None where it is deleted, bytes where it may not be readable; or the node's interfaces."""

networks = st.sampled_from(
    [ip_network(text) for text in ("10.0.0.1/32", "10.0.0.2", "10.0.0.0/24", "10.0.0.0/25", "fd00::1", "fd00::/64")]
)
addresses = networks.filter(lambda network: network.prefixlen == network.max_prefixlen)
labels = st.dictionaries(st.sampled_from(["app", "role"]), st.sampled_from(["a", "b"]))
selectors = st.sampled_from(
    [
        "all()",
        "",
        "app == 'a'",
        "app in {'a', 'b'}",
        "has(role)",
        "!has(app)",
        "app != 'a'",
        "app == 'a' && role == 'b'",
        "app == 'a' || role == 'b'",
        "env == 'prod'",
        "app == 'a' && app == 'b'",
        "projectcalico.org/namespace == 'one'",
    ]
)
profiles = st.lists(st.sampled_from(["p1", "p2", "gone", "no/name"]), max_size=2, unique=True).map(tuple)

entities = st.builds(
    EntityRule,
    nets=st.lists(networks, max_size=2).map(tuple),
    not_nets=st.lists(networks, max_size=1).map(tuple),
    selector=selectors,
    not_selector=selectors,
    namespace_selector=st.sampled_from(["", "", "all()", "global()", "team == 'x'"]),
)
TCP, UDP, ICMP = (Protocol.parse(name) for name in ("TCP", "UDP", "ICMP"))
_services = st.builds(ServiceMatch, name=st.sampled_from(["a", "b"]), namespace=st.sampled_from(["one", "", "two"]))
_ports = st.sampled_from([Port(name="web"), Port(80, 80), Port(80, 90), Port(85, 443), Port(name="api")])
ports = st.lists(
    st.builds(
        WorkloadEndpointPort,
        name=st.sampled_from(["web", "api"]),
        protocol=st.sampled_from([TCP, TCP, UDP, ICMP]),
        port=st.sampled_from([80, 8080]),
    ),
    min_size=1,
    max_size=2,
).map(tuple)
rules = st.one_of(
    st.builds(
        Rule,
        action=st.sampled_from(["Allow", "Deny", "Pass", "Log"]),
        ip_version=st.sampled_from([None, None, 4, 6]),
        source=entities,
        destination=entities,
        http=st.sampled_from([None, None, None, HttpMatch(methods=("GET",))]),
    ),
    st.builds(
        Rule,
        action=st.sampled_from(["Allow", "Deny", "Pass"]),
        protocol=st.just(TCP),
        destination=st.builds(
            EntityRule,
            ports=st.lists(_ports, min_size=1, max_size=2).map(tuple),
            not_ports=st.lists(_ports, max_size=1).map(tuple),
            selector=selectors,
        ),
    ),
    st.builds(
        Rule,
        action=st.sampled_from(["Allow", "Deny"]),
        source=st.builds(EntityRule, services=_services | st.none()),
        destination=st.builds(EntityRule, services=_services | st.none()),
    ),
)
rule_lists = st.one_of(st.lists(rules, min_size=1, max_size=2), st.just([])).map(tuple)
orders = st.sampled_from([None, 1.0, 2.0])
types = st.sampled_from([(), ("Ingress",), ("Egress",), ("Ingress", "Egress")])


class _Kind:
    """A kind of resource, with what its spec and names may be."""

    def __init__(self, kind: Any, spec: st.SearchStrategy[Any], *names: str) -> None:
        self.kind, self.spec, self.names = kind, spec, names

    def of(self, name: str, namespace: str = "") -> st.SearchStrategy[Update]:
        key = ResourceKey(self.kind.kind, name, namespace)

        def make(own: Mapping[str, str], spec: Any) -> Update:
            return key, self.kind(metadata=Metadata(name=name, namespace=namespace, labels=own), spec=spec)

        return st.builds(make, labels, self.spec)

    def any(self) -> st.SearchStrategy[Update]:
        in_namespaces = ("one", "two") if KINDS[self.kind.kind].namespaced else ("",)
        return st.one_of(*(self.of(name, namespace) for name in self.names for namespace in in_namespaces))


_WORKLOADS = _Kind(
    WorkloadEndpoint,
    st.builds(
        WorkloadEndpointSpec,
        node=st.sampled_from([NODE, NODE, "elsewhere"]),
        orchestrator=st.just("cni"),
        ip_networks=st.lists(addresses, min_size=1, max_size=2).map(tuple),
        interface_name=st.sampled_from(["cali1", "cali2", "cali3", "eth0", ""]),
        profiles=profiles,
        service_account_name=st.sampled_from(["", "sa"]),
        ports=ports,
        allow_spoofed_source_prefixes=st.sampled_from([(ip_network("10.9.0.0/16"),), ()]),
    ),
    "w1",
    "w2",
    "w3",
)
_fields: dict[str, Any] = {
    "tier": st.sampled_from(["default", "t1", "gone"]),
    "order": orders,
    "selector": selectors,
    "ingress": rule_lists,
    "egress": rule_lists,
    "types": types,
}
_global_fields: dict[str, Any] = {
    **_fields,
    "namespace_selector": st.sampled_from(["", "", "all()", "team == 'x'"]),
    "pre_dnat": st.sampled_from([False, False, True]),
    "do_not_track": st.sampled_from([False, False, True]),
    "apply_on_forward": st.sampled_from([True, False]),
}
_actions = st.sampled_from(["Set", "Set", "Set", "Delete", "Learn", "Ignore"])
_POLICIES = _Kind(NetworkPolicy, st.builds(NetworkPolicySpec, **_fields), "np1", "np2")
_GLOBAL_POLICIES = _Kind(GlobalNetworkPolicy, st.builds(GlobalNetworkPolicySpec, **_global_fields), "gnp1", "gnp2")
_STAGED = _Kind(StagedNetworkPolicy, st.builds(StagedNetworkPolicySpec, staged_action=_actions, **_fields), "np1")
_GLOBAL_STAGED = _Kind(
    StagedGlobalNetworkPolicy,
    st.builds(StagedGlobalNetworkPolicySpec, staged_action=_actions, **_global_fields),
    "gnp1",
)
_TIERS = _Kind(
    Tier,
    st.builds(TierSpec, order=orders, default_action=st.sampled_from(["Deny", "Pass"])),
    "t1",
    "t2",
    "default",
)
_PROFILES = _Kind(
    Profile,
    st.builds(
        ProfileSpec,
        ingress=rule_lists,
        egress=rule_lists,
        labels_to_apply=st.dictionaries(
            st.sampled_from(["app", "env", "pcns.team"]), st.sampled_from(["a", "prod", "x"])
        ),
    ),
    "p1",
    "p2",
    "kns.one",
)
_nets = st.builds(NetworkSetSpec, nets=st.lists(networks, max_size=3).map(tuple))
_NETWORK_SETS = _Kind(NetworkSet, _nets, "ns1")
_GLOBAL_SETS = _Kind(GlobalNetworkSet, _nets, "gns1")
_HOST_ENDPOINTS = _Kind(
    HostEndpoint,
    st.builds(
        HostEndpointSpec,
        node=st.sampled_from([NODE, NODE, "elsewhere"]),
        interface_name=st.sampled_from(["eth0", "", "*", "eth1", "cali1", "no name"]),
        ports=ports,
        expected_ips=st.lists(st.sampled_from([ip_address("10.0.0.2"), ip_address("fd00::9")]), max_size=2).map(tuple),
        profiles=profiles,
    ),
    "hep1",
    "hep2",
)
_POOLS = _Kind(
    IPPool,
    st.builds(
        IPPoolSpec,
        cidr=st.sampled_from([ip_network("10.0.0.0/16"), ip_network("10.1.0.0/16"), ip_network("fd00::/48")]),
        nat_outgoing=st.booleans(),
    ),
    "pool1",
    "pool2",
)
_CONFIGURATIONS = _Kind(
    FelixConfiguration,
    st.builds(
        FelixConfigurationSpec,
        default_endpoint_to_host_action=st.sampled_from(["", "Accept", "Return", "nonsense"]),
        log_prefix=st.sampled_from(["", "weft"]),
        workload_source_spoofing=st.sampled_from(["Any", "", "Disabled"]),
        node_selector=st.sampled_from([None, None, "app == 'a'", "a = b"]),
        failsafe_inbound_host_ports=st.sampled_from([None, (), (ProtoPort(port=22), ProtoPort(port=1, protocol=ICMP))]),
    ),
    "default",
    f"node.{NODE}",
    "scoped1",
    "scoped2",
)
_NODES = _Kind(Node, st.just(NodeSpec()), NODE, "elsewhere")
_BGP = _Kind(
    BGPConfiguration,
    st.builds(
        BGPConfigurationSpec,
        service_cluster_ips=st.lists(st.builds(ServiceBlock, cidr=st.none() | networks), max_size=2).map(tuple),
    ),
    "default",
    f"node.{NODE}",
)


def _slice(name: str, namespace: str, service: str, addresses: list[str], port: SlicePort) -> Update:
    metadata = Metadata(name=name, namespace=namespace, labels={SERVICE_LABEL: service} if service else {})
    endpoints = tuple(SliceEndpoint(addresses=(address,)) for address in addresses)
    key = ResourceKey("KubernetesEndpointSlice", name, namespace)
    return key, KubernetesEndpointSlice(metadata=metadata, endpoints=endpoints, ports=(port,))


slices = st.builds(
    _slice,
    st.sampled_from(["s1", "s2"]),
    st.sampled_from(["one", "two"]),
    st.sampled_from(["a", "b", ""]),
    st.lists(st.sampled_from(["10.0.0.1", "10.0.0.9", "fd00::1", "name.example"]), min_size=1, max_size=2),
    st.builds(SlicePort, port=st.sampled_from([80, None]), protocol=st.sampled_from([TCP, UDP, None])),
)
_held = st.frozensets(st.sampled_from([ip_address("10.0.0.2"), ip_address("fd00::9"), ip_address("192.0.2.1")]))
interfaces = st.tuples(
    st.just(INTERFACES), st.dictionaries(st.sampled_from(["eth0", "eth1", "cali1"]), _held, max_size=3)
)
affinities = st.builds(
    lambda node, cidr, state: (AffinityKey(Owner("host", node), cidr), AffinityValue(state=state)),
    st.sampled_from([NODE, "elsewhere"]),
    st.sampled_from([ip_network("10.0.0.0/26"), ip_network("10.0.0.1/32")]),
    st.sampled_from(["confirmed", "pending", "pendingDeletion"]),
)
readable = st.one_of(
    _WORKLOADS.any(),
    _WORKLOADS.any(),
    _WORKLOADS.any(),
    _POLICIES.any(),
    _POLICIES.any(),
    _GLOBAL_POLICIES.any(),
    _TIERS.any(),
    _PROFILES.any(),
    _NETWORK_SETS.any(),
    _GLOBAL_SETS.any(),
    _HOST_ENDPOINTS.any(),
    _POOLS.any(),
    _CONFIGURATIONS.any(),
    _STAGED.any(),
    _GLOBAL_STAGED.any(),
    _NODES.any(),
    _BGP.any(),
    slices,
    slices,
    affinities,
)


def damaged_at(update: Update, place: int, junk: Any) -> Update:
    """What is stored of a value, with something else in one place of its JSON."""
    key, value = update
    if isinstance(value, Resource):
        value = codec.encode_stored(value)
    if not isinstance(value, bytes):
        return update
    tree = msgspec.json.decode(value)
    places = list(_places(tree))
    container, index = places[place % len(places)]
    container[index] = junk
    return key, msgspec.json.encode(tree)


def _places(tree: Any) -> Iterator[tuple[Any, Any]]:
    if isinstance(tree, (dict, list)):
        for index, inner in tree.items() if isinstance(tree, dict) else enumerate(tree):
            yield tree, index
            yield from _places(inner)


junk = st.sampled_from(
    [None, "", "x", -1, 0, 1.5, 1e300, 70000, True, [], ["x"], {}, {"x": "x"}, [{}], "\x00", "a = b"]
)
damaged = st.builds(damaged_at, readable, st.integers(0, 1000), junk)
written = st.one_of(readable, readable, readable, readable, damaged, interfaces)
updates = st.one_of(written, written, written, written.map(lambda update: (update[0], None)))
"""Something is written, readable or not, or deleted (None)."""


def feed(graph: Graph, key: Key | str, value: Any) -> None:
    """As the agent does."""
    if isinstance(key, str):
        graph.on_interfaces(value or {})
        return
    try:
        graph.on_update(key, codec.decode_stored(key, value) if isinstance(value, bytes) else value)
    except ValidationError:
        graph.on_unreadable(key, value)


_first = (
    _WORKLOADS.of("w1", "one"),
    _WORKLOADS.of("w2", "one"),
    _WORKLOADS.of("w3", "two"),
    _POLICIES.of("np1", "one"),
    _POLICIES.of("np2", "one"),
    _GLOBAL_POLICIES.of("gnp1"),
    _PROFILES.of("p1"),
    _TIERS.of("t1"),
    _NETWORK_SETS.of("ns1", "one"),
    _GLOBAL_SETS.of("gns1"),
    _STAGED.of("np1", "one"),
    _GLOBAL_STAGED.of("gnp1"),
    _HOST_ENDPOINTS.of("hep1"),
    _HOST_ENDPOINTS.of("hep2"),
    _CONFIGURATIONS.of("default"),
    slices,
    interfaces,
)
START = len(_first)
_then = st.lists(st.one_of(updates, *_first, *_first), max_size=15)
histories = st.builds(lambda start, then: [*start, *then], st.tuples(*_first), _then)
"""Begins with START updates that make one of each, so that what follows meets something."""


def final_state(history: list[Update]) -> dict[Key | str, Any]:
    state: dict[Key | str, Any] = {}
    for key, value in history:
        state.pop(key, None)
        if value is not None:
            state[key] = value
    return state
