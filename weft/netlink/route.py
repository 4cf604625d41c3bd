"""Routes: values, and their encoding and decoding as rtnetlink messages (linux/rtnetlink.h). No IO.

A route is a destination and a target; whose it is, is told by protocol, metric and table. The fast path (`RouteWriter`,
`RouteReader`) works on packed prefixes and remembers what is the same in many routes, since building and hashing
ipaddress objects costs more than the kernel takes for the route itself."""

import struct
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import NamedTuple

from msgspec import Struct

from weft.netlink import message as nl
from weft.netlink.message import AF_INET, AF_INET6, MalformedMessageError, Message

IPAddress = IPv4Address | IPv6Address
IPNetwork = IPv4Network | IPv6Network

RTM_NEWROUTE = 24
RTM_DELROUTE = 25
RTM_GETROUTE = 26
RTNLGRP_IPV4_ROUTE = 7
RTNLGRP_IPV6_ROUTE = 11

MAIN_TABLE = 254
RTPROT_KERNEL = 2
RTPROT_STATIC = 4
RTPROT_BGP = 186

RTN_UNICAST = 1
RTN_BLACKHOLE = 6
RTN_UNREACHABLE = 7
RTN_PROHIBIT = 8
RTN_THROW = 9
_REJECTING = frozenset({RTN_BLACKHOLE, RTN_UNREACHABLE, RTN_PROHIBIT, RTN_THROW})

_SCOPE_UNIVERSE = 0
_SCOPE_LINK = 253
_SCOPE_NOWHERE = 255
_RTM_F_CLONED = 0x200
_RTM_F_LOOKUP_TABLE = 0x1000
_RTM_F_FIB_MATCH = 0x2000
_RTNH_F_ONLINK = 4

_RTA_DST = 1
_RTA_OIF = 4
_RTA_GATEWAY = 5
_RTA_PRIORITY = 6
_RTA_PREFSRC = 7
_RTA_MULTIPATH = 9
_RTA_TABLE = 15
_RTA_VIA = 18
_RTA_NH_ID = 30

_RTMSG = struct.Struct("=BBBBBBBBI")
_RTNEXTHOP = struct.Struct("=HBBI")
_HEADER_RTMSG = struct.Struct("=IHHIIBBBBBBBBI")
_PACKED_IPV4 = struct.Struct("!IB")
_MOST_WEIGHT = 256

PackedPrefix = bytes
"""The address's 4 or 16 bytes and the prefix length: what routes are indexed by where there are many of them."""


class Hop(NamedTuple):
    """One next hop. With no gateway the destination is on that link itself (`link` is an interface index); with no link
    the kernel finds it."""

    gateway: IPAddress | None = None
    link: int | None = None
    weight: int = 1
    onlink: bool = False


class Target(NamedTuple):
    """Where a route leads: to next hops, to a nexthop object, or nowhere. Built by `via`, `device`, `through_object`
    or one of the constants; `hops` is sorted, so that equal sets of next hops are equal targets."""

    hops: tuple[Hop, ...] = ()
    kind: int = RTN_UNICAST
    nexthop_id: int | None = None
    source: IPAddress | None = None


BLACKHOLE = Target(kind=RTN_BLACKHOLE)
UNREACHABLE = Target(kind=RTN_UNREACHABLE)
PROHIBIT = Target(kind=RTN_PROHIBIT)


def _hop_order(hop: Hop) -> tuple[int, bytes, int, int]:
    gateway = hop.gateway
    return (
        (0, b"", hop.link or 0, hop.weight)
        if gateway is None
        else (gateway.version, gateway.packed, hop.link or 0, hop.weight)
    )


def via(*hops: Hop | IPAddress, source: IPAddress | None = None) -> Target:
    """To these next hops, all at once when there are several. Raises ValueError if they make no route."""
    listed = [hop if isinstance(hop, Hop) else Hop(hop) for hop in hops]
    if not listed:
        raise ValueError("a unicast route needs a next hop")
    for hop in listed:
        if hop.gateway is None and hop.link is None:
            raise ValueError(f"{hop} names neither a gateway nor a link")
        if not 1 <= hop.weight <= _MOST_WEIGHT:
            raise ValueError(f"weight {hop.weight} is not between 1 and {_MOST_WEIGHT}")
        if hop.onlink and (hop.gateway is None or hop.link is None):
            raise ValueError(f"{hop} is onlink but does not name gateway and link")
    return Target(tuple(sorted(set(listed), key=_hop_order)), source=source)


