"""Authentication of BFD packets: what is put behind a packet, and whether what is behind one is right (RFC 5880 6.7).

Pure. The sequence numbers change with every packet and are kept in a cell that is an argument, so that whoever goes on
for a process can go on with them. No text it makes tells a key."""

from __future__ import annotations

import hashlib
import hmac
import struct
from enum import IntEnum
from typing import Final, Protocol

from msgspec import Struct

from bird_agent.bfd.packet import AUTHENTICATED, LENGTH_AT, MANDATORY_LENGTH, Section

_CIRCLE: Final = 1 << 32
_MULTIPLIER_AT: Final = 2
_SEQUENCE: Final = struct.Struct("!I")
_DIGEST_AT: Final = 8
"""Within the section: type, length, key, reserved, and the sequence number go before it (4.3, 4.4)."""


class Cell(Protocol):
    """The number sent last, the number received last, and whether that is known (bfd.AuthSeqKnown): 32 bits each."""

    def __getitem__(self, index: int, /) -> int: ...
    def __setitem__(self, index: int, value: int, /) -> None: ...


class AuthType(IntEnum):
    """bfd.AuthType."""

    SIMPLE_PASSWORD = 1
    KEYED_MD5 = 2
    METICULOUS_KEYED_MD5 = 3
    KEYED_SHA1 = 4
    METICULOUS_KEYED_SHA1 = 5

    @property
    def longest_key(self) -> int:
        """In bytes; of the digests, this is also the length."""
        return 20 if self in (AuthType.KEYED_SHA1, AuthType.METICULOUS_KEYED_SHA1) else 16

    @property
    def meticulous(self) -> bool:
        return self in (AuthType.METICULOUS_KEYED_MD5, AuthType.METICULOUS_KEYED_SHA1)

    def __str__(self) -> str:
        return self.name.lower().replace("_", "-")


class Key(Struct, frozen=True):
    """`str` and `repr` tell its number only."""

    number: int
    secret: bytes

    def __post_init__(self) -> None:
        if not 0 <= self.number <= 255:
            raise ValueError(f"{self.number} is not the number of a key: 0 to 255 are")

    def __repr__(self) -> str:
        return f"Key(number={self.number})"


class Authentication(Struct, frozen=True):
    """The first key is the one that is sent with; all are accepted, so that keys can be changed one end at a time."""

    type: AuthType
    keys: tuple[Key, ...]

    def __post_init__(self) -> None:
        numbers = [key.number for key in self.keys]
        if not numbers or len(set(numbers)) != len(numbers):
            raise ValueError("one or more keys are needed, each with a number of its own")
        for key in self.keys:
            if not 1 <= len(key.secret) <= self.type.longest_key:
                why = f"key {key.number} has {len(key.secret)} bytes"
                raise ValueError(f"{why}, and {self.type} takes 1 to {self.type.longest_key}")

    def __str__(self) -> str:
        numbers = " or ".join(str(key.number) for key in self.keys)
        return f"{self.type} with key {numbers}"

    def key(self, number: int) -> Key | None:
        return next((key for key in self.keys if key.number == number), None)


