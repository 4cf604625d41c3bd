"""What each peer is told, and what is accepted of what it says.

Pure. The session's BGPFilters come first; what they do not decide is announced as bird_agent/exports.py says, with
the communities of `prefixAdvertisements`, and accepted. Refused whatever the filters say is what can only be a mistake:
link-local, loopback and multicast, this node's own addresses, its blocks and parts of them.
A single address of its blocks is none: another node may have borrowed it, and says so with a host route."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from functools import lru_cache
from ipaddress import ip_network
from typing import Final

from msgspec import Struct, field
from msgspec.structs import replace

from bird_agent import passing
from bird_agent.bestpath import Path, local_preference_of
from bird_agent.drain import honoured
from bird_agent.exabgp.commands import Announcement
from bird_agent.exabgp.events import AsSegment, PathAttributes
from bird_agent.exabgp.prefixes import number_of
from bird_agent.exports import Candidate, Exports, Networks, Source
from bird_agent.filters import (
    MAX_PRIORITY,
    NO_RULES,
    Community,
    Direction,
    FilterRoute,
    LargeCommunity,
    RuleSet,
    Verdict,
    rule_set,
    with_communities,
)
from bird_agent.passing import Entry, Learnt
from bird_agent.session_config import Problem, SessionConfig
from weft.model.address import IPAddress, IPNetwork
from weft.model.bgp import BGPFilter

HOST_LENGTH: Final = {4: 32, 6: 128}
DIRECTIONS: Final[tuple[Direction, ...]] = ("import", "export")
_SPECIAL_FIRST_OCTETS: Final = frozenset({127, 169, *range(224, 240)})


class Own(Struct, frozen=True):
    """What is this node's: its addresses and confirmed blocks."""

    addresses: frozenset[IPAddress] = frozenset()
    blocks: frozenset[IPNetwork] = frozenset()


class Rules(Struct, frozen=True):
    """The rules of one session and direction, by the version of the prefix."""

    ipv4: RuleSet = NO_RULES
    ipv6: RuleSet = NO_RULES

    def __getitem__(self, version: int) -> RuleSet:
        return self.ipv4 if version == 4 else self.ipv6

    def __bool__(self) -> bool:
        return bool(self.ipv4 or self.ipv6)

    @property
    def asks_for_interfaces(self) -> bool:
        return self.ipv4.asks_for_interfaces or self.ipv6.asks_for_interfaces

    @property
    def accepts_something(self) -> bool:
        return self.ipv4.accepts_something or self.ipv6.accepts_something


class SessionPolicy(Struct, frozen=True):
    """The filters of one session."""

    imports: Rules = Rules()
    exports: Rules = Rules()


class Policies(Struct, frozen=True):
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
        compiled: dict[Direction, Rules] = {}
        for direction in DIRECTIONS:
            rules = {4: NO_RULES, 6: NO_RULES}
            for version in session.versions:
                rules[version], wrong = rule_set(session.filters, filters, direction, version)
                problems.update(dict.fromkeys(wrong))
            compiled[direction] = Rules(rules[4], rules[6])
        by_peer[session.peer] = SessionPolicy(compiled["import"], compiled["export"])
    return Policies(by_peer, tuple(problems))


class Decision(Struct, frozen=True):
    """Whether a candidate is announced to a peer, with what, and why."""

    announcement: Announcement | None
    reason: str