def device(link: int, source: IPAddress | None = None) -> Target:
    """Directly onto a link (an interface index)."""
    return via(Hop(link=link), source=source)


def through_object(nexthop_id: int) -> Target:
    """Through a nexthop object of the kernel."""
    return Target(nexthop_id=nexthop_id)


class RouteOwner(NamedTuple):
    """What makes a route one owner's: everything that does not match is somebody else's."""

    protocol: int
    metric_ipv4: int
    metric_ipv6: int
    table: int = MAIN_TABLE

    def metric(self, family: int) -> int:
        return self.metric_ipv4 if family == AF_INET else self.metric_ipv6

    def owns(self, route: "Route") -> bool:
        return route.protocol == self.protocol and self.in_place_of(route)

    def in_place_of(self, route: "Route") -> bool:
        """Do they exclude each other, being of one table and metric? The kernel does not look at the protocol."""
        metric = self.metric_ipv4 if route.destination.version == 4 else self.metric_ipv6
        return (route.metric, route.table) == (metric, self.table)


class Route(Struct, frozen=True):
    """A route of the kernel, for those who look at single ones."""

    destination: IPNetwork
    target: Target
    protocol: int = RTPROT_STATIC
    metric: int = 0
    table: int = MAIN_TABLE


def pack(prefix: IPNetwork) -> PackedPrefix:
    if isinstance(prefix, IPv4Network):
        packed: bytes = _PACKED_IPV4.pack(int(prefix.network_address), prefix.prefixlen)  # the quickest way found
        return packed
    return prefix.network_address.packed + bytes((prefix.prefixlen,))


def unpack(packed: PackedPrefix) -> IPNetwork:
    if len(packed) == 5:
        return IPv4Network((packed[:4], packed[4]))
    return IPv6Network((packed[:16], packed[16]))


def check_ipv6_hops(target: Target) -> None:
    """Raises ValueError if an IPv6 route cannot have these next hops (an IPv4 route can have gateways of both)."""
    for hop in target.hops:
        if hop.gateway is not None and hop.gateway.version == 4:
            raise ValueError(f"an IPv6 route cannot go through {hop.gateway}")


def _gateway(gateway: IPAddress, family: int) -> bytes:
    """RTA_GATEWAY, or RTA_VIA for an IPv6 gateway of an IPv4 route (RFC 8950)."""
    if gateway.version == 6 and family == AF_INET:
        return nl.attribute(_RTA_VIA, nl.U16.pack(AF_INET6) + gateway.packed)
    return nl.attribute(_RTA_GATEWAY, gateway.packed)


def _multipath(hops: Iterable[Hop], family: int) -> bytes:
    parts = []
    for hop in hops:
        gateway = b"" if hop.gateway is None else _gateway(hop.gateway, family)
        flags = _RTNH_F_ONLINK if hop.onlink else 0
        parts.append(_RTNEXTHOP.pack(8 + len(gateway), flags, hop.weight - 1, hop.link or 0) + gateway)
    return nl.attribute(_RTA_MULTIPATH, b"".join(parts))


def _target_attributes(target: Target, family: int) -> bytes:
    parts = []
    if target.source is not None:
        parts.append(nl.attribute(_RTA_PREFSRC, target.source.packed))
    if target.nexthop_id is not None:
        parts.append(nl.u32(_RTA_NH_ID, target.nexthop_id))
    elif len(target.hops) > 1:
        parts.append(_multipath(target.hops, family))
    else:
        for hop in target.hops:
            if hop.gateway is not None:
                parts.append(_gateway(hop.gateway, family))
            if hop.link is not None:
                parts.append(nl.u32(_RTA_OIF, hop.link))
    return b"".join(parts)


