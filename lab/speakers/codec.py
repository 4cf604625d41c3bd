"""BGP messages of a speaker that follows a script: what it says, and the little it reads of what it hears.

Pure, and no implementation of BGP to rely on: IPv4 and IPv6 unicast, one of them in a session, with 4-byte AS numbers;
of an UPDATE it reads the prefixes alone, and it judges no attribute."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import IntEnum
from ipaddress import IPv4Address, IPv4Network, IPv6Network
from typing import Final

from weft.model.address import IPAddress, IPNetwork

MARKER: Final = b"\xff" * 16
HEADER: Final = 19
LARGEST: Final = 4096
AS_TRANS: Final = 23456
_FORWARDING_KEPT: Final = 0x80
_AFI: Final = {4: 1, 6: 2}
_UNICAST: Final = 1
_MP_REACH, _MP_UNREACH = 14, 15
_IPV6_UNICAST: Final = struct.pack("!HB", _AFI[6], _UNICAST)
_EXTENDED_LENGTH: Final = 0x10


class Kind(IntEnum):
    OPEN = 1
    UPDATE = 2
    NOTIFICATION = 3
    KEEPALIVE = 4
    ROUTE_REFRESH = 5


class MalformedError(ValueError):
    """Bytes that are no BGP message: the stream cannot be read on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """What one end says of itself in its OPEN. `version`: of the addresses that the session carries.
    `restart_time_s`: graceful restart, forwarding state kept."""

    asn: int
    router_id: IPv4Address
    version: int = 4
    hold_time_s: int = 180
    restart_time_s: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Attributes:
    """Those of every route of one speaker; the next hop is of the routes' family."""

    next_hop: IPAddress
    as_path: tuple[int, ...] = ()
    local_preference: int | None = None
    communities: tuple[tuple[int, int], ...] = ()


def message(kind: Kind, body: bytes = b"") -> bytes:
    return MARKER + struct.pack("!HB", HEADER + len(body), kind) + body


KEEPALIVE: Final = message(Kind.KEEPALIVE)


def end_of_rib(version: int = 4) -> bytes:
    return message(Kind.UPDATE, bytes(4)) if version == 4 else _unreachable(b"")


def open_message(identity: Identity) -> bytes:
    afi = _AFI[identity.version]
    capabilities = [_capability(1, struct.pack("!HBB", afi, 0, _UNICAST)), _capability(2, b"")]
    capabilities.append(_capability(65, struct.pack("!I", identity.asn)))
    if identity.restart_time_s is not None:
        family = struct.pack("!HBB", afi, _UNICAST, _FORWARDING_KEPT)
        capabilities.append(_capability(64, struct.pack("!H", identity.restart_time_s) + family))
    parameters = b"".join(bytes((2, len(one))) + one for one in capabilities)
    asn = identity.asn if identity.asn < 1 << 16 else AS_TRANS
    fixed = struct.pack("!BHH4sB", 4, asn, identity.hold_time_s, identity.router_id.packed, len(parameters))
    return message(Kind.OPEN, fixed + parameters)


def cease(subcode: int) -> bytes:
    return message(Kind.NOTIFICATION, bytes((6, subcode)))


def announce(attributes: Attributes, prefixes: Iterable[IPNetwork]) -> bytes:
    """As many UPDATEs as it takes; none for no prefixes."""
    encoded = _attributes(attributes)
    room = LARGEST - HEADER - 4 - len(encoded)
    if attributes.next_hop.version == 4:
        header = struct.pack("!HH", 0, len(encoded)) + encoded
        return b"".join(message(Kind.UPDATE, header + each) for each in _packed(prefixes, room))
    reach = struct.pack("!HBB", _AFI[6], _UNICAST, 16) + attributes.next_hop.packed + b"\0"
    return b"".join(
        _with_attributes(_long_attribute(_MP_REACH, reach + each) + encoded)
        for each in _packed(prefixes, room - 4 - len(reach))
    )


def withdraw(prefixes: Iterable[IPNetwork]) -> bytes:
    """As many UPDATEs as it takes, for prefixes of one family."""
    some = list(prefixes)
    if some and some[0].version == 6:
        return b"".join(_unreachable(each) for each in _packed(some, LARGEST - HEADER - 4 - 4 - 3))
    return b"".join(
        message(Kind.UPDATE, struct.pack("!H", len(each)) + each + bytes(2))
        for each in _packed(some, LARGEST - HEADER - 4)
    )


@dataclass(frozen=True, slots=True)
class Update:
    """The prefixes of one UPDATE; one without any at all is an end-of-RIB."""

    announced: tuple[IPNetwork, ...]
    withdrawn: tuple[IPNetwork, ...]


