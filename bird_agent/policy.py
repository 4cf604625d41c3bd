"""What each peer is told, and what is accepted of what it says.

Pure. The session's BGPFilters come first; what they do not decide is announced as bird_agent/exports.py says, with
the communities of `prefixAdvertisements`, and accepted. Refused whatever the filters say is what can only be a mistake:
link-local, loopback and multicast, this node's own addresses, its blocks and parts of them, and the service ranges.
A single address of its blocks is none: another node may have borrowed it, and says so with a host route."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from dataclasses import dataclass, field, replace
from functools import lru_cache
from ipaddress import ip_network
from typing import Final

from bird_agent.bestpath import Path, local_preference_of
from bird_agent.exabgp.commands import Announcement
from bird_agent.exabgp.events import AsSegment, PathAttributes
from bird_agent.exports import Candidate, Exports, Networks
from bird_agent.filters import (
    MAX_PRIORITY,
    NO_RULES,
    Community,
    FilterRoute,
    LargeCommunity,
    RuleSet,
    rule_set,
    with_communities,
)
from bird_agent.session_config import Problem, SessionConfig
from weft.model.address import IPAddress, IPNetwork
from weft.model.bgp import BGPFilter

HOST_LENGTH: Final = {4: 32, 6: 128}
_SPECIAL_FIRST_OCTETS: Final = frozenset({127, 169, *range(224, 240)})


@dataclass(frozen=True, slots=True)
class Own:
    """What is this node's: its addresses and confirmed blocks; and the ranges of services, which are everybody's."""

    addresses: frozenset[IPAddress] = frozenset()
    blocks: frozenset[IPNetwork] = frozenset()
    service_ranges: frozenset[IPNetwork] = frozenset()


@dataclass(frozen=True, slots=True)
class SessionPolicy:
    """The filters of one session."""

    imports: RuleSet = NO_RULES
    exports: RuleSet = NO_RULES


@dataclass(frozen=True, slots=True)
class Policies:
    """The filters of all sessions that have any, and what is wrong with them."""

    by_peer: Mapping[IPAddress, SessionPolicy] = field(default_factory=dict)
    problems: tuple[Problem, ...] = ()

    def of(self, peer: IPAddress) -> SessionPolicy:
        return self.by_peer.get(peer, _NO_FILTERS)

    @property
    def looks_beyond_our_own(self) -> bool:
        """Some filter may announce what nobody announces by itself."""
        return any(policy.exports.accepts_something for policy in self.by_peer.values())

    @property
    def asks_for_interfaces(self) -> bool:
        return any(policy.imports.asks_for_interfaces for policy in self.by_peer.values())


_NO_FILTERS: Final = SessionPolicy()


def policies(sessions: Iterable[SessionConfig], filters: Mapping[str, BGPFilter]) -> Policies:
    """Compile what the sessions name."""
    by_peer: dict[IPAddress, SessionPolicy] = {}
    problems: dict[Problem, None] = {}
    for session in sessions:
        if not session.filters:
            continue
        version = session.peer.version
        imports, wrong_imports = rule_set(session.filters, filters, "import", version)
        exports, wrong_exports = rule_set(session.filters, filters, "export", version)
        by_peer[session.peer] = SessionPolicy(imports, exports)
        problems.update(dict.fromkeys([*wrong_imports, *wrong_exports]))
    return Policies(by_peer, tuple(problems))


@dataclass(frozen=True, slots=True)
class Decision:
    """Whether a candidate is announced to a peer, with what, and why."""

    announcement: Announcement | None
    reason: str


class Exporter:
    """What each peer is told: the candidates, judged by its session's filters."""

    def __init__(self, exports: Exports) -> None:
        self._exports = exports
        self.policies = Policies()

    @property
    def candidates(self) -> Mapping[IPNetwork, Candidate]:
        return self._exports.candidates

    def announcements(
        self, session: SessionConfig, looked_at: Set[IPNetwork] | None = None
    ) -> dict[IPNetwork, Announcement]:
        """Those of `looked_at` (None: of all) that this peer is told."""
        candidates = self._exports.candidates
        chosen = (
            candidates.values() if looked_at is None else (candidates[each] for each in looked_at & candidates.keys())
        )
        if not self.policies.of(session.peer).exports:
            return self._unfiltered(session, chosen)
        told: dict[IPNetwork, Announcement] = {}
        for candidate in chosen:
            announcement = self.decide(session, candidate).announcement
            if announcement is not None:
                told[candidate.prefix] = announcement
        return told

    def _unfiltered(self, session: SessionConfig, candidates: Iterable[Candidate]) -> dict[IPNetwork, Announcement]:
        """As `decide` says where there are no filters, in a fraction of the time: prefixes share their attributes."""
        version, tagging = session.peer.version, self._exports.advertising.tagging
        known: dict[tuple[Community | LargeCommunity, ...], Announcement | None] = {}
        told: dict[IPNetwork, Announcement] = {}
        for candidate in candidates:
            if not candidate.announced or candidate.prefix.version != version:
                continue
            tags = tagging.of(candidate.prefix) if tagging.by_prefix else ()
            if tags not in known:
                known[tags] = self.decide(session, candidate).announcement
            announcement = known[tags]
            if announcement is not None:
                told[candidate.prefix] = announcement
        return told

    def decide(self, session: SessionConfig, candidate: Candidate) -> Decision:
        """Why a candidate is announced to a peer, or not."""
        if candidate.prefix.version != session.peer.version:
            return Decision(None, f"the session carries IPv{session.peer.version} only")
        advertising = self._exports.advertising
        normal = advertising.normal_priority[candidate.prefix.version == 6]
        priority = normal if candidate.metric is None else candidate.metric
        route = FilterRoute(candidate.prefix, MAX_PRIORITY - priority, interface=candidate.interface)
        rules = self.policies.of(session.peer).exports
        verdict = rules.judge(route, session.internal) if rules else None
        if verdict is not None:
            if verdict.accepted:
                return Decision(_announcement(session, verdict.route), f"accepted by {verdict.rule}")
            return Decision(None, f"rejected by {verdict.rule}")
        if not candidate.announced:
            return Decision(None, f"{candidate.source.value}: not announced unless a filter accepts it")
        tagged = with_communities(route, advertising.tagging.of(candidate.prefix))
        return Decision(_announcement(session, tagged), candidate.source.value)


