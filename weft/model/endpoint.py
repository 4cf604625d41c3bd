"""WorkloadEndpoint and HostEndpoint."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address
from typing import ClassVar

from weft.model.address import IPAddress, IPNetwork, MaskedNetwork
from weft.model.base import Resource, Value, written
from weft.model.errors import FieldError
from weft.model.values import Dscp, Protocol


class EndpointPort(Value, frozen=True, kw_only=True):
    """A named port; `port` is 1 to 65535."""

    name: str
    protocol: Protocol
    port: int

    def __post_init__(self) -> None:
        if not 1 <= self.port <= 65535:
            raise FieldError("port", self.port, "a port from 1 to 65535")


class WorkloadEndpointPort(EndpointPort, frozen=True, kw_only=True):
    """`host_port` 0 means none; `host_ip` is "" or an address of the host."""

    host_port: int = written(0)
    host_ip: str = written("")


class IPNAT(Value, frozen=True, kw_only=True):
    """One-to-one NAT; addresses of one family, the internal one the endpoint's own."""

    internal_ip: IPAddress
    external_ip: IPAddress

    def __post_init__(self) -> None:
        if self.internal_ip.version != self.external_ip.version:
            raise FieldError("externalIP", str(self.external_ip), f"an IPv{self.internal_ip.version} address")


class QoSControls(Value, frozen=True, kw_only=True):
    """Rates in bits or packets a second, bursts in bits or packets; 0 is no limit."""

    ingress_bandwidth: int = 0
    ingress_burst: int = 0
    ingress_peakrate: int = 0
    ingress_minburst: int = 0
    egress_bandwidth: int = 0
    egress_burst: int = 0
    egress_peakrate: int = 0
    egress_minburst: int = 0
    ingress_packet_rate: int = 0
    ingress_packet_burst: int = 0
    egress_packet_rate: int = 0
    egress_packet_burst: int = 0
    ingress_max_connections: int = 0
    egress_max_connections: int = 0
    dscp: Dscp | None = None


class WorkloadEndpointSpec(Value, frozen=True, kw_only=True):
    """`ip_networks` holds single addresses (/32 or /128), as IPAM gave them."""

    orchestrator: str = ""
    workload: str = ""
    node: str = ""
    container_id: str = ""
    pod: str = ""
    endpoint: str = ""
    service_account_name: str = ""
    ip_networks: tuple[IPNetwork, ...] = ()
    ip_nats: tuple[IPNAT, ...] = ()
    ipv4_gateway: IPv4Address | None = None
    ipv6_gateway: IPv6Address | None = None
    profiles: tuple[str, ...] = ()
    interface_name: str = ""
    mac: str = ""
    ports: tuple[WorkloadEndpointPort, ...] = ()
    allow_spoofed_source_prefixes: tuple[MaskedNetwork, ...] = ()
    qos_controls: QoSControls | None = None

    def __post_init__(self) -> None:
        for index, network in enumerate(self.ip_networks):
            if network.prefixlen != network.max_prefixlen:
                expected = f"a single address (/{network.max_prefixlen})"
                raise FieldError(f"ipNetworks[{index}]", str(network), expected)


class WorkloadEndpoint(Resource, frozen=True, kw_only=True):
    kind: ClassVar[str] = "WorkloadEndpoint"
    spec: WorkloadEndpointSpec = WorkloadEndpointSpec()


class HostEndpointSpec(Value, frozen=True, kw_only=True):
    """`interface_name` "*" means every interface of the node."""

    node: str = ""
    interface_name: str = ""
    expected_ips: tuple[IPAddress, ...] = ()
    profiles: tuple[str, ...] = ()
    ports: tuple[EndpointPort, ...] = ()


class HostEndpoint(Resource, frozen=True, kw_only=True):
    kind: ClassVar[str] = "HostEndpoint"
    spec: HostEndpointSpec = HostEndpointSpec()
