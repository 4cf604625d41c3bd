"""The kernel's routes and links that the BGP agent needs to know, read once and then followed.

The adapter for everything below BGP: connected networks, other routes, links, and felix's routes to workloads. It
writes nothing. When notifications were lost, or a link or an address changed, it reads everything again, because the
kernel takes routes away with a link and says nothing."""

from __future__ import annotations

import errno
from collections.abc import Iterator, Mapping, Sequence, Set
from ipaddress import ip_network
from typing import Final, NamedTuple

from msgspec import Struct, field

from bird_agent.exabgp.prefixes import number_of, read_route
from bird_agent.fib import OWNER
from bird_agent.nexthops import Underlay, underlay
from weft.model.address import IPAddress, IPInterface, IPNetwork
from weft.netlink.message import AF_INET, AF_INET6, Message
from weft.netlink.route import (
    MAIN_TABLE,
    RTM_DELROUTE,
    RTM_NEWROUTE,
    RTN_UNICAST,
    RTNLGRP_IPV4_ROUTE,
    RTNLGRP_IPV6_ROUTE,
    Hop,
    Route,
    RouteOwner,
    Target,
    dump_routes,
)
from weft.netlink.routedecoder import RouteDecoder
from weft.netlink.rtnetlink import (
    RTM_DELADDR,
    RTM_DELLINK,
    RTM_NEWADDR,
    RTM_NEWLINK,
    RTM_NEWNEIGH,
    RTNLGRP_IPV4_IFADDR,
    RTNLGRP_IPV6_IFADDR,
    RTNLGRP_LINK,
    RTNLGRP_NEIGH,
    Link,
    decode_address,
    decode_link,
    decode_neighbour,
    dump_addresses,
    dump_links,
    is_about_bridge_port,
    is_failed_neighbour,
)
from weft.netlink.socket import NETLINK_ROUTE, DumpInterruptedError, NetlinkSocket, ResyncNeededError

FABRIC_PROTOCOL: Final = 80
WORKLOAD_LINKS: Final = ("cali", "weftdel")  # they come and go with workloads, and no next hop is behind them
_ANY_PROTOCOL: Final = RouteOwner(protocol=0, metric_ipv4=0, metric_ipv6=0)
_LINK_LOCAL_IPV4: Final = 0xA9FE  # 169.254.0.0/16
MOST_AT_ONCE: Final = 500
_PROTOCOL_OFFSET: Final = 5  # of rtm_protocol in struct rtmsg
_GROUPS: Final = (
    RTNLGRP_LINK,
    RTNLGRP_IPV4_IFADDR,
    RTNLGRP_IPV6_IFADDR,
    RTNLGRP_IPV4_ROUTE,
    RTNLGRP_IPV6_ROUTE,
    RTNLGRP_NEIGH,
)

_Place = tuple[IPNetwork, int, int]


class KernelChanges(Struct):
    """What a look at the notifications brought. `own` are those that concern the table of BGP routes; `added` and
    `removed` local workloads' addresses, with the interfaces that lead there; `underlay` asks for `KernelView.read`."""

    underlay: bool = False
    added: dict[IPNetwork, str] = field(default_factory=dict)
    removed: set[IPNetwork] = field(default_factory=set)
    own: list[Message] = field(default_factory=list)
    resync: bool = False
    silent: list[IPAddress] = field(default_factory=list)
    """Neighbours that no longer answer ARP or neighbour discovery."""

    def __bool__(self) -> bool:
        """Is there anything that somebody has to do something about?"""
        return bool(self.underlay or self.added or self.removed or self.own or self.resync or self.silent)


class KernelState(NamedTuple):
    """What is below BGP; the workloads that came and went since the last time."""

    underlay: Underlay
    added: Mapping[IPNetwork, str]
    removed: Set[IPNetwork]


