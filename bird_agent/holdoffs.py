"""Sessions that are kept down for a while, because coming back at once would only do the same harm again.

Pure: the time is an argument. A peer that announces more prefixes than it may is held off (RFC 4486 4)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from msgspec import Struct

from bird_agent.session_config import Problem, SessionConfig
from weft.model.address import IPAddress

HOLD_OFF_S: Final = 300.0


class HoldOff(Struct, frozen=True):
    """One session that is kept down, with the settings it had then."""

    session: SessionConfig
    until: float


class HoldOffs:
    """All of them, by peer."""

    def __init__(self) -> None:
        self._held: dict[IPAddress, HoldOff] = {}

    def __contains__(self, peer: IPAddress) -> bool:
        return peer in self._held

    def begin(self, session: SessionConfig, now: float) -> None:
        self._held[session.peer] = HoldOff(session, now + HOLD_OFF_S)

    def on_planned(self, sessions: dict[IPAddress, SessionConfig]) -> None:
        """Somebody who changes a session's settings wants to see what comes of it."""
        for peer, held in list(self._held.items()):
            if sessions.get(peer) != held.session:
                del self._held[peer]

    def on_tick(self, now: float) -> list[IPAddress]:
        """Those whose time is over; they are no longer held."""
        over = [peer for peer, held in self._held.items() if now >= held.until]
        for peer in over:
            del self._held[peer]
        return over

    def problems(self, now: float) -> Iterator[Problem]:
        for peer, held in self._held.items():
            text = (
                f"session with {peer} held down for {max(0.0, held.until - now):.0f} s more: "
                f"it announced more than {held.session.max_prefixes} prefixes"
            )
            yield Problem(held.session.resource, text)
