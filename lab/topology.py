"""What a lab consists of: hosts, segments and addresses, as values. Nothing here touches the machine."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import Enum
from ipaddress import IPv4Interface, IPv4Network, IPv6Interface, IPv6Network
from typing import Any

IPV4_POOL = IPv4Network("10.65.0.0/16")
IPV6_POOL = IPv6Network("fd65::/48")
REFLECTOR_IPV4_POOL = IPv4Network("10.66.0.0/24")
REFLECTOR_IPV6_POOL = IPv6Network("fd66::/116")
CLIENT_IPV4 = IPv4Network("192.0.2.0/24")
CLIENT_IPV6 = IPv6Network("2001:db8:2::/64")
MANAGEMENT = IPv4Network("172.31.255.0/24")
MANAGEMENT_SEGMENT = "mgmt"
ETCD_PORT = 2379
NODE_AS = 64512
NETWORK = "lab"
RACK_LABEL = "rack"
ZONE_LABEL = "topology.kubernetes.io/zone"

MAX_NODES = 150


class Role(Enum):
    NODE = "node"
    BIRD = "bird"
    FRR = "frr"
    CLIENT = "client"
    ETCD = "etcd"


@dataclass(frozen=True, slots=True)
class Interface:
    name: str
    segment: str
    ipv4: IPv4Interface
    ipv6: IPv6Interface | None = None


@dataclass(frozen=True, slots=True)
class Host:
    """`has_default_route`: everything else is by way of the router on the segment of its first interface."""

    name: str
    role: Role
    interfaces: tuple[Interface, ...]
    as_number: int = 0
    has_default_route: bool = False

    @property
    def uplink(self) -> Interface:
        return self.interfaces[0]


@dataclass(frozen=True, slots=True)
class Topology:
    """`sessions` are the BGP sessions that must come up: pairs of host names, each over IPv4 and IPv6. `reflectors` are
    the options with which automatic reflectors are enabled; none: they are not, and the nodes are no mesh but for
    what `sessions` says."""

    kind: str
    hosts: tuple[Host, ...]
    sessions: tuple[tuple[str, str], ...]
    resources: tuple[dict[str, Any], ...]
    reflectors: tuple[str, ...] = ()

    @property
    def segments(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(interface.segment for host in self.hosts for interface in host.interfaces))

    def host(self, name: str) -> Host:
        return next(host for host in self.hosts if host.name == name)

    def by_role(self, *roles: Role) -> tuple[Host, ...]:
        return tuple(host for host in self.hosts if host.role in roles)

    @property
    def nodes(self) -> tuple[Host, ...]:
        return self.by_role(Role.NODE)

    @property
    def routers(self) -> tuple[Host, ...]:
        return self.by_role(Role.BIRD, Role.FRR)

    def neighbours(self, name: str) -> Iterator[Host]:
        for left, right in self.sessions:
            if name in (left, right):
                yield self.host(right if left == name else left)


def build(kind: str, nodes: int) -> Topology:
    """The topology of that kind; `ValueError` says what would be right."""
    match kind:
        case "flat" if 1 <= nodes <= MAX_NODES:
            return flat(nodes)
        case "flat":
            raise ValueError(f"--nodes {nodes}: a flat lab has 1 to {MAX_NODES} nodes")
        case "racks" if nodes == 4:
            return racks()
        case "racks":
            raise ValueError(f"--nodes {nodes}: a lab of racks has two racks of two nodes; leave --nodes out")
        case "domains" if nodes == 6:
            return domains()
        case "domains":
            raise ValueError(f"--nodes {nodes}: a lab of domains has two of three nodes each; leave --nodes out")
        case _:
            raise ValueError(f"--topology {kind}: flat, racks or domains")


def flat(nodes: int) -> Topology:
    """Nodes on one segment in a full iBGP mesh, and a ToR router in an AS of its own with a client behind it."""
    tor = Host("tor", Role.BIRD, (_interface("eth0", "rack1", 1, 254), _client_gateway("eth1")), 65000)
    members = tuple(_node(index, "rack1", 1, NODE_AS) for index in range(1, nodes + 1))
    names = [member.name for member in members]
    mesh = tuple((left, right) for index, left in enumerate(names) for right in names[index + 1 :])
    return Topology(
        kind="flat",
        hosts=(_etcd(), tor, _client(), *members),
        sessions=(*mesh, *((name, tor.name) for name in names)),
        resources=(
            *_network(),
            _resource("BGPConfiguration", "default", {"asNumber": NODE_AS, "nodeToNodeMeshEnabled": True}),
            *_peers(tor, tor.uplink),
        ),
    )


def racks() -> Topology:
    """Two racks of two nodes: each node peers with the ToR of its rack alone, each in an AS of its own, so that the
    ToRs need no AS override (RFC 7938, section 5.2 numbers servers and ToRs the same way)."""
    tor1 = Host(
        "tor1",
        Role.BIRD,
        (_interface("eth0", "rack1", 1, 254), _interface("eth1", "spine", 255, 1), _client_gateway("eth2")),
        65001,
    )
    tor2 = Host("tor2", Role.FRR, (_interface("eth0", "rack2", 2, 254), _interface("eth1", "spine", 255, 2)), 65002)
    members = tuple(
        _node(index, f"rack{rack}", rack, 65100 + index) for index, rack in enumerate((1, 1, 2, 2), start=1)
    )
    return Topology(
        kind="racks",
        hosts=(_etcd(), tor1, tor2, _client(), *members),
        sessions=(
            ("node1", "tor1"),
            ("node2", "tor1"),
            ("node3", "tor2"),
            ("node4", "tor2"),
            ("tor1", "tor2"),
        ),
        resources=(
            *_network(),
            _resource("BGPConfiguration", "default", {"nodeToNodeMeshEnabled": False}),
            *(_labelled_node(member, RACK_LABEL) for member in members),
            *(peer for tor in (tor1, tor2) for peer in _peers(tor, tor.uplink, RACK_LABEL)),
        ),
    )


def domains() -> Topology:
    """Two failure domains of three nodes, each on a segment of its own. Behind both is an FRR spine in an AS of its own
    that peers with every node; among themselves the nodes have two automatic reflectors in each domain."""
    spine = Host(
        "spine",
        Role.FRR,
        (_interface("eth0", "zone1", 1, 254), _interface("eth1", "zone2", 2, 254), _client_gateway("eth2")),
        65000,
    )
    members = tuple(
        replace(_node(index, f"zone{zone}", zone, NODE_AS), has_default_route=True)
        for index, zone in enumerate((1, 1, 1, 2, 2, 2), start=1)
    )
    return Topology(
        kind="domains",
        hosts=(_etcd(), spine, _client(), *members),
        sessions=tuple((member.name, spine.name) for member in members),
        resources=(
            *_network(),
            *_reflector_pools(),
            _resource("BGPConfiguration", "default", {"asNumber": NODE_AS, "nodeToNodeMeshEnabled": True}),
            *(_labelled_node(member, ZONE_LABEL) for member in members),
            *(peer for interface in spine.interfaces[:2] for peer in _peers(spine, interface, ZONE_LABEL)),
        ),
        reflectors=(
            "--pools",
            "reflectors-ipv4,reflectors-ipv6",
            "--above-nodes",
            "2",
            "--replace-after-seconds",
            "20",
        ),
    )


def management_address(host: Host) -> IPv4Interface:
    return next(one.ipv4 for one in host.interfaces if one.segment == MANAGEMENT_SEGMENT)


def _interface(name: str, segment: str, subnet: int, number: int) -> Interface:
    return Interface(
        name,
        segment,
        IPv4Interface(f"10.99.{subnet}.{number}/24"),
        IPv6Interface(f"fd99:0:0:{subnet:x}::{number:x}/64"),
    )


def _node(index: int, segment: str, subnet: int, as_number: int) -> Host:
    number = 10 + index
    management = Interface("mgmt0", MANAGEMENT_SEGMENT, IPv4Interface((MANAGEMENT[number], MANAGEMENT.prefixlen)))
    return Host(f"node{index}", Role.NODE, (_interface("eth0", segment, subnet, number), management), as_number)


def _etcd() -> Host:
    address = IPv4Interface((MANAGEMENT[1], MANAGEMENT.prefixlen))
    return Host("etcd", Role.ETCD, (Interface("eth0", MANAGEMENT_SEGMENT, address),))


def _client_gateway(name: str) -> Interface:
    return Interface(
        name,
        "outside",
        IPv4Interface((CLIENT_IPV4[1], CLIENT_IPV4.prefixlen)),
        IPv6Interface((CLIENT_IPV6[1], CLIENT_IPV6.prefixlen)),
    )


def _client() -> Host:
    interface = Interface(
        "eth0",
        "outside",
        IPv4Interface((CLIENT_IPV4[10], CLIENT_IPV4.prefixlen)),
        IPv6Interface((CLIENT_IPV6[16], CLIENT_IPV6.prefixlen)),
    )
    return Host("client", Role.CLIENT, (interface,), has_default_route=True)


def _resource(kind: str, name: str, spec: dict[str, Any]) -> dict[str, Any]:
    return {"apiVersion": "projectcalico.org/v3", "kind": kind, "metadata": {"name": name}, "spec": spec}


def _network() -> tuple[dict[str, Any], ...]:
    """The pools, and the profile of the lab's CNI network: open to everybody, where the one that the plugin makes for a
    network without a profile admits its own workloads alone."""
    open_to_all = {"labelsToApply": {NETWORK: ""}, "ingress": [{"action": "Allow"}], "egress": [{"action": "Allow"}]}
    return (
        _resource("Profile", NETWORK, open_to_all),
        _resource("IPPool", "lab-ipv4", {"cidr": str(IPV4_POOL), "blockSize": 26, "natOutgoing": False}),
        _resource("IPPool", "lab-ipv6", {"cidr": str(IPV6_POOL), "blockSize": 122, "natOutgoing": False}),
    )


def _reflector_pools() -> tuple[dict[str, Any], ...]:
    return tuple(
        _resource("IPPool", name, {"cidr": str(cidr), "blockSize": size, "allowedUses": ["Tunnel"]})
        for name, cidr, size in (
            ("reflectors-ipv4", REFLECTOR_IPV4_POOL, 29),
            ("reflectors-ipv6", REFLECTOR_IPV6_POOL, 125),
        )
    )


def _labelled_node(node: Host, label: str) -> dict[str, Any]:
    """A Node labelled with its segment, which the peers select by; its own registration fills in the rest."""
    resource = _resource("Node", node.name, {})
    resource["metadata"]["labels"] = {label: node.uplink.segment}
    return resource


def _peers(tor: Host, interface: Interface, label: str = "") -> list[dict[str, Any]]:
    """A ToR by its addresses on one segment: the peer of everybody, or of those that `label` says to be there."""
    selected = {"nodeSelector": f"{label} == '{interface.segment}'"} if label else {}
    return [
        _resource(
            "BGPPeer",
            f"{tor.name}-{interface.segment}-ipv{address.version}",
            {"peerIP": str(address.ip), "asNumber": tor.as_number, **selected},
        )
        for address in (interface.ipv4, interface.ipv6)
        if address is not None
    ]
