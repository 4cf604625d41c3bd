"""Workload and host endpoints, and nodes."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Final

from weft.model.defaults import workload_endpoint_name
from weft.model.endpoint import EndpointPort, HostEndpoint, WorkloadEndpoint, WorkloadEndpointPort
from weft.model.errors import FieldError
from weft.model.node import Node, NodeBGPSpec
from weft.model.validation import checks

_CONTAINER_ID: Final = re.compile(r"[a-zA-Z0-9](?:[-a-zA-Z0-9]*[a-zA-Z0-9])?\Z")


def workload_endpoint(endpoint: WorkloadEndpoint) -> Iterator[FieldError]:
    spec = endpoint.spec
    for field, value in (
        ("orchestrator", spec.orchestrator),
        ("workload", spec.workload),
        ("node", spec.node),
        ("pod", spec.pod),
        ("endpoint", spec.endpoint),
        ("serviceAccountName", spec.service_account_name),
    ):
        yield from checks.name(f"spec.{field}", value)
    if spec.container_id and not _CONTAINER_ID.match(spec.container_id):
        yield FieldError("spec.containerID", spec.container_id, "letters, digits and '-'")
    yield from checks.names("spec.profiles", spec.profiles)
    yield from checks.interface("spec.interfaceName", spec.interface_name)
    yield from checks.mac("spec.mac", spec.mac)
    yield from _ports(spec.ports)
    for index, nat in enumerate(spec.ip_nats):
        if not any(nat.internal_ip in network for network in spec.ip_networks):
            yield FieldError(f"spec.ipNATs[{index}].internalIP", str(nat.internal_ip), "an address of ipNetworks")
    try:
        name = workload_endpoint_name(endpoint)
    except FieldError as error:
        yield error
    else:
        if endpoint.metadata.name != name:
            yield FieldError("metadata.name", endpoint.metadata.name, f"{name}, which spec demands")


def host_endpoint(endpoint: HostEndpoint) -> Iterator[FieldError]:
    spec = endpoint.spec
    if not spec.node:
        yield FieldError("spec.node", "", "the node that has the interface")
    yield from checks.name("spec.node", spec.node)
    if not spec.interface_name and not spec.expected_ips:
        yield FieldError("spec.interfaceName", "", "an interface name, or expectedIPs to find it by")
    if spec.interface_name:
        yield from checks.interface("spec.interfaceName", spec.interface_name, may_be_any=True)
    yield from checks.names("spec.profiles", spec.profiles)
    yield from _ports(spec.ports)


def node(resource: Node) -> Iterator[FieldError]:
    spec = resource.spec
    if spec.bgp == NodeBGPSpec():
        yield FieldError("spec.bgp", {}, "at least one field, or no bgp at all")
    yield from checks.mac("spec.vxlanTunnelMACAddr", spec.vxlan_tunnel_mac_addr)
    yield from checks.mac("spec.vxlanTunnelMACAddrV6", spec.vxlan_tunnel_mac_addr_v6)


def _ports(ports: Sequence[EndpointPort]) -> Iterator[FieldError]:
    for index, port in enumerate(ports):
        where = f"spec.ports[{index}]"
        if not port.protocol.has_ports:
            yield FieldError(f"{where}.protocol", str(port.protocol), "TCP, UDP or SCTP")
        nameless = isinstance(port, WorkloadEndpointPort) and port.host_port != 0
        if (port.name or not nameless) and not checks.is_port_name(port.name):
            yield FieldError(f"{where}.name", port.name, checks.PORT_NAME_WORDS)
        if isinstance(port, WorkloadEndpointPort):
            yield from checks.within(f"{where}.hostPort", port.host_port, 0, 65535)
