"""A node with two workloads and an outside host, in namespaces, and sockets that send first packets between them.

Addresses are those of `tests.fakes.computed_policies`. All neighbours are resolved before there are rules."""

import select
import socket
import struct
from collections.abc import Callable
from ipaddress import ip_address

from felix.calc.delta import NodeDelta
from felix.dataplane.nft import NftDriver, Report
from felix.dataplane.nft_kernel import NftSocket
from felix.rules.changes import first_table
from felix.rules.render import Renderer
from lab.netns import NetNs, link
from tests.functional.policy.first_packets import first_packet
from weft.model.address import IPAddress
from weft.netlink.message import NLM_F_ACK, NLM_F_REQUEST, message
from weft.netlink.socket import NETLINK_NETFILTER, NetlinkSocket
from weft.policy.verdict import Flow

WORKLOADS = {"cali1": ("10.0.0.1", "10.0.0.200", "fd00::1"), "cali2": ("10.0.0.2", "fd00::2")}
OUTSIDE = ("10.9.9.9", "fd01::1")
UDP = 17
PORTS = (80, 85, 443, 1000)
_CT_DELETE = (1 << 8) | 2  # NFNL_SUBSYS_CTNETLINK, IPCTNL_MSG_CT_DELETE <linux/netfilter/nfnetlink_conntrack.h>
_GATEWAY4, _GATEWAY6 = "169.254.1.1", "fe80::1"


class PolicyNode:
    def __init__(self, netns: Callable[[str], NetNs]) -> None:
        self.host = netns("host")
        self.host.sysctl(ipv4__ip_forward=1, ipv6__conf__all__forwarding=1)
        self.behind: dict[str, NetNs] = {}
        for interface, addresses in WORKLOADS.items():
            self.behind[interface] = self._attach(netns(interface), interface, addresses)
        self.behind["eth0"] = self._attach(netns("out"), "eth0", OUTSIDE)
        self.interface_of = {
            ip_address(address): interface
            for interface, addresses in (*WORKLOADS.items(), ("eth0", OUTSIDE))
            for address in addresses
        }
        for interface, there in self.behind.items():
            for address in (*WORKLOADS.get(interface, ()), *(OUTSIDE if interface == "eth0" else ())):
                self.host.run(["ping", "-c1", "-W2", address])
            there.run(["ping", "-c1", "-W2", _GATEWAY4])
        self.renderer = Renderer()
        self.sockets: dict[tuple[IPAddress, int], socket.socket] = {}
        self._raw_sockets: dict[tuple[str, int, int], socket.socket] = {}
        self._sent = 0
        with self.host.enter():
            self.kernel = NftSocket()
            self._conntrack = NetlinkSocket(NETLINK_NETFILTER)
        self.driver = NftDriver(self.kernel)
        self._started = False

    def _attach(self, there: NetNs, interface: str, addresses: tuple[str, ...]) -> NetNs:
        link(self.host, interface, there, "eth0")
        self.host.ip("address", "add", f"{_GATEWAY4}/32", "dev", interface)
        self.host.ip("address", "add", f"{_GATEWAY6}/64", "dev", interface, "nodad")
        for address in addresses:
            length = ip_address(address).max_prefixlen
            there.ip("address", "add", f"{address}/{length}", "dev", "eth0", *(["nodad"] if length == 128 else []))
            self.host.ip("route", "add", f"{address}/{length}", "dev", interface)
        there.ip("route", "add", _GATEWAY4, "dev", "eth0", "scope", "link")
        there.ip("route", "add", "default", "via", _GATEWAY4, "dev", "eth0")
        there.ip("-6", "route", "add", "default", "via", _GATEWAY6, "dev", "eth0")
        return there

    def close(self) -> None:
        for one in (*self.sockets.values(), *self._raw_sockets.values()):
            one.close()
        self.kernel.close()
        self._conntrack.close()

    def program(self, delta: NodeDelta) -> Report:
        changes = self.renderer.render(delta)
        if self._started:
            return self.driver.apply(changes, 1.0)
        self._started = True
        return self.driver.start(first_table(changes), 0.0)

    def endpoint(self, address: str | IPAddress, port: int) -> socket.socket:
        """A UDP socket bound to an address where it lives; kept for the life of the node."""
        where = ip_address(str(address))
        if (where, port) not in self.sockets:
            with (self.behind[self.interface_of[where]] if where in self.interface_of else self.host).enter():
                made = socket.socket(socket.AF_INET if where.version == 4 else socket.AF_INET6, socket.SOCK_DGRAM)
                made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                made.bind((str(where), port))
            made.setblocking(False)
            self.sockets[where, port] = made
        return self.sockets[where, port]

    def forget_connections(self) -> None:
        request = message(_CT_DELETE, NLM_F_REQUEST | NLM_F_ACK, struct.pack("=BBH", 0, 0, 0))
        assert self._conntrack.request([request]) == []

    def passes(self, source: str | IPAddress, source_port: int, destination: str | IPAddress, port: int) -> bool:
        """Whether the first packet of a UDP flow arrives."""
        self.forget_connections()
        receiver, sender = self.endpoint(destination, port), self.endpoint(source, source_port)
        while select.select([receiver], [], [], 0)[0]:
            receiver.recv(100)
        self._sent += 1
        sent = str(self._sent).encode()
        try:
            sender.sendto(sent, (str(destination), port))
        except PermissionError:  # what our own output chain drops
            return False
        while select.select([receiver], [], [], 0.03)[0]:
            if receiver.recv(100) == sent:
                return True
        return False

    def _raw(self, address: IPAddress, protocol: int) -> socket.socket:
        """A socket for packets of a protocol, where the address lives; kept for the life of the node."""
        where = self.interface_of[address]
        if (where, address.version, protocol) not in self._raw_sockets:
            with self.behind[where].enter():
                family = socket.AF_INET if address.version == 4 else socket.AF_INET6
                made = socket.socket(family, socket.SOCK_RAW, protocol)
            made.setblocking(False)
            self._raw_sockets[where, address.version, protocol] = made
        return self._raw_sockets[where, address.version, protocol]

    def _passes_by_hand(self, flow: Flow) -> bool:
        """Whether the first packet of a flow of another protocol arrives. Sent from an address of the interface's
        own namespace by IP_PKTINFO, so that one socket does for all of them."""
        self.forget_connections()
        receiver, sender = self._raw(flow.destination, flow.protocol), self._raw(flow.source, flow.protocol)
        self._sent += 1
        packet = first_packet(flow, self._sent & 0xFFFF)
        if flow.source.version == 4:
            level, kind, source = socket.SOL_IP, 8, bytes(4) + flow.source.packed + bytes(4)  # IP_PKTINFO
        else:
            level, kind, source = socket.IPPROTO_IPV6, 50, flow.source.packed + bytes(4)  # IPV6_PKTINFO
        sender.sendmsg([packet], [(level, kind, source)], 0, (str(flow.destination), 0))
        while select.select([receiver], [], [], 0.03)[0]:
            if receiver.recv(1000).endswith(packet):
                return True
        return False

    def passes_flow(self, flow: Flow) -> bool:
        """Whether the first packet of a flow arrives."""
        if flow.protocol != UDP:
            return self._passes_by_hand(flow)
        assert flow.source_port is not None
        assert flow.destination_port is not None
        return self.passes(flow.source, flow.source_port, flow.destination, flow.destination_port)
