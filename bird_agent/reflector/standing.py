"""How one session of a reflector stands, and what is still to be said to its peer. Values, changed by reflector.py."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from bird_agent.exabgp.commands import Family
from bird_agent.reflector.learning import Learning
from bird_agent.reflector.negotiation import Negotiated
from bird_agent.reflector.plan import ReflectorSession
from bird_agent.reflector.session import Session

STALLED_S: Final = 480.0
"""A peer that takes nothing for this long, or twice the hold time, is given up (RFC 9687)."""


@dataclass(slots=True)
class Standing:
    """One session. Behind all that is known go the end-of-RIB of `ends` and the end mark of what is `refreshing`.
    `refresh_asked`: what is to be told again after that."""

    wanted: ReflectorSession
    session: Session
    learning: Learning
    conn: int | None = None
    negotiated: Negotiated | None = None
    since: float = 0.0
    last_error: str = ""
    flaps: int = 0
    updates: int = 0
    stalled_since: float | None = None
    held_until: float | None = None
    last_problem: str = ""
    ends: set[Family] = field(default_factory=set)
    refreshing: set[Family] = field(default_factory=set)
    refresh_asked: set[Family] = field(default_factory=set)

    @property
    def established(self) -> bool:
        return self.conn is not None

    @property
    def restarting(self) -> bool:
        """The peer is away, and its routes are kept."""
        return not self.established and bool(self.learning.stale_until)

    @property
    def tells_first(self) -> bool:
        """It has yet to tell everything, and does so whatever we do: one that has been restarted, too, may be waiting
        for us (RFC 4724 4.1)."""
        restart = None if self.negotiated is None else self.negotiated.restart
        return bool(self.learning.awaited) and not (restart is not None and restart.restarting)

    @property
    def deadline(self) -> float | None:
        """When there is something to do that nobody tells us."""
        stalled = None if self.stalled_since is None else self.stalled_since + self.patience_s
        times = (self.session.deadline, self.learning.deadline, self.held_until, stalled)
        return min((each for each in times if each is not None), default=None)

    @property
    def patience_s(self) -> float:
        """How long the peer may take nothing."""
        held = 0 if self.negotiated is None else self.negotiated.hold_time_s
        return max(STALLED_S, 2.0 * held)
