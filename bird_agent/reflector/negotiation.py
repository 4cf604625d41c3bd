"""OPEN messages as values, and what two of them agree on (RFC 4271 4.2, 6.2, RFC 5492).

Pure: what we offer is a function of the plan, what is agreed on one of both OPENs. The bytes are
bird_agent/reflector/exabgp_codec.py's."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from functools import cached_property
from ipaddress import IPv4Address
from typing import Final

from msgspec import Struct

from bird_agent.exabgp.commands import Family
from bird_agent.reflector.as_path import AS_TRANS
from bird_agent.reflector.errors import OpenError
from bird_agent.reflector.plan import ReflectorPlan, ReflectorSession
from bird_agent.reflector.prefixes import AFI, FAMILIES, IPV4, UNICAST

VERSION: Final = 4
ORDINARY_SIZE: Final = 4096
EXTENDED_SIZE: Final = 65535
SHORTEST_HOLD_TIME_S: Final = 3

_MULTIPROTOCOL_CAPABILITY: Final = 1


class Restart(Struct, frozen=True):
    """The graceful-restart capability (RFC 4724). `families` says for which forwarding went on; `restarting`: the
    sender has just been restarted; `notification`: routes outlive NOTIFICATIONs, too (RFC 8538)."""

    time_s: int
    families: Mapping[Family, bool]
    restarting: bool = False
    notification: bool = False

    def __hash__(self) -> int:
        return hash((self.time_s, self.restarting, self.notification))


class OpenMessage(Struct, frozen=True, kw_only=True):
    """An OPEN. `asn` is the true AS number, four bytes where the capability was there (`asn4`).

    `families` is None without the multiprotocol capability, which means IPv4 unicast alone."""

    asn: int
    router_id: IPv4Address
    hold_time_s: int
    asn4: bool = False
    families: tuple[Family, ...] | None = None
    extended_next_hop: tuple[Family, ...] = ()
    route_refresh: bool = False
    enhanced_refresh: bool = False
    extended_message: bool = False
    restart: Restart | None = None
    two_byte_asn: int | None = None
    """What the field of the header said, if it was not `asn`."""


class EncodingGroup(Struct, frozen=True):
    """All that changes the bytes of an UPDATE: sessions with equal ones can be sent the same bytes."""

    internal: bool
    asn4: bool
    families: frozenset[Family]
    extended_next_hop: frozenset[Family]
    message_size: int
    local_as: int
    """0 for internal sessions, whose UPDATEs it does not change."""


class Negotiated(Struct, frozen=True, kw_only=True, dict=True):
    """What both sides of a session agreed on. `hold_time_s` is 0 where neither keepalives nor a hold timer run.

    `restart` is what the peer offered. `extended_next_hop`: families that may have next hops of the other kind."""

    local_as: int
    peer_as: int
    router_id: IPv4Address
    hold_time_s: int
    asn4: bool
    families: frozenset[Family]
    extended_next_hop: frozenset[Family] = frozenset()
    route_refresh: bool = False
    enhanced_refresh: bool = False
    message_size: int = ORDINARY_SIZE
    restart: Restart | None = None
    keeps_after_notification: bool = False
    """Both sides have said that routes outlive NOTIFICATIONs (RFC 8538)."""

    @property
    def internal(self) -> bool:
        return self.local_as == self.peer_as

    @property
    def keepalive_s(self) -> float:
        return self.hold_time_s / 3

    @cached_property
    def group(self) -> EncodingGroup:
        return EncodingGroup(
            internal=self.internal,
            asn4=self.asn4,
            families=self.families,
            extended_next_hop=self.extended_next_hop,
            message_size=self.message_size,
            local_as=0 if self.internal else self.local_as,
        )


def our_open(plan: ReflectorPlan, session: ReflectorSession, restarting: bool) -> OpenMessage:
    """What we offer: both families on every session, because what is used is what the peer offers as well. Forwarding
    goes on whatever becomes of a reflector: it is not in the path."""
    config = session.config
    return OpenMessage(
        asn=config.local_as,
        router_id=plan.router_id,
        hold_time_s=config.hold_time_s,
        asn4=True,
        families=FAMILIES,
        extended_next_hop=(IPV4,),
        route_refresh=True,
        enhanced_refresh=True,
        extended_message=True,
        restart=Restart(
            time_s=min(config.restart_time_s, plan.restart_time_s),
            families=dict.fromkeys(FAMILIES, True),
            restarting=restarting,
            notification=True,
        ),
    )


def negotiate(ours: OpenMessage, theirs: OpenMessage, expected_as: int) -> Negotiated:
    """What holds between the two. Raises OpenError (RFC 4271 6.2; the order is that of the fields)."""
    _check_as(theirs, expected_as)
    if int(theirs.router_id) == 0:
        raise OpenError(3, "the peer's router id is 0.0.0.0")
    if theirs.router_id == ours.router_id and theirs.asn == ours.asn:
        raise OpenError(3, f"the peer in our AS has our router id {ours.router_id} (RFC 6286)")
    if theirs.hold_time_s in (1, 2):
        raise OpenError(6, f"a hold time of {theirs.hold_time_s} s; 0 or 3 s at least is allowed")
    offered = frozenset(theirs.families if theirs.families is not None else (IPV4,))
    families = offered & frozenset(ours.families or ())
    if not families:
        raise OpenError(7, "no address family in common", _wanted_families(ours))
    return Negotiated(
        local_as=ours.asn,
        peer_as=theirs.asn,
        router_id=theirs.router_id,
        hold_time_s=min(ours.hold_time_s, theirs.hold_time_s),
        asn4=ours.asn4 and theirs.asn4,
        families=families,
        extended_next_hop=frozenset(ours.extended_next_hop) & frozenset(theirs.extended_next_hop) & families,
        route_refresh=ours.route_refresh and theirs.route_refresh,
        enhanced_refresh=ours.enhanced_refresh and theirs.enhanced_refresh,
        message_size=EXTENDED_SIZE if ours.extended_message and theirs.extended_message else ORDINARY_SIZE,
        restart=theirs.restart,
        keeps_after_notification=_keeps_after_notification(ours.restart, theirs.restart),
    )


def _check_as(theirs: OpenMessage, expected: int) -> None:
    if theirs.asn != expected:
        raise OpenError(2, f"the peer is in AS {theirs.asn}, not in AS {expected}")
    if theirs.two_byte_asn not in (None, AS_TRANS):
        raise OpenError(2, f"the peer says AS {theirs.two_byte_asn} and, in four bytes, AS {theirs.asn}")


def _keeps_after_notification(ours: Restart | None, theirs: Restart | None) -> bool:
    return ours is not None and theirs is not None and ours.notification and theirs.notification


def _wanted_families(ours: OpenMessage) -> bytes:
    """The capabilities that are missing, as they would have to be in the peer's OPEN (RFC 5492 5)."""
    return b"".join(
        struct.pack("!BBHBB", _MULTIPROTOCOL_CAPABILITY, 4, AFI[family], 0, UNICAST) for family in ours.families or ()
    )