class RouteWriter:
    """Encodes the routes of one owner: what is the same for many routes is encoded once."""

    def __init__(self, owner: RouteOwner) -> None:
        self._owner = owner
        self._known: dict[tuple[int, Target | None], dict[int, tuple[bytes, bytes]]] = {}

    def add(self, routes: Iterable[tuple[PackedPrefix, Target]]) -> list[bytes]:
        """Messages that create each route; the kernel refuses with EEXIST if anybody has that prefix and metric."""
        return self._encode(RTM_NEWROUTE, nl.NLM_F_CREATE | nl.NLM_F_EXCL, routes)

    def replace(self, routes: Iterable[tuple[PackedPrefix, Target]]) -> list[bytes]:
        """Messages that create or replace each route, whoever's it is."""
        return self._encode(RTM_NEWROUTE, nl.NLM_F_CREATE | nl.NLM_F_REPLACE, routes)

    def delete(self, prefixes: Iterable[PackedPrefix]) -> list[bytes]:
        """Messages that delete our routes, wherever they lead."""
        return self._encode(RTM_DELROUTE, 0, ((prefix, None) for prefix in prefixes))

    def _encode(self, kind: int, flags: int, routes: Iterable[tuple[PackedPrefix, Target | None]]) -> list[bytes]:
        found: list[bytes] = []
        append = found.append
        operation = kind << 16 | flags
        last: Target | None = None
        # One per family: which is which tells the length of a packed prefix.
        shared: dict[int, dict[int, tuple[bytes, bytes]]] = {}
        for packed, target in routes:
            if target is not last:
                shared, last = {}, target
            size = len(packed) - 1
            by_length = shared.get(size)
            if by_length is None:
                by_length = shared[size] = self._known.setdefault((operation << 8 | size, target), {})
            length = packed[size]
            parts = by_length.get(length)
            if parts is None:
                parts = by_length[length] = self._parts(kind, flags, size, length, target)
            append(parts[0] + packed[:size] + parts[1] if length else parts[0] + parts[1])
        if len(self._known) > 4096:
            self._known.clear()
        return found

    def _parts(self, kind: int, flags: int, size: int, length: int, target: Target | None) -> tuple[bytes, bytes]:
        """What stands before and behind the destination's bytes."""
        owner = self._owner
        family = AF_INET if size == 4 else AF_INET6
        scope, route_kind, route_flags, tail = _SCOPE_NOWHERE, 0, 0, b""
        if target is not None:
            direct = bool(target.hops) and all(hop.gateway is None for hop in target.hops)
            scope = _SCOPE_LINK if direct and family == AF_INET else _SCOPE_UNIVERSE
            route_kind = target.kind
            if len(target.hops) == 1 and target.hops[0].onlink:
                route_flags = _RTNH_F_ONLINK
            tail = _target_attributes(target, family)
        metric = owner.metric(family)
        if metric:
            tail = nl.u32(_RTA_PRIORITY, metric) + tail
        if owner.table > 255:
            tail = nl.u32(_RTA_TABLE, owner.table) + tail
        table = owner.table if owner.table <= 255 else 0
        destination = struct.pack("=HH", 4 + size, _RTA_DST) if length else b""
        total = _HEADER_RTMSG.size + len(tail) + (4 + size if length else 0)
        fixed = (total, kind, nl.NLM_F_REQUEST | flags, 0, 0, family, length, 0, 0, table, owner.protocol)
        return _HEADER_RTMSG.pack(*fixed, scope, route_kind, route_flags) + destination, tail


def dump_routes(family: int, owner: RouteOwner, link: int | None = None) -> bytes:
    """A dump request for the owner's routes, or those of them with a next hop on `link`. The kernel filters by table,
    protocol and link (the metric it cannot), given strict checking; a link that is not there is ENODEV."""
    body = _RTMSG.pack(family, 0, 0, 0, 0, owner.protocol, 0, 0, 0) + nl.u32(_RTA_TABLE, owner.table)
    if link is not None:
        body += nl.u32(_RTA_OIF, link)
    return nl.message(RTM_GETROUTE, nl.NLM_F_REQUEST | nl.NLM_F_DUMP, body)


def look_up_route(packed: PackedPrefix) -> bytes:
    """Ask which route the prefix's first address would take; the answer is that route as a dump has it, often the
    prefix's own, but a longer one where there is one. Much quicker than a dump of many routes."""
    address = packed[:-1]
    family = AF_INET if len(address) == 4 else AF_INET6
    # IPv6 tells the table anyway, and refuses the flag.
    flags = _RTM_F_FIB_MATCH | (_RTM_F_LOOKUP_TABLE if family == AF_INET else 0)
    header = _RTMSG.pack(family, len(address) * 8, 0, 0, 0, 0, 0, 0, flags)
    return nl.message(RTM_GETROUTE, nl.NLM_F_REQUEST, header + nl.attribute(_RTA_DST, address))


