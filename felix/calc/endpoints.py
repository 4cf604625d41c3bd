"""The workloads of this node: which one has which host interface, and what applies to it.

Two endpoints that claim one interface (a leftover, another tool's mistake) cannot both have it: the first by namespace
and name does, the other is reported."""

import re
from collections.abc import Callable, Iterator

from felix.calc.delta import LocalEndpoint
from felix.calc.output import Claims, Output
from weft.model.endpoint import WorkloadEndpoint, WorkloadEndpointSpec
from weft.model.keys import ResourceKey
from weft.policy.profiles import usable_profiles
from weft.policy.values import EndpointPolicy

WORKLOAD_INTERFACE = re.compile(r"cali[^\s/*\"]{1,11}\Z")
"""What the host side of a workload may be called: policy for any other interface would be policy for the node."""


def rank(key: ResourceKey) -> tuple[str, ...]:
    return (key.namespace, key.name)


def interface_of(endpoint: WorkloadEndpoint | None) -> str:
    """The endpoint's host interface, "" if it has none that we may touch."""
    name = endpoint.spec.interface_name if endpoint else ""
    return name if WORKLOAD_INTERFACE.match(name) else ""


class LocalEndpoints:
    """`policy_of(key)` says which policies apply to an endpoint now."""

    def __init__(self, policy_of: Callable[[ResourceKey], EndpointPolicy]) -> None:
        self._policy_of = policy_of
        self._endpoints: dict[ResourceKey, WorkloadEndpoint] = {}
        self._interfaces: Claims[str, ResourceKey] = Claims(rank)
        self._spoofers: dict[ResourceKey, None] = {}
        self._may_spoof = False
        self.output: Output[str, LocalEndpoint] = Output(self._compute)
        self.problems: Output[ResourceKey, tuple[str, ...]] = Output(self._compute_problems)

    def set_endpoint(self, key: ResourceKey, endpoint: WorkloadEndpoint | None) -> None:
        before = interface_of(self._endpoints.pop(key, None))
        if before:
            self._touch_interface(before)
            self._interfaces.release(before, key)
        interface = interface_of(endpoint)
        self._spoofers.pop(key, None)
        if endpoint is not None:
            self._endpoints[key] = endpoint
            if endpoint.spec.allow_spoofed_source_prefixes:
                self._spoofers[key] = None
        if interface:
            self._interfaces.claim(interface, key)
            self._touch_interface(interface)
        self.problems.touch(key)

    def set_source_spoofing(self, allowed: bool) -> None:
        """Whether endpoints may send from the prefixes that they are given for it."""
        if allowed == self._may_spoof:
            return
        self._may_spoof = allowed
        for key in self._spoofers:
            self.on_policy(key)
            self.problems.touch(key)

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
        may_send_as = spec.allow_spoofed_source_prefixes if self._may_spoof else ()
        return LocalEndpoint(key, interface, spec.ip_networks, spec.mac, self._policy_of(key), may_send_as)

    def _compute_problems(self, key: ResourceKey) -> tuple[str, ...] | None:
        endpoint = self._endpoints.get(key)
        return tuple(self._find_problems(key, endpoint.spec)) or None if endpoint else None

    def _find_problems(self, key: ResourceKey, spec: WorkloadEndpointSpec) -> Iterator[str]:
        winner = self._interfaces.winner(spec.interface_name)
        if winner is None:
            yield f"interfaceName: {spec.interface_name!r} is no workload's interface (cali…), so nothing passes"
        elif winner != key:
            yield f"interfaceName: {spec.interface_name} belongs to {winner.namespace}/{winner.name}"
        usable = usable_profiles(spec.profiles)
        if len(usable) < len(spec.profiles):
            yield f"profiles: {spec.profiles[len(usable)]!r} cannot exist, so nothing after it is asked"
        if spec.ip_nats:
            yield "ipNATs: not supported yet"
        if spec.qos_controls is not None:
            yield "qosControls: not supported yet"
        if spec.allow_spoofed_source_prefixes and not self._may_spoof:
            yield "allowSpoofedSourcePrefixes: such packets are dropped: workloadSourceSpoofing is not Any"
