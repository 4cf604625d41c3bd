"""Graceful shutdown of a node (RFC 8326): first everything is announced as leaving, then nothing any more.

Pure. A node that is to drain tells its peers all its routes again with the community GRACEFUL_SHUTDOWN and, where that
means something, local preference 0; when all have it and the time for finding other ways is over, the routes are
withdrawn. Sessions stay. A path that comes with the community is the last choice here, too. What is announced when
nobody drains is not decided here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from enum import Enum
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from bird_agent.bestpath import Path
from bird_agent.exabgp import commands
from bird_agent.exabgp.commands import Announcement
from bird_agent.session_config import SessionConfig
from weft.model.address import IPAddress, IPNetwork
from weft.model.drain import DRAINED

GRACEFUL_SHUTDOWN: Final = (65535, 0)  # RFC 8326 5
_COMMUNITY: Final = "65535:0"
_ASK_AGAIN_S: Final = 0.5
_NAMED_PEERS: Final = 4


class Phase(Enum):
    """How much of this node its peers are to be told."""

    ANNOUNCING = "announcing"
    LEAVING = "leaving"
    WITHDRAWN = "withdrawn"


PHASES: Final = {
    Phase.ANNOUNCING: "over, all routes are announced again",
    Phase.LEAVING: "all routes are announced with GRACEFUL_SHUTDOWN",
    Phase.WITHDRAWN: "all routes are withdrawn, the sessions stay",
}
"""For the log."""


def shaped(
    phase: Phase, session: SessionConfig, announcements: Mapping[IPNetwork, Announcement]
) -> Mapping[IPNetwork, Announcement]:
    """What a peer is told in this phase of what it would be told."""
    match phase:
        case Phase.ANNOUNCING:
            return announcements
        case Phase.WITHDRAWN:
            return {}
        case Phase.LEAVING:
            known = {one: _leaving(one, session.internal) for one in set(announcements.values())}
            return {prefix: known[one] for prefix, one in announcements.items()}


def _leaving(announcement: Announcement, internal: bool) -> Announcement:
    communities = announcement.communities
    if _COMMUNITY not in communities:
        communities = (*communities, _COMMUNITY)
    return replace(
        announcement,
        communities=communities,
        local_preference=0 if internal else announcement.local_preference,
    )


def honoured(path: Path) -> Path:
    """The path, as the last choice if it comes with GRACEFUL_SHUTDOWN (RFC 8326 4)."""
    communities = path.attributes.communities
    if not communities or GRACEFUL_SHUTDOWN not in communities or path.preference == 0:
        return path
    return replace(path, preference=0)


class Situation(Struct, frozen=True):
    """What a step needs to know: whether the speaker has said how everything stands, the peers whose session is up,
    and whether anything is announced."""

    synced: bool
    established: Set[IPAddress]
    announcing: bool


class Drain:
    """One node's. Each phase ends when every peer that is up has been sent what it says."""

    def __init__(self) -> None:
        self._wait_s: float | None = None
        self._round = 0
        self._ask_at: float | None = None  # None: everybody has been sent everything
        self._waiting: Set[IPAddress] | None = None  # None: not heard in this round
        self._established: Set[IPAddress] = frozenset()
        self._until: float | None = None
        self.phase = Phase.ANNOUNCING

    @property
    def _told(self) -> bool:
        return self._ask_at is None

    def on_wish(self, wait_s: float | None) -> None:
        """How long peers are to get, or None: the node does not leave."""
        self._wait_s = wait_s

    def on_unsent(self, number: int, peers: Iterable[IPAddress]) -> None:
        """The speaker's answer: peers that have not been sent everything yet."""
        if number == self._round and self._ask_at is not None:
            self._waiting = frozenset(peers)

    def step(self, now: float, situation: Situation) -> bool:
        """Whether the phase has changed."""
        self._established = situation.established
        if not situation.synced:
            self._waiting = None
            return False
        if self._waiting is not None and not self._waiting & situation.established:
            self._ask_at = None
        if self._wait_s is None:
            return self._begin(Phase.ANNOUNCING, now)
        if self.phase is Phase.ANNOUNCING:
            # A node that announces nothing has nothing to prepare anybody for: it was restarted drained.
            return self._begin(Phase.LEAVING if situation.announcing else Phase.WITHDRAWN, now)
        if self.phase is Phase.LEAVING and self._told:
            if self._until is None:
                self._until = now + self._wait_s
            if now >= self._until:
                return self._begin(Phase.WITHDRAWN, now)
        return False

    def questions(self, now: float) -> list[bytes]:
        """To be asked behind the announcements of the step."""
        if self._ask_at is None or now < self._ask_at:
            return []
        self._ask_at = now + _ASK_AGAIN_S
        return [commands.unsent(self._round)]

    def state(self) -> str | None:
        """How far it is, in words; None while nobody drains."""
        match self.phase:
            case Phase.ANNOUNCING:
                return None if self._told else f"undraining: routes announced again to {self._progress()}"
            case Phase.LEAVING:
                return f"draining: GRACEFUL_SHUTDOWN sent to {self._progress()}"
            case Phase.WITHDRAWN:
                return (
                    f"{DRAINED}: nothing is announced" if self._told else f"draining: withdrawn from {self._progress()}"
                )

    def _progress(self) -> str:
        everybody = self._established
        missing = frozenset() if self._told else (everybody if self._waiting is None else self._waiting & everybody)
        text = f"{len(everybody) - len(missing)} of {len(everybody)} peers"
        if not missing:
            return text
        named = sorted(missing, key=lambda peer: (peer.version, int(peer)))[:_NAMED_PEERS]
        return f"{text}, not yet {', '.join(map(str, named))}{', ...' if len(missing) > len(named) else ''}"

    def _begin(self, phase: Phase, now: float) -> bool:
        if phase is self.phase:
            return False
        self.phase, self._round = phase, self._round + 1
        self._ask_at, self._waiting, self._until = now, None, None
        return True
