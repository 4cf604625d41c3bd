"""What a node sees of its sessions, told by the name of the other node: the input of bird_agent/automatic/decision.py.

Pure. A route counts as learnt if it is accepted and not announced by this node itself: of such a prefix a reflector may
choose, and pass on, only ours. A session is settled when both ends have told everything and have had a moment to take
it in; nobody says when a peer has done that."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Set
from typing import Final

from msgspec import Struct, field

from bird_agent.announcer import Announcer
from bird_agent.rib import AdjRibIn, Rib
from bird_agent.session_config import Peering, SessionKind
from bird_agent.sessions import Sessions
from weft.model.address import IPAddress, IPNetwork

SETTLE_S: Final = 2.0
_NODE: Final = "Node/"


class Group(Struct, frozen=True):
    """The sessions of one kind, by the other node's name. A node with two addresses counts when both sessions do.
    `silent`: the hold timer or BFD ended them, and they are not back."""

    there: Set[str] = frozenset()
    established: Set[str] = frozenset()
    settled: Set[str] = frozenset()
    learnt: Mapping[str, Set[IPNetwork]] = field(default_factory=dict)
    silent: Set[str] = frozenset()


class Eyes(Struct, frozen=True):
    """Where to look. `announced`: whether this node announces a prefix by itself."""

    peering: Peering | None
    sessions: Sessions
    announcer: Announcer
    rib: Rib
    announced: Callable[[IPNetwork], bool]

    def look(self, kind: SessionKind, now: float) -> Group:
        peers = self._peers_of(kind)
        if not peers:
            return Group()
        up = {name for name, each in peers.items() if all(map(self._is_established, each))}
        settled = {name for name in up if all(self._is_settled(peer, now) for peer in peers[name])}
        routes = {adj.peer.address: adj for adj in self.rib.peers()}
        learnt = {name: self._learnt(routes[peer] for peer in each if peer in routes) for name, each in peers.items()}
        silent = frozenset(name for name, each in peers.items() if all(map(self._is_silent, each)))
        return Group(frozenset(peers), frozenset(up), frozenset(settled), learnt, silent)

    def _peers_of(self, kind: SessionKind) -> dict[str, list[IPAddress]]:
        found: dict[str, list[IPAddress]] = {}
        for peer, config in ({} if self.peering is None else self.peering.sessions).items():
            if config.kind is kind and config.resource.startswith(_NODE):
                found.setdefault(config.resource.removeprefix(_NODE), []).append(peer)
        return found

    def _is_established(self, peer: IPAddress) -> bool:
        session = self.sessions.get(peer)
        return session is not None and session.established

    def _is_silent(self, peer: IPAddress) -> bool:
        session = self.sessions.get(peer)
        return session is not None and session.silent

    def _is_settled(self, peer: IPAddress, now: float) -> bool:
        session = self.sessions.get(peer)
        return (
            session is not None
            and not session.learning
            and self.announcer.has_told(peer)
            and now - session.since >= SETTLE_S
        )

    def _learnt(self, adjs: Iterable[AdjRibIn]) -> Set[IPNetwork]:
        return {
            prefix for adj in adjs for prefix in adj.paths if prefix not in adj.rejected and not self.announced(prefix)
        }
