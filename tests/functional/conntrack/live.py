"""A node agent's programmer on a real kernel with two workloads and an outside host, and live connections across it.

Everything is in namespaces. Workloads are masqueraded outside of their pools; a table that is not ours translates a
service address to the first workload, and marks every connection with bits of its own."""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Callable, Sequence
from ipaddress import ip_address, ip_network

from felix.calc.graph import Graph
from felix.dataplane.connections import Sieve
from felix.dataplane.conntrack import ConntrackSocket
from felix.dataplane.cutting import ConnectionCutter
from felix.dataplane.interfaces import InterfaceMonitor
from felix.dataplane.nft import NftDriver
from felix.dataplane.nft_kernel import NftSocket
from felix.programmer import LOCAL_ROUTES, NodeProgrammer
from felix.rules.render_names import CUT_CONNECTION
from lab.netns import NetNs, link
from weft.datastore.syncer import Deleted, InSync, SyncEvent, Upserted
from weft.model import keys
from weft.model.base import Metadata, Resource
from weft.model.endpoint import EndpointPort, WorkloadEndpoint, WorkloadEndpointSpec
from weft.model.policy import EntityRule, GlobalNetworkPolicy, GlobalNetworkPolicySpec, Rule
from weft.model.pool import IPPool, IPPoolSpec
from weft.model.values import Port, Protocol
from weft.netlink.conntrack import Sighting
from weft.netlink.routetable import KernelRoutes, RouteTable
from weft.netlink.socket import NetlinkSocket

ADDRESSES = {
    "w1": {4: "10.65.0.1", 6: "fd00:65::1"},
    "w2": {4: "10.65.0.2", 6: "fd00:65::2"},
    "out": {4: "192.0.2.9", 6: "2001:db8::9"},
    "host": {4: "169.254.1.1", 6: "fd00:ff::1"},
}
SERVICE = {4: "198.51.100.1", 6: "2001:db8:1::1"}
"""Translated to w1, port for port."""
OTHER_BITS = 0x123
KINDS = {"tcp": socket.SOCK_STREAM, "udp": socket.SOCK_DGRAM}
_NOT_OURS = f"""
table inet other {{
    chain before {{
        type nat hook prerouting priority -100; policy accept;
        ip daddr {SERVICE[4]} dnat ip to {ADDRESSES["w1"][4]}
        ip6 daddr {SERVICE[6]} dnat ip6 to {ADDRESSES["w1"][6]}
    }}
    chain marks {{
        type filter hook forward priority -10; policy accept;
        ct state new ct mark set ct mark | {OTHER_BITS:#x}
    }}
}}
"""


def workload(name: str, labels: dict[str, str], ports: dict[str, int] | None = None) -> WorkloadEndpoint:
    named = tuple(
        EndpointPort(name=one, protocol=Protocol.parse(kind), port=port)
        for one, port in (ports or {}).items()
        for kind in ("TCP", "UDP")
    )
    return WorkloadEndpoint(
        metadata=Metadata(name=name, namespace="default", labels=labels),
        spec=WorkloadEndpointSpec(
            node="node1",
            orchestrator="cni",
            ip_networks=tuple(ip_network(address) for address in ADDRESSES[name].values()),
            interface_name=f"cali{name}",
            ports=named,
        ),
    )


def policy(
    name: str, direction: str, *ports: int | str, chooses: str = "all()", source: EntityRule | None = None
) -> GlobalNetworkPolicy:
    """Allows these ports and nothing else in a direction, and everything in the other."""
    rules = tuple(
        Rule(
            action="Allow",
            protocol=Protocol.parse(kind),
            source=source or EntityRule(),
            destination=EntityRule(ports=tuple(Port.parse(port) for port in ports)),
        )
        for kind in ("TCP", "UDP")
    )
    everything = (Rule(action="Allow"),)
    spec = GlobalNetworkPolicySpec(
        selector=chooses,
        types=("Ingress", "Egress"),
        ingress=rules if direction == "ingress" else everything,
        egress=rules if direction == "egress" else everything,
    )
    return GlobalNetworkPolicy(metadata=Metadata(name=name), spec=spec)


POOLS = [
    IPPool(metadata=Metadata(name=name), spec=IPPoolSpec(cidr=ip_network(cidr), nat_outgoing=True))
    for name, cidr in (("v4", "10.65.0.0/16"), ("v6", "fd00:65::/64"))
]


