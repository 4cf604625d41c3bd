"""Who is in a set, computed from the whole state each time, without any of the graph's code."""

import re
from ipaddress import ip_address, ip_network
from typing import Any

from felix.calc.members import Member
from weft.model import codec
from weft.model.endpoint import HostEndpoint, WorkloadEndpoint
from weft.model.endpoint_slice import KubernetesEndpointSlice
from weft.model.errors import ValidationError
from weft.model.keys import Key, ResourceKey
from weft.model.policy import GlobalNetworkPolicy, GlobalNetworkSet, NetworkPolicy, NetworkSet, Profile
from weft.model.staged import StagedGlobalNetworkPolicy, StagedNetworkPolicy
from weft.policy.remains import remains
from weft.policy.selectors import endpoint_labels, network_set_labels, policy_selector
from weft.policy.values import AddressPort, AddressSet, PortSet, SelectorSet, ServiceSet, Stage
from weft.selector import SelectorError

PROTOCOLS = {6, 17, 132}
"""Those that have ports."""


def what_is_read(state: dict[Any, Any]) -> dict[Key, Any]:
    """Resources alone, and of those that cannot be read what is left."""
    found = {}
    for key, value in state.items():
        if isinstance(value, bytes):
            try:
                value = codec.decode_stored(key, value)
            except ValidationError:
                value = remains(key, value).value
        if isinstance(key, ResourceKey) and value is not None:
            found[key] = value
    return found


def chosen_by(state: dict[Key, Any], endpoint: Any, stage: Stage) -> set[ResourceKey]:
    """The policies that an endpoint is asked about at a stage."""
    return {
        key
        for key, value in state.items()
        if isinstance(key, ResourceKey) and isinstance(value, POLICIES) and stage in _stages(value)
        if _selects(value, labels_of(state, endpoint))
    }


POLICIES = (NetworkPolicy, GlobalNetworkPolicy, StagedNetworkPolicy, StagedGlobalNetworkPolicy)


def _stages(policy: Any) -> set[Stage]:
    if getattr(policy.spec, "staged_action", "Set") != "Set":
        return set()
    if getattr(policy.spec, "do_not_track", False):
        return {Stage.UNTRACKED}
    if getattr(policy.spec, "pre_dnat", False):
        return {Stage.PRE_DNAT}
    return {Stage.NORMAL, Stage.FORWARD} if getattr(policy.spec, "apply_on_forward", False) else {Stage.NORMAL}


def _selects(policy: Any, labels: dict[str, str]) -> bool:
    try:
        return policy_selector(policy).matches(labels)
    except SelectorError:
        return False


def host_endpoints(state: dict[Key, Any], interfaces: dict[str, Any], node: str) -> dict[str, Any]:
    """Interface -> the host endpoint that protects it."""
    found = {}
    own = [one for one in state.values() if isinstance(one, HostEndpoint) and one.spec.node == node]
    for endpoint in sorted(own, key=lambda one: one.name, reverse=True):
        spec = endpoint.spec
        named = {spec.interface_name} if spec.interface_name else set()
        by_address = {name for name, held in interfaces.items() if held & set(spec.expected_ips)}
        for name in named or by_address:
            if not name.startswith("cali") and re.fullmatch(r"[a-z0-9*]+", name):
                found[name] = endpoint
    return found


def labels_of(state: dict[Key, Any], value: Any) -> dict[str, str]:
    """An item's labels with the inherited ones."""
    own = network_set_labels(value)
    if isinstance(value, WorkloadEndpoint):
        own = endpoint_labels(value)
    found: dict[str, str] = {}
    profiles = getattr(value.spec, "profiles", ())
    if isinstance(value, NetworkSet):
        profiles = (f"kns.{value.namespace}",)
    for name in reversed(profiles):
        for key, profile in state.items():
            if isinstance(profile, Profile) and key.name == name:
                found |= profile.spec.labels_to_apply
    return {**found, **own}


def members_of(one: AddressSet, state: dict[Key, Any]) -> set[Member]:
    """Single addresses as addresses, as the graph has them."""
    if isinstance(one, ServiceSet):
        return {member for value in state.values() for member in _of_slice(one, value)}
    return {
        member
        for value in state.values()
        if isinstance(value, (WorkloadEndpoint, NetworkSet, GlobalNetworkSet, HostEndpoint))
        if one.selector.matches(labels_of(state, value))
        for member in (_of_item(value) if isinstance(one, SelectorSet) else _of_ports(one, value))
    }


def _of_item(value: Any) -> list[Any]:
    if isinstance(value, HostEndpoint):
        return list(value.spec.expected_ips)
    networks = value.spec.ip_networks if isinstance(value, WorkloadEndpoint) else value.spec.nets
    return [net.network_address if net == ip_network(net.network_address) else net for net in networks]


def _of_ports(one: PortSet, value: Any) -> list[Member]:
    return [
        AddressPort(address, port.protocol.number, port.port)
        for port in getattr(value.spec, "ports", ())
        if port.name == one.port and port.protocol.number in ({one.protocol} & PROTOCOLS if one.protocol else PROTOCOLS)
        for address in _of_item(value)
    ]


def _of_slice(one: ServiceSet, value: Any) -> list[Member]:
    if not isinstance(value, KubernetesEndpointSlice) or (value.namespace, value.service) != (one.namespace, one.name):
        return []
    found: list[Member] = []
    for endpoint in value.endpoints:
        for text in endpoint.addresses:
            try:
                address = ip_address(text)
            except ValueError:
                continue
            if not one.with_ports:
                found.append(address)
            for port in value.ports if one.with_ports else ():
                protocol = port.protocol.number if port.protocol else 6
                if protocol in PROTOCOLS and port.port in range(1, 65536):
                    found.append(AddressPort(address, protocol, port.port))
    return found