class KernelView:
    """See the module. Belongs to the network namespace it was made in."""

    def __init__(self, silent_ports: Sequence[int] = ()) -> None:
        self._requests = NetlinkSocket()
        self._monitor = NetlinkSocket(NETLINK_ROUTE, _GROUPS)
        if silent_ports:
            self._monitor.ignore_ports(silent_ports)
        self._links: dict[int, Link] = {}
        self._routes: dict[_Place, Route] = {}
        self._workloads: dict[IPNetwork, int | None] = {}
        self._addresses: dict[IPInterface, frozenset[int]] = {}
        self._must_read = True
        self._decoder = RouteDecoder(read_route)
        self._neighbors: frozenset[IPAddress] = frozenset()

    def set_neighbors(self, workloads: frozenset[IPAddress]) -> bool:
        """These workloads are peers: next hops may be behind their links. Whether that is news."""
        changed, self._neighbors = workloads != self._neighbors, workloads
        return changed

    def fileno(self) -> int:
        """Readable when there is something for `receive`."""
        return self._monitor.fileno()

    @property
    def behind(self) -> bool:
        """Something has to be read again: the table would not hold still the last time."""
        return self._must_read

    def close(self) -> None:
        self._requests.close()
        self._monitor.close()

    def receive(self) -> KernelChanges:
        """Take notifications that are waiting: so many that others can go on with what they say while the rest is read,
        but all where they make `read` worth while only once."""
        changes = KernelChanges()
        try:
            while waiting := self._monitor.receive(MOST_AT_ONCE):
                self._take(waiting, changes)
                if not changes.underlay:
                    break
        except ResyncNeededError:
            self._must_read = changes.underlay = changes.resync = True
        return changes

    def _take(self, notifications: list[Message], changes: KernelChanges) -> None:
        for notification in notifications:
            if notification.kind in (RTM_NEWROUTE, RTM_DELROUTE):
                self._on_route(notification, changes)
            elif notification.kind in (RTM_NEWLINK, RTM_DELLINK) and not is_about_bridge_port(notification):
                self._on_link(notification, changes)
            elif notification.kind == RTM_NEWNEIGH and is_failed_neighbour(notification):
                neighbour = decode_neighbour(notification)
                if neighbour is not None:
                    changes.silent.append(neighbour.address)
            elif notification.kind in (RTM_NEWADDR, RTM_DELADDR) and self._is_underlay_address(notification):
                self._must_read = changes.underlay = changes.resync = True

    def read(self) -> KernelState:
        """What is below BGP, and what changed with the workloads. Raises OSError, DumpInterruptedError."""
        before = dict(self._workloads)
        if self._must_read:
            self._read_all()
        up = [link.index for link in self._links.values() if link.up and link.running]
        names = {link.index: link.name for link in self._links.values() if not link.name.startswith(WORKLOAD_LINKS)}
        routes = [*self._routes.values(), *self._ways_to_neighbors()]
        below = underlay(routes, up, frozenset({FABRIC_PROTOCOL, OWNER.protocol}), names, self._addresses)
        added = {
            prefix: self.name_of(link)
            for prefix, link in self._workloads.items()
            if prefix not in before or before[prefix] != link
        }
        return KernelState(below, added, before.keys() - self._workloads.keys())

    def _ways_to_neighbors(self) -> Iterator[Route]:
        for address in self._neighbors:
            link = self._workloads.get(ip_network(address))
            if link is not None:
                yield Route(ip_network(address), Target((Hop(None, link),)))

    def name_of(self, link: int | None) -> str:
        found = None if link is None else self._links.get(link)
        return "" if found is None else found.name

    def _routes_of(self, family: int) -> list[Message]:
        try:
            return list(self._requests.dump(dump_routes(family, _ANY_PROTOCOL)))
        except OSError as error:
            if error.errno != errno.ENOENT:
                raise
            return []  # nobody has used the table yet

    def _read_all(self) -> None:
        try:
            links = {link.index: link for link in map(decode_link, self._requests.dump(dump_links()))}
            routes: dict[_Place, Route] = {}
            workloads: dict[IPNetwork, int | None] = {}
            addresses = self._addresses_of(links)
            for family in (AF_INET, AF_INET6):
                for answer in self._routes_of(family):
                    route = self._interesting(answer)
                    if route is None:
                        continue
                    if route.protocol != FABRIC_PROTOCOL:
                        routes[_place(route)] = route
                    elif _leads_to_workload(route):
                        workloads[route.destination] = _link_of(route)
        except DumpInterruptedError:
            return  # still to be read, when it is asked for again
        self._links, self._routes, self._workloads, self._must_read = links, routes, workloads, False
        self._addresses = addresses

    def _addresses_of(self, links: Mapping[int, Link]) -> dict[IPInterface, frozenset[int]]:
        """This node's, those on workloads' links and link-local ones left out."""
        found: dict[IPInterface, frozenset[int]] = {}
        for address in map(decode_address, self._requests.dump(dump_addresses())):
            if address is None or address.interface.is_link_local:
                continue
            link = links.get(address.index)
            if link is not None and not link.name.startswith(WORKLOAD_LINKS):
                found[address.interface] = found.get(address.interface, frozenset()) | {address.index}
        return found

    def _interesting(self, answer: Message) -> Route | None:
        """A route of the main table that is neither ours nor link-local; ours are many, and are skipped undecoded."""
        if len(answer.payload) > _PROTOCOL_OFFSET and answer.payload[_PROTOCOL_OFFSET] == OWNER.protocol:
            return None
        route = self._decoder.decode(answer)
        if route is None or route.table != MAIN_TABLE or _is_link_local(route.destination):
            return None
        return route

    def _on_route(self, notification: Message, changes: KernelChanges) -> None:
        route = self._interesting(notification)
        if route is None or route.protocol != FABRIC_PROTOCOL or route.metric:
            changes.own.append(notification)  # also somebody else's: it may stand where ours was, as the tables decide
        if route is None:
            return
        if route.protocol == FABRIC_PROTOCOL:
            self._on_workload(route, notification.kind == RTM_NEWROUTE, changes)
            return
        if notification.kind == RTM_NEWROUTE:
            self._routes[_place(route)] = route
        else:
            self._routes.pop(_place(route), None)
        changes.underlay = True

    def _on_workload(self, route: Route, exists: bool, changes: KernelChanges) -> None:
        prefix = route.destination
        if self._neighbors and prefix.network_address in self._neighbors:
            changes.underlay = True
        if exists and _leads_to_workload(route):
            self._workloads[prefix] = link = _link_of(route)
            changes.added[prefix] = self.name_of(link)
            changes.removed.discard(prefix)
        elif prefix in self._workloads:
            del self._workloads[prefix]
            changes.removed.add(prefix)
            changes.added.pop(prefix, None)

    def _is_underlay_address(self, notification: Message) -> bool:
        address = decode_address(notification)
        if address is None or address.interface.is_link_local:
            return False
        link = self._links.get(address.index)
        return link is None or not link.name.startswith(WORKLOAD_LINKS)

    def _on_link(self, notification: Message, changes: KernelChanges) -> None:
        link = decode_link(notification)
        before = self._links.get(link.index)
        gone = notification.kind == RTM_DELLINK
        if gone:
            self._links.pop(link.index, None)
        else:
            self._links[link.index] = link
        if link.name.startswith(WORKLOAD_LINKS):
            return
        carried = before is not None and before.up and before.running
        carries = not gone and link.up and link.running
        if carried != carries:
            self._must_read = changes.underlay = changes.resync = True


def _is_link_local(prefix: IPNetwork) -> bool:
    if prefix.version == 4 and number_of(prefix) >> 16 != _LINK_LOCAL_IPV4:
        return False  # what the standard library says, at a tenth of the time
    return prefix.is_link_local


def _leads_to_workload(route: Route) -> bool:
    return route.target.kind == RTN_UNICAST and route.destination.prefixlen == route.destination.max_prefixlen


def _link_of(route: Route) -> int | None:
    hops = route.target.hops
    return hops[0].link if hops else None


def _place(route: Route) -> _Place:
    return route.destination, route.protocol, route.metric
