"""Encode and decode netlink messages and attributes: bytes in, frozen values out.

This module knows the framing that every netlink family shares (linux/netlink.h) and nothing of what a family
means; it opens no socket. Numbers are in host byte order unless a name says `be`, as the kernel has them."""

import struct
from collections.abc import Callable, Iterator
from typing import NamedTuple

from msgspec import Struct

# Address families of the messages that carry addresses.
AF_UNSPEC = 0
AF_INET = 2
AF_INET6 = 10

# Message types that are not a family's own.
NLMSG_NOOP = 1
NLMSG_ERROR = 2
NLMSG_DONE = 3
NLMSG_OVERRUN = 4

# Flags of every message, of a GET, of a NEW, of an answer.
NLM_F_REQUEST = 0x001
NLM_F_MULTI = 0x002
NLM_F_ACK = 0x004
NLM_F_ECHO = 0x008
NLM_F_DUMP_INTR = 0x010
NLM_F_DUMP_FILTERED = 0x020
NLM_F_ROOT = 0x100
NLM_F_MATCH = 0x200
NLM_F_DUMP = NLM_F_ROOT | NLM_F_MATCH
NLM_F_REPLACE = 0x100
NLM_F_EXCL = 0x200
NLM_F_CREATE = 0x400
NLM_F_APPEND = 0x800
NLM_F_CAPPED = 0x100
NLM_F_ACK_TLVS = 0x200

NLA_F_NESTED = 0x8000
NLA_F_NET_BYTEORDER = 0x4000
NLA_TYPE_MASK = 0x3FFF

NLMSGERR_ATTR_MSG = 1
NLMSGERR_ATTR_OFFS = 2

HEADER = struct.Struct("=IHHII")
FLAGS_OFFSET = 6
SEQUENCE_OFFSET = 8
U16 = struct.Struct("=H")
U32 = struct.Struct("=I")
S32 = struct.Struct("=i")
_ATTRIBUTE = struct.Struct("=HH")
_ATTRIBUTE_U8 = struct.Struct("=HHBxxx")
_ATTRIBUTE_U16 = struct.Struct("=HHHxx")
_ATTRIBUTE_U32 = struct.Struct("=HHI")
_ATTRIBUTE_S32 = struct.Struct("=HHi")
_ATTRIBUTE_U64 = struct.Struct("=HHQ")
_PADDING = (b"", b"\0\0\0", b"\0\0", b"\0")
_LONGEST_ATTRIBUTE = 0xFFFF


class MalformedMessageError(ValueError):
    """Bytes that no kernel sends: the lengths do not add up. The reader cannot know what follows; read again."""


class Message(NamedTuple):
    """One message as it came from a socket; `payload` starts behind the header."""

    kind: int
    flags: int
    sequence: int
    port: int
    payload: bytes


class Acknowledgement(Struct, frozen=True):
    """An NLMSG_ERROR. `errno` is positive, and 0 means done; `offset` is where in the refused message the kernel
    found the fault (from its start, header included)."""

    sequence: int
    errno: int
    text: str = ""
    offset: int | None = None


def message(kind: int, flags: int, body: bytes, sequence: int = 0) -> bytes:
    """A whole message. The sequence is normally left to the socket, which stamps it when it sends."""
    return HEADER.pack(16 + len(body), kind, flags, sequence, 0) + body + _PADDING[len(body) & 3]


def attribute(kind: int, payload: bytes) -> bytes:
    """One attribute, padded to four bytes. Raises ValueError if it is longer than a length field can say."""
    length = 4 + len(payload)
    if length > _LONGEST_ATTRIBUTE:
        raise ValueError(f"attribute {kind} of {length} bytes; the longest is {_LONGEST_ATTRIBUTE}")
    return _ATTRIBUTE.pack(length, kind) + payload + _PADDING[length & 3]


def nested(kind: int, *parts: bytes) -> bytes:
    """An attribute that holds attributes, marked as such (NLA_F_NESTED)."""
    return attribute(kind | NLA_F_NESTED, b"".join(parts))


def string(kind: int, text: str) -> bytes:
    """A zero-terminated string."""
    return attribute(kind, text.encode() + b"\0")


def u8(kind: int, value: int) -> bytes:
    return _ATTRIBUTE_U8.pack(5, kind, value)


def u16(kind: int, value: int) -> bytes:
    return _ATTRIBUTE_U16.pack(6, kind, value)