def read_update(body: bytes) -> Update:
    if len(body) < 4:
        raise MalformedError("an UPDATE that is too short")
    withdrawn_end = 2 + int.from_bytes(body[:2], "big")
    attributes_end = withdrawn_end + 2 + int.from_bytes(body[withdrawn_end : withdrawn_end + 2], "big")
    if attributes_end > len(body):
        raise MalformedError("an UPDATE whose lengths go beyond its end")
    announced, withdrawn = list(_prefixes(body[attributes_end:])), list(_prefixes(body[2:withdrawn_end]))
    for code, value in _read_attributes(body[withdrawn_end + 2 : attributes_end]):
        if code == _MP_REACH and value[:3] == _IPV6_UNICAST:
            announced += _prefixes(value[4 + value[3] + 1 :] if len(value) > 3 else b"", 6)
        elif code == _MP_UNREACH and value[:3] == _IPV6_UNICAST:
            withdrawn += _prefixes(value[3:], 6)
    return Update(tuple(announced), tuple(withdrawn))


def split(data: bytes) -> tuple[list[bytes], bytes]:
    """The whole messages in `data`, each without its marker (length, kind, body), and the unread rest."""
    pieces, position, end = [], 0, len(data)
    while end - position >= HEADER:
        length = data[position + 16] << 8 | data[position + 17]
        if length < HEADER or not data.startswith(MARKER, position):
            raise MalformedError(f"no BGP message at byte {position}")
        if end - position < length:
            break
        pieces.append(data[position + 16 : position + length])
        position += length
    return pieces, data[position:]


def _capability(code: int, value: bytes) -> bytes:
    return bytes((code, len(value))) + value


def _attributes(attributes: Attributes) -> bytes:
    path = b""
    if attributes.as_path:
        numbers = struct.pack(f"!{len(attributes.as_path)}I", *attributes.as_path)
        path = bytes((2, len(attributes.as_path))) + numbers
    parts = [_attribute(0x40, 1, b"\0"), _attribute(0x40, 2, path)]
    if attributes.next_hop.version == 4:
        parts.append(_attribute(0x40, 3, attributes.next_hop.packed))
    if attributes.local_preference is not None:
        parts.append(_attribute(0x40, 5, struct.pack("!I", attributes.local_preference)))
    if attributes.communities:
        parts.append(_attribute(0xC0, 8, b"".join(struct.pack("!HH", *one) for one in attributes.communities)))
    return b"".join(parts)


def _attribute(flags: int, code: int, value: bytes) -> bytes:
    return bytes((flags, code, len(value))) + value


def _long_attribute(code: int, value: bytes) -> bytes:
    return struct.pack("!BBH", 0x80 | _EXTENDED_LENGTH, code, len(value)) + value


def _with_attributes(encoded: bytes) -> bytes:
    return message(Kind.UPDATE, struct.pack("!HH", 0, len(encoded)) + encoded)


def _unreachable(packed: bytes) -> bytes:
    return _with_attributes(_long_attribute(_MP_UNREACH, _IPV6_UNICAST + packed))


def _read_attributes(encoded: bytes) -> Iterator[tuple[int, bytes]]:
    position = 0
    while position < len(encoded):
        start = position + (4 if encoded[position] & _EXTENDED_LENGTH else 3)
        if start > len(encoded):
            raise MalformedError("attributes that end in the middle of one")
        end = start + int.from_bytes(encoded[position + 2 : start], "big")
        if end > len(encoded):
            raise MalformedError("an attribute that goes beyond the end of all")
        yield encoded[position + 1], encoded[start:end]
        position = end


def _packed(prefixes: Iterable[IPNetwork], room: int) -> Iterator[bytes]:
    """The prefixes as NLRI, in pieces of at most `room` bytes."""
    gathered = bytearray()
    for prefix in prefixes:
        one = bytes((prefix.prefixlen,)) + prefix.network_address.packed[: (prefix.prefixlen + 7) // 8]
        if len(gathered) + len(one) > room:
            yield bytes(gathered)
            gathered.clear()
        gathered += one
    if gathered:
        yield bytes(gathered)


def _prefixes(packed: bytes, version: int = 4) -> Iterator[IPNetwork]:
    position, most = 0, 32 if version == 4 else 128
    while position < len(packed):
        length = packed[position]
        size = (length + 7) // 8
        address = packed[position + 1 : position + 1 + size]
        if length > most or len(address) < size:
            raise MalformedError(f"no IPv{version} prefix: {packed[position : position + 1 + size].hex()}")
        whole = address.ljust(most // 8, b"\0")
        yield IPv4Network((whole, length), False) if version == 4 else IPv6Network((whole, length), False)
        position += 1 + size
