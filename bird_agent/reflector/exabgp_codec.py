"""What ExaBGP's codecs do for us: OPEN with its capabilities, AS_PATH with what two-byte peers need (RFC 6793), and
ROUTE-REFRESH.

The one module of the reflector that imports ExaBGP, and nothing of ExaBGP comes out of it: values go in, values and
bytes come out, errors are ours. What is used of it reads neither its environment nor its caches nor its logger, all of
which belong to the whole process (ADR 0150 says what is not used, and why)."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from ipaddress import IPv4Address
from typing import Any, Final, NamedTuple

from exabgp.bgp.message.notification import Notify
from exabgp.bgp.message.open import Open
from exabgp.bgp.message.open.asn import ASN
from exabgp.bgp.message.open.capability.asn4 import ASN4
from exabgp.bgp.message.open.capability.capabilities import Capabilities
from exabgp.bgp.message.open.capability.capability import Capability
from exabgp.bgp.message.open.capability.extended import ExtendedMessage
from exabgp.bgp.message.open.capability.graceful import Graceful
from exabgp.bgp.message.open.capability.mp import MultiProtocol
from exabgp.bgp.message.open.capability.nexthop import NextHop
from exabgp.bgp.message.open.capability.refresh import EnhancedRouteRefresh, RouteRefresh
from exabgp.bgp.message.open.holdtime import HoldTime
from exabgp.bgp.message.open.routerid import RouterID
from exabgp.bgp.message.open.version import Version
from exabgp.bgp.message.refresh import RouteRefresh as RefreshMessage
from exabgp.bgp.message.update.attribute.aggregator import Aggregator
from exabgp.bgp.message.update.attribute.aspath import (
    CONFED_SEQUENCE,
    CONFED_SET,
    SEQUENCE,
    SET,
    AS4Path,
    ASPath,
)
from exabgp.bgp.message.update.attribute.attributes import Attributes
from exabgp.protocol.family import AFI, SAFI
from exabgp.protocol.ip import IPv4

from bird_agent.exabgp.commands import Family
from bird_agent.exabgp.events import AsSegment
from bird_agent.reflector.attributes import PARTIAL
from bird_agent.reflector.errors import OpenError, RefreshMalformed
from bird_agent.reflector.negotiation import VERSION, OpenMessage, Restart
from bird_agent.reflector.prefixes import AFI as AFI_NUMBER
from bird_agent.reflector.prefixes import FAMILY_OF, IPV4, UNICAST

_RESTARTING: Final = 0x8
_NOTIFICATION: Final = 0x4
_HEADER_SIZE: Final = 19
_LONGEST_SEGMENT: Final = 255
_SEGMENTS: Final = {"as-set": SET, "as-sequence": SEQUENCE}
_CONFEDERATION: Final = {"as-confed-sequence": CONFED_SEQUENCE, "as-confed-set": CONFED_SET}
_CLASSES: Final = _SEGMENTS | _CONFEDERATION
_NAMES: Final = {each: name for name, each in _CLASSES.items()}


class _Negotiated(NamedTuple):
    """All that ExaBGP's attributes ask of a session."""

    asn4: bool


_OLD: Final = _Negotiated(asn4=False)


# OPEN


def write_open(message: OpenMessage) -> bytes:
    """The whole message."""
    capabilities = Capabilities()
    if message.families is not None:
        families = MultiProtocol()
        families.extend(map(_pair, message.families))
        capabilities[Capability.CODE.MULTIPROTOCOL] = families
    if message.asn4:
        capabilities[Capability.CODE.FOUR_BYTES_ASN] = ASN4(message.asn)
    if message.extended_next_hop:
        pairs = [(*_pair(family), _other(family)) for family in message.extended_next_hop]
        capabilities[Capability.CODE.NEXTHOP] = NextHop(pairs)
    if message.route_refresh:
        capabilities[Capability.CODE.ROUTE_REFRESH] = RouteRefresh()
    if message.enhanced_refresh:
        capabilities[Capability.CODE.ENHANCED_ROUTE_REFRESH] = EnhancedRouteRefresh()
    if message.extended_message:
        capabilities[Capability.CODE.EXTENDED_MESSAGE] = ExtendedMessage()
    if message.restart is not None:
        capabilities[Capability.CODE.GRACEFUL_RESTART] = _graceful(message.restart)
    made = Open(
        Version(VERSION),
        ASN(message.asn),
        HoldTime(message.hold_time_s),
        RouterID(str(message.router_id)),
        capabilities,
    )
    encoded: bytes = made.message()
    return encoded


