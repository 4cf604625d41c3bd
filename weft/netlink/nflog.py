"""nfnetlink_log: ask for the packets of an nflog group, decode what comes, and read a packet's headers.

Sans-IO. Decoders take any bytes: what no kernel sends raises MalformedMessageError and nothing else, and a packet that
is cut off or of an unknown protocol is read as far as it goes.

Source: linux/netfilter/nfnetlink_log.h, RFC 791, 8200, 9293, 768, 792, 4443."""

import struct
from ipaddress import IPv4Address, IPv6Address
from typing import NamedTuple

from weft.netlink.message import (
    NLM_F_REQUEST,
    MalformedMessageError,
    Message,
    attribute,
    attributes,
    be16,
    be32,
    message,
    read_be32,
    read_string,
)

SUBSYSTEM = 4
_PACKET, _CONFIG = 0, 1

_CFG_CMD, _CFG_MODE, _CFG_TIMEOUT, _CFG_QTHRESH, _CFG_FLAGS = 1, 2, 4, 5, 6
_BIND = 1
_COPY_PACKET = 2
_FLAG_SEQUENCE = 1

_MARK, _IN, _OUT, _PAYLOAD, _PREFIX, _SEQUENCE = 2, 4, 5, 9, 10, 12
_GENERIC = struct.Struct(">BBH")  # nfgenmsg: family, version, group
_MODE = struct.Struct(">IBB")

TCP, UDP, DCCP, SCTP, UDPLITE = 6, 17, 33, 132, 136
_WITH_PORTS = frozenset((TCP, UDP, DCCP, SCTP, UDPLITE))
_ICMP = {4: 1, 6: 58}
_HOP_BY_HOP, _ROUTING, _FRAGMENT, _AUTHENTICATION, _DESTINATION_OPTIONS = 0, 43, 44, 51, 60
_MOST_EXTENSIONS = 8

IPAddress = IPv4Address | IPv6Address


class LoggedPacket(NamedTuple):
    """One packet that a log statement named. Indexes are 0 where it has no such interface, `mark` where it has none.

    `sequence` counts the packets of the group, modulo 2^32: a gap is what was lost."""

    group: int
    prefix: str
    mark: int
    in_index: int
    out_index: int
    sequence: int | None
    payload: bytes


class Headers(NamedTuple):
    """A packet's addresses and what of its transport header was there."""

    source: IPAddress
    destination: IPAddress
    protocol: int
    source_port: int | None = None
    destination_port: int | None = None
    icmp_type: int | None = None
    icmp_code: int | None = None


def bind(group: int, copy_bytes: int, wait_ms: int, at_once: int) -> list[bytes]:
    """Messages that make the sending socket the one listener of the group.

    The kernel hands packets over when `at_once` have come, or `wait_ms` after the first."""
    command = attribute(_CFG_CMD, bytes((_BIND,)))
    mode = attribute(_CFG_MODE, _MODE.pack(copy_bytes, _COPY_PACKET, 0))
    gathering = be32(_CFG_TIMEOUT, max(1, wait_ms // 10)) + be32(_CFG_QTHRESH, at_once)
    return [_config(group, body) for body in (command, mode, gathering + be16(_CFG_FLAGS, _FLAG_SEQUENCE))]


def _config(group: int, body: bytes) -> bytes:
    return message(SUBSYSTEM << 8 | _CONFIG, NLM_F_REQUEST, _GENERIC.pack(0, 0, group) + body)


def packet(found: Message) -> LoggedPacket | None:
    """None for what is no packet of nflog. Raises MalformedMessageError."""
    if found.kind != SUBSYSTEM << 8 | _PACKET:
        return None
    if len(found.payload) < _GENERIC.size:
        raise MalformedMessageError(f"a packet's message of {len(found.payload)} bytes")
    group: int = _GENERIC.unpack_from(found.payload)[2]
    known = attributes(found.payload, _GENERIC.size)

    def number(kind: int) -> int:
        return read_be32(known[kind]) if kind in known else 0

    return LoggedPacket(
        group,
        read_string(known.get(_PREFIX, b"")),
        number(_MARK),
        number(_IN),
        number(_OUT),
        number(_SEQUENCE) if _SEQUENCE in known else None,
        known.get(_PAYLOAD, b""),
    )


def lost_between(before: int | None, sequence: int | None) -> int:
    """How many packets of the group are missing between two that came in a row."""
    if before is None or sequence is None:
        return 0
    return (sequence - before - 1) % (1 << 32)


def headers(payload: bytes) -> Headers | None:
    """What an IP packet's beginning says; None if that is not even two addresses."""
    version = payload[0] >> 4 if payload else 0
    if version == 4 and len(payload) >= 20:
        source, destination = IPv4Address(payload[12:16]), IPv4Address(payload[16:20])
        is_first_fragment = (payload[6] << 8 | payload[7]) & 0x1FFF == 0
        behind = payload[max(20, (payload[0] & 15) * 4) :] if is_first_fragment else b""
        return _transport(Headers(source, destination, payload[9]), 4, behind)
    if version == 6 and len(payload) >= 40:
        protocol, behind = _behind_extensions(payload[6], payload[40:])
        return _transport(Headers(IPv6Address(payload[8:24]), IPv6Address(payload[24:40]), protocol), 6, behind)
    return None


def _behind_extensions(protocol: int, rest: bytes) -> tuple[int, bytes]:
    """The protocol behind the extension headers, and its bytes: none where the packet is not its beginning."""
    for _ in range(_MOST_EXTENSIONS):
        if protocol not in (_HOP_BY_HOP, _ROUTING, _FRAGMENT, _AUTHENTICATION, _DESTINATION_OPTIONS) or len(rest) < 8:
            break
        following = rest[0]
        if protocol == _FRAGMENT:
            if (rest[2] << 8 | rest[3]) & 0xFFF8:
                return following, b""
            length = 8
        elif protocol == _AUTHENTICATION:
            length = (rest[1] + 2) * 4
        else:
            length = (rest[1] + 1) * 8
        protocol, rest = following, rest[length:]
    return protocol, rest


def _transport(found: Headers, version: int, behind: bytes) -> Headers:
    if found.protocol in _WITH_PORTS and len(behind) >= 4:
        return found._replace(source_port=behind[0] << 8 | behind[1], destination_port=behind[2] << 8 | behind[3])
    if found.protocol == _ICMP[version] and len(behind) >= 2:
        return found._replace(icmp_type=behind[0], icmp_code=behind[1])
    return found
