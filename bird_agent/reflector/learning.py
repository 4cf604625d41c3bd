"""What of a peer's routes is kept while it is away, and whether it has told all: the helper of RFC 4724.

Pure: events and the time go in, what becomes of the routes comes out. A peer that is lost in a way that lets it keep
forwarding leaves its routes behind, marked stale, for the time it said; what it does not announce again goes at its
end-of-RIB. A peer that promises no end-of-RIB has told all when it has been quiet for a moment."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from msgspec import Struct, field

from bird_agent.exabgp.commands import Family
from bird_agent.reflector.negotiation import Negotiated
from bird_agent.sessions import Action, DropAll, DropStale, FallSilent, MarkStale
from weft.model.address import IPAddress

RESYNC_TIMEOUT_S: Final = 120.0
"""For an end-of-RIB that was promised, and for the end of a refresh."""
QUIET_S: Final = 3.0


class Learning(Struct):
    """One peer. `awaited`: families it has not told all of, and until when that is waited for. `by_us`: it was we who
    ended the session, so the peer has gone on forwarding, and will not say that it did: it has not restarted."""

    peer: IPAddress
    awaited: dict[Family, float] = field(default_factory=dict)
    stale_until: dict[Family, float] = field(default_factory=dict)
    by_us: bool = False
    _promises: bool = False

    @property
    def deadline(self) -> float | None:
        """When `on_tick` has something to do; None: never."""
        return min((*self.awaited.values(), *self.stale_until.values()), default=None)

    def on_up(self, negotiated: Negotiated, now: float) -> list[Action]:
        """What its OPEN says about its restart decides on the routes it left behind (RFC 4724 4.2)."""
        restart = negotiated.restart
        self._promises = restart is not None
        kept = {} if restart is None else restart.families
        forwarded = negotiated.families if self.by_us else {family for family, went_on in kept.items() if went_on}
        gone = [one for one in self.stale_until if one not in negotiated.families or one not in forwarded]
        self.by_us = False
        for family in gone:
            del self.stale_until[family]
        self.stale_until = dict.fromkeys(self.stale_until, now + RESYNC_TIMEOUT_S)
        wait = RESYNC_TIMEOUT_S if self._promises else QUIET_S
        self.awaited = dict.fromkeys(negotiated.families, now + wait)
        return [DropStale(self.peer, family, "the peer did not keep forwarding over its restart") for family in gone]

    def on_heard(self, family: Family, now: float) -> None:
        if not self._promises and family in self.awaited:
            self.awaited[family] = now + QUIET_S

    def on_end_of_rib(self, family: Family) -> list[Action]:
        """Also the end of a refresh."""
        self.awaited.pop(family, None)
        self.stale_until.pop(family, None)
        return [DropStale(self.peer, family, "not announced again")]

    def on_refresh_begins(self, family: Family, now: float) -> list[Action]:
        """Everything is about to be announced again (RFC 7313)."""
        self.stale_until[family] = now + RESYNC_TIMEOUT_S
        return [MarkStale(self.peer, family)]

    def on_silence(
        self, negotiated: Negotiated, dies_with: frozenset[IPAddress] | None, why: str, now: float
    ) -> list[Action]:
        """The hold timer or BFD ended the session that was up. `dies_with`: as in SessionConfig."""
        kept = self.on_down(negotiated, dies_with is not None, why, now)
        return kept if dies_with is None else [*kept, FallSilent(self.peer, dies_with, why)]

    def on_down(self, negotiated: Negotiated, graceful: bool, why: str, now: float) -> list[Action]:
        """The session that was up is gone."""
        self.awaited.clear()
        restart = negotiated.restart
        if not graceful or restart is None or not restart.time_s:
            self.stale_until.clear()
            return [DropAll(self.peer, why)]
        kept = [family for family in negotiated.families if family in restart.families]
        # What is still stale from an earlier loss is not kept a second time, and nothing of other families at all.
        actions = list(self._dropped(self.stale_until, "lost again before it was announced again"))
        others = negotiated.families - set(kept)
        for family in others:
            actions += [MarkStale(self.peer, family), DropStale(self.peer, family, why)]
        self.stale_until = dict.fromkeys(kept, now + restart.time_s)
        return actions + [MarkStale(self.peer, family) for family in kept]

    def on_tick(self, now: float) -> list[Action]:
        actions: list[Action] = []
        for family in [family for family, until in self.awaited.items() if now >= until]:
            actions += self.on_end_of_rib(family)
        over = [family for family, until in self.stale_until.items() if now >= until]
        for family in over:
            del self.stale_until[family]
        return actions + list(self._dropped(over, "its restart time is over"))

    def _dropped(self, families: Iterable[Family], why: str) -> Iterator[Action]:
        for family in families:
            yield DropStale(self.peer, family, why)
