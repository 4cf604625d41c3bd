"""Decode ExaBGP's JSON lines into the events of `events.py`: one odd line never costs the rest.

It reads only what was asked for; anything else, and what does not read as expected, becomes `Unrecognised`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final, TypeVar

import msgspec

from bird_agent.exabgp.commands import FAMILIES, Family
from bird_agent.exabgp.events import (
    AdvertisedReport,
    AsSegment,
    CommandRefused,
    EndOfRib,
    PathAttributes,
    PeerOpen,
    RefreshMark,
    ReloadReport,
    RoutesReceived,
    SessionConnecting,
    SessionDown,
    SessionOpened,
    SessionReport,
    SessionUp,
    SpeakerEvent,
    SyncEnd,
    Unrecognised,
    UnsentReport,
)
from bird_agent.exabgp.prefixes import read_packed, read_prefix
from weft.model.address import IPAddress

T = TypeVar("T")

ORIGINS: Final = {"igp": 0, "egp": 1, "incomplete": 2, "invalid": 3}  # the last stands for any that RFC 4271 has not
_CACHED_ATTRIBUTE_SETS: Final = 4096
_CACHED_ADDRESSES: Final = 4096  # peers and next hops are few


class _Raw(msgspec.Struct):
    """Base of the wire shapes below: what they do not name is skipped."""


class _Address(_Raw):
    peer: str


class _Capability(_Raw):
    time: int = 0
    address_family_flags: dict[str, list[str]] = msgspec.field(default_factory=dict, name="address-family-flags")
    restart_flags: list[str] = msgspec.field(default_factory=list, name="restart-flags")


class _Multiprotocol(_Raw):
    families: list[str] = msgspec.field(default_factory=list)


class _ExtendedNextHop(_Raw):
    conversion: list[str] = msgspec.field(default_factory=list)


class _Open(_Raw):
    asn: int
    hold_time: int
    router_id: str
    capabilities: dict[str, msgspec.Raw] = msgspec.field(default_factory=dict)


class _Nlri(_Raw):
    nlri: str


class _Segment(_Raw):
    element: str
    value: list[int]


class _Extended(_Raw):
    value: int


class _Attributes(_Raw):
    origin: str = "incomplete"
    as_path: dict[str, _Segment] = msgspec.field(default_factory=dict, name="as-path")
    local_preference: int | None = msgspec.field(default=None, name="local-preference")
    med: int | None = None
    originator_id: str | None = msgspec.field(default=None, name="originator-id")
    cluster_list: list[str] = msgspec.field(default_factory=list, name="cluster-list")
    community: list[tuple[int, int]] = msgspec.field(default_factory=list)
    large_community: list[tuple[int, int, int]] = msgspec.field(default_factory=list, name="large-community")
    extended_community: list[_Extended] = msgspec.field(default_factory=list, name="extended-community")
    atomic_aggregate: bool = msgspec.field(default=False, name="atomic-aggregate")
    aggregator: str | None = None


class _Packed(_Raw):
    """Prefixes as bird_agent/exabgp/received.py passes them on: an UPDATE's bytes in hex."""

    next_hop: str = msgspec.field(default="", name="next-hop")
    announced: str = ""
    withdrawn: str = ""


class _Update(_Raw):
    attribute: msgspec.Raw = msgspec.Raw(b"{}")
    packed: _Packed | None = None
    announce: dict[str, dict[str, list[_Nlri]]] = msgspec.field(default_factory=dict)
    withdraw: dict[str, list[_Nlri]] = msgspec.field(default_factory=dict)


class _Family(_Raw):
    afi: str
    safi: str
    subtype: str = ""


class _Message(_Raw):
    update: _Update | None = None
    eor: _Family | None = None


class _Neighbor(_Raw):
    address: _Address
    state: str = ""
    reason: str = ""
    open: _Open | None = None
    message: _Message | None = None
    route_refresh: _Family | None = msgspec.field(default=None, name="route-refresh")


class _Line(_Raw):
    type: str
    time: float = 0.0
    neighbor: _Neighbor | None = None
    address: str = ""
    state: str = ""
    since: float = 0.0
    open: _Open | None = None
    number: int = 0
    peers: list[str] = msgspec.field(default_factory=list)
    prefixes: list[str] = msgspec.field(default_factory=list)
    digest: str = ""
    taken: bool = False
    command: str = ""
    error: str = ""


