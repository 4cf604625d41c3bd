"""Connection tracking over netlink: what to ask for, what to change, and what a dump says.

Bytes to values and back; no socket. What policy sees of a connection is `Seen`, read at fixed offsets where an entry is
laid out as the kernel lays out almost all of them, so that a table of 100,000 entries is read in a fraction of a
second. Any other layout is decoded attribute by attribute, with the same outcome.

Source of the wire: linux/netfilter/nfnetlink_conntrack.h, net/netfilter/nf_conntrack_netlink.c."""

import struct
from collections.abc import Callable, Iterable
from typing import NamedTuple

from msgspec import Struct

from weft.netlink.message import (
    AF_INET,
    AF_INET6,
    HEADER,
    NLM_F_DUMP_INTR,
    NLM_F_REQUEST,
    NLMSG_DONE,
    NLMSG_ERROR,
    MalformedMessageError,
    Message,
    acknowledgement,
    attribute,
    attributes,
    be16,
    be32,
    message,
    nested,
    read_be16,
    read_be32,
    read_u8,
    u8,
    u32,
)

SUBSYSTEM = 1
CT_NEW, CT_GET, CT_DELETE = SUBSYSTEM << 8 | 0, SUBSYSTEM << 8 | 1, SUBSYSTEM << 8 | 2

ICMP, ICMPV6 = 1, 58
STATUS_EXPECTED, STATUS_SEEN_REPLY, STATUS_ASSURED, STATUS_CONFIRMED = 1, 2, 4, 8

TUPLE_ORIGINAL, TUPLE_REPLY, STATUS, TIMEOUT, MARK, TUPLE_MASTER, ZONE, MARK_MASK = 1, 2, 3, 7, 8, 14, 18, 21
_FILTER, _FILTER_ORIGINAL_FLAGS, _FILTER_REPLY_FLAGS, _FILTER_SOURCE = 25, 1, 2, 1
_TUPLE_IP, _TUPLE_PROTOCOL, _TUPLE_ZONE = 1, 2, 3
_PROTOCOL_NUMBER, _SOURCE_PORT, _DESTINATION_PORT = 1, 2, 3
_ICMP_ATTRIBUTES = {ICMP: (4, 5, 6), ICMPV6: (7, 8, 9)}
_ADDRESS_ATTRIBUTES = {AF_INET: (1, 2), AF_INET6: (3, 4)}
_ADDRESS_BYTES = {AF_INET: 4, AF_INET6: 16}
_GENERIC = struct.Struct("=BBH")  # nfgenmsg: family, version, resource id
_BODY = 16 + _GENERIC.size  # where the attributes of a message begin


class Tuple(NamedTuple):
    """One direction of a connection. Addresses are packed, four or sixteen bytes.

    `icmp`: identifier, type and code of an ICMP or ICMPv6 connection. `zone`: where the direction has its own."""

    source: bytes
    destination: bytes
    protocol: int
    ports: tuple[int, int] | None = None
    icmp: tuple[int, int, int] | None = None
    zone: int | None = None

    @property
    def family(self) -> int:
        return AF_INET if len(self.source) == 4 else AF_INET6


class Seen(Struct, frozen=True, gc=False):
    """The first packet of a connection as the forward hook sees it: its destination translated already (DNAT), its
    source not yet (masquerading).

    first, second: source and destination port, or type and code of an ICMP message; 0 for protocols with neither."""

    source: bytes
    destination: bytes
    protocol: int
    first: int
    second: int


class Sighting(Struct, frozen=True, gc=False):
    """An entry of the table, as far as somebody is concerned who may mark it.

    `name` is what tells the kernel which entry it is (attributes). `master`: the original direction of the
    connection that announced this one (FTP's control connection, say)."""

    seen: Seen
    mark: int
    name: bytes
    family: int
    master: Tuple | None = None


class Chunk(NamedTuple):
    """One datagram of a dump. `finished`: the last; `errno`: why the kernel ended it, 0 if it is complete.

    `interrupted`: the table changed such that entries may have been passed over."""

    sightings: list[Sighting]
    finished: bool
    interrupted: bool
    errno: int


Wants = Callable[[bytes, bytes], bool]
"""Whether a connection from this address to that one (as `Seen` has them) is of interest."""


# --- requests -----------------------------------------------------------------------------------------------------


def dump(family: int, original_source: bytes | None = None, reply_source: bytes | None = None) -> bytes:
    """All entries of a family, or those whose direction has this source (at most one of the two may be given).

    Kernels before 5.8 do not know the filter and send everything: filter what comes back, too."""
    if original_source is not None:
        return _request(CT_GET, family, _filtered(family, TUPLE_ORIGINAL, original_source))
    if reply_source is not None:
        return _request(CT_GET, family, _filtered(family, TUPLE_REPLY, reply_source))
    return _request(CT_GET, family)


