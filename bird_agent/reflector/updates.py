"""Decode UPDATEs, and repair of them what RFC 7606 wants repaired.

A malformed attribute costs the routes it came with (they count as withdrawn) or only itself; the session ends only
where the prefixes cannot be told (UpdateMalformed). Attributes come out as interned sets, with four-byte AS numbers
whatever the peer speaks."""

from __future__ import annotations

from typing import NamedTuple

from bird_agent.exabgp.commands import Family
from bird_agent.reflector import exabgp_codec
from bird_agent.reflector.attribute_rules import ReadAttributes, read_attributes, usable_next_hop
from bird_agent.reflector.attributes import (
    MP_REACH,
    MP_UNREACH,
    OPTIONAL,
    TRANSITIVE,
    AttributeSets,
    RawAttribute,
    split_attributes,
)
from bird_agent.reflector.errors import RefreshMalformed, UpdateMalformed
from bird_agent.reflector.negotiation import Negotiated
from bird_agent.reflector.outputs import EndOfRib, Output, RefreshAsked, RefreshMark, Treated, Updates
from bird_agent.reflector.prefixes import FAMILY_OF, IPV4, IPV6, Nlri, read_nlris
from weft.model.address import IPAddress

Decoded = Updates | EndOfRib | Treated

_NAMES = {MP_REACH: "MP_REACH_NLRI", MP_UNREACH: "MP_UNREACH_NLRI"}


class _Routes(NamedTuple):
    """Routes of one family, as one message names them."""

    family: Family
    gone: tuple[Nlri, ...] = ()
    new: tuple[Nlri, ...] = ()
    next_hop: IPAddress | None = None


class UpdateDecoder:
    """UPDATEs of one session. It remembers the attributes of the last one, because the next often has the same."""

    def __init__(self, negotiated: Negotiated, sets: AttributeSets) -> None:
        self._negotiated = negotiated
        self._sets = sets
        self._last_field: bytes | None = None
        """A field without multiprotocol attributes."""
        self._last_key: tuple[list[RawAttribute], int] = ([], 0)
        self._last = read_attributes((), 0, negotiated, sets)

    def decode(self, body: bytes) -> list[Decoded]:
        """Raises UpdateMalformed."""
        withdrawn, field, announced = _fields(body)
        if not (withdrawn or field or announced):
            return self._end_of_rib(IPV4)
        gone, new = read_nlris(IPV4, withdrawn), read_nlris(IPV4, announced)
        if field == self._last_field:
            return self._told([_Routes(IPV4, gone, new, self._last.next_hop)], [])
        others, left, found = _multiprotocol(field)
        problems: list[str] = []
        reach, unreach = found.get(MP_REACH), found.get(MP_UNREACH)
        removed = None if unreach is None else self._removed(unreach, problems)
        if removed is not None and not (removed.gone or withdrawn or others or left or announced or reach):
            return self._end_of_rib(removed.family)
        added = None if reach is None else self._added(reach, problems)
        if (others, left) != self._last_key:
            self._last = read_attributes(others, left, self._negotiated, self._sets)
            self._last_key = (others, left)
        self._last_field = None if found else field
        if self._last.withdraw is not None and not new and reach is None:
            raise UpdateMalformed(1, f"{self._last.withdraw}, and no prefixes beside it (RFC 7606 5.2)")
        routes = [_Routes(IPV4, gone, new, self._last.next_hop)]
        routes += [each for each in (removed, added) if each is not None]
        return self._told(routes, problems)

    def _told(self, routes: list[_Routes], problems: list[str]) -> list[Decoded]:
        """Routes with the attributes read last, then what there is to say of them."""
        problems += self._last.problems
        found: list[Decoded] = [self._updates(each, self._last, problems) for each in routes if each.gone or each.new]
        return found + [Treated(each) for each in problems]

    def _end_of_rib(self, family: Family) -> list[Decoded]:
        return [EndOfRib(family)] if family in self._negotiated.families else []

    def _updates(self, routes: _Routes, attributes: ReadAttributes, problems: list[str]) -> Decoded:
        family, gone, new, next_hop = routes
        if family not in self._negotiated.families:
            return Treated(f"{len(gone) + len(new)} prefixes of {family} ignored, which was not agreed on")
        if not new:
            return Updates(family, None, None, (), gone)
        why = attributes.withdraw or attributes.missing or (None if next_hop else "no next hop that a router can have")
        if why is not None:
            problems.append(f"{len(new)} prefixes of {family} treated as withdrawn: {why}")
            return Updates(family, None, None, (), gone + new)
        return Updates(family, attributes.known, next_hop, new, gone)

    def _added(self, value: bytes, problems: list[str]) -> _Routes | None:
        """What MP_REACH_NLRI says (RFC 4760 3, RFC 8950, RFC 2545)."""
        family = self._family(MP_REACH, value, 5, problems)
        size = value[3]
        if len(value) < 5 + size:
            raise UpdateMalformed(9, f"MP_REACH_NLRI of {len(value)} bytes with a next hop of {size}")
        if family is None:
            return None
        sizes = [4] if family == IPV4 else []
        if family == IPV6 or family in self._negotiated.extended_next_hop:
            sizes += [16, 32]
        if size not in sizes:
            raise UpdateMalformed(9, f"MP_REACH_NLRI of {family} with a next hop of {size} bytes")
        new = _prefixes(family, value[5 + size :])
        return _Routes(family, new=new, next_hop=usable_next_hop(value[4 : 4 + size]))

    def _removed(self, value: bytes, problems: list[str]) -> _Routes | None:
        family = self._family(MP_UNREACH, value, 3, problems)
        return None if family is None else _Routes(family, gone=_prefixes(family, value[3:]))

    def _family(self, code: int, value: bytes, shortest: int, problems: list[str]) -> Family | None:
        """The family of a multiprotocol attribute; None if it was not agreed on."""
        if len(value) < shortest:
            raise UpdateMalformed(9, f"{_NAMES[code]} of {len(value)} bytes")
        afi, safi = value[0] << 8 | value[1], value[2]
        family = FAMILY_OF.get((afi, safi))
        if family is None or family not in self._negotiated.families:
            problems.append(f"{_NAMES[code]} of AFI {afi} SAFI {safi} ignored, which was not agreed on")
            return None
        return family


