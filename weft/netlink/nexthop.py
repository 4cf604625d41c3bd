"""Nexthop objects (linux/nexthop.h): one next hop, a group of them, or a blackhole, shared by many routes. Sans-IO.

Replacing an object moves every route that names it at once. A link that goes down takes its objects with it, and
their routes, without a notification."""

import struct
from ipaddress import IPv4Address, IPv6Address

from msgspec import Struct

from weft.netlink import message as nl
from weft.netlink.message import AF_INET, AF_INET6, AF_UNSPEC, MalformedMessageError, Message

RTM_NEWNEXTHOP = 104
RTM_DELNEXTHOP = 105
RTM_GETNEXTHOP = 106
RTNLGRP_NEXTHOP = 32

_NHA_ID = 1
_NHA_GROUP = 2
_NHA_BLACKHOLE = 4
_NHA_OIF = 5
_NHA_GATEWAY = 6
_RTNH_F_ONLINK = 4
_NHMSG = struct.Struct("=BBBBI")
_MEMBER = struct.Struct("=IBBH")


class NextHop(Struct, frozen=True):
    """Exactly one of: a link with or without a gateway on it, `members` (object id -> weight), a blackhole."""

    id: int
    protocol: int
    link: int | None = None
    gateway: IPv4Address | IPv6Address | None = None
    onlink: bool = False
    members: tuple[tuple[int, int], ...] = ()
    blackhole: bool = False

    def __post_init__(self) -> None:
        if [self.link is not None, bool(self.members), self.blackhole].count(True) != 1:
            raise ValueError(f"nexthop object {self.id} must be one of a link, a group, a blackhole")
        if self.gateway is not None and self.link is None:
            raise ValueError(f"nexthop object {self.id} has a gateway but no link")
        if any(not 1 <= weight <= 256 for _, weight in self.members):
            raise ValueError(f"nexthop object {self.id} has a weight that is not between 1 and 256")


def set_nexthop(hop: NextHop, family: int = AF_INET) -> bytes:
    """Create or replace. `family` is that of the routes of an object without a gateway."""
    if hop.gateway is not None:
        family = AF_INET if hop.gateway.version == 4 else AF_INET6
    parts = [nl.u32(_NHA_ID, hop.id)]
    if hop.members:
        family = AF_UNSPEC
        packed = b"".join(_MEMBER.pack(member, weight - 1, 0, 0) for member, weight in hop.members)
        parts.append(nl.attribute(_NHA_GROUP, packed))
    elif hop.blackhole:
        parts.append(nl.attribute(_NHA_BLACKHOLE, b""))
    else:
        parts.append(nl.u32(_NHA_OIF, hop.link or 0))
        if hop.gateway is not None:
            parts.append(nl.attribute(_NHA_GATEWAY, hop.gateway.packed))
    header = _NHMSG.pack(family, 0, hop.protocol, 0, _RTNH_F_ONLINK if hop.onlink else 0)
    flags = nl.NLM_F_REQUEST | nl.NLM_F_CREATE | nl.NLM_F_REPLACE
    return nl.message(RTM_NEWNEXTHOP, flags, header + b"".join(parts))


def delete_nexthop(nexthop_id: int) -> bytes:
    """Delete an object, and with it the routes that name it."""
    return nl.message(RTM_DELNEXTHOP, nl.NLM_F_REQUEST, _NHMSG.pack(0, 0, 0, 0, 0) + nl.u32(_NHA_ID, nexthop_id))


def dump_nexthops() -> bytes:
    return nl.message(RTM_GETNEXTHOP, nl.NLM_F_REQUEST | nl.NLM_F_DUMP, _NHMSG.pack(0, 0, 0, 0, 0))


def decode_nexthop(answer: Message) -> NextHop | None:
    """An object; None if it is of a kind that we never make (bridge forwarding). Raises MalformedMessageError."""
    if len(answer.payload) < _NHMSG.size:
        raise MalformedMessageError(f"a nexthop object of {len(answer.payload)} bytes")
    _, _, protocol, _, flags = _NHMSG.unpack_from(answer.payload)
    found = nl.attributes(answer.payload, _NHMSG.size)
    if _NHA_ID not in found:
        raise MalformedMessageError("a nexthop object without an id")
    number = nl.read_u32(found[_NHA_ID])
    if _NHA_BLACKHOLE in found:
        return NextHop(number, protocol, blackhole=True)
    if _NHA_GROUP in found:
        try:
            listed = tuple((member, weight + 1) for member, weight, _, _ in _MEMBER.iter_unpack(found[_NHA_GROUP]))
        except struct.error as error:
            raise MalformedMessageError(f"a group of {len(found[_NHA_GROUP])} bytes") from error
        return NextHop(number, protocol, members=listed)
    if _NHA_OIF not in found:
        return None
    packed = found.get(_NHA_GATEWAY)
    gateway = None if packed is None else IPv4Address(packed) if len(packed) == 4 else IPv6Address(packed)
    return NextHop(number, protocol, nl.read_u32(found[_NHA_OIF]), gateway, bool(flags & _RTNH_F_ONLINK))