class Exporter:
    """What each peer is told: the candidates and what is passed on, judged by its session's filters.

    `learnt` may be read and not changed; `interface_of` tells where a next hop is reached. `extended_to` are the peers
    that take IPv6 next hops of IPv4 prefixes."""

    def __init__(self, exports: Exports, learnt: Learnt, interface_of: Callable[[IPAddress], str]) -> None:
        self._exports = exports
        self._learnt = learnt
        self._interface_of = interface_of
        self.policies = Policies()
        self.extended_to: frozenset[IPAddress] = frozenset()

    @property
    def candidates(self) -> Mapping[IPNetwork, Candidate]:
        return self._exports.candidates

    def announcements(
        self, session: SessionConfig, looked_at: Set[IPNetwork] | None = None
    ) -> dict[IPNetwork, Announcement]:
        """Those of `looked_at` (None: of all) that this peer is told."""
        candidates, entries = self._exports.candidates, self._learnt.entries
        chosen = (
            candidates.values() if looked_at is None else (candidates[each] for each in looked_at & candidates.keys())
        )
        if self.policies.of(session.peer).exports:
            told: dict[IPNetwork, Announcement] = {}
            for candidate in chosen:
                announcement = self.decide(session, candidate).announcement
                if announcement is not None:
                    told[candidate.prefix] = announcement
        else:
            told = self._unfiltered(session, chosen)
        if entries:
            self._pass_on(session, entries.keys() if looked_at is None else looked_at & entries.keys(), told)
        return told

    def goes_before(self, prefix: IPNetwork) -> Candidate | None:
        """What of our own goes before whatever was learnt of a prefix, as BIRD's preferences have it: all but other
        routes of the kernel."""
        candidate = self._exports.candidates.get(prefix)
        return None if candidate is None or candidate.source is Source.KERNEL else candidate

    def _pass_on(
        self, session: SessionConfig, prefixes: Iterable[IPNetwork], told: dict[IPNetwork, Announcement]
    ) -> None:
        """Add what is passed on. Where no filter asks for more, paths of one kind share what is said with them."""
        entries, tagging = self._learnt.entries, self._exports.advertising.tagging
        shares = not self.policies.of(session.peer).exports
        known: dict[tuple[object, ...], Announcement | None] = {}
        for prefix in prefixes:
            if prefix in self._exports.candidates and self.goes_before(prefix) is not None:
                continue
            entry = entries[prefix]
            path = entry.path
            if not shares:
                announcement = self.decide_learnt(session, prefix, entry).announcement
            elif entry.refusal is not None:
                continue
            else:
                tags = tagging.of(prefix) if tagging.by_prefix else ()
                kind = id(path), prefix.version, tags  # prefixes with the same path share it
                if kind not in known:
                    known[kind] = self.decide_learnt(session, prefix, entry).announcement
                announcement = known[kind]
            if announcement is not None:
                told[prefix] = announcement
            else:
                told.pop(prefix, None)

    def decide_learnt(self, session: SessionConfig, prefix: IPNetwork, entry: Entry) -> Decision:
        """Why a learnt route is passed on to a peer, or not."""
        role, path = self._learnt.role, entry.path
        if prefix.version not in session.versions:
            return Decision(None, f"the session does not carry IPv{prefix.version}")
        reason = passing.obstacle(role, path, session)
        if reason is not None:
            return Decision(None, reason)
        towards = passing.next_hop(path, session, prefix.version, session.peer in self.extended_to)
        if towards is None or towards == session.peer:
            what = f"this node has no IPv{prefix.version} address" if towards is None else "its next hop is the peer"
            return Decision(None, what)
        rules = self.policies.of(session.peer).exports[prefix.version]
        interface = self._interface_of(path.next_hop) if rules.asks_for_interfaces else ""
        route = passing.filter_route(prefix, path, interface)
        verdict = rules.judge(route, session.internal) if rules else None
        if verdict is not None and not verdict.accepted:
            return Decision(None, f"rejected by {verdict.rule}")
        if verdict is not None:
            return Decision(passing.announcement(role, path, session, verdict.route, towards), verdict_text(verdict))
        if entry.refusal is not None:
            return Decision(None, f"{entry.refusal}: not passed on unless a filter accepts it")
        route = with_communities(route, self._exports.advertising.tagging.of(prefix))
        return Decision(passing.announcement(role, path, session, route, towards), f"learnt from {path.peer.address}")

    def explain(self, session: SessionConfig, prefix: IPNetwork) -> str | None:
        """Why a prefix is announced to a peer, or not; None if there is nothing to announce."""
        candidate, entry = self._exports.candidates.get(prefix), self._learnt.entries.get(prefix)
        if entry is not None and self.goes_before(prefix) is None:
            return self.decide_learnt(session, prefix, entry).reason
        return None if candidate is None else self.decide(session, candidate).reason

    def _unfiltered(self, session: SessionConfig, candidates: Iterable[Candidate]) -> dict[IPNetwork, Announcement]:
        """As `decide` says where there are no filters, in a fraction of the time: prefixes share their attributes."""
        versions, tagging = session.versions, self._exports.advertising.tagging
        known: dict[tuple[int, tuple[Community | LargeCommunity, ...]], Announcement | None] = {}
        told: dict[IPNetwork, Announcement] = {}
        for candidate in candidates:
            version = candidate.prefix.version
            if not candidate.announced or version not in versions:
                continue
            kind = version, tagging.of(candidate.prefix) if tagging.by_prefix else ()
            if kind not in known:
                known[kind] = self.decide(session, candidate).announcement
            announcement = known[kind]
            if announcement is not None:
                told[candidate.prefix] = announcement
        return told

    def decide(self, session: SessionConfig, candidate: Candidate) -> Decision:
        """Why a candidate is announced to a peer, or not."""
        version = candidate.prefix.version
        if version not in session.versions:
            return Decision(None, f"the session does not carry IPv{version}")
        next_hop = session.next_hop_for(version, session.peer in self.extended_to)
        if next_hop is None:
            return Decision(None, f"this node has no IPv{version} address")
        advertising = self._exports.advertising
        normal = advertising.normal_priority[version == 6]
        priority = normal if candidate.metric is None else candidate.metric
        route = FilterRoute(candidate.prefix, MAX_PRIORITY - priority, interface=candidate.interface)
        rules = self.policies.of(session.peer).exports[version]
        verdict = rules.judge(route, session.internal) if rules else None
        if verdict is not None:
            announced = _announcement(session, verdict.route, next_hop) if verdict.accepted else None
            return Decision(announced, verdict_text(verdict))
        if not candidate.announced:
            return Decision(None, f"{candidate.source.value}: not announced unless a filter accepts it")
        tagged = with_communities(route, advertising.tagging.of(candidate.prefix))
        return Decision(_announcement(session, tagged, next_hop), candidate.source.value)