def _filtered(family: int, direction: int, source: bytes) -> bytes:
    flags = (_FILTER_SOURCE, 0) if direction == TUPLE_ORIGINAL else (0, _FILTER_SOURCE)
    address = nested(_TUPLE_IP, attribute(_ADDRESS_ATTRIBUTES[family][0], source))
    wanted = nested(_FILTER, u32(_FILTER_ORIGINAL_FLAGS, flags[0]), u32(_FILTER_REPLY_FLAGS, flags[1]))
    return nested(direction, address) + wanted


def get(original: Tuple) -> bytes:
    """The one entry with this original direction."""
    return _request(CT_GET, original.family, encode_tuple(TUPLE_ORIGINAL, original))


def set_mark(sighting: Sighting, value: int, mask: int) -> bytes:
    """The bits in `mask` become those of `value`, the others of the mark stay. ENOENT: the entry is gone."""
    body = sighting.name + be32(MARK, value & mask) + be32(MARK_MASK, mask)
    return _request(CT_NEW, sighting.family, body)


def encode_tuple(kind: int, one: Tuple) -> bytes:
    """As the kernel writes it."""
    source, destination = _ADDRESS_ATTRIBUTES[one.family]
    addresses = nested(_TUPLE_IP, attribute(source, one.source), attribute(destination, one.destination))
    parts = [u8(_PROTOCOL_NUMBER, one.protocol)]
    if one.icmp is not None:
        identifier, icmp_type, code = _ICMP_ATTRIBUTES[one.protocol]
        parts += [be16(identifier, one.icmp[0]), u8(icmp_type, one.icmp[1]), u8(code, one.icmp[2])]
    elif one.ports is not None:
        parts += [be16(_SOURCE_PORT, one.ports[0]), be16(_DESTINATION_PORT, one.ports[1])]
    zone = b"" if one.zone is None else be16(_TUPLE_ZONE, one.zone)
    return nested(kind, addresses, nested(_TUPLE_PROTOCOL, *parts), zone)


def _request(kind: int, family: int, body: bytes = b"") -> bytes:
    return message(kind, NLM_F_REQUEST, _GENERIC.pack(family, 0, 0) + body)


# --- what comes back ----------------------------------------------------------------------------------------------


def read_chunk(data: bytes, sequence: int, wants: Wants) -> Chunk:
    """What one datagram of the dump with this sequence number says. Raises MalformedMessageError."""
    sightings: list[Sighting] = []
    interrupted = False
    at, end, unpack = 0, len(data), HEADER.unpack_from
    while end - at >= 16:
        length, kind, flags, number, _ = unpack(data, at)
        if length < 16 or at + length > end:
            raise MalformedMessageError(f"message of {length} bytes at {at} of {end}")
        if number == sequence:
            interrupted = interrupted or bool(flags & NLM_F_DUMP_INTR)
            if kind == CT_NEW:
                found = _sighting(data[at : at + length], wants)
                if found is not None:
                    sightings.append(found)
            elif kind in (NLMSG_DONE, NLMSG_ERROR):
                ended = Message(kind, flags, number, 0, data[at + 16 : at + length])
                return Chunk(sightings, True, interrupted, acknowledgement(ended).errno)
        at += (length + 3) & ~3
    if at < end:
        raise MalformedMessageError(f"{end - at} bytes behind the last message")
    return Chunk(sightings, False, interrupted, 0)


def _attribute_header(length: int, kind: int) -> bytes:
    return struct.pack("=HH", length, kind)


class _Layout:
    """Where an entry of a protocol with ports, in the default zone and expected by no other, has what we look for."""

    def __init__(self, family: int) -> None:
        size = _ADDRESS_BYTES[family]
        addresses, tuple_bytes = 4 + 2 * (4 + size), 4 + 4 + 2 * (4 + size) + 28
        source, _ = _ADDRESS_ATTRIBUTES[family]
        nest = 0x8000
        head = _attribute_header(addresses, _TUPLE_IP | nest) + _attribute_header(4 + size, source)
        protocol = _attribute_header(28, _TUPLE_PROTOCOL | nest) + _attribute_header(5, _PROTOCOL_NUMBER)
        ports = _attribute_header(6, _SOURCE_PORT)
        self.reply = _BODY + tuple_bytes
        self.behind = self.reply + tuple_bytes
        # What must be there for the offsets to hold: the headers of both tuples and of the status behind them; as one
        # number, with the bits that matter.
        headers = [(self.behind, _attribute_header(8, STATUS))]
        for base, kind in ((_BODY, TUPLE_ORIGINAL), (self.reply, TUPLE_REPLY)):
            number = base + 4 + addresses
            whole = _attribute_header(tuple_bytes, kind | nest) + head
            headers += [(base, whole), (number, protocol), (number + 12, ports)]
        self.end = self.behind + 8
        self.expected = sum(int.from_bytes(part, "little") << 8 * start for start, part in headers)
        self.mask = sum((1 << 8 * len(part)) - 1 << 8 * start for start, part in headers)
        # Source, protocol, source port; 22 bytes on, the reply's source and source port, then the status.
        to_number = size + 4 + 8
        self.fields = struct.Struct(f"!{size}s{to_number}xB7xH22x{size}s{to_number + 8}xH14xI")
        self.at = _BODY + 12


