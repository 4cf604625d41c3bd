"""What each kind of peer is told about a path: RFC 4456 reflection, AS paths, next hops, filters.

Pure. A path of a client goes to everybody, one of another internal peer to clients and to other ASes, one of another AS
to everybody. Within the AS a path that is passed on says who brought it in and which clusters it has passed, and keeps
its next hop; to another AS it carries our AS number. It decides nothing about which path is best."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from enum import Enum
from ipaddress import IPv4Address
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from bird_agent.bestpath import local_preference_of
from bird_agent.exabgp.commands import Family
from bird_agent.exabgp.events import PathAttributes
from bird_agent.filters import FilterRoute
from bird_agent.policy import Rules
from bird_agent.reflector.as_path import written
from bird_agent.reflector.attributes import (
    AS_PATH,
    COMMUNITIES,
    LARGE_COMMUNITIES,
    OPTIONAL,
    TRANSITIVE,
    AttributeSet,
    AttributeSets,
    RawAttribute,
)
from bird_agent.reflector.plan import ReflectorSession
from bird_agent.reflector.prefixes import IPV6, Nlri, network_of
from bird_agent.reflector.rib import Route
from weft.model.address import IPAddress, IPNetwork

NO_EXPORT: Final = (65535, 65281)
NO_ADVERTISE: Final = (65535, 65282)
NO_EXPORT_SUBCONFED: Final = (65535, 65283)
_NO_RULES: Final = Rules()
_WITHIN_THE_AS: Final = frozenset({NO_EXPORT, NO_EXPORT_SUBCONFED})


class Role(Enum):
    """What a peer is to the reflector."""

    CLIENT = "client"
    NON_CLIENT = "non-client"
    EXTERNAL = "external"


def role_of(session: ReflectorSession) -> Role:
    if not session.config.internal:
        return Role.EXTERNAL
    return Role.CLIENT if session.client else Role.NON_CLIENT


class Audience(Struct, frozen=True):
    """What peers that are told the same have in common.

    `own`: the next hops they are told instead of the path's, for IPv4 and IPv6 prefixes; None: the path's. `shared`: a
    network that such a peer is on with us, whose next hops it reaches by itself. `prepended`: the AS number that comes
    first, if any does."""

    role: Role
    prepended: int | None = None
    own: tuple[IPAddress | None, IPAddress | None] = (None, None)
    shared: IPNetwork | None = None
    exports: Rules = _NO_RULES


def audience_of(session: ReflectorSession, exports: Rules, networks: Iterable[IPNetwork]) -> Audience:
    """`networks`: those that the reflector itself is on."""
    config, role = session.config, role_of(session)
    external = role is Role.EXTERNAL
    by_us = config.next_hop_mode == "Self" or (external and config.next_hop_mode == "Auto")
    own = (config.next_hop_for(4, config.other_local is None), config.next_hop_for(6, False)) if by_us else (None, None)
    shared = None
    if by_us and config.next_hop_mode == "Auto":
        shared = next((each for each in networks if each.version == config.peer.version and config.peer in each), None)
    return Audience(role, config.local_as if external else None, own, shared, exports)


class Told(Struct, frozen=True):
    """What a group is told about some prefixes; `source` brought the path and is told nothing of it."""

    attributes: AttributeSet
    next_hop: IPAddress
    source: IPAddress


class Reflection:
    """The rules of one reflector. `roles` says what the peers are that paths come from."""

    def __init__(self, cluster_id: IPv4Address, roles: Mapping[IPAddress, Role], sets: AttributeSets) -> None:
        self.cluster_id = cluster_id
        self._roles = roles
        self._sets = sets

    def judge(self, audience: Audience, route: Route, family: Family, nlri: Nlri) -> Told | str:
        """What is told about a prefix whose best path this is, or why nothing is."""
        why_not = self._kept_back(audience, route)
        if why_not is not None:
            return why_not
        path, attributes, preference = route.path, route.attributes, local_preference_of(route.path)
        if audience.exports:
            before = filter_route(route, family, nlri)
            verdict = audience.exports[before.prefix.version].judge(before, audience.role is not Role.EXTERNAL)
            if verdict is not None and not verdict.accepted:
                return f"rejected by {verdict.rule}"
            if verdict is not None and verdict.route != before:
                attributes, preference = changed(self._sets, attributes, verdict.route), verdict.route.local_preference
        if audience.prepended is not None:
            attributes = self._sets.exported(attributes, audience.prepended)
        else:
            if path.peer.internal:
                attributes = self._sets.reflected(attributes, path.peer.router_id, self.cluster_id)
            if attributes.path.local_preference != preference:
                attributes = self._sets.imported(attributes, preference)
        return Told(attributes, _next_hop(audience, path.next_hop, family), path.peer.address)

    def _kept_back(self, audience: Audience, route: Route) -> str | None:
        source = self._roles.get(route.path.peer.address)
        if source is None:
            return f"{route.path.peer.address} is no peer any more"
        if source is Role.NON_CLIENT and audience.role is Role.NON_CLIENT:
            return "learnt from an internal peer that is no client, and this one is none (RFC 4456 6)"
        communities = route.path.attributes.communities
        if NO_ADVERTISE in communities:
            return "community no-advertise"
        if audience.role is Role.EXTERNAL and not _WITHIN_THE_AS.isdisjoint(communities):
            return "community no-export"
        return None


def filter_route(route: Route, family: Family, nlri: Nlri) -> FilterRoute:
    """What filter rules can ask. Where a next hop leads is not known here, so rules by interface match nothing."""
    known = route.path.attributes
    return FilterRoute(
        network_of(family, nlri),
        local_preference_of(route.path),
        known.as_path,
        known.communities,
        known.large_communities,
        learnt=True,
    )


def changed(sets: AttributeSets, attributes: AttributeSet, after: FilterRoute) -> AttributeSet:
    """The attributes as a filter left them, its preference excepted."""
    path = replace(
        attributes.path,
        as_path=after.as_path,
        communities=after.communities,
        large_communities=after.large_communities,
    )
    if path == attributes.path:
        return attributes
    kept = [each for each in attributes.raw() if each.code not in (AS_PATH, COMMUNITIES, LARGE_COMMUNITIES)]
    return sets.of(path, [*kept, *_written(path)])


def _written(path: PathAttributes) -> Iterable[RawAttribute]:
    yield RawAttribute(TRANSITIVE, AS_PATH, written(path.as_path))
    if path.communities:
        value = b"".join(struct.pack("!HH", *each) for each in path.communities)
        yield RawAttribute(OPTIONAL | TRANSITIVE, COMMUNITIES, value)
    if path.large_communities:
        value = b"".join(struct.pack("!III", *each) for each in path.large_communities)
        yield RawAttribute(OPTIONAL | TRANSITIVE, LARGE_COMMUNITIES, value)


def _next_hop(audience: Audience, next_hop: IPAddress, family: Family) -> IPAddress:
    own = audience.own[family == IPV6]
    if own is None or (audience.shared is not None and next_hop in audience.shared):
        return next_hop
    return own
