"""Who is in a set, computed from the whole state each time, without any of the graph's code."""

from ipaddress import ip_address, ip_network
from typing import Any

from felix.calc.members import Member
from weft.model.endpoint import HostEndpoint, WorkloadEndpoint
from weft.model.endpoint_slice import KubernetesEndpointSlice
from weft.model.keys import Key
from weft.model.policy import GlobalNetworkSet, NetworkSet, Profile
from weft.policy.selectors import endpoint_labels, network_set_labels
from weft.policy.values import AddressPort, AddressSet, PortSet, SelectorSet, ServiceSet


def labels_of(state: dict[Key, Any], value: Any) -> dict[str, str]:
    """An item's labels with the inherited ones."""
    own = network_set_labels(value)
    if isinstance(value, WorkloadEndpoint):
        own = endpoint_labels(value)
    found: dict[str, str] = {}
    for name in reversed(getattr(value.spec, "profiles", ())):
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
        if port.name == one.port and port.protocol.number in ({one.protocol} if one.protocol else {6, 17, 132})
        for address in _of_item(value)
    ]


def _of_slice(one: ServiceSet, value: Any) -> list[Member]:
    if not isinstance(value, KubernetesEndpointSlice) or (value.namespace, value.service) != (one.namespace, one.name):
        return []
    found: list[Member] = []
    for endpoint in value.endpoints:
        for text in endpoint.addresses:
            if not text[0].isdigit() and ":" not in text:
                continue
            if not one.with_ports:
                found.append(ip_address(text))
            for port in value.ports if one.with_ports else ():
                if port.port:
                    protocol = port.protocol.number if port.protocol else 6
                    found.append(AddressPort(ip_address(text), protocol, port.port))
    return found
