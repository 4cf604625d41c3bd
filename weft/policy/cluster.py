"""A cluster as policy sees it, computed from its resources at one moment: which policies apply to each endpoint, in
which order, and who is in which set.

Gives the same answers as `felix.calc.Graph`, for every endpoint and not only for those of one node; a property test
holds the two to each other. What is costly is computed when it is first asked for."""

from collections.abc import Iterable, Iterator, Mapping, Sequence

from msgspec import Struct

from weft.model.address import IPAddress, IPNetwork
from weft.model.base import Resource
from weft.model.endpoint import HostEndpoint, WorkloadEndpoint
from weft.model.endpoint_slice import KubernetesEndpointSlice
from weft.model.felix_configuration import FelixConfiguration
from weft.model.keys import ResourceKey
from weft.model.node import Node
from weft.model.policy import GlobalNetworkPolicy, GlobalNetworkSet, NetworkPolicy, NetworkSet, Profile, Tier
from weft.model.staged import StagedGlobalNetworkPolicy, StagedNetworkPolicy
from weft.policy.compile import PolicyResource, compile_policy, is_evaluated, policy_order
from weft.policy.members import Item, Members
from weft.policy.order import BUILT_IN_TIERS, PolicyOrder, TierOrder, order_host_policies, order_policies
from weft.policy.profiles import profile_key, profile_not_stored, usable_profiles
from weft.policy.selectors import endpoint_labels, network_set_labels, network_set_profiles, policy_selector
from weft.policy.values import Action, EndpointPolicy, HostPolicy, Policy, Stage
from weft.selector import Labels, Selector, SelectorError

Endpoint = WorkloadEndpoint | HostEndpoint


class _Choice(Struct, frozen=True):
    order: PolicyOrder
    selector: Selector


class Cluster:
    """`resources` in any order; kinds that have nothing to do with policy are passed over. Of two resources of one kind
    and name the later counts."""

    def __init__(self, resources: Iterable[Resource]) -> None:
        self.endpoints: dict[ResourceKey, Endpoint] = {}
        self.resources: dict[ResourceKey, PolicyResource | Profile] = {}
        self.policies: dict[ResourceKey, Policy] = {}
        """Compiled: those of the endpoints whose policy was asked for."""
        self.members = Members()
        self.networks: dict[ResourceKey, tuple[IPNetwork, ...]] = {}
        """Of network sets."""
        self.configurations: dict[str, FelixConfiguration] = {}
        """By name."""
        self.node_addresses: dict[IPAddress, str] = {}
        """To the name of the node that has it."""
        self._tiers: dict[str, TierOrder] = {}
        self._labels_of_profiles: dict[str, Labels] = {}
        self._chosen: dict[tuple[frozenset[tuple[str, str]], tuple[str, ...]], EndpointPolicy] = {}
        known = {_key(one): one for one in resources}
        network_sets: list[NetworkSet | GlobalNetworkSet] = []
        for key, resource in known.items():
            match resource:
                case WorkloadEndpoint() | HostEndpoint():
                    self.endpoints[key] = resource
                case Profile():
                    self.resources[key] = resource
                    self._labels_of_profiles[key.name] = resource.spec.labels_to_apply
                case Tier(spec=spec):
                    self._tiers[key.name] = TierOrder(key.name, spec.order, Action(spec.default_action))
                case NetworkPolicy() | GlobalNetworkPolicy() | StagedNetworkPolicy() | StagedGlobalNetworkPolicy():
                    self.resources[key] = resource
                case NetworkSet() | GlobalNetworkSet():
                    self.networks[key] = tuple(dict.fromkeys(resource.spec.nets))
                    network_sets.append(resource)
                case KubernetesEndpointSlice():
                    self.members.add_slice(resource)
                case FelixConfiguration():
                    self.configurations[key.name] = resource
                case Node():
                    self.node_addresses.update(dict.fromkeys(_addresses_of_node(resource), key.name))
                case _:
                    pass
        for networks in network_sets:
            labels = self._with_inherited(network_set_labels(networks), network_set_profiles(networks))
            self.members.add_networks(Item(labels), self.networks[_key(networks)])
        for endpoint in self.endpoints.values():
            self.members.add_endpoint(Item(self.labels(endpoint), endpoint.spec.ports), addresses(endpoint))
        self._choices = _Choices(self._choices_of(self.resources))

    # --- questions ----------------------------------------------------------------------------------------------

    def labels(self, endpoint: Endpoint) -> Labels:
        """Its own labels before those of its profiles, and an earlier profile's before a later one's."""
        own = endpoint_labels(endpoint) if isinstance(endpoint, WorkloadEndpoint) else endpoint.metadata.labels
        return self._with_inherited(own, endpoint.spec.profiles)

    def endpoint_policy(self, key: ResourceKey) -> EndpointPolicy:
        """What applies to a workload. KeyError if there is no such endpoint."""
        endpoint = self.endpoints[key]
        labels, profiles = self.labels(endpoint), usable_profiles(endpoint.spec.profiles)
        alike = (frozenset(labels.items()), profiles)
        found = self._chosen.get(alike)
        if found is None:
            orders = [one for one in self._choices.choosing(labels) if Stage.NORMAL in one.stages]
            found = order_policies(orders, self._tiers_of(orders), map(profile_key, profiles))
            self._chosen[alike] = found
            self._compile(found.asked())
        return found

    def host_policy(self, key: ResourceKey) -> HostPolicy:
        """What applies to a host endpoint. KeyError if there is no such endpoint."""
        endpoint = self.endpoints[key]
        orders = list(self._choices.choosing(self.labels(endpoint)))
        profiles = map(profile_key, usable_profiles(endpoint.spec.profiles))
        found = order_host_policies(orders, self._tiers_of(orders), profiles)
        self._compile(found.asked())
        return found

    def applying(self, key: ResourceKey) -> EndpointPolicy | HostPolicy:
        """What applies to an endpoint of either kind. KeyError if there is no such endpoint."""
        return self.host_policy(key) if key.kind == "HostEndpoint" else self.endpoint_policy(key)

    def policies_choosing(self, key: ResourceKey) -> set[ResourceKey]:
        """The policies whose selectors choose this endpoint, whatever stage and direction they are for."""
        return {one.key for one in self._choices.choosing(self.labels(self.endpoints[key]))}

    # --- workings -----------------------------------------------------------------------------------------------

    def _with_inherited(self, own: Labels, profiles: Sequence[str]) -> Labels:
        found: dict[str, str] = {}
        for profile in reversed(profiles):
            found.update(self._labels_of_profiles.get(profile, {}))
        return {**found, **own} if found else own

    def _choices_of(self, resources: Mapping[ResourceKey, PolicyResource | Profile]) -> Iterator[_Choice]:
        for key, resource in resources.items():
            if isinstance(resource, Profile) or not is_evaluated(resource):
                continue
            try:
                selector = policy_selector(resource)
            except SelectorError:
                continue
            yield _Choice(policy_order(key, resource), selector)

    def _tiers_of(self, orders: Sequence[PolicyOrder]) -> list[TierOrder]:
        return [self._tier(name) for name in dict.fromkeys(order.tier for order in orders)]

    def _tier(self, name: str) -> TierOrder:
        return self._tiers.get(name) or BUILT_IN_TIERS.get(name) or TierOrder(name, exists=False)

    def _compile(self, asked: Iterable[ResourceKey]) -> None:
        for key in asked:
            if key not in self.policies:
                resource = self.resources.get(key)
                compiled = profile_not_stored(key) if resource is None else compile_policy(key, resource)
                self.policies[key] = compiled
                self.members.know(compiled.address_sets())