class Node:
    """The host and what is around it; `start` begins one life of the agent on it."""

    def __init__(self, netns: Callable[[str], NetNs]) -> None:
        self.host = netns("host")
        self.host.sysctl(ipv4__ip_forward=1, ipv6__conf__all__forwarding=1)
        self.where = {"host": self.host}
        for name in ("w1", "w2", "out"):
            self.where[name] = self._attach(netns(name), name)
        self.host.run(["nft", "-f", "-"], stdin=_NOT_OURS)
        with self.host.enter():
            self.table = ConntrackSocket()
        self._open: list[socket.socket] = []
        self._agent: list[InterfaceMonitor | NetlinkSocket | NftSocket] = []

    def _attach(self, there: NetNs, name: str) -> NetNs:
        interface = f"cali{name}" if name.startswith("w") else "eth0"
        link(self.host, interface, there, "eth0")
        for address in ADDRESSES["host"].values():
            self.host.ip("address", "add", address, "dev", interface, *(["nodad"] if ":" in address else []))
        for version, address in ADDRESSES[name].items():
            there.ip("address", "add", address, "dev", "eth0", *(["nodad"] if version == 6 else []))
            if name == "out":
                self.host.ip("route", "add", address, "dev", interface)
        there.ip("route", "add", ADDRESSES["host"][4], "dev", "eth0", "scope", "link")
        there.ip("-6", "route", "add", ADDRESSES["host"][6], "dev", "eth0")
        for version, gateway in ADDRESSES["host"].items():
            there.ip(f"-{version}", "route", "add", "default", "via", gateway, "dev", "eth0")
        return there

    def close(self) -> None:
        self.stop()
        self.table.close()
        for one in self._open:
            one.close()

    # --- the agent ----------------------------------------------------------------------------------------------

    def start(self, *resources: Resource) -> None:
        """As after a start of the agent: the snapshot, and what follows from it."""
        with self.host.enter():
            nft, routes, links = NftSocket(), NetlinkSocket(), InterfaceMonitor()
        self._agent = [nft, routes, links]
        graph = Graph("node1")
        self.woken = 0
        self.cutter = ConnectionCutter(self.table, graph.members, links.addresses, self._wake)
        self.programmer = NodeProgrammer(
            graph,
            NftDriver(nft),
            RouteTable(KernelRoutes(routes, LOCAL_ROUTES), LOCAL_ROUTES),
            links,
            time.monotonic,
            self.cutter,
        )
        self.programmer.on_interfaces(links.own_addresses())
        self.apply([*POOLS, *resources], InSync())
        assert self.programmer.ready
        assert self.programmer.waiting_for_interface == frozenset()

    def stop(self) -> None:
        for one in self._agent:
            one.close()
        self._agent = []

    def _wake(self) -> None:
        self.woken += 1

    def apply(self, resources: Sequence[Resource], *more: SyncEvent, cut: bool = True) -> None:
        """What the datastore says, and all that follows from it."""
        self.programmer.on_events([*(Upserted(keys.of(one), one, 1) for one in resources), *more])
        while cut and self.programmer.cut_connections():
            pass
        assert self.programmer.failures == {}

    def delete(self, resource: Resource) -> None:
        self.apply([], Deleted(keys.of(resource)))

    # --- connections --------------------------------------------------------------------------------------------

    def connect(self, kind: str, client: str, server: str, port: int, version: int, *, at: str = "") -> Live:
        """A connection over which both sides have spoken. `at`: the address the client asks for, if another."""
        target = at or ADDRESSES[server][version]
        listener = self._socket(kind, server, version)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((ADDRESSES[server][version], port))
        asking = self._socket(kind, client, version)
        asking.bind((ADDRESSES[client][version], 0))
        if kind == "tcp":
            listener.listen()
            asking.connect((target, port))
            answering, _ = listener.accept()
            listener.close()
            self._open.append(answering)
        else:
            asking.connect((target, port))
            asking.send(b"hello")
            _, peer = listener.recvfrom(100)
            listener.connect(peer)
            answering = listener
        made = Live(f"{kind} {client}->{at or server} IPv{version} port {port}", asking, answering)
        assert made.passes_both_ways(3), made.name
        return made

    def _socket(self, kind: str, where: str, version: int) -> socket.socket:
        with self.where[where].enter():
            made = socket.socket(socket.AF_INET if version == 4 else socket.AF_INET6, KINDS[kind])
        made.settimeout(3)
        self._open.append(made)
        return made

    def marks(self) -> dict[tuple[str, int], int]:
        """Of all entries of workloads: address that policy sees as destination, and port -> mark."""
        return {(str(ip_address(one.seen.destination)), one.seen.second): one.mark for one in self._entries()}

    def marks_of_all(self) -> list[int]:
        """Of all entries of workloads."""
        return [one.mark for one in self._entries()]

    def _entries(self) -> list[Sighting]:
        ours = frozenset(ip_address(ADDRESSES[name][version]).packed for name in ("w1", "w2") for version in (4, 6))
        return [one for chunk in self.table.sightings(Sieve(ours)) for one in chunk]

    def cut_ports(self) -> set[int]:
        """Of the entries that are cut; the bits of others must be as they were in every entry."""
        marks = self.marks()
        assert {mark & ~CUT_CONNECTION for mark in marks.values()} <= {OTHER_BITS, 0}
        return {port for (_, port), mark in marks.items() if mark & CUT_CONNECTION}


class Live:
    """A connection, with a socket at each end."""

    _sent = 0

    def __init__(self, name: str, client: socket.socket, server: socket.socket) -> None:
        self.name = name
        self.client, self.server = client, server
        for one in (client, server):
            one.setblocking(False)

    def passes(self, sender: socket.socket, within_s: float) -> bool:
        """Whether what this side says arrives at the other."""
        receiver = self.server if sender is self.client else self.client
        Live._sent += 1
        said = f"<{Live._sent}>".encode()
        _send(sender, said)
        heard = b""
        end_s = time.monotonic() + within_s
        while said not in heard:
            if not select.select([receiver], [], [], max(end_s - time.monotonic(), 0))[0]:
                return False
            heard += receiver.recv(4096)
        return True

    def server_pushes(self, within_s: float) -> bool:
        return self.passes(self.server, within_s)

    def client_pushes(self, within_s: float) -> bool:
        return self.passes(self.client, within_s)

    def passes_both_ways(self, within_s: float) -> bool:
        return self.server_pushes(within_s) and self.client_pushes(within_s)


def _send(sender: socket.socket, said: bytes) -> None:
    try:
        sender.send(said)
    except PermissionError:
        pass  # the output chain of the sender's own host drops it


def speaking(connections: Sequence[Live], within_s: float = 0.1) -> list[str]:
    """Those over which anything arrives in this time, all of both sides speaking at once: none, if they are cut."""
    for one in connections:
        for sender in (one.client, one.server):
            _send(sender, b"<said>")
    time.sleep(within_s)
    ends = [end for one in connections for end in (one.client, one.server)]
    heard = select.select(ends, [], [], 0)[0]
    return [one.name for one in connections if one.client in heard or one.server in heard]