def _announcement(session: SessionConfig, route: FilterRoute) -> Announcement:
    prepended = tuple(number for segment in route.as_path for number in segment.numbers)
    return Announcement(
        next_hop=session.local,
        communities=tuple(f"{high}:{low}" for high, low in route.communities),
        large_communities=tuple(f"{one}:{two}:{three}" for one, two, three in route.large_communities),
        local_preference=route.local_preference if session.internal else None,
        as_path=(() if session.internal else (session.local_as,)) + prepended if prepended else (),
    )


class Importer:
    """The import policy of all sessions. `interface_of` tells where a next hop is reached, "" if it is not."""

    def __init__(self, own: Own, by_peer: Policies, interface_of: Callable[[IPAddress], str]) -> None:
        self._own = own
        self._blocks = Networks(own.blocks)
        self._service_ranges = Networks(own.service_ranges)
        self._policies = by_peer
        self._interface_of = interface_of

    def __call__(self, path: Path, prefix: IPNetwork) -> Path | str:
        """The path as it is considered, or why it is not."""
        refusal = self._mistake(prefix)
        if refusal is not None:
            return refusal
        rules = self._policies.of(path.peer.address).imports
        if not rules:
            return path
        known = path.attributes
        route = FilterRoute(
            prefix,
            local_preference_of(path),
            known.as_path,
            known.communities,
            known.large_communities,
            self._interface_of(path.next_hop) if rules.asks_for_interfaces else "",
            learnt=True,
        )
        verdict = rules.judge(route, path.peer.internal)
        if verdict is None:
            return path
        if not verdict.accepted:
            return f"rejected by {verdict.rule}"
        return path if verdict.route == route else _changed(path, route, verdict.route)

    def _mistake(self, prefix: IPNetwork) -> str | None:
        address, own = prefix.network_address, self._own
        if _is_never_routed(address):
            return "link-local, loopback and multicast prefixes are not routed"
        if prefix in own.blocks:
            return "a block of this node"
        if own.service_ranges and self._service_ranges.covers(prefix):
            return "in a service range, which is never learnt"
        if prefix.prefixlen < HOST_LENGTH[prefix.version]:
            return "a part of a block of this node" if self._blocks.covers(prefix) else None
        return "an address of this node" if address in own.addresses else None


def _is_never_routed(address: IPAddress) -> bool:
    if address.version == 4 and int(address) >> 24 not in _SPECIAL_FIRST_OCTETS:
        return False  # nearly every route of a large table
    return address.is_link_local or address.is_loopback or address.is_multicast


def _changed(path: Path, before: FilterRoute, after: FilterRoute) -> Path:
    attributes = _with(path.attributes, after.as_path, after.communities, after.large_communities)
    preference = path.preference if before.local_preference == after.local_preference else after.local_preference
    return replace(path, attributes=attributes, preference=preference)


@lru_cache(4096)
def _with(
    attributes: PathAttributes,
    as_path: tuple[AsSegment, ...],
    communities: tuple[tuple[int, int], ...],
    large_communities: tuple[tuple[int, int, int], ...],
) -> PathAttributes:
    """Remembered, because a peer sends few attribute sets and many times each."""
    return replace(attributes, as_path=as_path, communities=communities, large_communities=large_communities)


def concerned(before: Own, now: Own) -> Iterator[IPNetwork]:
    """The prefixes about which the import policy has changed its mind, service ranges excepted."""
    for address in before.addresses ^ now.addresses:
        yield ip_network(address)
    for block in before.blocks ^ now.blocks:
        yield block
        for length in range(block.prefixlen + 1, block.max_prefixlen):
            yield from block.subnets(new_prefix=length)
