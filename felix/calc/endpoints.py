"""The workloads of this node: which one has which host interface, and what applies to it.

Two endpoints that claim one interface (a leftover, another tool's mistake) cannot both have it: the first by namespace
and name does, the other is reported."""

from collections.abc import Callable, Iterator

from felix.calc.delta import LocalEndpoint
from felix.calc.output import Claims, Output
from felix.calc.policies import usable_profiles
from weft.model.endpoint import WorkloadEndpoint, WorkloadEndpointSpec
from weft.model.keys import ResourceKey
from weft.policy.values import EndpointPolicy


def rank(key: ResourceKey) -> tuple[str, ...]:
    return (key.namespace, key.name)


class LocalEndpoints:
    """`policy_of(key)` says which policies apply to an endpoint now."""

    def __init__(self, policy_of: Callable[[ResourceKey], EndpointPolicy]) -> None:
        self._policy_of = policy_of
        self._endpoints: dict[ResourceKey, WorkloadEndpoint] = {}
        self._interfaces: Claims[str, ResourceKey] = Claims(rank)
        self.output: Output[str, LocalEndpoint] = Output(self._compute)
        self.problems: Output[ResourceKey, tuple[str, ...]] = Output(self._compute_problems)

    def set_endpoint(self, key: ResourceKey, endpoint: WorkloadEndpoint | None) -> WorkloadEndpoint | None:
        """Returns what was there before."""
        before = self._endpoints.pop(key, None)
        if before is not None and before.spec.interface_name:
            self._touch_interface(before.spec.interface_name)
            self._interfaces.release(before.spec.interface_name, key)
        if endpoint is not None:
            self._endpoints[key] = endpoint
            if endpoint.spec.interface_name:
                self._interfaces.claim(endpoint.spec.interface_name, key)
                self._touch_interface(endpoint.spec.interface_name)
        self.problems.touch(key)
        return before

    def on_policy(self, key: ResourceKey) -> None:
        """What applies to this endpoint may have changed."""
        endpoint = self._endpoints.get(key)
        if endpoint is not None:
            self.output.touch(endpoint.spec.interface_name)

    def _touch_interface(self, interface: str) -> None:
        self.output.touch(interface)
        for claimant in self._interfaces.claimants(interface):
            self.problems.touch(claimant)

    def _compute(self, interface: str) -> LocalEndpoint | None:
        key = self._interfaces.winner(interface)
        if key is None:
            return None
        spec = self._endpoints[key].spec
        return LocalEndpoint(key, interface, spec.ip_networks, spec.mac, self._policy_of(key))

    def _compute_problems(self, key: ResourceKey) -> tuple[str, ...] | None:
        endpoint = self._endpoints.get(key)
        return tuple(self._find_problems(key, endpoint.spec)) or None if endpoint else None

    def _find_problems(self, key: ResourceKey, spec: WorkloadEndpointSpec) -> Iterator[str]:
        if not spec.interface_name:
            yield "interfaceName: none, so nothing passes"
        elif self._interfaces.winner(spec.interface_name) != key:
            winner = self._interfaces.winner(spec.interface_name)
            yield f"interfaceName: {spec.interface_name} belongs to {winner.namespace}/{winner.name}" if winner else ""
        usable = usable_profiles(spec.profiles)
        if len(usable) < len(spec.profiles):
            yield f"profiles: {spec.profiles[len(usable)]!r} cannot exist, so nothing after it is asked"
        if spec.ip_nats:
            yield "ipNATs: not supported yet"
        if spec.qos_controls is not None:
            yield "qosControls: not supported yet"
        if spec.allow_spoofed_source_prefixes:
            yield "allowSpoofedSourcePrefixes: not supported yet, such packets are dropped"