def _decode_hop(found: dict[int, bytes], link: int | None, weight: int, flags: int) -> Hop:
    gateway: IPAddress | None = None
    if _RTA_GATEWAY in found:
        gateway = _address(found[_RTA_GATEWAY])
    elif _RTA_VIA in found:
        gateway = _address(found[_RTA_VIA][2:])
    return Hop(gateway, link, weight, bool(flags & _RTNH_F_ONLINK))


def _address(packed: bytes) -> IPAddress:
    if len(packed) == 4:
        return IPv4Address(packed)
    if len(packed) == 16:
        return IPv6Address(packed)
    raise MalformedMessageError(f"an address of {len(packed)} bytes")


def _decode_multipath(data: bytes) -> list[Hop]:
    hops: list[Hop] = []
    offset = 0
    while len(data) - offset >= _RTNEXTHOP.size:
        length, flags, weight, link = _RTNEXTHOP.unpack_from(data, offset)
        if length < _RTNEXTHOP.size or offset + length > len(data):
            raise MalformedMessageError(f"next hop of {length} bytes at {offset} of {len(data)}")
        found = nl.attributes(data[offset : offset + length], _RTNEXTHOP.size)
        hops.append(_decode_hop(found, link or None, weight + 1, flags))
        offset += (length + 3) & ~3
    return hops


def _decode_target(kind: int, flags: int, found: dict[int, bytes]) -> Target:
    if kind in _REJECTING:
        return Target(kind=kind)  # IPv6 shows them on the loopback device
    source = _address(found[_RTA_PREFSRC]) if _RTA_PREFSRC in found else None
    if _RTA_NH_ID in found:
        return Target((), kind, nl.read_u32(found[_RTA_NH_ID]), source)
    if _RTA_MULTIPATH in found:
        hops = _decode_multipath(found[_RTA_MULTIPATH])
    else:
        link = nl.read_u32(found[_RTA_OIF]) if _RTA_OIF in found else None
        hops = [_decode_hop(found, link, 1, flags)]
    return Target(tuple(sorted(hops, key=_hop_order)), kind, None, source)


def decode_route(answer: Message) -> Route | None:
    """A route of a dump or a notification; None if it is no route to a destination (a cache entry, a multicast
    route). Raises MalformedMessageError."""
    if len(answer.payload) < _RTMSG.size:
        raise MalformedMessageError(f"a route of {len(answer.payload)} bytes")
    family, length, _, _, table, protocol, _, kind, flags = _RTMSG.unpack_from(answer.payload)
    size = {AF_INET: 4, AF_INET6: 16}.get(family)
    if size is None or flags & _RTM_F_CLONED:
        return None
    found = nl.attributes(answer.payload, _RTMSG.size)
    destination = found.get(_RTA_DST, bytes(size))
    if len(destination) != size or length > size * 8:
        raise MalformedMessageError(f"destination {destination.hex()}/{length}")
    return Route(
        unpack(destination + bytes((length,))),
        _decode_target(kind, flags, found),
        protocol,
        nl.read_u32(found[_RTA_PRIORITY]) if _RTA_PRIORITY in found else 0,
        nl.read_u32(found[_RTA_TABLE]) if _RTA_TABLE in found else table,
    )


class RouteReader:
    """Decodes many routes of one owner: what they share is decoded once and is then one and the same object."""

    def __init__(self, owner: RouteOwner) -> None:
        self._owner = owner
        self._known: dict[bytes, Target | None] = {}

    def read(self, answers: Iterable[Message]) -> dict[PackedPrefix, Target]:
        """The owner's routes among these. Raises MalformedMessageError."""
        routes: dict[PackedPrefix, Target] = {}
        known = self._known
        for answer in answers:
            payload = answer.payload
            # RTA_TABLE comes first, RTA_DST second (fib_dump_info, rt6_fill_node).
            if payload[20:24] == b"\x08\x00\x01\x00":
                packed, rest = payload[24:28] + payload[1:2], payload[2:20] + payload[28:]
            elif payload[20:24] == b"\x14\x00\x01\x00":
                packed, rest = payload[24:40] + payload[1:2], b"6" + payload[2:20] + payload[40:]
            else:
                packed, rest = b"", b""
            if rest and rest in known:
                target = known[rest]
            else:
                route = decode_route(answer)
                if route is None:
                    continue
                packed = pack(route.destination)
                target = route.target if self._owner.owns(route) else None
                if rest:
                    known[rest] = target
            if target is not None:
                routes[packed] = target
        if len(known) > 4096:
            known.clear()
        return routes
