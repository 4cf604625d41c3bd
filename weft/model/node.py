"""Node and ClusterInformation."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Interface, IPv6Address, IPv6Interface
from typing import ClassVar, Literal

from weft.model.address import IPInterface
from weft.model.base import Resource, Value
from weft.model.values import AsNumber

NodeAddressType = Literal["CalicoNodeIP", "InternalIP", "ExternalIP"]


class NodeBGPSpec(Value, frozen=True, kw_only=True):
    """`route_reflector_cluster_id` makes the node a reflector of that cluster (RFC 4456)."""

    as_number: AsNumber | None = None
    ipv4_address: IPv4Interface | None = None
    ipv6_address: IPv6Interface | None = None
    ipv4_ipip_tunnel_addr: IPv4Address | None = None
    route_reflector_cluster_id: IPv4Address | None = None


class NodeWireguardSpec(Value, frozen=True, kw_only=True):
    interface_ipv4_address: IPv4Address | None = None
    interface_ipv6_address: IPv6Address | None = None


class OrchRef(Value, frozen=True, kw_only=True):
    """The name an orchestrator knows the node by."""

    orchestrator: str
    node_name: str = ""


class NodeAddress(Value, frozen=True, kw_only=True):
    address: IPInterface
    type: NodeAddressType | None = None


class NodeInterface(Value, frozen=True, kw_only=True):
    name: str = ""
    addresses: tuple[str, ...] = ()


class NodeSpec(Value, frozen=True, kw_only=True):
    bgp: NodeBGPSpec | None = None
    ipv4_vxlan_tunnel_addr: IPv4Address | None = None
    vxlan_tunnel_mac_addr: str = ""
    ipv6_vxlan_tunnel_addr: IPv6Address | None = None
    vxlan_tunnel_mac_addr_v6: str = ""
    orch_refs: tuple[OrchRef, ...] = ()
    wireguard: NodeWireguardSpec | None = None
    addresses: tuple[NodeAddress, ...] = ()
    interfaces: tuple[NodeInterface, ...] = ()


class NodeStatus(Value, frozen=True, kw_only=True):
    wireguard_public_key: str = ""
    wireguard_public_key_v6: str = ""
    pod_cidrs: tuple[str, ...] = ()


class Node(Resource, frozen=True, kw_only=True):
    """One machine of the fabric. `status` is what its own agent writes, never a manifest."""

    kind: ClassVar[str] = "Node"
    spec: NodeSpec = NodeSpec()
    status: NodeStatus = NodeStatus()


class ClusterInformationSpec(Value, frozen=True, kw_only=True):
    """`datastore_ready` False stops ADD, DEL and allocation; None is Calico's spelling of not yet set up."""

    cluster_guid: str = ""
    cluster_type: str = ""
    calico_version: str = ""
    datastore_ready: bool | None = None
    variant: str = ""


class ClusterInformation(Resource, frozen=True, kw_only=True):
    kind: ClassVar[str] = "ClusterInformation"
    spec: ClusterInformationSpec = ClusterInformationSpec()
