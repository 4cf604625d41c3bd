"""A small world of resources: few enough of each that random histories make them meet."""

from collections.abc import Mapping
from ipaddress import ip_address, ip_network
from typing import Any

from hypothesis import strategies as st

from felix.calc.delta import LocalEndpoint, LocalHostEndpoint, NodeDelta, Settings
from felix.calc.ip_sets import Member, SetKey, SetKind
from weft.model.address import IPNetwork
from weft.model.base import Metadata
from weft.model.endpoint import (
    HostEndpoint,
    HostEndpointSpec,
    WorkloadEndpoint,
    WorkloadEndpointSpec,
)
from weft.model.felix_configuration import FelixConfiguration, FelixConfigurationSpec
from weft.model.ipam import AffinityValue
from weft.model.keys import AffinityKey, Key, Owner, ResourceKey
from weft.model.kinds import KINDS
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
    Tier,
    TierSpec,
)
from weft.model.pool import IPPool, IPPoolSpec
from weft.model.values import Port, Protocol
from weft.policy.values import Policy

NODE = "here"
Update = tuple[Key, Any]

networks = st.sampled_from(
    [ip_network(text) for text in ("10.0.0.1/32", "10.0.0.2", "10.0.0.0/24", "10.0.0.0/25", "fd00::1", "fd00::/64")]
)
addresses = networks.filter(lambda network: network.prefixlen == network.max_prefixlen)
labels = st.dictionaries(st.sampled_from(["app", "role"]), st.sampled_from(["a", "b"]))
selectors = st.sampled_from(
    [
        "",
        "all()",
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
TCP = Protocol.parse("TCP")
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
            ports=st.lists(st.sampled_from([Port(80, 80), Port(80, 90), Port(85, 443)]), max_size=2).map(tuple),
            not_ports=st.lists(st.sampled_from([Port(443, 443), Port(name="web")]), max_size=1).map(tuple),
            selector=selectors,
        ),
    ),
)
rule_lists = st.lists(rules, max_size=2).map(tuple)
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
        ip_networks=st.lists(addresses, max_size=2).map(tuple),
        interface_name=st.sampled_from(["cali1", "cali2", "cali3", "eth0", ""]),
        profiles=profiles,
        service_account_name=st.sampled_from(["", "sa"]),
    ),
    "w1",
    "w2",
    "w3",
)
_POLICIES = _Kind(
    NetworkPolicy,
    st.builds(
        NetworkPolicySpec,
        tier=st.sampled_from(["default", "t1", "gone"]),
        order=orders,
        selector=selectors,
        ingress=rule_lists,
        egress=rule_lists,
        types=types,
    ),
    "np1",
    "np2",
)
_GLOBAL_POLICIES = _Kind(
    GlobalNetworkPolicy,
    st.builds(
        GlobalNetworkPolicySpec,
        tier=st.sampled_from(["default", "t1", "t2"]),
        order=orders,
        selector=selectors,
        namespace_selector=st.sampled_from(["", "", "all()", "team == 'x'"]),
        ingress=rule_lists,
        egress=rule_lists,
        types=types,
        pre_dnat=st.sampled_from([False, False, False, True]),
    ),
    "gnp1",
    "gnp2",
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
)
_nets = st.builds(NetworkSetSpec, nets=st.lists(networks, max_size=3).map(tuple))
_NETWORK_SETS = _Kind(NetworkSet, _nets, "ns1")
_GLOBAL_SETS = _Kind(GlobalNetworkSet, _nets, "gns1")
_HOST_ENDPOINTS = _Kind(
    HostEndpoint,
    st.builds(
        HostEndpointSpec,
        node=st.sampled_from([NODE, "elsewhere"]),
        expected_ips=st.lists(st.sampled_from([ip_address("10.0.0.2"), ip_address("fd00::9")]), max_size=2).map(tuple),
        profiles=profiles,
    ),
    "hep",
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
    ),
    "default",
    f"node.{NODE}",
)
affinities = st.builds(
    lambda node, cidr, state: (AffinityKey(Owner("host", node), cidr), AffinityValue(state=state)),
    st.sampled_from([NODE, "elsewhere"]),
    st.sampled_from([ip_network("10.0.0.0/26"), ip_network("10.0.0.1/32")]),
    st.sampled_from(["confirmed", "pending", "pendingDeletion"]),
)
written = st.one_of(
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
    affinities,
)
updates = st.one_of(written, written, written, written.map(lambda update: (update[0], None)))
"""Something is written, or deleted (None)."""


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
)
START = len(_first)
_then = st.lists(st.one_of(updates, *_first, *_first), max_size=15)
histories = st.builds(lambda start, then: [*start, *then], st.tuples(*_first), _then)
"""Begins with START updates that make one of each, so that what follows meets something."""


def final_state(history: list[Update]) -> dict[Key, Any]:
    state: dict[Key, Any] = {}
    for key, value in history:
        state.pop(key, None)
        if value is not None:
            state[key] = value
    return state


class NodeState:
    """What all deltas so far add up to. Refuses deltas that a dataplane could not follow."""

    def __init__(self) -> None:
        self.endpoints: dict[str, LocalEndpoint] = {}
        self.host_endpoints: dict[str, LocalHostEndpoint] = {}
        self.policies: dict[ResourceKey, Policy] = {}
        self.sets: dict[SetKey, tuple[SetKind, frozenset[Member]]] = {}
        self.routes: dict[IPNetwork, str] = {}
        self.blackholes: dict[IPNetwork, bool] = {}
        self.pools: dict[IPNetwork, bool] = {}
        self.settings = Settings()
        self.service_ranges: dict[IPNetwork, bool] = {}
        self.not_enforced: dict[ResourceKey, tuple[str, ...]] = {}

    def add(self, delta: NodeDelta) -> None:
        for name, mine in vars(self).items():
            if name in ("sets", "settings"):
                continue
            for key, value in getattr(delta, name).items():
                assert mine.get(key) != value, f"{name}: {key} reported without a change"
                mine.pop(key, None)
                if value is not None:
                    mine[key] = value
        if delta.settings is not None:
            self.settings = delta.settings
        for key, change in delta.sets.items():
            kind, members = self.sets.pop(key, (None, frozenset()))
            assert change.replaced == (change.kind is not None and change.kind is not kind)
            assert not change.added & change.removed
            if change.replaced:
                members = frozenset()
            assert change.removed <= members
            assert not change.added & members
            if change.kind is not None:
                self.sets[key] = (change.kind, (members | change.added) - change.removed)
                assert self.sets[key][1]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, NodeState) and vars(self) == vars(other)

    def __repr__(self) -> str:
        return repr(vars(self))