class _Choices:
    """The selectors of policies, each filed under one label that it cannot match without."""

    def __init__(self, choices: Iterable[_Choice]) -> None:
        self._by_value: dict[tuple[str, str], list[_Choice]] = {}
        self._by_presence: dict[str, list[_Choice]] = {}
        self._anywhere: list[_Choice] = []
        for choice in choices:
            required = choice.selector.required_equality()
            if not required:
                self._anywhere.append(choice)
                continue
            label, values = min(required.items(), key=lambda one: (one[1] is None, len(one[1] or ()), one[0]))
            if values is None:
                self._by_presence.setdefault(label, []).append(choice)
            for value in values or ():
                self._by_value.setdefault((label, value), []).append(choice)

    def choosing(self, labels: Labels) -> Iterator[PolicyOrder]:
        places = [self._anywhere]
        for label, value in labels.items():
            places += (self._by_presence.get(label, []), self._by_value.get((label, value), []))
        return (one.order for place in places for one in place if one.selector.matches(labels))


def addresses(endpoint: Endpoint) -> tuple[IPAddress, ...]:
    """Its own addresses, each once."""
    if isinstance(endpoint, HostEndpoint):
        return tuple(dict.fromkeys(endpoint.spec.expected_ips))
    return tuple(dict.fromkeys(network.network_address for network in endpoint.spec.ip_networks))


def _addresses_of_node(node: Node) -> Iterator[IPAddress]:
    """Those that packets have on the node; an external address is somebody's in front of it."""
    bgp, spec = node.spec.bgp, node.spec
    yield from (one.address.ip for one in spec.addresses if one.type != "ExternalIP")
    yield from (one.ip for one in (bgp.ipv4_address, bgp.ipv6_address) if one) if bgp else ()
    yield from (one for one in (spec.ipv4_vxlan_tunnel_addr, spec.ipv6_vxlan_tunnel_addr) if one)


def _key(resource: Resource) -> ResourceKey:
    return ResourceKey(resource.kind, resource.name, resource.namespace)
