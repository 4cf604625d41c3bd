"""BGP messages of a speaker that follows a script: what it says, and the little it reads of what it hears.

Pure, and no implementation of BGP to rely on: IPv4 unicast with 4-byte AS numbers; of an UPDATE it reads the prefixes
alone, and it judges no attribute."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import IntEnum
from ipaddress import IPv4Address, IPv4Network
from typing import Final

MARKER: Final = b"\xff" * 16
HEADER: Final = 19
LARGEST: Final = 4096
AS_TRANS: Final = 23456
_FORWARDING_KEPT: Final = 0x80


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
    """What one end says of itself in its OPEN. `restart_time_s`: graceful restart, forwarding state kept."""

    asn: int
    router_id: IPv4Address
    hold_time_s: int = 180
    restart_time_s: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Attributes:
    """Those of every route of one speaker."""

    next_hop: IPv4Address
    as_path: tuple[int, ...] = ()
    local_preference: int | None = None
    communities: tuple[tuple[int, int], ...] = ()


def message(kind: Kind, body: bytes = b"") -> bytes:
    return MARKER + struct.pack("!HB", HEADER + len(body), kind) + body


KEEPALIVE: Final = message(Kind.KEEPALIVE)
END_OF_RIB: Final = message(Kind.UPDATE, bytes(4))


def open_message(identity: Identity) -> bytes:
    capabilities = [_capability(1, struct.pack("!HBB", 1, 0, 1)), _capability(2, b"")]
    capabilities.append(_capability(65, struct.pack("!I", identity.asn)))
    if identity.restart_time_s is not None:
        family = struct.pack("!HBB", 1, 1, _FORWARDING_KEPT)
        capabilities.append(_capability(64, struct.pack("!H", identity.restart_time_s) + family))
    parameters = b"".join(bytes((2, len(one))) + one for one in capabilities)
    asn = identity.asn if identity.asn < 1 << 16 else AS_TRANS
    fixed = struct.pack("!BHH4sB", 4, asn, identity.hold_time_s, identity.router_id.packed, len(parameters))
    return message(Kind.OPEN, fixed + parameters)


def cease(subcode: int) -> bytes:
    return message(Kind.NOTIFICATION, bytes((6, subcode)))


def announce(attributes: Attributes, prefixes: Iterable[IPv4Network]) -> bytes:
    """As many UPDATEs as it takes; none for no prefixes."""
    encoded = _attributes(attributes)
    room = LARGEST - HEADER - 4 - len(encoded)
    header = struct.pack("!HH", 0, len(encoded)) + encoded
    return b"".join(message(Kind.UPDATE, header + each) for each in _packed(prefixes, room))


def withdraw(prefixes: Iterable[IPv4Network]) -> bytes:
    return b"".join(
        message(Kind.UPDATE, struct.pack("!H", len(each)) + each + bytes(2))
        for each in _packed(prefixes, LARGEST - HEADER - 4)
    )


@dataclass(frozen=True, slots=True)
class Update:
    """The prefixes of one UPDATE; one without any at all is an end-of-RIB."""

    announced: tuple[IPv4Network, ...]
    withdrawn: tuple[IPv4Network, ...]


def read_update(body: bytes) -> Update:
    if len(body) < 4:
        raise MalformedError("an UPDATE that is too short")
    withdrawn_end = 2 + int.from_bytes(body[:2], "big")
    attributes_end = withdrawn_end + 2 + int.from_bytes(body[withdrawn_end : withdrawn_end + 2], "big")
    if attributes_end > len(body):
        raise MalformedError("an UPDATE whose lengths go beyond its end")
    return Update(tuple(_prefixes(body[attributes_end:])), tuple(_prefixes(body[2:withdrawn_end])))


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
    parts = [_attribute(0x40, 1, b"\0"), _attribute(0x40, 2, path), _attribute(0x40, 3, attributes.next_hop.packed)]
    if attributes.local_preference is not None:
        parts.append(_attribute(0x40, 5, struct.pack("!I", attributes.local_preference)))
    if attributes.communities:
        parts.append(_attribute(0xC0, 8, b"".join(struct.pack("!HH", *one) for one in attributes.communities)))
    return b"".join(parts)


def _attribute(flags: int, code: int, value: bytes) -> bytes:
    return bytes((flags, code, len(value))) + value


def _packed(prefixes: Iterable[IPv4Network], room: int) -> Iterator[bytes]:
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


def _prefixes(packed: bytes) -> Iterator[IPv4Network]:
    position = 0
    while position < len(packed):
        length = packed[position]
        size = (length + 7) // 8
        address = packed[position + 1 : position + 1 + size]
        if length > 32 or len(address) < size:
            raise MalformedError(f"no IPv4 prefix: {packed[position : position + 5].hex()}")
        yield IPv4Network((address.ljust(4, b"\0"), length), strict=False)
        position += 1 + size
