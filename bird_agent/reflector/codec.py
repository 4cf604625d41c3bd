"""Encode UPDATEs: one attribute set, one next hop, many prefixes (RFC 4271 4.3, RFC 4760, RFC 8950, RFC 7606 5.1).

IPv4 with an IPv4 next hop goes in the fields of RFC 4271, all else in MP_REACH_NLRI, which comes first. No message
carries both announcements and withdrawals. What one call returns is for every session of the same `group`."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from bird_agent.exabgp.commands import Family
from bird_agent.reflector import as_path
from bird_agent.reflector.attributes import (
    AGGREGATOR,
    AS4_AGGREGATOR,
    AS4_PATH,
    AS_PATH,
    EXTENDED_LENGTH,
    MP_REACH,
    MP_UNREACH,
    NEXT_HOP,
    OPTIONAL,
    TRANSITIVE,
    AttributeSet,
    RawAttribute,
)
from bird_agent.reflector.framing import HEADER_SIZE, Message, framed
from bird_agent.reflector.negotiation import EncodingGroup, Negotiated
from bird_agent.reflector.prefixes import AFI, IPV4, UNICAST, Nlri
from bird_agent.reflector.remembered import Remembered
from weft.model.address import IPAddress
from weft.model.errors import WeftError

_BODY_FIELDS: Final = 4
"""The two lengths in an UPDATE's body."""
_MP_HEADER: Final = 4
"""Flags, code and extended length."""


class CannotBeTold(WeftError):
    """Routes that do not fit this session: the attributes leave no room for a prefix, or the next hop is of a family
    that was not agreed on. Leave them out for this group; what was told before is to be withdrawn."""


class Encoder:
    """Routes to messages, for one group of sessions. It keeps no state but a cache."""

    def __init__(self, negotiated: Negotiated | EncodingGroup) -> None:
        self.group = negotiated.group if isinstance(negotiated, Negotiated) else negotiated
        self._encoded: Remembered[AttributeSet, tuple[bytes, bytes]] = Remembered()

    def encode(
        self, family: Family, attributes: AttributeSet, next_hop: IPAddress, prefixes: Sequence[Nlri]
    ) -> list[bytes]:
        """Announce. `attributes` are as they shall be told (`AttributeSets.reflected`, `exported`). Raises
        CannotBeTold."""
        before, after = self._attributes(attributes)
        if family == IPV4 and next_hop.version == 4:
            wire = before + bytes((TRANSITIVE, NEXT_HOP, 4)) + next_hop.packed + after
            room = self._room(len(wire))
            fixed = b"\0\0" + struct.pack("!H", len(wire)) + wire
            return [framed(Message.UPDATE, fixed + part) for part in _filled(prefixes, room)]
        if next_hop.version == 4 or (family == IPV4 and family not in self.group.extended_next_hop):
            raise CannotBeTold(f"{family} by way of {next_hop} was not agreed on")
        head = struct.pack("!HBB", AFI[family], UNICAST, 16) + next_hop.packed + b"\0"
        rest = before + after
        room = self._room(len(rest) + _MP_HEADER + len(head))
        return [self._multiprotocol(MP_REACH, head + part, rest) for part in _filled(prefixes, room)]

    def withdraw(self, family: Family, prefixes: Sequence[Nlri]) -> list[bytes]:
        if family == IPV4:
            room = self._room(0)
            return [
                framed(Message.UPDATE, struct.pack("!H", len(part)) + part + b"\0\0")
                for part in _filled(prefixes, room)
            ]
        head = struct.pack("!HB", AFI[family], UNICAST)
        room = self._room(_MP_HEADER + len(head))
        return [self._multiprotocol(MP_UNREACH, head + part, b"") for part in _filled(prefixes, room)]

    def end_of_rib(self, family: Family) -> bytes:
        """The end of what is told first (RFC 4724 2)."""
        if family == IPV4:
            return framed(Message.UPDATE, b"\0\0\0\0")
        return self._multiprotocol(MP_UNREACH, struct.pack("!HB", AFI[family], UNICAST), b"")

    def _room(self, used: int) -> int:
        """Bytes left for prefixes. One of IPv6 takes 17."""
        room = self.group.message_size - HEADER_SIZE - _BODY_FIELDS - used
        if room < 17:
            raise CannotBeTold(f"attributes of {used} bytes leave no room for a prefix")
        return room

    def _multiprotocol(self, code: int, value: bytes, rest: bytes) -> bytes:
        attribute = struct.pack("!BBH", OPTIONAL | EXTENDED_LENGTH, code, len(value)) + value
        wire = attribute + rest
        return framed(Message.UPDATE, b"\0\0" + struct.pack("!H", len(wire)) + wire)

    def _attributes(self, attributes: AttributeSet) -> tuple[bytes, bytes]:
        known = self._encoded.get(attributes)
        if known is None:
            known = self._encoded_attributes(attributes)
            self._encoded.put(attributes, known, 2 * len(attributes.wire))
        return known

    def _encoded_attributes(self, attributes: AttributeSet) -> tuple[bytes, bytes]:
        """What goes before NEXT_HOP, and what goes behind it."""
        if self.group.asn4:
            return attributes.wire[: attributes.split], attributes.wire[attributes.split :]
        before, after = b"", b""
        for each in attributes.raw():
            if each.code == AS_PATH:
                short, long = as_path.written_short(attributes.path.as_path)
                each, added = each._replace(value=short), RawAttribute(OPTIONAL | TRANSITIVE, AS4_PATH, long)
                after += added.encoded() if long else b""
            elif each.code == AGGREGATOR:
                short, long = as_path.short_aggregator(each.value)
                each, added = each._replace(value=short), each._replace(code=AS4_AGGREGATOR, value=long)
                after += added.encoded() if long else b""
            if each.code < NEXT_HOP:
                before += each.encoded()
            else:
                after += each.encoded()
        return before, after


def _filled(prefixes: Iterable[Nlri], room: int) -> Iterator[bytes]:
    """The prefixes in as few pieces as fit."""
    part: list[Nlri] = []
    size = 0
    for each in prefixes:
        size += len(each)
        if size > room:
            yield b"".join(part)
            part, size = [], len(each)
        part.append(each)
    if part:
        yield b"".join(part)