_LAYOUTS = {AF_INET: _Layout(AF_INET), AF_INET6: _Layout(AF_INET6)}
_MARK_HEADER = _attribute_header(8, MARK)


def _sighting(entry: bytes, wants: Wants) -> Sighting | None:
    """Of one whole message, or None if its addresses are of no interest. Raises MalformedMessageError."""
    if len(entry) < _BODY:
        raise MalformedMessageError(f"an entry of {len(entry)} bytes")
    family = entry[16]
    layout = _LAYOUTS.get(family)
    if layout is None:
        return None
    if int.from_bytes(entry[: layout.end], "little") & layout.mask != layout.expected or len(entry) < layout.end:
        return _sighting_of_any_layout(entry, family, wants)
    source, protocol, source_port, destination, port, status = layout.fields.unpack_from(entry, layout.at)
    if not wants(source, destination):
        return None
    if status & STATUS_EXPECTED or protocol in _ICMP_ATTRIBUTES:
        return _sighting_of_any_layout(entry, family, wants)
    # An entry without a mark has no such attribute. These bytes may be part of another one, but if they are not
    # there at all, neither is the attribute.
    mark = 0
    if entry.find(_MARK_HEADER, layout.behind) >= 0:
        mark = _mark(attributes(entry, layout.behind))
    return Sighting(Seen(source, destination, protocol, source_port, port), mark, entry[_BODY : layout.reply], family)


def _sighting_of_any_layout(entry: bytes, family: int, wants: Wants) -> Sighting | None:
    found = attributes(entry, _BODY)
    if TUPLE_ORIGINAL not in found or TUPLE_REPLY not in found:
        raise MalformedMessageError("an entry that lacks a direction")
    original, reply = (_tuple(found[kind], family) for kind in (TUPLE_ORIGINAL, TUPLE_REPLY))
    if not wants(original.source, reply.source):
        return None
    master = _tuple(found[TUPLE_MASTER], family) if TUPLE_MASTER in found else None
    name = attribute(TUPLE_ORIGINAL | 0x8000, found[TUPLE_ORIGINAL])
    if ZONE in found:
        name += attribute(ZONE, found[ZONE])
    return Sighting(seen(original, reply), _mark(found), name, family, master)


def seen(original: Tuple, reply: Tuple) -> Seen:
    """What policy saw of a connection with these directions."""
    first = second = 0
    if original.icmp is not None:
        _, first, second = original.icmp
    elif original.ports is not None and reply.ports is not None:
        first, second = original.ports[0], reply.ports[0]
    return Seen(original.source, reply.source, original.protocol, first, second)


def _mark(found: dict[int, bytes]) -> int:
    return read_be32(found[MARK]) if MARK in found else 0


def _tuple(payload: bytes, family: int) -> Tuple:
    parts = attributes(payload)
    addresses = attributes(parts.get(_TUPLE_IP, b""))
    ends = [addresses.get(kind, b"") for kind in _ADDRESS_ATTRIBUTES[family]]
    if any(len(one) != _ADDRESS_BYTES[family] for one in ends):
        raise MalformedMessageError("a direction without addresses of its family")
    fields = attributes(parts.get(_TUPLE_PROTOCOL, b""))
    if _PROTOCOL_NUMBER not in fields:
        raise MalformedMessageError("a direction without a protocol")
    protocol = read_u8(fields[_PROTOCOL_NUMBER])
    icmp = ports = None
    if protocol in _ICMP_ATTRIBUTES:
        identifier, icmp_type, code = _ICMP_ATTRIBUTES[protocol]
        if {identifier, icmp_type, code} <= fields.keys():
            icmp = read_be16(fields[identifier]), read_u8(fields[icmp_type]), read_u8(fields[code])
    elif _SOURCE_PORT in fields and _DESTINATION_PORT in fields:
        ports = read_be16(fields[_SOURCE_PORT]), read_be16(fields[_DESTINATION_PORT])
    zone = read_be16(parts[_TUPLE_ZONE]) if _TUPLE_ZONE in parts else None
    return Tuple(ends[0], ends[1], protocol, ports, icmp, zone)


def read_sightings(answers: Iterable[Message]) -> list[Sighting]:
    """The entries among the answers to `get`. Raises MalformedMessageError."""
    found = []
    for answer in answers:
        if answer.kind == CT_NEW:
            one = _sighting(HEADER.pack(0, answer.kind, 0, 0, 0) + answer.payload, lambda *_: True)
            if one is not None:
                found.append(one)
    return found