_address = lru_cache(_CACHED_ADDRESSES)(ip_address)
_line = msgspec.json.Decoder(_Line)
_attributes = msgspec.json.Decoder(_Attributes)
_graceful = msgspec.json.Decoder(_Capability)
_multiprotocol = msgspec.json.Decoder(_Multiprotocol)
_extended_next_hop = msgspec.json.Decoder(_ExtendedNextHop)
_IPV4_BY_IPV6: Final = "ipv4/unicast/ipv6"
_RESTARTING: Final = "forwarding"  # what ExaBGP calls the Restart State bit
_NO_NEXT_HOP: Final = "no-nexthop"
_UNKNOWN: Final = b'"attribute-0x'
_TRANSITIVE: Final = 0x40
_PARTIAL: Final = 0x20  # who passes on what it does not know says so
_notified = re.compile(r"notification (sent|received) \((\d+),\s*(\d+)\)")


class Decoder:
    """Lines to events. It remembers attribute sets, because a peer sends few of them and many times each."""

    def __init__(self) -> None:
        self._known: dict[bytes, PathAttributes] = {}

    def decode(self, line: bytes) -> Iterator[SpeakerEvent]:
        try:
            event = self._event(_line.decode(line))
        except (msgspec.MsgspecError, ValueError, KeyError) as error:
            event = Unrecognised(line[:400].decode("utf-8", "replace"), str(error))
        if event is not None:
            yield event

    def _event(self, line: _Line) -> SpeakerEvent | None:
        if line.type == "notification":
            return None  # the `down` that follows names it; without a neighbour it is the end of the speaker
        if line.neighbor is None:
            return _own_report(line)
        peer = _address(line.neighbor.address.peer)
        match line.type:
            case "update":
                return self._update(peer, line.neighbor.message)
            case "state":
                return _state(peer, line.time, line.neighbor)
            case "open":
                return SessionOpened(peer, line.time, _opened(_required(line.neighbor.open)))
            case "refresh":
                return _refresh(peer, _required(line.neighbor.route_refresh))
        raise ValueError(f"a line of type {line.type!r}")

    def _update(self, peer: IPAddress, message: _Message | None) -> SpeakerEvent:
        content = _required(message)
        if content.eor is not None:
            return EndOfRib(peer, _family(content.eor))
        update = _required(content.update)
        path = self._path(bytes(update.attribute))
        if update.packed is not None:
            return _packed(peer, path, update.packed)
        announced = [
            (read_prefix(route.nlri), _next_hop(next_hop, peer))
            for by_next_hop in update.announce.values()
            for next_hop, routes in by_next_hop.items()
            if next_hop != _NO_NEXT_HOP
            for route in routes
        ]
        withdrawn = [read_prefix(route.nlri) for routes in update.withdraw.values() for route in routes]
        # A route without a next hop is as good as withdrawn, and the session none the worse for it (RFC 7606 3 d).
        for by_next_hop in update.announce.values():
            withdrawn += [read_prefix(route.nlri) for route in by_next_hop.get(_NO_NEXT_HOP, ())]
        return RoutesReceived(peer, path, tuple(announced), tuple(withdrawn))

    def _path(self, raw: bytes) -> PathAttributes:
        known = self._known.get(raw)
        if known is None:
            if len(self._known) >= _CACHED_ATTRIBUTE_SETS:
                self._known.clear()
            decoded = _attributes.decode(raw)
            known = self._known[raw] = _path_attributes(decoded, _others(decoded, raw))
        return known


def _packed(peer: IPAddress, path: PathAttributes, packed: _Packed) -> RoutesReceived:
    withdrawn = tuple(read_packed(bytes.fromhex(packed.withdrawn)))
    if not packed.announced:
        return RoutesReceived(peer, path, (), withdrawn)
    next_hop = _next_hop(packed.next_hop, peer)
    announced = tuple((prefix, next_hop) for prefix in read_packed(bytes.fromhex(packed.announced)))
    return RoutesReceived(peer, path, announced, withdrawn)


def _path_attributes(raw: _Attributes, others: tuple[str, ...]) -> PathAttributes:
    return PathAttributes(
        origin=ORIGINS.get(raw.origin.lower(), 2),
        as_path=tuple(AsSegment(segment.element, tuple(segment.value)) for segment in raw.as_path.values()),
        local_preference=raw.local_preference,
        med=raw.med,
        originator_id=None if raw.originator_id is None else IPv4Address(raw.originator_id),
        cluster_list=tuple(IPv4Address(each) for each in raw.cluster_list),
        communities=tuple(raw.community),
        large_communities=tuple(raw.large_community),
        extended_communities=tuple(each.value for each in raw.extended_community),
        others=others,
    )