def read_open(body: bytes) -> OpenMessage:
    """Raises OpenError for what cannot be read; whether it can be accepted is `negotiate`'s to say."""
    if body[0] != VERSION:
        raise OpenError(1, f"BGP version {body[0]}", struct.pack("!H", VERSION))
    _check_parameters_length(body[9:])
    try:
        read = Open.unpack_message(body)
    except Notify as error:
        raise OpenError(error.subcode if error.code == 2 else 0, str(error)) from None
    except (IndexError, ValueError, KeyError, struct.error) as error:
        raise OpenError(0, f"a capability cannot be read: {error}") from None
    capabilities: Any = read.capabilities
    code = Capability.CODE
    asn4 = code.FOUR_BYTES_ASN in capabilities
    header_asn = int(read.asn)
    asn = int(capabilities[code.FOUR_BYTES_ASN]) if asn4 else header_asn
    multiprotocol = capabilities.get(code.MULTIPROTOCOL)
    if asn == 0:
        raise OpenError(2, "AS 0 (RFC 7607)")
    return OpenMessage(
        asn=asn,
        router_id=IPv4Address(body[5:9]),
        hold_time_s=int(read.hold_time),
        asn4=asn4,
        families=None if multiprotocol is None else _ours(multiprotocol),
        extended_next_hop=_extended_next_hop(capabilities.get(code.NEXTHOP, ())),
        route_refresh=code.ROUTE_REFRESH in capabilities,
        enhanced_refresh=code.ENHANCED_ROUTE_REFRESH in capabilities,
        extended_message=code.EXTENDED_MESSAGE in capabilities,
        restart=_restart(capabilities.get(code.GRACEFUL_RESTART)),
        two_byte_asn=None if header_asn == asn else header_asn,
    )


def _check_parameters_length(parameters: bytes) -> None:
    """ExaBGP takes what is there for what was said (RFC 4271 4.2, RFC 9072)."""
    extended = parameters[:2] == b"\xff\xff"
    if extended and len(parameters) < 4:
        raise OpenError(0, "optional parameters end in their own length")
    said, there = (
        (int.from_bytes(parameters[2:4]), len(parameters) - 4) if extended else (parameters[0], len(parameters) - 1)
    )
    if said != there:
        raise OpenError(0, f"optional parameters of {said} bytes are {there} bytes")


def _pair(family: Family) -> tuple[Any, Any]:
    return AFI.create(AFI_NUMBER[family]), SAFI.create(UNICAST)


def _other(family: Family) -> Any:
    return AFI.create(2 if family == IPV4 else 1)


def _ours(families: Sequence[tuple[int, int]]) -> tuple[Family, ...]:
    """Those we know, each once."""
    known = [FAMILY_OF.get((int(afi), int(safi))) for afi, safi in families]
    return tuple(dict.fromkeys(each for each in known if each is not None))


def _extended_next_hop(entries: Sequence[tuple[int, int, int]]) -> tuple[Family, ...]:
    """Families whose next hops may be of the other kind: only IPv4 over IPv6 has a meaning (RFC 8950 4)."""
    return (IPV4,) if any((int(a), int(s), int(n)) == (1, UNICAST, 2) for a, s, n in entries) else ()


def _graceful(restart: Restart) -> Any:
    flags = (_RESTARTING if restart.restarting else 0) | (_NOTIFICATION if restart.notification else 0)
    families = [(*_pair(family), Graceful.FORWARDING_STATE if kept else 0) for family, kept in restart.families.items()]
    return Graceful().set(flags, restart.time_s, families)