def u32(kind: int, value: int) -> bytes:
    return _ATTRIBUTE_U32.pack(8, kind, value)


def u64(kind: int, value: int) -> bytes:
    return _ATTRIBUTE_U64.pack(12, kind, value)


def be16(kind: int, value: int) -> bytes:
    return _ATTRIBUTE.pack(6, kind) + value.to_bytes(2, "big") + b"\0\0"


def be32(kind: int, value: int) -> bytes:
    return _ATTRIBUTE.pack(8, kind) + value.to_bytes(4, "big")


def be64(kind: int, value: int) -> bytes:
    return _ATTRIBUTE.pack(12, kind) + value.to_bytes(8, "big")


def messages(buffer: bytes | memoryview) -> Iterator[Message]:
    """The messages of one datagram. Raises MalformedMessageError."""
    data = bytes(buffer)
    unpack, end, offset = HEADER.unpack_from, len(data), 0
    while end - offset >= 16:
        length, kind, flags, sequence, port = unpack(data, offset)
        if length < 16 or offset + length > end:
            raise MalformedMessageError(f"message of {length} bytes at {offset} of {end}")
        yield Message(kind, flags, sequence, port, data[offset + 16 : offset + length])
        offset += (length + 3) & ~3
    if offset < end:
        raise MalformedMessageError(f"{end - offset} bytes behind the last message")


def iter_attributes(data: bytes, offset: int = 0) -> Iterator[tuple[int, bytes]]:
    """(kind without flags, payload) of each attribute from `offset` on; a list keeps its repetitions.
    Raises MalformedMessageError."""
    unpack, end = _ATTRIBUTE.unpack_from, len(data)
    while end - offset >= 4:
        length, kind = unpack(data, offset)
        if length < 4 or offset + length > end:
            raise MalformedMessageError(f"attribute {kind} of {length} bytes at {offset} of {end}")
        yield kind & NLA_TYPE_MASK, data[offset + 4 : offset + length]
        offset += (length + 3) & ~3


def attributes(data: bytes, offset: int = 0) -> dict[int, bytes]:
    """The attributes from `offset` on by kind; of a repeated kind the last one. Raises MalformedMessageError."""
    return dict(iter_attributes(data, offset))


def _integer(layout: struct.Struct) -> Callable[[bytes], int]:
    def read(payload: bytes) -> int:
        try:
            value: int = layout.unpack(payload)[0]
        except struct.error as error:
            raise MalformedMessageError(f"{len(payload)} bytes where {layout.size} belong") from error
        return value

    return read


read_u8 = _integer(struct.Struct("=B"))
read_u16 = _integer(U16)
read_u32 = _integer(U32)
read_s32 = _integer(S32)
read_u64 = _integer(struct.Struct("=Q"))
read_be16 = _integer(struct.Struct(">H"))
read_be32 = _integer(struct.Struct(">I"))
read_be64 = _integer(struct.Struct(">Q"))


def read_string(payload: bytes) -> str:
    return payload.split(b"\0", 1)[0].decode(errors="replace")


def acknowledgement(answer: Message) -> Acknowledgement:
    """Decode an NLMSG_ERROR, or the status of an NLMSG_DONE. Raises MalformedMessageError."""
    payload = answer.payload
    if len(payload) < 4:
        if answer.kind == NLMSG_DONE:
            return Acknowledgement(answer.sequence, 0)
        raise MalformedMessageError(f"an error of {len(payload)} bytes")
    errno = -S32.unpack_from(payload)[0]
    if not answer.flags & NLM_F_ACK_TLVS:
        return Acknowledgement(answer.sequence, max(errno, 0))
    start = 4
    if answer.kind == NLMSG_ERROR:
        # The refused message's header follows, and all of it when the socket did not ask for NETLINK_CAP_ACK.
        start = 20
        if not answer.flags & NLM_F_CAPPED and len(payload) >= 8:
            start = 4 + ((U32.unpack_from(payload, 4)[0] + 3) & ~3)
    found = attributes(payload, start)
    text = found.get(NLMSGERR_ATTR_MSG)
    offset = found.get(NLMSGERR_ATTR_OFFS)
    return Acknowledgement(
        answer.sequence,
        max(errno, 0),
        "" if text is None else read_string(text),
        None if offset is None else read_u32(offset),
    )
