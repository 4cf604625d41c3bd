"""The host endpoints of this node: which of its own interfaces each protects, and what applies there.

One is for the interface that it names, for every interface with one of its expected addresses if it names none, or
for the rest ("*"). Of several for one interface the first by name has it, as in Calico, and the others are reported.
A named interface need not exist yet: it is protected from its first packet on (docs/adr/0100)."""

import re
from collections.abc import Callable, Iterator, Mapping

from felix.calc.delta import ANY_INTERFACE, LocalHostEndpoint
from felix.calc.output import Claims, Output
from weft.model.address import IPAddress
from weft.model.endpoint import HostEndpoint, HostEndpointSpec
from weft.model.keys import ResourceKey
from weft.policy.profiles import usable_profiles
from weft.policy.values import HostPolicy

Interfaces = Mapping[str, frozenset[IPAddress]]
"""Interface -> its addresses."""

_WORKLOADS = ("cali", "weftdel")

_NAME = re.compile(r"(?!\.{1,2}\Z)[!-~]{1,15}\Z")
_NO_NAME = re.compile(r"[/:\"*]")


def is_workloads(interface: str) -> bool:
    """Whether a workload has this interface, or had it: no host endpoint is for such a one."""
    return interface.startswith(_WORKLOADS)


class HostEndpoints:
    """`policy_of(key)` says which policies apply to a host endpoint now."""

    def __init__(self, policy_of: Callable[[ResourceKey], HostPolicy]) -> None:
        self._policy_of = policy_of
        self._interfaces: Interfaces = {}
        self._endpoints: dict[ResourceKey, HostEndpoint] = {}
        self._claimed: dict[ResourceKey, frozenset[str]] = {}
        self._by_address: dict[ResourceKey, None] = {}
        self._claims: Claims[str, ResourceKey] = Claims(lambda key: (key.name,))
        self.output: Output[str, LocalHostEndpoint] = Output(self._compute)
        self.problems: Output[ResourceKey, tuple[str, ...]] = Output(self._compute_problems)

    # --- input --------------------------------------------------------------------------------------------------

    def set_endpoint(self, key: ResourceKey, endpoint: HostEndpoint | None) -> None:
        """A host endpoint of this node, or None where there is none any more."""
        self._endpoints.pop(key, None)
        self._by_address.pop(key, None)
        if endpoint is not None:
            self._endpoints[key] = endpoint
            if not endpoint.spec.interface_name:
                self._by_address[key] = None
        self._claim(key)
        self.problems.touch(key)

    def set_interfaces(self, interfaces: Interfaces) -> None:
        """The node's interfaces; those of workloads are passed over."""
        own = {name: held for name, held in interfaces.items() if not is_workloads(name)}
        if own == self._interfaces:
            return
        self._interfaces = own
        for key in self._by_address:
            self._claim(key)
            self.problems.touch(key)

    def on_policy(self, key: ResourceKey) -> None:
        """What applies to this endpoint may have changed."""
        for interface in self._claimed.get(key, ()):
            self.output.touch(interface)

    # --- workings -----------------------------------------------------------------------------------------------

    def _claim(self, key: ResourceKey) -> None:
        endpoint = self._endpoints.get(key)
        before, now = self._claimed.pop(key, frozenset()), frozenset[str]()
        if endpoint is not None:
            now = self._claimed[key] = self._interfaces_of(endpoint.spec)
        for interface in before - now:
            self._claims.release(interface, key)
        for interface in now - before:
            self._claims.claim(interface, key)
        for interface in before | now:
            self.output.touch(interface)
            for claimant in self._claims.claimants(interface):
                self.problems.touch(claimant)

    def _interfaces_of(self, spec: HostEndpointSpec) -> frozenset[str]:
        if spec.interface_name:
            return frozenset() if _unusable(spec.interface_name) else frozenset({spec.interface_name})
        return frozenset(name for name, held in self._interfaces.items() if not held.isdisjoint(spec.expected_ips))

    def _compute(self, interface: str) -> LocalHostEndpoint | None:
        key = self._claims.winner(interface)
        return LocalHostEndpoint(key, interface, self._policy_of(key)) if key is not None else None

    def _compute_problems(self, key: ResourceKey) -> tuple[str, ...] | None:
        endpoint = self._endpoints.get(key)
        return tuple(self._find_problems(key, endpoint.spec)) or None if endpoint else None

    def _find_problems(self, key: ResourceKey, spec: HostEndpointSpec) -> Iterator[str]:
        field = "interfaceName" if spec.interface_name else "expectedIPs"
        claimed = self._claimed[key]
        if not claimed:
            yield f"{field}: {_nothing_protected(spec)}, so it protects nothing"
        for interface in sorted(claimed):
            winner = self._claims.winner(interface)
            if winner is not None and winner != key:
                yield f"{field}: {interface} belongs to {winner.name}"
        usable = usable_profiles(spec.profiles)
        if len(usable) < len(spec.profiles):
            yield f"profiles: {spec.profiles[len(usable)]!r} cannot exist, so nothing after it is asked"


def _unusable(interface: str) -> str:
    """Why a host endpoint cannot be for an interface of this name; "" if it can."""
    if interface == ANY_INTERFACE:
        return ""
    if is_workloads(interface):
        return f"{interface!r} is a workload's interface"
    if not _NAME.match(interface) or _NO_NAME.search(interface):
        return f"{interface!r} can be no interface's name"
    return ""


def _nothing_protected(spec: HostEndpointSpec) -> str:
    if spec.interface_name:
        return _unusable(spec.interface_name)
    if spec.expected_ips:
        return "no interface of this node has one of these addresses"
    return "neither interfaceName nor expectedIPs is given"