def decode_refresh(body: bytes, negotiated: Negotiated) -> list[Output]:
    """What a ROUTE-REFRESH asks for or marks (RFC 2918, RFC 7313). Of a family or kind that was not agreed on: nothing.
    Raises RefreshMalformed where the peer knows that error."""
    try:
        read = exabgp_codec.read_refresh(body)
    except RefreshMalformed as found:
        if negotiated.enhanced_refresh:
            raise
        return [Treated(f"{found.why}, ignored")]
    if read is None or read[0] not in negotiated.families:
        return []
    family, subtype = read
    if subtype == 0:
        return [RefreshAsked(family)] if negotiated.route_refresh else []
    return [RefreshMark(family, begins=subtype == 1)] if negotiated.enhanced_refresh else []


def _fields(body: bytes) -> tuple[bytes, bytes, bytes]:
    """Withdrawn routes, path attributes, announced routes."""
    start = 2 + (body[0] << 8 | body[1])
    if start + 2 > len(body):
        raise UpdateMalformed(1, "withdrawn routes are longer than the message")
    end = start + 2 + (body[start] << 8 | body[start + 1])
    if end > len(body):
        raise UpdateMalformed(1, "path attributes are longer than the message")
    return body[2:start], body[start + 2 : end], body[end:]


def _multiprotocol(field: bytes) -> tuple[list[RawAttribute], int, dict[int, bytes]]:
    """The attributes without MP_REACH_NLRI and MP_UNREACH_NLRI, how many bytes cannot be told apart, and the values of
    those two by code."""
    attributes, end = split_attributes(field)
    found: dict[int, bytes] = {}
    for flags, code, value in attributes:
        if code not in _NAMES:
            continue
        if code in found:
            raise UpdateMalformed(1, f"a second {_NAMES[code]}")
        if flags & (OPTIONAL | TRANSITIVE) != OPTIONAL:
            raise UpdateMalformed(9, f"{_NAMES[code]} with the flags {flags:#04x}")
        found[code] = value
    if found:
        attributes = [each for each in attributes if each.code not in _NAMES]
    return attributes, len(field) - end, found


def _prefixes(family: Family, data: bytes) -> tuple[Nlri, ...]:
    try:
        return read_nlris(family, data)
    except UpdateMalformed as error:
        raise UpdateMalformed(9, error.why) from None
