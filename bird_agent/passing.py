"""Which learnt routes are passed on, to whom, and with what: RFC 4271 9.2, RFC 4456, and what Calico's BIRD lets out.

Pure. Between an external peer and any other a route may pass; between internal ones only from or to a client of this
reflector. Which prefixes go where no BGPFilter decides is decided once for all peers (docs/adr/0165): what lies in a
pool or in a range of services, `disableBGPExport` and this node's own blocks excepted. What goes before a learnt
route with the same prefix, and the filters, are bird_agent/policy.py's."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from ipaddress import IPv4Address, IPv6Address
from typing import Final, NamedTuple

from msgspec import Struct

from bird_agent.bestpath import Path, local_preference_of
from bird_agent.exabgp.commands import Announcement
from bird_agent.exabgp.events import AsSegment
from bird_agent.exports import Advertising, Networks
from bird_agent.filters import MAX_PRIORITY, FilterRoute
from bird_agent.rib import Best
from bird_agent.session_config import Peering, SessionConfig
from weft.model.address import IPAddress, IPNetwork

NO_EXPORT: Final = (65535, 65281)  # RFC 1997
NO_ADVERTISE: Final = (65535, 65282)
NO_EXPORT_SUBCONFED: Final = (65535, 65283)
DETOUR_MED: Final = 1
"""Of what this node has learnt within its AS and tells another: what the origin itself tells has none, which is 0 and
goes before (RFC 4271 9.1.2.2 c), so a router that peers with both takes the direct way alone."""
_NOT_ACROSS_ASES: Final = 0x40 << 56  # of an extended community: not transitive (RFC 4360 2)


class Role(Struct, frozen=True):
    """This node's part in passing on. `clients` have it reflect; `passes`: somebody may be told of what is learnt."""

    cluster_id: IPv4Address | None = None
    clients: frozenset[IPAddress] = frozenset()
    passes: bool = False


def role(peering: Peering | None) -> Role:
    sessions = () if peering is None else peering.sessions.values()
    clients = frozenset(session.peer for session in sessions if session.client)
    external = any(not session.internal for session in sessions)
    passes = len(sessions) > 1 and (external or bool(clients))
    return Role(None if peering is None else peering.cluster_id, clients, passes)


class Entry(NamedTuple):
    """A best path; `refusal`: why it is not passed on unless a filter accepts it, if so."""

    path: Path
    refusal: str | None


class Area:
    """Where a prefix lies, as far as that decides about passing it on."""

    def __init__(self, advertising: Advertising, blocks: Iterable[IPNetwork], reflects: bool) -> None:
        blocks = frozenset(blocks)
        self.basis: Final = advertising, blocks, reflects
        """Two areas of the same are the same."""
        self._private = Networks(advertising.private_pools)
        self._blocks = Networks(blocks)
        ranges = advertising.announced_ranges | (advertising.reflected_ranges if reflects else frozenset())
        self._open = Networks(ranges | advertising.pools)
        self._normal = advertising.normal_priority

    def refusal(self, prefix: IPNetwork, path: Path) -> str | None:
        """Why such a route is not passed on by itself; None if it is."""
        if not self._open.covers(prefix):
            return "in no pool and no range of services"
        if self._private.covers(prefix):
            return "in a pool with disableBGPExport"
        # A workload that is leaving this node is told of by its new one, with a priority above the normal one.
        priority = MAX_PRIORITY - local_preference_of(path)
        if priority >= self._normal[prefix.version == 6] and self._blocks.covers(prefix):
            return "in a block of this node"
        return None


class Learnt:
    """The best paths that some session may be told of."""

    def __init__(self) -> None:
        self._role = Role()
        self._area = Area(Advertising(), (), False)
        self._keeps_all = False
        self.entries: dict[IPNetwork, Entry] = {}

    @property
    def role(self) -> Role:
        return self._role

    def set_basis(self, own: Role, area: Area, keeps_all: bool, best: Mapping[IPNetwork, Best]) -> set[IPNetwork]:
        """What decides; `keeps_all`: a filter may accept anything. The prefixes about which something changed."""
        before, known = self.entries, (self._role.passes, self._area.basis, self._keeps_all)
        self._role, self._area, self._keeps_all = own, area, keeps_all
        if known == (own.passes, area.basis, keeps_all):
            return set()  # as when another node changes
        self.entries = {}
        if own.passes:
            for prefix, paths in best.items():
                self._look_at(prefix, paths)
        both = before.keys() | self.entries.keys()
        return {prefix for prefix in both if before.get(prefix) != self.entries.get(prefix)}

    def on_best(self, prefixes: Iterable[IPNetwork], best: Mapping[IPNetwork, Best]) -> set[IPNetwork]:
        """The best paths to these changed; those of them about which somebody may have to be told."""
        if not self._role.passes:
            return set()
        changed: set[IPNetwork] = set()
        for prefix in prefixes:
            known = self.entries.pop(prefix, None)
            self._look_at(prefix, best.get(prefix, ()))
            if known != self.entries.get(prefix):
                changed.add(prefix)
        return changed

    def _look_at(self, prefix: IPNetwork, paths: Best) -> None:
        if paths:
            refusal = self._area.refusal(prefix, paths[0])
            if refusal is None or self._keeps_all:
                self.entries[prefix] = Entry(paths[0], refusal)


