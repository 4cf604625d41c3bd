"""Bytes to messages and back (RFC 4271 4.1, RFC 8654). Knows lengths and types, no content."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from enum import IntEnum
from typing import Final

from bird_agent.reflector.errors import HeaderError, Notification
from bird_agent.reflector.negotiation import ORDINARY_SIZE

HEADER_SIZE: Final = 19
_MARKER: Final = b"\xff" * 16


class Message(IntEnum):
    OPEN = 1
    UPDATE = 2
    NOTIFICATION = 3
    KEEPALIVE = 4
    REFRESH = 5


_SHORTEST: Final = {
    Message.OPEN: 29,
    Message.UPDATE: 23,
    Message.NOTIFICATION: 21,
    Message.KEEPALIVE: HEADER_SIZE,
    Message.REFRESH: HEADER_SIZE,  # a wrong length is an error of its own there (RFC 7313 5)
}
_TYPES: Final = {int(each): each for each in Message}


def framed(kind: Message, body: bytes) -> bytes:
    return _MARKER + struct.pack("!HB", HEADER_SIZE + len(body), kind) + body


KEEPALIVE: Final = framed(Message.KEEPALIVE, b"")


def notification(value: Notification) -> bytes:
    """Cut to the size that every peer must take."""
    data = value.data[: ORDINARY_SIZE - HEADER_SIZE - 2]
    return framed(Message.NOTIFICATION, bytes((value.code, value.subcode)) + data)


class Framer:
    """What came on one connection, cut into messages. `longest` grows when extended messages were agreed on; OPEN and
    KEEPALIVE stay ordinary (RFC 8654 4)."""

    def __init__(self) -> None:
        self.longest = ORDINARY_SIZE
        self._unread = b""

    def receive_data(self, data: bytes) -> Iterator[tuple[Message, bytes]]:
        """The messages that are complete now. Raises HeaderError, behind the messages before the error.

        Stop in the middle and the rest is lost: do so only with a connection that is closed."""
        buffer = self._unread + data if self._unread else data
        self._unread = b""
        position, size = 0, len(buffer)
        while size - position >= HEADER_SIZE:
            end = position + self._length(buffer, position)
            if end > size:
                break
            kind = _TYPES[buffer[position + 18]]
            body = buffer[position + HEADER_SIZE : end]
            position = end
            yield kind, body
        self._unread = buffer[position:]

    def _length(self, buffer: bytes, position: int) -> int:
        """The length of the message that begins here, if its header is one."""
        if not buffer.startswith(_MARKER, position):
            raise HeaderError(1, "the marker is not all ones")
        length: int = struct.unpack_from("!H", buffer, position + 16)[0]
        number = buffer[position + 18]
        kind = _TYPES.get(number)
        if kind is None:
            raise HeaderError(3, f"a message of type {number}", bytes((number,)))
        longest = ORDINARY_SIZE if kind in (Message.OPEN, Message.KEEPALIVE) else self.longest
        bad = not _SHORTEST[kind] <= length <= longest or (kind is Message.KEEPALIVE and length != HEADER_SIZE)
        if bad:
            raise HeaderError(2, f"{kind.name} with a length of {length}", struct.pack("!H", length))
        return length
