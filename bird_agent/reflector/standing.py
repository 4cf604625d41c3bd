"""How one session of a reflector stands, and what is still to be said to its peer. Values, changed by reflector.py."""

from __future__ import annotations

from typing import Final

from msgspec import Struct, field
from msgspec.structs import replace

from bird_agent.exabgp.commands import Family
from bird_agent.reflector.learning import Learning
from bird_agent.reflector.negotiation import Negotiated
from bird_agent.reflector.plan import ReflectorSession
from bird_agent.reflector.session import Session

PROBLEM_PAUSE_S: Final = 10.0
"""Between two lines about what a peer gets wrong."""
STALLED_S: Final = 480.0
"""A peer that takes nothing for this long, or twice the hold time, is given up (RFC 9687)."""


class Standing(Struct):
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
    problems_since: int = 0
    next_problem_at: float = 0.0
    ends: set[Family] = field(default_factory=set)
    refreshing: set[Family] = field(default_factory=set)
    refresh_asked: set[Family] = field(default_factory=set)

    @property
    def established(self) -> bool:
        return self.conn is not None

    def differs(self, wanted: ReflectorSession) -> bool:
        """Whether the session has to begin anew. Who connects, is of no account while it is up."""
        before = self.wanted
        if self.established:
            wanted, before = replace(wanted, passive=False), replace(before, passive=False)
        return wanted.settings != before.settings

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

    def problem_line(self, problem: str, now: float) -> str | None:
        """What the log says of something that the peer got wrong; None: that was said, or not long ago."""
        if problem == self.last_problem or now < self.next_problem_at:
            self.problems_since += 1
            return None
        more = f" ({self.problems_since} more since the last such line)" if self.problems_since else ""
        self.last_problem, self.problems_since, self.next_problem_at = problem, 0, now + PROBLEM_PAUSE_S
        return problem + more

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
