"""Know the host's interfaces and addresses, and tell when they, or routes, change.

`Interfaces` is the state and decides what a notification means; `InterfaceMonitor` is the adapter for one network
namespace. Neither changes anything in the kernel. When notifications were lost everything is read again and compared:
a reader of the changes misses nothing but the moment."""

import errno
import fcntl
import struct
from collections.abc import Iterable

from msgspec import Struct, field

from felix.calc.hosts import is_workloads
from weft.model.address import IPAddress
from weft.netlink.message import Message
from weft.netlink.route import RTM_DELROUTE, RTM_NEWROUTE, RTNLGRP_IPV4_ROUTE, RTNLGRP_IPV6_ROUTE
from weft.netlink.rtnetlink import (
    RTM_DELADDR,
    RTM_DELLINK,
    RTM_NEWADDR,
    RTM_NEWLINK,
    RTNLGRP_IPV4_IFADDR,
    RTNLGRP_IPV6_IFADDR,
    RTNLGRP_LINK,
    Address,
    IPInterface,
    Link,
    decode_address,
    decode_link,
    dump_addresses,
    dump_links,
    is_about_bridge_port,
)
from weft.netlink.socket import NETLINK_ROUTE, NetlinkSocket, ResyncNeededError

GROUPS = (RTNLGRP_LINK, RTNLGRP_IPV4_IFADDR, RTNLGRP_IPV6_IFADDR, RTNLGRP_IPV4_ROUTE, RTNLGRP_IPV6_ROUTE)

_SIOCGIFINDEX = 0x8933  # linux/sockios.h
_IFREQ_INDEX = struct.Struct("16si20x")  # struct ifreq of 64-bit machines


class HostChanges(Struct):
    """What notifications brought.

    links: name -> index of links that came, or went up or down; None: no link has that name any more.
    mtu_or_address: a link's MTU or some address changed, so the uplink may be another or have another MTU.
    own_addresses: one of a link that is no workload's changed, or the name of a link with addresses.
    routes: notifications for a route table.
    lost: some were lost; links and addresses have been read again, routes must be."""

    links: dict[str, int | None] = field(default_factory=dict)
    mtu_or_address: bool = False
    own_addresses: bool = False
    routes: list[Message] = field(default_factory=list)
    lost: bool = False


class Interfaces:
    """The host's links and addresses as last heard."""

    def __init__(self) -> None:
        self._links: dict[int, Link] = {}
        self._names: dict[str, int] = {}
        self._addresses: dict[int, set[IPInterface]] = {}

    def links(self) -> list[Link]:
        return list(self._links.values())

    def name(self, index: int) -> str:
        link = self._links.get(index)
        return link.name if link is not None else ""

    def link_with(self, address: IPAddress) -> Link | None:
        """The link that has this address: the uplink, if it is the node's."""
        for index, addresses in self._addresses.items():
            if any(one.ip == address for one in addresses):
                return self._links.get(index)
        return None

    def own_addresses(self) -> dict[str, frozenset[IPAddress]]:
        """Of each link with addresses that is no workload's: what policy for the node itself looks at."""
        return {
            link.name: frozenset(one.ip for one in held)
            for index, held in self._addresses.items()
            if held and (link := self._links.get(index)) is not None and not is_workloads(link.name)
        }

    def addresses(self) -> dict[str, set[IPAddress]]:
        """Of the host itself, on all links, by name."""
        return {
            link.name: {one.ip for one in held}
            for index, held in self._addresses.items()
            if (link := self._links.get(index)) is not None
        }

    def replace_all(self, links: Iterable[Link], addresses: Iterable[Address]) -> HostChanges:
        """Everything as it is now; what differs from before."""
        changes = HostChanges()
        now = {link.index: link for link in links}
        for index in [known for known in self._links if known not in now]:
            self.on_link_gone(index, changes)
        for link in now.values():
            self.on_link(link, changes)
        held: dict[int, set[IPInterface]] = {}
        for address in addresses:
            held.setdefault(address.index, set()).add(address.interface)
        if held != self._addresses:
            changes.mtu_or_address = changes.own_addresses = True
        self._addresses = held
        return changes

    def on_link(self, link: Link, changes: HostChanges) -> None:
        before = self._links.get(link.index)
        self._links[link.index] = link
        if before is not None and before.name != link.name:
            self._free(before, changes)
        if before is None or before.name != link.name:
            self._note_name(link, before, changes)
        self._names[link.name] = link.index
        if before is None or (before.name, before.up, before.running) != (link.name, link.up, link.running):
            changes.links[link.name] = link.index
        if before is None or before.mtu != link.mtu:
            changes.mtu_or_address = True

    def _note_name(self, link: Link, before: Link | None, changes: HostChanges) -> None:
        names = [link.name, before.name if before is not None else link.name]
        if self._addresses.get(link.index) and not all(is_workloads(name) for name in names):
            changes.own_addresses = True

    def on_link_gone(self, index: int, changes: HostChanges) -> None:
        before = self._links.pop(index, None)
        held = self._addresses.pop(index, None)
        if before is not None:
            self._free(before, changes)
            if held and not is_workloads(before.name):
                changes.own_addresses = True

    def _free(self, link: Link, changes: HostChanges) -> None:
        """The name is free, unless another link has it by now: that of the workload's successor."""
        if self._names.get(link.name) == link.index:
            del self._names[link.name]
            changes.links[link.name] = None

    def on_address(self, address: Address, present: bool, changes: HostChanges) -> None:
        held = self._addresses.setdefault(address.index, set())
        if (address.interface in held) == present:
            return
        changes.mtu_or_address = True
        link = self._links.get(address.index)
        if link is None or not is_workloads(link.name):
            changes.own_addresses = True
        if present:
            held.add(address.interface)
        else:
            held.discard(address.interface)