class Guard:
    """One session's: seals what is sent, refuses what is not authentic. `authentication` may be changed at any time."""

    def __init__(self, authentication: Authentication | None, cell: Cell, first: int) -> None:
        """`first`: a number chosen by chance (6.8.1)."""
        self.authentication = authentication
        self._cell = cell
        cell[0], cell[1], cell[2] = first % _CIRCLE, 0, 0
        self._sent = b""
        self._accepted_at = 0.0

    @property
    def sent(self) -> int:
        return self._cell[0]

    @property
    def received(self) -> int | None:
        """bfd.RcvAuthSeq; None: none is known."""
        return self._cell[1] if self._cell[2] else None

    def resume(self, sent: int, received: int | None, now: float) -> None:
        """Go on where another has ended; silence is timed from now."""
        self._cell[0] = sent % _CIRCLE
        self._accept(received, now)

    def seal(self, packet: bytes) -> bytes:
        """What is to be sent of a packet without authentication."""
        wanted = self.authentication
        if wanted is None:
            return packet
        key = wanted.keys[0]
        bare = bytearray(packet)
        bare[1] |= AUTHENTICATED
        if wanted.type is AuthType.SIMPLE_PASSWORD:
            section = bytes([wanted.type, 3 + len(key.secret), key.number]) + key.secret
            bare[LENGTH_AT] += len(section)
            return bytes(bare) + section
        if wanted.type.meticulous or packet != self._sent:
            self._cell[0] = (self._cell[0] + 1) % _CIRCLE
        self._sent = packet
        head = bytes([wanted.type, _DIGEST_AT + wanted.type.longest_key, key.number, 0]) + _SEQUENCE.pack(self.sent)
        bare[LENGTH_AT] += _DIGEST_AT + wanted.type.longest_key
        bare += head
        return bytes(bare) + _digest(wanted.type, bytes(bare), key, b"")

    def refusal(self, data: bytes, section: Section | None, now: float, silence_s: float) -> str:
        """Why a packet is to be discarded; empty: it is accepted, and its number counts from now on.

        `silence_s` is twice the detection time: after so much of it any number is accepted (bfd.AuthSeqKnown)."""
        wanted = self.authentication
        if wanted is None:
            return "" if section is None else f"it is authenticated ({_name(section.type)}), and no key is configured"
        if section is None:
            return f"it is not authenticated, and {wanted} is needed"
        if section.type != wanted.type:
            return f"it is authenticated by {_name(section.type)}, and {wanted} is needed"
        if section.key_number is None or (key := wanted.key(section.key_number)) is None:
            return f"it is authenticated with key {section.key_number}, and {wanted} is needed"
        if wanted.type is AuthType.SIMPLE_PASSWORD:
            return "" if hmac.compare_digest(section.content, key.secret) else _not_ours(key)
        return self._digest_refusal(data, section, key, (now, silence_s))

    def _digest_refusal(self, data: bytes, section: Section, key: Key, when: tuple[float, float]) -> str:
        """The digest first: what is in a packet that is not authentic says nothing, its number neither."""
        assert self.authentication is not None
        kind, (now, silence_s) = self.authentication.type, when
        if len(section.content) != _DIGEST_AT - 3 + kind.longest_key:
            return f"its digest is not of the length of {kind}"
        length, begin = data[LENGTH_AT], MANDATORY_LENGTH + _DIGEST_AT
        end = begin + kind.longest_key
        expected = _digest(kind, data[:begin], key, data[end:length])
        if not hmac.compare_digest(expected, data[begin:end]):
            return _not_ours(key)
        (number,) = _SEQUENCE.unpack_from(section.content, 1)
        first, window = int(kind.meticulous), 3 * data[_MULTIPLIER_AT]
        before = self.received
        if before is not None and now - self._accepted_at < silence_s:
            ahead = (number - before) % _CIRCLE
            if not first <= ahead <= window:
                low, high = (before + first) % _CIRCLE, (before + window) % _CIRCLE
                return f"its sequence number {number} is none of {low} to {high}: it is old, or repeated by somebody"
        self._accept(number, now)
        return ""

    def _accept(self, number: int | None, now: float) -> None:
        self._accepted_at = now
        if number is None:
            self._cell[2] = 0
        else:
            self._cell[1], self._cell[2] = number % _CIRCLE, 1


def _not_ours(key: Key) -> str:
    return f"it does not match key {key.number}: the secrets of the two ends differ"


def _digest(kind: AuthType, head: bytes, key: Key, tail: bytes) -> bytes:
    """Over the packet with the key in the place of the digest (6.7.3, 6.7.4)."""
    algorithm = "sha1" if kind.longest_key == 20 else "md5"
    padded = key.secret.ljust(kind.longest_key, b"\0")
    return hashlib.new(algorithm, head + padded + tail, usedforsecurity=False).digest()


def _name(number: int) -> str:
    try:
        return str(AuthType(number))
    except ValueError:
        return f"type {number}"
