"""What ExaBGP's codecs do for us: OPEN, the values of its capabilities, and ROUTE-REFRESH.

The one module of the reflector that imports ExaBGP, and nothing of ExaBGP comes out of it: values go in, values and
bytes come out, errors are ours. What is used of it reads neither its environment nor its logger, and keeps nothing
that a peer could make grow: both belong to the whole process (ADR 0150 says what is not used, and why)."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from functools import lru_cache
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
from exabgp.protocol.family import AFI, SAFI

from bird_agent.exabgp.commands import Family
from bird_agent.reflector.errors import OpenError, RefreshMalformed
from bird_agent.reflector.negotiation import VERSION, OpenMessage, Restart
from bird_agent.reflector.prefixes import AFI as AFI_NUMBER
from bird_agent.reflector.prefixes import FAMILY_OF, IPV4, UNICAST

_RESTARTING: Final = 0x8
_NOTIFICATION: Final = 0x4
_HEADER_SIZE: Final = 19
_REFRESH_ENDS: Final = 2
_AUTHENTICATION: Final = 1
_CAPABILITIES: Final = 2
_USED: Final = frozenset(
    map(
        int,
        (
            Capability.CODE.MULTIPROTOCOL,
            Capability.CODE.ROUTE_REFRESH,
            Capability.CODE.NEXTHOP,
            Capability.CODE.EXTENDED_MESSAGE,
            Capability.CODE.GRACEFUL_RESTART,
            Capability.CODE.FOUR_BYTES_ASN,
            Capability.CODE.ENHANCED_ROUTE_REFRESH,
        ),
    )
)


# OPEN


@lru_cache(64)
def write_open(message: OpenMessage) -> bytes:
    """The whole message. Remembered, because most peers of a reflector are told the same."""
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
    version, header_asn, hold_time_s, router_id = struct.unpack("!BHH4s", body[:9])
    if version != VERSION:
        raise OpenError(1, f"BGP version {version}", struct.pack("!H", VERSION))
    said = _said(body[9:])
    asn = header_asn if said.asn is None else said.asn
    if asn == 0:
        raise OpenError(2, "AS 0 (RFC 7607)")
    return OpenMessage(
        asn=asn,
        router_id=IPv4Address(router_id),
        hold_time_s=hold_time_s,
        asn4=said.asn is not None,
        families=said.families,
        extended_next_hop=said.extended_next_hop,
        route_refresh=said.route_refresh,
        enhanced_refresh=said.enhanced_refresh,
        extended_message=said.extended_message,
        restart=said.restart,
        two_byte_asn=None if header_asn == asn else header_asn,
    )


class _Said(NamedTuple):
    """What optional parameters say of an OPEN. `asn`: None where it is in the header."""

    asn: int | None
    families: tuple[Family, ...] | None
    extended_next_hop: tuple[Family, ...]
    route_refresh: bool
    enhanced_refresh: bool
    extended_message: bool
    restart: Restart | None


@lru_cache(64)
def _said(parameters: bytes) -> _Said:
    """Remembered, because most peers of a reflector say the same: 4 KB each at most."""
    capabilities = _capabilities(parameters)
    code = Capability.CODE
    multiprotocol = capabilities.get(code.MULTIPROTOCOL)
    return _Said(
        asn=int(capabilities[code.FOUR_BYTES_ASN]) if code.FOUR_BYTES_ASN in capabilities else None,
        families=None if multiprotocol is None else _ours(multiprotocol),
        extended_next_hop=_extended_next_hop(capabilities.get(code.NEXTHOP, ())),
        route_refresh=code.ROUTE_REFRESH in capabilities,
        enhanced_refresh=code.ENHANCED_ROUTE_REFRESH in capabilities,
        extended_message=code.EXTENDED_MESSAGE in capabilities,
        restart=_restart(capabilities.get(code.GRACEFUL_RESTART)),
    )


def _capabilities(parameters: bytes) -> dict[int, Any]:
    """Those we use, as ExaBGP reads them; what another one says, or gets wrong, is no matter of ours (RFC 5492 3)."""
    found: dict[int, Any] = {}
    for kind, parameter in _parameters(parameters):
        if kind == _AUTHENTICATION:
            raise OpenError(5, "authentication by OPEN is no longer known")
        if kind != _CAPABILITIES:
            raise OpenError(4, f"an optional parameter of type {kind}")
        for code, value in _pieces(parameter, 1):
            if code in _USED:
                found[code] = _capability(code, value, found)
    return found


def _capability(code: int, value: bytes, found: dict[int, Any]) -> Any:
    try:
        return Capability.unpack(code, found, value)
    except Notify as error:
        raise OpenError(0, f"capability {code} is {value.hex()}: {error}") from None


def _parameters(field: bytes) -> Iterator[tuple[int, bytes]]:
    """The optional parameters, whose lengths may have two bytes (RFC 4271 4.2, RFC 9072)."""
    if field[:2] == b"\xff\xff" and len(field) >= 4:
        width, said, rest = 2, int.from_bytes(field[2:4]), field[4:]
    else:
        width, said, rest = 1, field[0], field[1:]
    if said != len(rest):
        raise OpenError(0, f"optional parameters of {said} bytes are {len(rest)} bytes")
    return _pieces(rest, width)


def _pieces(field: bytes, width: int) -> Iterator[tuple[int, bytes]]:
    """Type, length of `width` bytes, value."""
    while field:
        begin = 1 + width
        end = begin + int.from_bytes(field[1:begin])
        if len(field) < max(begin, end):
            raise OpenError(0, f"a parameter or capability is cut: {field.hex()}")
        yield field[0], field[begin:end]
        field = field[end:]


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
    afi, subtype, safi = struct.unpack("!HBB", body)  # ExaBGP would remember every AFI that it is shown
    family = FAMILY_OF.get((afi, safi))
    return None if family is None or subtype > _REFRESH_ENDS else (family, subtype)