def _restart(read: Any) -> Restart | None:
    if read is None:
        return None
    families = {
        family: bool(flags & Graceful.FORWARDING_STATE)
        for (afi, safi), flags in read.items()
        if (family := FAMILY_OF.get((int(afi), int(safi)))) is not None
    }
    flags = int(read.restart_flag)
    return Restart(
        time_s=int(read.restart_time),
        families=families,
        restarting=bool(flags & _RESTARTING),
        notification=bool(flags & _NOTIFICATION),
    )


# ROUTE-REFRESH


def write_refresh(family: Family, subtype: int = 0) -> bytes:
    """`subtype` 0 asks, 1 begins, 2 ends (RFC 2918, RFC 7313)."""
    encoded: bytes = RefreshMessage(*map(int, _pair(family)), subtype).message()
    return encoded


def read_refresh(body: bytes) -> tuple[Family, int] | None:
    """A family of ours and a subtype, or None: others are to be ignored (RFC 7313 5). Raises RefreshMalformed."""
    if len(body) != 4:
        whole = struct.pack("!16sHB", b"\xff" * 16, _HEADER_SIZE + len(body), 5) + body
        raise RefreshMalformed(f"ROUTE-REFRESH with {len(body)} bytes", whole)
    try:
        read = RefreshMessage.unpack_message(body)
    except Notify:
        return None  # an unknown subtype
    family = FAMILY_OF.get((int(read.afi), int(read.safi)))
    return None if family is None else (family, int(read.reserved))


# AS_PATH and AGGREGATOR


def read_as_path(value: bytes, asn4: bool) -> tuple[AsSegment, ...] | None:
    """The segments; None for what RFC 7606 7.2 calls malformed."""
    if not value:
        return ()
    try:
        read = ASPath._new_aspaths(value, asn4)
    except Notify:
        return None
    return _segments(read.aspath)


def read_as4_path(value: bytes) -> tuple[AsSegment, ...] | None:
    """AS4_PATH without confederation segments (RFC 6793 6); None if it is malformed."""
    read = read_as_path(value, asn4=True)
    return None if not read else tuple(each for each in read if each.kind in _SEGMENTS) or None


def merged(as_path: Sequence[AsSegment], as4_path: Sequence[AsSegment]) -> tuple[AsSegment, ...]:
    """The true path of a two-byte peer: the end of it is in AS4_PATH (RFC 6793 4.2.3)."""
    short, long = ASPath(_lists(as_path)), AS4Path(_lists(as4_path))
    joined = _segments(Attributes._reconstruct_as_path(short, long)) or ()
    return tuple(
        AsSegment(each.kind, each.numbers[start : start + _LONGEST_SEGMENT])
        for each in joined
        for start in range(0, len(each.numbers), _LONGEST_SEGMENT)
    )


def write_as_path(segments: Sequence[AsSegment], *, asn4: bool) -> bytes:
    """AS_PATH with its header; to a two-byte peer with AS4_PATH behind it where a number needs it (RFC 6793 4.2.2)."""
    encoded: bytes = ASPath(_lists(segments)).pack(_Negotiated(asn4))
    return encoded


def write_aggregator(flags: int, value: bytes) -> bytes:
    """AGGREGATOR (eight bytes, as we keep it) for a two-byte peer, with AS4_AGGREGATOR where it needs it."""
    asn, speaker = struct.unpack("!I4s", value)
    encoded: bytes = Aggregator(ASN(asn), IPv4.unpack(speaker)).pack(_OLD)
    return bytes((encoded[0] | flags & PARTIAL,)) + encoded[1:]


def _segments(read: Sequence[Any]) -> tuple[AsSegment, ...] | None:
    if not all(read):
        return None  # an empty segment
    return tuple(AsSegment(_NAMES[type(each)], tuple(map(int, each))) for each in read)


def _lists(segments: Sequence[AsSegment]) -> list[Any]:
    return [_CLASSES[each.kind](map(ASN, each.numbers)) for each in segments]
