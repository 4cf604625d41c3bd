"""AS_PATH and AGGREGATOR: read and written, for peers that speak four-byte AS numbers and for those that do not
(RFC 4271 4.3, RFC 5065, RFC 6793).

By hand, not by ExaBGP, which keeps every AS number it has ever seen (ADR 0150)."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from typing import Final

from bird_agent.exabgp.events import AsSegment

AS_TRANS: Final = 23456
_CACHED: Final = 8192
_LONGEST_CACHED: Final = 256
"""Bytes: nobody fills memory with paths that do not exist."""
_LARGEST_SHORT: Final = 65535
_LONGEST: Final = 255
_KINDS: Final = {"as-set": 1, "as-sequence": 2, "as-confed-sequence": 3, "as-confed-set": 4}
_NAMES: Final = {number: name for name, number in _KINDS.items()}
_OUTSIDE: Final = ("as-sequence", "as-set")


def read(value: bytes, asn4: bool) -> tuple[AsSegment, ...] | None:
    """The segments; None for what RFC 7606 7.2 calls malformed."""
    return _read_once(value, asn4) if len(value) <= _LONGEST_CACHED else _read(value, asn4)


def _read(value: bytes, asn4: bool) -> tuple[AsSegment, ...] | None:
    width, letter = (4, "I") if asn4 else (2, "H")
    found = []
    position, size = 0, len(value)
    while position < size:
        if size - position < 2:
            return None
        name, count = _NAMES.get(value[position]), value[position + 1]
        end = position + 2 + count * width
        if name is None or not count or end > size:
            return None
        found.append(AsSegment(name, struct.unpack_from(f"!{count}{letter}", value, position + 2)))
        position = end
    return tuple(found)


_read_once: Final = lru_cache(_CACHED)(_read)


def read_as4_path(value: bytes) -> tuple[AsSegment, ...]:
    """AS4_PATH without confederations; empty if it is malformed: then it is to be ignored (RFC 6793 6)."""
    return outside(read(value, asn4=True) or ())


def written(segments: Iterable[AsSegment]) -> bytes:
    """The value of an AS_PATH with four-byte numbers."""
    return b"".join(_segment(each.kind, each.numbers, "I") for each in segments)


def written_short(segments: Sequence[AsSegment]) -> tuple[bytes, bytes]:
    """The values of AS_PATH and AS4_PATH for a two-byte peer; the latter is empty where it is not needed
    (RFC 6793 4.2.2)."""
    short = [tuple(each if each <= _LARGEST_SHORT else AS_TRANS for each in one.numbers) for one in segments]
    value = b"".join(_segment(one.kind, numbers, "H") for one, numbers in zip(segments, short, strict=True))
    if all(one.numbers == numbers for one, numbers in zip(segments, short, strict=True)):
        return value, b""
    return value, written(outside(segments))


def merged(as_path: Sequence[AsSegment], as4_path: Sequence[AsSegment]) -> tuple[AsSegment, ...]:
    """The true path of a two-byte peer: AS4_PATH is the end of it (RFC 6793 4.2.3)."""
    missing = _count(as_path) - _count(as4_path)
    if missing < 0:
        return tuple(as_path)
    leading = list(_first(as_path, missing))
    if leading and as4_path and leading[-1].kind == as4_path[0].kind == "as-sequence":
        numbers = leading.pop().numbers + as4_path[0].numbers
        leading += [AsSegment("as-sequence", numbers[at : at + _LONGEST]) for at in range(0, len(numbers), _LONGEST)]
        as4_path = as4_path[1:]
    return (*leading, *as4_path)


def prepended(segments: Sequence[AsSegment], asn: int) -> tuple[AsSegment, ...]:
    """The path with an AS before the others; confederations end here (RFC 4271 5.1.2, RFC 5065 4.1)."""
    rest = outside(segments)
    if rest and rest[0].kind == "as-sequence" and len(rest[0].numbers) < _LONGEST:
        return (AsSegment("as-sequence", (asn, *rest[0].numbers)), *rest[1:])
    return (AsSegment("as-sequence", (asn,)), *rest)


def outside(segments: Iterable[AsSegment]) -> tuple[AsSegment, ...]:
    """What is no confederation."""
    return tuple(each for each in segments if each.kind in _OUTSIDE)


def short_aggregator(value: bytes) -> tuple[bytes, bytes]:
    """The values of AGGREGATOR and AS4_AGGREGATOR for a two-byte peer, of one with eight bytes; the latter is empty
    where it is not needed."""
    asn, speaker = struct.unpack("!I4s", value)
    if asn <= _LARGEST_SHORT:
        return value[2:], b""
    return struct.pack("!H4s", AS_TRANS, speaker), value


def _segment(kind: str, numbers: Sequence[int], letter: str) -> bytes:
    """As many segments as it takes: filters may have prepended to a full one."""
    parts = [numbers[at : at + _LONGEST] for at in range(0, len(numbers), _LONGEST)]
    return b"".join(bytes((_KINDS[kind], len(part))) + struct.pack(f"!{len(part)}{letter}", *part) for part in parts)


def _count(segments: Iterable[AsSegment]) -> int:
    """A set counts once, a confederation not at all (RFC 6793 4.2.3)."""
    return sum(len(each.numbers) if each.kind == "as-sequence" else each.kind == "as-set" for each in segments)


def _first(segments: Iterable[AsSegment], wanted: int) -> Iterator[AsSegment]:
    """The beginning of a path that counts for so many."""
    for each in segments:
        if wanted <= 0:
            return
        if each.kind == "as-sequence" and len(each.numbers) > wanted:
            yield AsSegment(each.kind, each.numbers[:wanted])
            return
        yield each
        wanted -= _count((each,))
