"""What each path attribute must look like, and what becomes of one that does not (RFC 7606 3, 4 and 7).

`RULES` is the table; `read_attributes` applies it to everything in an UPDATE but its prefixes. A malformed attribute is
either left out, or the routes it came with are withdrawn: nothing here ends a session."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address
from typing import Final

from msgspec import Struct

from bird_agent.exabgp.events import AsSegment, PathAttributes
from bird_agent.reflector import as_path
from bird_agent.reflector.attributes import (
    AGGREGATOR,
    AS4_AGGREGATOR,
    AS4_PATH,
    AS_PATH,
    ATOMIC_AGGREGATE,
    CLUSTER_LIST,
    COMMUNITIES,
    EXTENDED_COMMUNITIES,
    IPV6_EXTENDED_COMMUNITIES,
    LARGE_COMMUNITIES,
    LOCAL_PREF,
    MED,
    NEXT_HOP,
    OPTIONAL,
    ORIGIN,
    ORIGINATOR_ID,
    PARTIAL,
    TRANSITIVE,
    AttributeSet,
    AttributeSets,
    RawAttribute,
)
from bird_agent.reflector.negotiation import Negotiated
from weft.model.address import IPAddress

_CACHED: Final = 8192
_KIND: Final = OPTIONAL | TRANSITIVE


class Rule(Struct, frozen=True):
    """`sizes`: the lengths there are; `multiple_of`: or any such multiple but zero; neither: any. `discard`: malformed
    it is left out, otherwise its routes are withdrawn. `internal`: from an external peer it is left out."""

    name: str
    flags: int
    sizes: tuple[int, ...] = ()
    multiple_of: int = 0
    discard: bool = False
    internal: bool = False

    def fits(self, size: int) -> bool:
        if self.multiple_of:
            return size > 0 and size % self.multiple_of == 0
        return not self.sizes or size in self.sizes


RULES: Final = {
    ORIGIN: Rule("ORIGIN", TRANSITIVE, sizes=(1,)),
    AS_PATH: Rule("AS_PATH", TRANSITIVE),
    NEXT_HOP: Rule("NEXT_HOP", TRANSITIVE, sizes=(4,)),
    MED: Rule("MULTI_EXIT_DISC", OPTIONAL, sizes=(4,)),
    LOCAL_PREF: Rule("LOCAL_PREF", TRANSITIVE, sizes=(4,), internal=True),
    ATOMIC_AGGREGATE: Rule("ATOMIC_AGGREGATE", TRANSITIVE, sizes=(0,), discard=True),
    AGGREGATOR: Rule("AGGREGATOR", OPTIONAL | TRANSITIVE, sizes=(6, 8), discard=True),
    COMMUNITIES: Rule("COMMUNITIES", OPTIONAL | TRANSITIVE, multiple_of=4),
    ORIGINATOR_ID: Rule("ORIGINATOR_ID", OPTIONAL, sizes=(4,), internal=True),
    CLUSTER_LIST: Rule("CLUSTER_LIST", OPTIONAL, multiple_of=4, internal=True),
    EXTENDED_COMMUNITIES: Rule("EXTENDED COMMUNITIES", OPTIONAL | TRANSITIVE, multiple_of=8),
    AS4_PATH: Rule("AS4_PATH", OPTIONAL | TRANSITIVE, discard=True),
    AS4_AGGREGATOR: Rule("AS4_AGGREGATOR", OPTIONAL | TRANSITIVE, sizes=(8,), discard=True),
    IPV6_EXTENDED_COMMUNITIES: Rule("IPv6 EXTENDED COMMUNITIES", OPTIONAL | TRANSITIVE, multiple_of=20),
    LARGE_COMMUNITIES: Rule("LARGE_COMMUNITIES", OPTIONAL | TRANSITIVE, multiple_of=12),
}


class ReadAttributes(Struct, frozen=True):
    """`known` is None if the routes cannot be announced: `withdraw` says which attribute is malformed, `missing` which
    one is not there (which is an error only beside prefixes). `next_hop` is that of the NEXT_HOP attribute."""

    known: AttributeSet | None
    next_hop: IPAddress | None
    withdraw: str | None
    missing: str | None
    problems: tuple[str, ...]


@lru_cache(_CACHED)
def usable_next_hop(value: bytes) -> IPAddress | None:
    """The address to send to; None if no router has it (RFC 4271 6.3). Of a global and a link-local address it is the
    global one, if that is one (RFC 2545 3)."""
    if len(value) == 4:
        four = IPv4Address(value)
        bad = four.packed[0] in (0, 127) or four.packed[0] >= 224
        return None if bad else four
    six = IPv6Address(value[:16])
    if six.is_unspecified and len(value) == 32:
        six = IPv6Address(value[16:])
    return None if six.is_unspecified or six.is_multicast or six.is_loopback else six


def read_attributes(
    attributes: Iterable[RawAttribute], left: int, negotiated: Negotiated, sets: AttributeSets
) -> ReadAttributes:
    """Everything in an UPDATE but its prefixes; `left` bytes behind it could not be told apart."""
    reader = _Reader(negotiated)
    for flags, code, value in attributes:
        reader.take(flags, code, value)
    if left:
        reader.withdraw = reader.withdraw or f"{left} bytes of attributes cannot be told apart"
    return reader.result(sets)


class _Reader:
    """The attributes of one UPDATE, gathered."""

    def __init__(self, negotiated: Negotiated) -> None:
        self._asn4 = negotiated.asn4
        self._internal = negotiated.internal
        self._values: dict[int, bytes] = {}
        self._kept: list[RawAttribute] = []
        """What is passed on; AS_PATH comes last, when it is known."""
        self._seen: set[int] = set()
        self._segments: tuple[AsSegment, ...] = ()
        self._problems: list[str] = []
        self.withdraw: str | None = None
        """The first reason to withdraw the routes."""

    def take(self, flags: int, code: int, value: bytes) -> None:
        rule = RULES.get(code)
        if code in self._seen:
            self._problems.append(f"a second {rule.name if rule else f'attribute {code}'} left out")
            return
        self._seen.add(code)
        if rule is None:
            self._take_unknown(code, flags, value)
        elif (rule.internal and not self._internal) or (self._asn4 and code in (AS4_PATH, AS4_AGGREGATOR)):
            self._problems.append(f"{rule.name} left out, which this peer must not send")
        elif (flags ^ rule.flags) & _KIND:
            self._malformed(f"{rule.name} with the flags {flags:#04x}", discard=False)
        elif problem := self._problem(rule, code, value):
            self._malformed(problem, rule.discard)
        else:
            self._values[code] = value
            if rule.flags == _KIND:
                flags = _KIND | flags & PARTIAL
                self._kept.append(RawAttribute(flags, code, value))
            elif code not in (AS_PATH, NEXT_HOP):
                self._kept.append(RawAttribute(rule.flags, code, value))

    def result(self, sets: AttributeSets) -> ReadAttributes:
        values = self._values
        missing = None if AS_PATH in values and ORIGIN in values else _missing(values)
        known = None
        if self.withdraw is None and missing is None:
            if not self._asn4:
                self._merge_four_byte_numbers()
                values[AS_PATH] = as_path.written(self._segments)
            self._kept.append(RawAttribute(TRANSITIVE, AS_PATH, values[AS_PATH]))
            known = sets.described(self._kept, self._path)
        return ReadAttributes(
            known=known,
            next_hop=usable_next_hop(values[NEXT_HOP]) if NEXT_HOP in values else None,
            withdraw=self.withdraw,
            missing=missing,
            problems=tuple(self._problems),
        )

    def _take_unknown(self, code: int, flags: int, value: bytes) -> None:
        if not flags & OPTIONAL:
            self._malformed(f"unknown well-known attribute {code}", discard=False)
        elif flags & TRANSITIVE:
            self._kept.append(RawAttribute(_KIND | PARTIAL, code, value))

    def _malformed(self, problem: str, discard: bool) -> None:
        if discard:
            self._problems.append(f"{problem}: left out")
        else:
            self.withdraw = self.withdraw or problem

    def _problem(self, rule: Rule, code: int, value: bytes) -> str | None:
        if not rule.fits(len(value)):
            return f"{rule.name} of {len(value)} bytes"
        match code:
            case 1 if value[0] > 2:  # ORIGIN
                return f"ORIGIN {value[0]}"
            case 2:  # AS_PATH
                return self._read_path(value)
            case 7 if len(value) != (8 if self._asn4 else 6) or not any(value[:-4]):  # AGGREGATOR
                return f"AGGREGATOR {value.hex()}"
            case 17 if not as_path.read_as4_path(value):
                return "a malformed AS4_PATH"
        return None

    def _read_path(self, value: bytes) -> str | None:
        segments = as_path.read(value, self._asn4)
        if segments is None:
            return "a malformed AS_PATH"
        if any(0 in each.numbers for each in segments):
            return "AS 0 in AS_PATH (RFC 7607)"
        if not self._internal and any(each.kind.startswith("as-confed") for each in segments):
            return "a confederation in AS_PATH from outside (RFC 5065 5)"
        self._segments = segments
        return None

    def _merge_four_byte_numbers(self) -> None:
        """AS_PATH and AGGREGATOR as they were before a two-byte peer (RFC 6793 4.2.3)."""
        path, true_aggregator = self._values.get(AS4_PATH), self._values.get(AS4_AGGREGATOR)
        kept = [each for each in self._kept if each.code not in (AS4_PATH, AS4_AGGREGATOR, AGGREGATOR)]
        aggregator = next((each for each in self._kept if each.code == AGGREGATOR), None)
        self._kept = kept
        if aggregator is not None:
            asn = int.from_bytes(aggregator.value[:2])
            translated = true_aggregator is not None and asn == as_path.AS_TRANS
            value = true_aggregator if translated and true_aggregator else b"\0\0" + aggregator.value
            kept.append(RawAttribute(aggregator.flags, AGGREGATOR, value))
            if true_aggregator is not None and not translated:
                return
        if path is not None and (long := as_path.read_as4_path(path)):
            self._segments = as_path.merged(self._segments, long)

    def _path(self) -> PathAttributes:
        values = self._values
        clusters = struct.iter_unpack("!I", values.get(CLUSTER_LIST, b""))
        return PathAttributes(
            origin=values[ORIGIN][0],
            as_path=self._segments,
            local_preference=_number(values.get(LOCAL_PREF)),
            med=_number(values.get(MED)),
            originator_id=IPv4Address(values[ORIGINATOR_ID]) if ORIGINATOR_ID in values else None,
            cluster_list=tuple([IPv4Address(each) for (each,) in clusters]),
            communities=tuple(struct.iter_unpack("!HH", values.get(COMMUNITIES, b""))),
            large_communities=tuple(struct.iter_unpack("!III", values.get(LARGE_COMMUNITIES, b""))),
        )


def _missing(values: Mapping[int, bytes]) -> str:
    return f"no {RULES[AS_PATH if ORIGIN in values else ORIGIN].name}"


def _number(value: bytes | None) -> int | None:
    return None if value is None else int.from_bytes(value)
