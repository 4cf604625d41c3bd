"""What each peer is sent next, for as long as there is something: routes, then the marks behind them. No I/O.

Routes come from the peer's groups (groups.py), which know how far it is. Behind everything that is known go end-of-RIBs
(RFC 4724 2) and the end marks of refreshes (RFC 7313 4)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from bird_agent.exabgp.commands import Family
from bird_agent.reflector.exabgp_codec import write_refresh
from bird_agent.reflector.groups import Pieces
from bird_agent.reflector.standing import Standing
from bird_agent.reflector.tables import Tables
from weft.model.address import IPAddress

BEGIN, END = 1, 2  # of a refresh (RFC 7313 4)


class Telling:
    """`peers` are the reflector's, which says by `hungry` that there may be something for one."""

    def __init__(self, peers: Mapping[IPAddress, Standing], tables: Tables) -> None:
        self._peers = peers
        self._tables = tables
        self.hungry: set[IPAddress] = set()

    def waiting(self) -> Iterator[tuple[IPAddress, int]]:
        """Hungry peers with their connections."""
        for peer in list(self.hungry):
            standing = self._peers.get(peer)
            if standing is None or standing.conn is None:
                self.hungry.discard(peer)
            else:
                yield peer, standing.conn

    def advance(self, peer: IPAddress) -> Pieces:
        """What the peer is sent next; empty: it knows everything, or is not up."""
        standing = self._peers.get(peer)
        if standing is None or standing.conn is None:
            return []
        pieces: Pieces = []
        more = False
        for family, group in self._tables.groups(peer):
            while not pieces and not (group.up_to_date(peer) and family not in standing.refresh_asked):
                if group.up_to_date(peer):
                    pieces += _begin_refresh(standing, family)
                    group.tell_again(peer)
                else:
                    pieces += group.advance(peer)
            if group.up_to_date(peer):
                pieces += self._marks(peer, standing, family)
                more = more or family in standing.refresh_asked
            else:
                more = True
        if not more:
            self.hungry.discard(peer)
        return pieces

    def _marks(self, peer: IPAddress, standing: Standing, family: Family) -> Pieces:
        """What is due behind everything that is known."""
        marks: Pieces = []
        if family in standing.ends:
            standing.ends.discard(family)
            marks.append(self._tables.end_of_rib(peer, family))
        if family in standing.refreshing:
            standing.refreshing.discard(family)
            marks.append(write_refresh(family, END))
        return marks


def _begin_refresh(standing: Standing, family: Family) -> Pieces:
    standing.refresh_asked.discard(family)
    if standing.negotiated is None or not standing.negotiated.enhanced_refresh:
        return []
    standing.refreshing.add(family)
    return [write_refresh(family, BEGIN)]
