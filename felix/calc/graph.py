"""The calculation graph: from what the datastore says, change by change, to what this node must have.

Synchronous and pure. Input may come in any order, twice, or in pieces: the output depends on the state alone. Nothing
is reported before the datastore's snapshot is complete. Whoever owns the loop feeds it and calls `flush`."""

from collections.abc import Callable, Iterable, Set
from typing import Any

from felix.calc.delta import FlowLogs, NodeDelta
from felix.calc.endpoints import LocalEndpoints
from felix.calc.hosts import HostEndpoints, Interfaces
from felix.calc.ip_sets import IPSets, Member, as_member, usable_ports
from felix.calc.output import Output
from felix.calc.policies import Policies
from felix.calc.ranges import Pools, ServiceRanges
from felix.calc.routes import LocalRoutes
from felix.calc.settings import FelixSettings
from weft.kubernetes import staged_policy
from weft.model.address import IPAddress
from weft.model.endpoint import HostEndpoint, WorkloadEndpoint
from weft.model.felix_configuration import FelixConfiguration
from weft.model.ipam import AffinityValue
from weft.model.keys import AffinityKey, Key, Owner, ResourceKey
from weft.model.node import Node
from weft.model.policy import GlobalNetworkSet, NetworkSet, Profile, Tier
from weft.model.staged import StagedKubernetesNetworkPolicy
from weft.policy.remains import remains
from weft.policy.selectors import endpoint_labels, network_set_labels, network_set_profiles
from weft.policy.verdict import Membership

Handler = Callable[[ResourceKey, Any], None]