def obstacle(own: Role, path: Path, session: SessionConfig) -> str | None:
    """Why BGP itself lets no peer of this session have such a path, whatever a filter says; None if it may."""
    source = path.peer
    if source.address == session.peer:
        return "learnt from this very peer"
    if is_reflected(own, path, session) and not own.clients & {source.address, session.peer}:
        return "learnt within the AS, and neither end is a client of this node"
    communities = path.attributes.communities
    if NO_ADVERTISE in communities:
        return "its community NO_ADVERTISE"
    if not session.internal and (NO_EXPORT in communities or NO_EXPORT_SUBCONFED in communities):
        return "its community NO_EXPORT"
    return None


def is_reflected(own: Role, path: Path, session: SessionConfig) -> bool:
    """From one internal peer to another of the same AS, which takes a reflector (RFC 4456)."""
    if not (session.internal and path.peer.internal):
        return False
    return path.peer.local_as is None or path.peer.local_as == session.local_as


def filter_route(prefix: IPNetwork, path: Path, interface: str) -> FilterRoute:
    """The route as an export filter sees it."""
    known = path.attributes
    return FilterRoute(
        prefix,
        local_preference_of(path),
        known.as_path,
        known.communities,
        known.large_communities,
        interface,
        learnt=True,
    )


def next_hop(path: Path, session: SessionConfig, version: int, extended: bool) -> IPAddress | None:
    """The next hop a path is passed on with; None: there is none that the peer could use.

    As in BIRD, whose sessions Calico makes all multihop ones: within the AS the path keeps its own, to another AS it is
    this node; `nextHopMode` says otherwise. A link-local one means nothing to anybody else."""
    own = session.next_hop_for(version, extended)
    keeps = session.internal if session.next_hop_mode == "Auto" else session.next_hop_mode == "Keep"
    kept = path.next_hop
    if not keeps or (isinstance(kept, IPv6Address) and (kept.scope_id is not None or kept.is_link_local)):
        return own
    return kept if kept.version == version or extended else own


def announcement(own: Role, path: Path, session: SessionConfig, route: FilterRoute, towards: IPAddress) -> Announcement:
    """What is said with a path that is passed on; `route` is what filters made of it, `towards` its next hop."""
    known = path.attributes
    passed: Iterable[int | tuple[int, ...]] = as_hops(route.as_path)
    if not session.internal:
        extended = tuple(each for each in known.extended_communities if not each & _NOT_ACROSS_ASES)
        return Announcement(
            next_hop=towards,
            communities=texts(route.communities),
            large_communities=texts(route.large_communities),
            as_path=(session.local_as, *passed),
            origin=known.origin,
            med=DETOUR_MED if path.peer.internal else None,
            extended_communities=extended,
            others=known.others,
        )
    reflected = is_reflected(own, path, session)
    assert not reflected or own.cluster_id is not None
    return Announcement(
        next_hop=towards,
        communities=texts(route.communities),
        large_communities=texts(route.large_communities),
        local_preference=route.local_preference,
        as_path=tuple(passed),
        origin=known.origin,
        med=known.med,
        originator_id=(known.originator_id or path.peer.router_id) if reflected else None,
        cluster_list=(own.cluster_id, *known.cluster_list) if reflected and own.cluster_id is not None else (),
        extended_communities=known.extended_communities,
        others=known.others,
    )


def as_hops(path: Iterable[AsSegment]) -> Iterator[int | tuple[int, ...]]:
    """An AS path as an announcement has it. Segments of a confederation end with it (RFC 5065 5.3)."""
    for segment in path:
        if segment.kind == "as-sequence":
            yield from segment.numbers
        elif segment.kind == "as-set":
            yield segment.numbers


def texts(communities: Iterable[tuple[int, ...]]) -> tuple[str, ...]:
    return tuple(":".join(map(str, community)) for community in communities)