def _others(raw: _Attributes, text: bytes) -> tuple[str, ...]:
    """As commands (bird_agent/exabgp/commands.py). What is optional and not transitive ends here (RFC 4271 9)."""
    found = ["atomic-aggregate"] if raw.atomic_aggregate else []
    if raw.aggregator is not None:
        found.append(f"aggregator ( {raw.aggregator} )")
    if _UNKNOWN in text:
        for name, value in msgspec.json.decode(text, type=dict[str, msgspec.Raw]).items():
            if name.startswith("attribute-0x"):
                code, flags = name.removeprefix("attribute-").split("-")
                if int(flags, 16) & _TRANSITIVE:
                    passed_on = f"0x{int(flags, 16) | _PARTIAL:02X}"
                    found.append(f"attribute [ {code} {passed_on} {msgspec.json.decode(bytes(value), type=str)} ]")
    return tuple(found)


def _next_hop(text: str, peer: IPAddress) -> IPAddress:
    """A link-local address means something on the link to the peer alone: the peer is its zone (RFC 4007)."""
    address = _address(text)
    return IPv6Address(f"{text}%{peer}") if address.version == 6 and address.is_link_local else address


def _state(peer: IPAddress, at: float, neighbor: _Neighbor) -> SpeakerEvent:
    match neighbor.state:
        case "connected":
            return SessionConnecting(peer, at)
        case "up":
            return SessionUp(peer, at)
        case "down":
            notified = _notified.search(neighbor.reason)
            if notified is None:
                return SessionDown(peer, at, neighbor.reason, None)
            return SessionDown(
                peer, at, neighbor.reason, (int(notified[2]), int(notified[3])), sent=notified[1] == "sent"
            )
    raise ValueError(f"a session state {neighbor.state!r}")


def _opened(raw: _Open) -> PeerOpen:
    graceful = raw.capabilities.get("64")
    restart = None if graceful is None else _graceful.decode(graceful)
    carried, next_hops = raw.capabilities.get("1"), raw.capabilities.get("5")
    return PeerOpen(
        asn=raw.asn,
        router_id=IPv4Address(raw.router_id),
        hold_time_s=raw.hold_time,
        route_refresh="2" in raw.capabilities,
        enhanced_refresh="70" in raw.capabilities,
        restart_time_s=0 if restart is None else restart.time,
        restart_families=None
        if restart is None
        else {family.replace("/", " "): "restart" in flags for family, flags in restart.address_family_flags.items()},
        families=None if carried is None else _known_families(_multiprotocol.decode(carried).families),
        extended_next_hop=next_hops is not None and _IPV4_BY_IPV6 in _extended_next_hop.decode(next_hops).conversion,
        restarting=restart is not None and _RESTARTING in restart.restart_flags,
    )


def _known_families(names: Iterable[str]) -> frozenset[Family]:
    return frozenset(known for known in FAMILIES.values() if known.replace(" ", "/") in names)


def _refresh(peer: IPAddress, mark: _Family) -> SpeakerEvent | None:
    if mark.subtype not in ("begin", "end"):
        return None  # a request of the peer's, which ExaBGP answers itself
    return RefreshMark(peer, _family(mark), mark.subtype == "begin")


def _own_report(line: _Line) -> SpeakerEvent:
    match line.type:
        case "weft-session":
            opened = None if line.open is None else _opened(line.open)
            return SessionReport(ip_address(line.address), line.state.lower(), line.since, opened)
        case "weft-advertised":
            return AdvertisedReport(ip_address(line.address), tuple(map(read_prefix, line.prefixes)))
        case "weft-unsent":
            return UnsentReport(line.number, tuple(map(ip_address, line.peers)))
        case "weft-synced":
            return SyncEnd(line.digest)
        case "weft-reload":
            return ReloadReport(line.digest, line.taken, line.error)
        case "weft-refused":
            return CommandRefused(line.command, line.error)
    raise ValueError(f"a line of type {line.type!r}")


def _family(raw: _Family) -> Family:
    if raw.safi == "unicast" and raw.afi == "ipv4":
        return "ipv4 unicast"
    if raw.safi == "unicast" and raw.afi == "ipv6":
        return "ipv6 unicast"
    raise ValueError(f"a family {raw.afi} {raw.safi}")


def _required(value: T | None) -> T:
    if value is None:
        raise ValueError("a part of the line is missing")
    return value
