"""What each peer has told the reflector (Adj-RIB-In), and the best path to each prefix (Loc-RIB).

Pure. The rules are bird_agent/bestpath.py's, over prefixes as they are on the wire. What peers say goes in,
`take_changes` gives the prefixes whose best path is another one now; what comes out depends on the state, never on the
order in which it came. Next hops all count as reachable at the same cost (ADR 0156). One route value serves all the
prefixes that came with the same attributes, so a route costs two places in dictionaries."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final

from msgspec import Struct, field

from bird_agent.bestpath import Path, Peer, Standing, explain, select
from bird_agent.exabgp.commands import Family
from bird_agent.reflector.attributes import AttributeSet
from bird_agent.reflector.prefixes import FAMILIES, Nlri
from weft.model.address import IPAddress

_ALL_REACHABLE: Final = 0


class Route(Struct, frozen=True, eq=False):
    """A path and all its attributes. `path.attributes` says the same as `attributes`, or as the import policy changed
    them; `refused` why the path is not considered."""

    path: Path
    attributes: AttributeSet
    refused: str = ""


Judge = Callable[[Route, Family, Nlri], Route]
"""The import policy: a route as it is considered, perhaps as one that is refused."""


class AdjRibIn(Struct):
    """One family of one peer: what it said, what of it is not considered (with the reason), and what has not been heard
    again since a restart or a refresh."""

    routes: dict[Nlri, Route] = field(default_factory=dict)
    refused: dict[Nlri, Route] = field(default_factory=dict)
    stale: set[Nlri] = field(default_factory=set)


class Rib:
    """All peers' routes. `judges_by_prefix` says of a peer whether one answer of the policy does not hold for all
    the prefixes of an UPDATE."""

    def __init__(self, judge: Judge, judges_by_prefix: Callable[[IPAddress], bool]) -> None:
        self._judge = judge
        self._judges_by_prefix = judges_by_prefix
        self._peers: dict[IPAddress, Peer] = {}
        self._adjs: dict[tuple[IPAddress, Family], AdjRibIn] = {}
        self._candidates: dict[Family, dict[Nlri, dict[IPAddress, Route]]] = {family: {} for family in FAMILIES}
        self._best: dict[Family, dict[Nlri, Route]] = {family: {} for family in FAMILIES}
        self._dirty: dict[Family, set[Nlri]] = {family: set() for family in FAMILIES}
        self._silent: dict[IPAddress, frozenset[IPAddress]] = {}
        """As in bird_agent/rib.py."""

    def set_peer(self, peer: Peer) -> None:
        """The peer of a session that came up. Routes it left behind stay, as those of the peer it is now."""
        if self._peers.get(peer.address) == peer:
            return
        self._peers[peer.address] = peer
        for family, adj in self._of(peer.address):
            for nlri, route in list(adj.routes.items()):
                path = Path(peer, route.path.next_hop, route.path.attributes)
                self._place(peer.address, family, [nlri], Route(path, route.attributes))

    def update(
        self,
        peer: IPAddress,
        family: Family,
        announcement: tuple[AttributeSet, IPAddress] | None,
        announced: Sequence[Nlri],
        withdrawn: Iterable[Nlri],
    ) -> None:
        """One UPDATE of a peer that `set_peer` has named. `announcement`: attributes and next hop."""
        adj = self._adjs.setdefault((peer, family), AdjRibIn())
        for nlri in withdrawn:
            self._remove(peer, family, adj, nlri)
        if announcement is None:
            return
        attributes, next_hop = announcement
        if adj.stale:
            adj.stale.difference_update(announced)
        new = []
        for nlri in announced:
            known = adj.routes.get(nlri)
            if known is None or known.attributes is not attributes or known.path.next_hop != next_hop:
                new.append(nlri)
            elif self._silent and peer not in self._silent and nlri not in adj.refused:
                self._supersede(family, nlri)
        if new:
            self._place(peer, family, new, Route(Path(self._peers[peer], next_hop, attributes.path), attributes))

    def _place(self, peer: IPAddress, family: Family, nlris: Sequence[Nlri], route: Route) -> None:
        """Keep a route, and consider it unless it is refused."""
        adj, candidates = self._adjs[peer, family], self._candidates[family]
        by_prefix = self._judges_by_prefix(peer)
        judged = None if by_prefix else self._judge(route, family, nlris[0])
        for nlri in nlris:
            adj.routes[nlri] = route
            considered = judged if judged is not None else self._judge(route, family, nlri)
            if considered.refused:
                adj.refused[nlri] = considered
                self._unplace(peer, candidates, nlri)
            else:
                adj.refused.pop(nlri, None)
                candidates.setdefault(nlri, {})[peer] = considered
                if self._silent and peer not in self._silent:
                    self._supersede(family, nlri)
        self._dirty[family].update(nlris)

    @staticmethod
    def _unplace(peer: IPAddress, candidates: dict[Nlri, dict[IPAddress, Route]], nlri: Nlri) -> None:
        paths = candidates.get(nlri)
        if paths is not None:
            paths.pop(peer, None)
            if not paths:
                del candidates[nlri]

    def _remove(self, peer: IPAddress, family: Family, adj: AdjRibIn, nlri: Nlri) -> None:
        adj.stale.discard(nlri)
        adj.refused.pop(nlri, None)
        if adj.routes.pop(nlri, None) is not None:
            self._unplace(peer, self._candidates[family], nlri)
            self._dirty[family].add(nlri)

    def mark_stale(self, peer: IPAddress, family: Family) -> None:
        """From now on everything of this peer and family has to be heard again."""
        adj = self._adjs.get((peer, family))
        if adj is not None:
            adj.stale.update(adj.routes)

    def drop_stale(self, peer: IPAddress, family: Family) -> int:
        """Remove what is still marked; how many routes that were."""
        adj = self._adjs.get((peer, family))
        if adj is None or not adj.stale:
            return 0
        gone = list(adj.stale)
        for nlri in gone:
            self._remove(peer, family, adj, nlri)
        return len(gone)

    def fall_silent(self, peer: IPAddress, dead: frozenset[IPAddress]) -> int:
        """Of this peer's routes stay those that nobody else brings, and that do not lead to what is `dead`, like the
        next hops that were said of other silent ones; until `end_silence`. How many went."""
        self._silent[peer] = dead
        dead = dead.union(*self._silent.values())
        gone = 0
        for silent in self._silent:
            for family, adj in self._of(silent):
                candidates = self._candidates[family]
                for nlri, route in list(adj.routes.items()):
                    brought = candidates.get(nlri, {}).keys() - self._silent.keys()
                    if brought or route.path.next_hop in dead:
                        self._remove(silent, family, adj, nlri)
                        gone += 1
        return gone

    def end_silence(self, peer: IPAddress) -> None:
        """The peer says something again."""
        self._silent.pop(peer, None)

    def _supersede(self, family: Family, nlri: Nlri) -> None:
        """A peer that is not silent brings it."""
        for silent in self._silent:
            adj = self._adjs.get((silent, family))
            if adj is not None:
                self._remove(silent, family, adj, nlri)

    def drop(self, peer: IPAddress) -> int:
        """Remove all that a peer said; how many routes that were."""
        gone = 0
        for family, adj in self._of(peer):
            gone += len(adj.routes)
            for nlri in list(adj.routes):
                self._remove(peer, family, adj, nlri)
        return gone

    def forget(self, peer: IPAddress) -> None:
        """It is no peer any more."""
        self.drop(peer)
        self._peers.pop(peer, None)
        self._silent.pop(peer, None)
        for family in FAMILIES:
            self._adjs.pop((peer, family), None)

    def judge_again(self, peers: Iterable[IPAddress]) -> None:
        """The import policy thinks otherwise of what these peers say."""
        for peer in peers:
            for family, adj in self._of(peer):
                for nlri, route in list(adj.routes.items()):
                    self._place(peer, family, [nlri], route)

    def judge_all_again(self) -> None:
        self.judge_again(list(self._peers))

    def take_changes(self) -> list[tuple[Family, Nlri, Route | None]]:
        """The prefixes whose best path is not what it was; None: there is none any more."""
        changes: list[tuple[Family, Nlri, Route | None]] = []
        for family in FAMILIES:
            dirty, best, candidates = self._dirty[family], self._best[family], self._candidates[family]
            self._dirty[family] = set()
            for nlri in dirty:
                chosen = _choose(candidates.get(nlri))
                before = best.get(nlri)
                if chosen is before or (chosen and before and _same(chosen, before)):
                    continue
                if chosen is None:
                    del best[nlri]
                else:
                    best[nlri] = chosen
                changes.append((family, nlri, chosen))
        return changes

    @property
    def changed(self) -> bool:
        """`take_changes` may have some."""
        return any(self._dirty.values())

    def best(self, family: Family) -> dict[Nlri, Route]:
        """The Loc-RIB, as of the last `take_changes`; to be read only."""
        return self._best[family]

    def received(self, peer: IPAddress) -> int:
        """How many routes the peer has announced and not withdrawn."""
        return sum(len(adj.routes) for _, adj in self._of(peer))

    def stale(self, peer: IPAddress) -> int:
        return sum(len(adj.stale) for _, adj in self._of(peer))

    def accepted(self, peer: IPAddress) -> int:
        """How many of them are considered."""
        return sum(len(adj.routes) - len(adj.refused) for _, adj in self._of(peer))

    def adj(self, peer: IPAddress, family: Family) -> AdjRibIn:
        """To be read only."""
        return self._adjs.get((peer, family), AdjRibIn())

    def prefixes(self, family: Family) -> set[Nlri]:
        """Everything that some peer has announced."""
        return {nlri for (_, of), adj in self._adjs.items() if of == family for nlri in adj.routes}

    def standings(self, family: Family, nlri: Nlri) -> tuple[Standing, ...]:
        """How the paths that are considered fare, and why; the best first."""
        paths = [route.path for route in self._candidates[family].get(nlri, {}).values()]
        return explain(paths, [_ALL_REACHABLE] * len(paths))

    def refused(self, family: Family) -> dict[Nlri, list[Route]]:
        """What is not considered, with the reasons."""
        found: dict[Nlri, list[Route]] = {}
        for (_, of), adj in self._adjs.items():
            if of == family:
                for nlri, route in adj.refused.items():
                    found.setdefault(nlri, []).append(route)
        return found

    def _of(self, peer: IPAddress) -> Iterator[tuple[Family, AdjRibIn]]:
        for family in FAMILIES:
            adj = self._adjs.get((peer, family))
            if adj is not None:
                yield family, adj


def _choose(candidates: dict[IPAddress, Route] | None) -> Route | None:
    if not candidates:
        return None
    routes = list(candidates.values())
    if len(routes) == 1:
        return routes[0]
    best = select([route.path for route in routes], [_ALL_REACHABLE] * len(routes))[0]
    return next(route for route in routes if route.path is best)


def _same(one: Route, other: Route) -> bool:
    return one.attributes is other.attributes and one.path == other.path