def verdict_text(verdict: Verdict) -> str:
    return f"{'accepted' if verdict.accepted else 'rejected'} by {verdict.rule}"


def _announcement(session: SessionConfig, route: FilterRoute, next_hop: IPAddress) -> Announcement:
    prepended = tuple(passing.as_hops(route.as_path))
    return Announcement(
        next_hop=next_hop,
        communities=passing.texts(route.communities),
        large_communities=passing.texts(route.large_communities),
        local_preference=route.local_preference if session.internal else None,
        as_path=(() if session.internal else (session.local_as,)) + prepended if prepended else (),
    )


class Importer:
    """The import policy of all sessions. `interface_of` tells where a next hop is reached, "" if it is not."""

    def __init__(self, own: Own, by_peer: Policies, interface_of: Callable[[IPAddress], str]) -> None:
        self._own = own
        self._blocks = Networks(own.blocks)
        self._policies = by_peer
        self._interface_of = interface_of

    def __call__(self, path: Path, prefix: IPNetwork) -> Path | str:
        """The path as it is considered, or why it is not."""
        judged = self._judged(path, prefix)
        return judged if isinstance(judged, str) else honoured(judged)

    def _judged(self, path: Path, prefix: IPNetwork) -> Path | str:
        refusal = self._mistake(prefix)
        if refusal is not None:
            return refusal
        rules = self._policies.of(path.peer.address).imports[prefix.version]
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
        own, version = self._own, prefix.version
        if _is_never_routed(prefix, version):
            return "link-local, loopback and multicast prefixes are not routed"
        if prefix in own.blocks:
            return "a block of this node"
        if prefix.prefixlen < HOST_LENGTH[version]:
            return "a part of a block of this node" if self._blocks.covers(prefix) else None
        return "an address of this node" if prefix.network_address in own.addresses else None


def _is_never_routed(prefix: IPNetwork, version: int) -> bool:
    if version == 4 and number_of(prefix) >> 24 not in _SPECIAL_FIRST_OCTETS:
        return False  # nearly every route of a large table
    address = prefix.network_address
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
    """The prefixes about which the import policy has changed its mind."""
    for address in before.addresses ^ now.addresses:
        yield ip_network(address)
    for block in before.blocks ^ now.blocks:
        yield block
        for length in range(block.prefixlen + 1, block.max_prefixlen):
            yield from block.subnets(new_prefix=length)
