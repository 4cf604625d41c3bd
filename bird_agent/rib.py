"""What each peer has told us (Adj-RIB-In), and the best paths that come of it (Loc-RIB).

Pure and synchronous: what the peers say goes in, and `take_changes` gives the prefixes whose best paths differ from
the last time. The result depends on the state, never on the order in which it came. Routes of a peer that is
restarting stay, marked stale, until the peer has sent everything again or `drop_stale` says that its time is over;
how long that is, is not decided here (bird_agent/sessions.py). Those of a silent peer go as soon as another peer brings
the same prefix, and do not come back when that peer takes it back."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Final, NamedTuple

from msgspec import Struct, field

from bird_agent.bestpath import Local, Path, Peer, select, unusable
from bird_agent.exabgp.commands import Family, family_of
from bird_agent.exabgp.events import PathAttributes
from weft.model.address import IPAddress, IPNetwork

NextHopCost = Callable[[IPAddress], int | None]
"""Cost of reaching a next hop; None: it cannot be reached."""

Import = Callable[[Path, IPNetwork], Path | str]
"""A path as it is considered, or why it is not."""

Best = tuple[Path, ...]
"""The best path and those used beside it; empty: none."""

_SHARED_PATHS: Final = 4096


class AdjRibIn(Struct):
    """All routes of one peer. `rejected` says why those that are not considered are not; `stale` are those not heard
    again since its restart or our refresh."""

    peer: Peer
    paths: dict[IPNetwork, Path] = field(default_factory=dict)
    stale: set[IPNetwork] = field(default_factory=set)
    rejected: dict[IPNetwork, str] = field(default_factory=dict)
    shared: dict[tuple[PathAttributes, IPAddress], Path] = field(default_factory=dict)
    """Paths made for this peer: one object for all prefixes that were announced alike."""

    def path(self, attributes: PathAttributes, next_hop: IPAddress) -> Path:
        key = (attributes, next_hop)
        found = self.shared.get(key)
        if found is None:
            if len(self.shared) >= _SHARED_PATHS:
                self.shared.clear()
            found = self.shared[key] = Path(self.peer, next_hop, attributes)
        return found


class Counts(NamedTuple):
    """How many routes a peer has announced and not withdrawn, how many of them are considered, and how many are kept
    over its restart."""

    received: int
    accepted: int
    stale: int


class Rib:
    """All peers' routes of both families."""

    def __init__(self, local: Local, accept: Import, cost: NextHopCost) -> None:
        self._local = local
        self._accept = accept
        self._cost = cost
        self._peers: dict[IPAddress, AdjRibIn] = {}
        self._candidates: dict[IPNetwork, tuple[Path, ...]] = {}
        """At most one path of each peer. What is one path alone is one tuple for many prefixes."""
        self._alone: tuple[Path, ...] = ()
        self._best: dict[IPNetwork, Best] = {}
        self._dirty: set[IPNetwork] = set()
        self._silent: dict[IPAddress, frozenset[IPAddress]] = {}
        """Peers whose routes count only where nobody else brings any, with the next hops that are dead like them."""

    def set_peer(self, peer: Peer) -> None:
        """The peer of a session that came up. Routes it left behind stay; they are judged anew if it changed."""
        known = self._peers.get(peer.address)
        if known is None:
            self._peers[peer.address] = AdjRibIn(peer)
        elif known.peer != peer:
            known.peer = peer
            known.shared.clear()
            for prefix, path in list(known.paths.items()):
                self._judge(known, prefix, known.path(path.attributes, path.next_hop))

    def update(
        self,
        address: IPAddress,
        attributes: PathAttributes,
        announced: Iterable[tuple[IPNetwork, IPAddress]],
        withdrawn: Iterable[IPNetwork],
    ) -> None:
        """One UPDATE of a peer that `set_peer` has named; of any other it is ignored."""
        adj = self._peers.get(address)
        if adj is None:
            return
        for prefix in withdrawn:
            self._remove(adj, prefix)
        paths, stale = adj.paths, adj.stale
        last: IPAddress | None = None
        path, refusal = None, None
        for prefix, next_hop in announced:
            if stale:
                stale.discard(prefix)
            if path is None or next_hop is not last:
                path, last = adj.path(attributes, next_hop), next_hop
                refusal = unusable(path, self._local)
            known = paths.get(prefix)
            if known is not path and known != path:
                self._place(adj, prefix, path, refusal)
            elif self._silent and address not in self._silent and prefix not in adj.rejected:
                self._supersede(prefix)

    def _judge(self, adj: AdjRibIn, prefix: IPNetwork, path: Path) -> None:
        self._place(adj, prefix, path, unusable(path, self._local))

    def _place(self, adj: AdjRibIn, prefix: IPNetwork, path: Path, refusal: str | None) -> None:
        """Keep a path, and consider it unless it is refused, by `refusal` already or by the import policy."""
        adj.paths[prefix] = path
        judged = refusal or self._accept(path, prefix)
        if isinstance(judged, str):
            adj.rejected[prefix] = judged
            self._unplace(adj, prefix)
        else:
            if adj.rejected:
                adj.rejected.pop(prefix, None)
            known = self._candidates.get(prefix)
            if known is None or (len(known) == 1 and known[0].peer.address == adj.peer.address):
                self._candidates[prefix] = self._only(judged)
            else:
                self._candidates[prefix] = (*_without(known, adj.peer.address), judged)
            if self._silent and adj.peer.address not in self._silent:
                self._supersede(prefix)
        self._dirty.add(prefix)

    def _only(self, path: Path) -> tuple[Path, ...]:
        if not self._alone or self._alone[0] is not path:
            self._alone = (path,)
        return self._alone

    def _unplace(self, adj: AdjRibIn, prefix: IPNetwork) -> None:
        known = self._candidates.get(prefix)
        if known is None:
            return
        left = _without(known, adj.peer.address)
        if left:
            self._candidates[prefix] = left
        else:
            del self._candidates[prefix]

    def mark_stale(self, address: IPAddress, family: Family) -> None:
        """From now on every route of this peer and family has to be heard again."""
        if adj := self._peers.get(address):
            adj.stale.update(prefix for prefix in adj.paths if family_of(prefix) == family)

    def drop_stale(self, address: IPAddress, family: Family | None = None) -> int:
        """Remove what is still marked; how many routes that were."""
        adj = self._peers.get(address)
        if adj is None:
            return 0
        gone = [prefix for prefix in adj.stale if family is None or family_of(prefix) == family]
        for prefix in gone:
            self._remove(adj, prefix)
        return len(gone)

    def fall_silent(self, address: IPAddress, dead: frozenset[IPAddress]) -> int:
        """Of the routes of this peer stay those that nobody else brings, and that do not lead to what is `dead`, like
        the next hops that were said of other silent ones; until `end_silence`. How many went."""
        self._silent[address] = dead
        dead = dead.union(*self._silent.values())
        count = 0
        for adj in [self._peers[silent] for silent in self._silent if silent in self._peers]:
            gone = [prefix for prefix, path in adj.paths.items() if path.next_hop in dead or self._is_brought(prefix)]
            count += len(gone)
            for prefix in gone:
                self._remove(adj, prefix)
        return count

    def end_silence(self, address: IPAddress) -> None:
        """The peer says something again."""
        self._silent.pop(address, None)

    def _is_brought(self, prefix: IPNetwork) -> bool:
        """By a peer that is not silent."""
        return any(path.peer.address not in self._silent for path in self._candidates.get(prefix, ()))

    def _supersede(self, prefix: IPNetwork) -> None:
        """A peer that is not silent brings it."""
        for silent in self._silent:
            adj = self._peers.get(silent)
            if adj is not None and prefix in adj.paths:
                self._remove(adj, prefix)

    def drop(self, address: IPAddress, family: Family | None = None) -> int:
        """Remove all that a peer said; how many routes that were."""
        adj = self._peers.get(address)
        if adj is None:
            return 0
        gone = [prefix for prefix in adj.paths if family is None or family_of(prefix) == family]
        for prefix in gone:
            self._remove(adj, prefix)
        return len(gone)

    def remove_peer(self, address: IPAddress) -> None:
        """The session is no longer configured."""
        self.drop(address)
        self._peers.pop(address, None)
        self._silent.pop(address, None)

    def set_import(self, accept: Import, concerned: Iterable[IPNetwork]) -> None:
        """A new import policy, which judges differently only about the prefixes that are `concerned`."""
        self._accept = accept
        for prefix in concerned:
            for adj in self._peers.values():
                if (path := adj.paths.get(prefix)) is not None:
                    self._judge(adj, prefix, path)

    def set_local(self, local: Local) -> None:
        """This node is another to its peers: judge everything again."""
        self._local = local
        self.judge_again(self._peers)

    def judge_again(self, peers: Iterable[IPAddress]) -> None:
        """The import policy thinks otherwise of what these peers say."""
        for address in peers:
            if (adj := self._peers.get(address)) is not None:
                for prefix, path in adj.paths.items():
                    self._judge(adj, prefix, path)

    def reconsider_through(self, next_hops: Iterable[IPAddress]) -> None:
        """These next hops may be reached otherwise than before."""
        changed = set(next_hops)
        if not changed:
            return
        for prefix, paths in self._candidates.items():
            if any(path.next_hop in changed for path in paths):
                self._dirty.add(prefix)

    def take_changes(self) -> dict[IPNetwork, Best]:
        """The prefixes whose best paths are not what they were, with what they are now."""
        changes: dict[IPNetwork, Best] = {}
        selected: dict[tuple[int, ...], Best] = {}  # by the identities of the paths, which are kept for so long
        candidates, known = self._candidates, self._best
        for prefix in self._dirty:
            paths = candidates.get(prefix, ())
            which = (id(paths[0]),) if len(paths) == 1 else tuple(map(id, paths))
            best = selected.get(which)
            if best is None:
                best = selected[which] = self._select(paths)
            before = known.get(prefix, ())
            if best is not before and best != before:
                changes[prefix] = best
                if best:
                    self._best[prefix] = best
                else:
                    del self._best[prefix]
        self._dirty.clear()
        return changes

    def _select(self, paths: tuple[Path, ...]) -> Best:
        best = select(paths, [self._cost(path.next_hop) for path in paths])
        return paths if best == paths else best  # one tuple instead of two

    @property
    def best(self) -> Mapping[IPNetwork, Best]:
        """The Loc-RIB, as of the last `take_changes`."""
        return self._best

    def next_hops(self) -> set[IPAddress]:
        """Every next hop that some path names."""
        return {path.next_hop for paths in self._candidates.values() for path in paths}

    def peers(self) -> Iterator[AdjRibIn]:
        yield from self._peers.values()

    def candidates(self, prefix: IPNetwork) -> list[Path]:
        """The paths that are considered, as the import policy left them."""
        return list(self._candidates.get(prefix, ()))

    def counts(self, address: IPAddress) -> Counts:
        """Of one peer's routes."""
        adj = self._peers.get(address)
        if adj is None:
            return Counts(0, 0, 0)
        return Counts(len(adj.paths), len(adj.paths) - len(adj.rejected), len(adj.stale))

    def received(self, address: IPAddress) -> int:
        """How many routes the peer has announced and not withdrawn, those that were not accepted included."""
        adj = self._peers.get(address)
        return 0 if adj is None else len(adj.paths)

    def _remove(self, adj: AdjRibIn, prefix: IPNetwork) -> None:
        if adj.rejected:
            adj.rejected.pop(prefix, None)
        if adj.stale:
            adj.stale.discard(prefix)
        if adj.paths.pop(prefix, None) is not None:
            self._unplace(adj, prefix)
            self._dirty.add(prefix)


def _without(paths: tuple[Path, ...], peer: IPAddress) -> tuple[Path, ...]:
    return tuple(path for path in paths if path.peer.address != peer)


def sorted_prefixes(prefixes: Iterable[IPNetwork]) -> Sequence[IPNetwork]:
    """IPv4 first, then by address and length, for output."""
    return sorted(prefixes, key=lambda prefix: (prefix.version, int(prefix.network_address), prefix.prefixlen))