class InterfaceMonitor:
    """Follows the network namespace it is made in. Ask `receive` whenever `fileno` is readable."""

    def __init__(self, silent_ports: Iterable[int] = ()) -> None:
        """`silent_ports`: of our own sockets that write routes, whose echoes nobody needs."""
        self._requests = NetlinkSocket()
        self._monitor = NetlinkSocket(NETLINK_ROUTE, GROUPS)
        self._monitor.ignore_ports(silent_ports)
        self._interfaces = Interfaces()
        self._must_read = False
        self._read()

    def fileno(self) -> int:
        return self._monitor.fileno()

    def close(self) -> None:
        self._requests.close()
        self._monitor.close()

    def links(self) -> list[Link]:
        """All links as last heard."""
        return self._interfaces.links()

    def own_addresses(self) -> dict[str, frozenset[IPAddress]]:
        """As `Interfaces.own_addresses`, as last heard."""
        return self._interfaces.own_addresses()

    def name(self, index: int) -> str:
        """Of the link that was last heard of with this index, "" for none."""
        return self._interfaces.name(index)

    def uplink(self, node_address: IPAddress) -> Link | None:
        """The link that has the node's address; its MTU is what workloads get."""
        return self._interfaces.link_with(node_address)

    def addresses(self) -> dict[str, set[IPAddress]]:
        """As `Interfaces.addresses`, as last heard."""
        return self._interfaces.addresses()

    def index(self, name: str) -> int | None:
        """The index of the link that has this name now, heard of or not; None if there is none."""
        request = _IFREQ_INDEX.pack(name.encode(), 0)
        try:
            # Quicker than asking by netlink, and it does not wait for whoever changes interfaces now.
            answer = fcntl.ioctl(self._requests.fileno(), _SIOCGIFINDEX, request)
        except OSError as error:
            if error.errno != errno.ENODEV:
                raise
            return None
        index: int = _IFREQ_INDEX.unpack(answer)[1]
        return index

    def receive(self) -> HostChanges:
        """What happened since the last call. Raises OSError or DumpInterruptedError when notifications were lost and
        the kernel cannot be read; the next call tries again."""
        if self._must_read:
            return self._read()
        try:
            waiting = self._monitor.receive()
        except ResyncNeededError:
            self._must_read = True
            return self._read()
        changes = HostChanges()
        for notification in waiting:
            self._on_notification(notification, changes)
        return changes

    def _on_notification(self, notification: Message, changes: HostChanges) -> None:
        kind = notification.kind
        if kind in (RTM_NEWROUTE, RTM_DELROUTE):
            changes.routes.append(notification)
        elif kind in (RTM_NEWLINK, RTM_DELLINK) and is_about_bridge_port(notification):
            return
        elif kind == RTM_NEWLINK:
            self._interfaces.on_link(decode_link(notification), changes)
        elif kind == RTM_DELLINK:
            self._interfaces.on_link_gone(decode_link(notification).index, changes)
        elif kind in (RTM_NEWADDR, RTM_DELADDR):
            address = decode_address(notification)
            if address is not None:
                self._interfaces.on_address(address, kind == RTM_NEWADDR, changes)

    def _read(self) -> HostChanges:
        links = [decode_link(answer) for answer in self._requests.dump(dump_links())]
        addresses = [decode_address(answer) for answer in self._requests.dump(dump_addresses())]
        changes = self._interfaces.replace_all(links, [address for address in addresses if address is not None])
        changes.lost = self._must_read
        self._must_read = False
        return changes