class Graph:
    """For one node. `on_update(key, None)` is a deletion; keys and values are those of `weft.model`."""

    def __init__(self, node: str, flow_logs: FlowLogs = "Denied") -> None:
        self._node = node
        self._self = Owner("host", node)
        self._in_sync = False
        self._sets = IPSets()
        self._policies = Policies(self._sets, self._on_endpoint_policy)
        self._endpoints = LocalEndpoints(self._policies.endpoint_policy)
        self._hosts = HostEndpoints(self._policies.host_policy)
        self._routes = LocalRoutes()
        self._pools = Pools()
        self._service_ranges = ServiceRanges()
        self._settings = FelixSettings(node, flow_logs)
        self._local: set[ResourceKey] = set()
        self._unreadable: dict[ResourceKey, tuple[str, ...]] = {}
        self._enforced_in_part: dict[ResourceKey, tuple[str, ...]] = {}
        self._problems: Output[ResourceKey, tuple[str, ...]] = Output(self._problems_of)
        self._handlers: dict[str, Handler] = {
            "WorkloadEndpoint": self._on_workload_endpoint,
            "HostEndpoint": self._on_host_endpoint,
            "NetworkSet": self._on_network_set,
            "GlobalNetworkSet": self._on_network_set,
            "KubernetesEndpointSlice": self._sets.set_slice,
            "NetworkPolicy": self._policies.set_policy,
            "GlobalNetworkPolicy": self._policies.set_policy,
            "StagedNetworkPolicy": self._policies.set_policy,
            "StagedGlobalNetworkPolicy": self._policies.set_policy,
            "StagedKubernetesNetworkPolicy": self._on_staged_kubernetes_policy,
            "Profile": self._on_profile,
            "Tier": self._on_tier,
            "IPPool": self._pools.set_pool,
            "BGPConfiguration": self._service_ranges.set_configuration,
            "FelixConfiguration": self._on_configuration,
            "Node": self._on_node,
        }

    def on_update(self, key: Key, value: Any | None) -> None:
        """A value was written, or deleted (None). What the graph has no use for is ignored."""
        if isinstance(key, ResourceKey):
            self._on_resource(key, value)
        elif isinstance(key, AffinityKey):
            self._on_affinity(key, value)

    def on_unreadable(self, key: Key, raw: bytes) -> None:
        """What was written cannot be decoded: what is left of it takes part, such that it can only refuse."""
        if not isinstance(key, ResourceKey) or key.kind not in self._handlers:
            self.on_update(key, None)
            return
        left = remains(key, raw)
        self._on_resource(key, left.value, left.problems)

    def _on_resource(self, key: ResourceKey, value: Any | None, unreadable: tuple[str, ...] = ()) -> None:
        handler = self._handlers.get(key.kind)
        if handler is None:
            return
        handler(key, value)
        before = self._unreadable.pop(key, ())
        if unreadable:
            self._unreadable[key] = unreadable
        if unreadable != before:
            self._problems.touch(key)

    def on_interfaces(self, interfaces: Interfaces) -> None:
        """The node's own interfaces with their addresses, all of them."""
        self._hosts.set_interfaces(interfaces)

    @property
    def members(self) -> Membership:
        """Who is in the sets in use now: after a flush, what it reported."""
        return self._sets

    def holders(self, addresses: Set[IPAddress]) -> dict[IPAddress, ResourceKey]:
        """Endpoints that have these addresses, of the whole cluster. Looks at every endpoint: ask for many at once."""
        return self._sets.holders(addresses)

    def on_in_sync(self) -> None:
        """The snapshot is complete: from now on `flush` reports."""
        self._in_sync = True

    def flush(self) -> NodeDelta:
        """What changed since the last flush; nothing before the snapshot is complete."""
        if not self._in_sync:
            return NodeDelta()
        policies = self._policies.flush()  # before the sets: it says which of them are in use
        return NodeDelta(
            policies=policies,
            endpoints=self._endpoints.output.flush(),
            host_endpoints=self._hosts.output.flush(),
            sets=self._sets.flush(),
            routes=self._routes.output.flush(),
            blackholes=self._routes.blackholes.flush(),
            pools=self._pools.output.flush(),
            settings=self._settings.flush(),
            service_ranges=self._service_ranges.output.flush(),
            not_enforced=self._flush_problems(),
        )

    def _flush_problems(self) -> dict[ResourceKey, tuple[str, ...] | None]:
        """Of each resource what cannot be read and what is not enforced. The parts speak about kinds of their own."""
        changes = {
            **self._policies.flush_problems(),
            **self._endpoints.problems.flush(),
            **self._pools.problems.flush(),
            **self._settings.problems.flush(),
            **self._hosts.problems.flush(),
        }
        for key, problems in changes.items():
            self._enforced_in_part.pop(key, None)
            if problems is not None:
                self._enforced_in_part[key] = problems
            self._problems.touch(key)
        return self._problems.flush()

    def _problems_of(self, key: ResourceKey) -> tuple[str, ...] | None:
        return (*self._unreadable.get(key, ()), *self._enforced_in_part.get(key, ())) or None

    # --- input by kind ------------------------------------------------------------------------------------------

    def _on_workload_endpoint(self, key: ResourceKey, endpoint: WorkloadEndpoint | None) -> None:
        if endpoint is None:
            self._sets.remove_item(key)
            self._set_local(key, None)
            return
        spec = endpoint.spec
        members = _unique(as_member(network) for network in spec.ip_networks)
        self._sets.set_item(key, endpoint_labels(endpoint), spec.profiles, members, usable_ports(spec.ports))
        self._set_local(key, endpoint if spec.node == self._node else None)

    def _set_local(self, key: ResourceKey, endpoint: WorkloadEndpoint | None) -> None:
        if endpoint is None and key not in self._local:
            return  # nearly all of a cluster's endpoints are elsewhere, and always were
        if endpoint is None:
            self._local.remove(key)
        else:
            self._local.add(key)
        self._endpoints.set_endpoint(key, endpoint)
        self._routes.set_endpoint(key, endpoint)
        if endpoint is not None:
            self._policies.set_endpoint(key, endpoint_labels(endpoint), endpoint.spec.profiles)
        else:
            self._policies.remove_endpoint(key)

    def _on_endpoint_policy(self, key: ResourceKey) -> None:
        if key.kind == "HostEndpoint":
            self._hosts.on_policy(key)
        else:
            self._endpoints.on_policy(key)

    def _on_host_endpoint(self, key: ResourceKey, endpoint: HostEndpoint | None) -> None:
        if endpoint is None:
            self._sets.remove_item(key)
            self._set_own(key, None)
            return
        spec = endpoint.spec
        addresses, ports = _unique(spec.expected_ips), usable_ports(spec.ports)
        self._sets.set_item(key, endpoint.metadata.labels, spec.profiles, addresses, ports)
        self._set_own(key, endpoint if spec.node == self._node else None)

    def _set_own(self, key: ResourceKey, endpoint: HostEndpoint | None) -> None:
        self._hosts.set_endpoint(key, endpoint)
        if endpoint is not None:
            self._policies.set_endpoint(key, endpoint.metadata.labels, endpoint.spec.profiles)
        else:
            self._policies.remove_endpoint(key)

    def _on_network_set(self, key: ResourceKey, networks: NetworkSet | GlobalNetworkSet | None) -> None:
        if networks is None:
            self._sets.remove_item(key)
        else:
            members = _unique(as_member(network) for network in networks.spec.nets)
            self._sets.set_item(key, network_set_labels(networks), network_set_profiles(networks), members)

    def _on_staged_kubernetes_policy(self, key: ResourceKey, staged: StagedKubernetesNetworkPolicy | None) -> None:
        self._policies.set_policy(key, staged_policy(staged) if staged is not None else None)

    def _on_profile(self, key: ResourceKey, profile: Profile | None) -> None:
        self._policies.set_profile(key, profile)
        self._sets.set_parent(key.name, profile.spec.labels_to_apply if profile else {})

    def _on_tier(self, key: ResourceKey, tier: Tier | None) -> None:
        self._policies.set_tier(key.name, tier)

    def _on_configuration(self, key: ResourceKey, configuration: FelixConfiguration | None) -> None:
        self._settings.set_configuration(key, configuration)
        self._endpoints.set_source_spoofing(self._settings.source_spoofing)

    def _on_node(self, key: ResourceKey, node: Node | None) -> None:
        if key.name == self._node:
            self._settings.set_node(node)
            self._endpoints.set_source_spoofing(self._settings.source_spoofing)

    def _on_affinity(self, key: AffinityKey, affinity: AffinityValue | None) -> None:
        if key.owner == self._self:
            self._routes.set_block(key.cidr, affinity is not None and affinity.state == "confirmed")


def _unique(members: Iterable[Member]) -> tuple[Member, ...]:
    return tuple(dict.fromkeys(members))
