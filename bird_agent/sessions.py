"""The state of each session, and what it means for the peer's routes: the graceful-restart helper (RFC 4724).

Pure: events and the time go in, actions on the RIB come out. A connection lost without a NOTIFICATION keeps the
peer's routes for the families and the time it advertised; a NOTIFICATION in either direction (a hold timer that
expired sends one), an interface that went down, or a session we end withdraws at once. After the session is back
what was not heard again goes at the end-of-RIB, or when the time is over. It never talks to a peer.

A peer through which no route leads (`dies_with`) says nothing about its routes by falling silent: when the hold timer
or BFD ends its session they stay as well, as long as nobody else brings them (docs/adr/0196)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Final

from msgspec import Struct, field

from bird_agent.exabgp.commands import Family, family_of
from bird_agent.exabgp.events import PeerOpen, SessionDown
from weft.model.address import IPAddress

RESYNC_TIMEOUT_S: Final = 120.0  # for the end-of-RIB of a peer that is back, and for a refresh
QUIET_S: Final = 3.0  # a peer that announces no end-of-RIB has told all after this time

NOTIFICATION_CODES: Final[Mapping[int, str]] = {
    1: "message header error",
    2: "OPEN message error",
    3: "UPDATE message error",
    4: "hold timer expired",
    5: "finite state machine error",
    6: "cease",
    7: "ROUTE-REFRESH message error",
}
# How ExaBGP names a lost connection, and what it ends itself without a NOTIFICATION, to establish it anew: a session
# whose settings changed (with another local address it is another neighbour to it), and all of them when it is stopped.
_LOST: Final = "closing connection"
_WE_RESTART: Final = {
    "graceful restarted negotiated, closing without sending any notification": "session settings changed",
    "stop, message [removed]": "session settings changed",
    "stop, message [shutting down]": "our own speaker was restarted",
}
HOLD_TIMER_EXPIRED: Final = 4
CEASE: Final = 6
CEASE_SUBCODES: Final[Mapping[int, str]] = {
    1: "maximum number of prefixes reached",
    2: "administrative shutdown",
    3: "peer de-configured",
    4: "administrative reset",
    5: "connection rejected",
    6: "other configuration change",
    7: "connection collision resolution",
    8: "out of resources",
    9: "hard reset",
    10: "BFD down",
}


# RFC 4271 8.2.2 by what ExaBGP lets us see: a TCP connection, an attempt that ended, a session.
STATE_NAMES: Final = {"idle": "Idle", "connect": "Connect", "active": "Active", "established": "Established"}


class MarkStale(Struct, frozen=True):
    """Keep the peer's routes of this family, to be heard again."""

    peer: IPAddress
    family: Family


class DropStale(Struct, frozen=True):
    """Remove what was not heard again."""

    peer: IPAddress
    family: Family
    why: str


class DropAll(Struct, frozen=True):
    """Remove everything the peer said."""

    peer: IPAddress
    why: str


class FallSilent(Struct, frozen=True):
    """Remove of the peer's routes those that lead to `dead` and those that another peer brings, now or later."""

    peer: IPAddress
    dead: frozenset[IPAddress]
    why: str


Action = MarkStale | DropStale | DropAll | FallSilent


class Session(Struct):
    """One session as the agent knows it. `families` are those it may carry; `learning` until the peer has told
    everything of all that it does carry once. `silent`: the hold timer or BFD ended it, and it is not back yet."""

    peer: IPAddress
    families: tuple[Family, ...] = ()
    state: str = "idle"
    since: float = 0.0
    last_error: str = ""
    opened: PeerOpen | None = None
    awaited: set[Family] | None = None
    """The families whose end has not been heard yet; None before the first session."""
    up_at: float = 0.0
    flaps: int = 0
    updates: int = 0
    counts_before_replay: tuple[int, int] | None = None
    waits_for_us: bool = False
    """The peer has been started just now, as we may have been: it may tell everything only when we have (RFC 4724
    4.1)."""
    ends_in_silence: bool = False
    """Nothing will say that the peer has told everything: it has when it says nothing more for a while."""
    stale_until: dict[Family, float] = field(default_factory=dict)
    deadline: float | None = None
    we_restarted: bool = False
    dies_with: frozenset[IPAddress] | None = None
    silent: bool = False

    def __post_init__(self) -> None:
        self.families = self.families or (family_of(self.peer),)

    @property
    def carried(self) -> tuple[Family, ...]:
        """The families that both ends have agreed on."""
        agreed = None if self.opened is None else self.opened.families
        return self.families if agreed is None else tuple(each for each in self.families if each in agreed)

    @property
    def learning(self) -> bool:
        return self.awaited is None or bool(self.awaited)

    @property
    def tells_first(self) -> bool:
        """It has yet to tell everything, and does so whatever we do."""
        return self.learning and not self.waits_for_us

    @property
    def established(self) -> bool:
        return self.state == "established"

    @property
    def restarting(self) -> bool:
        """The peer is away and its routes are kept."""
        return not self.established and bool(self.stale_until)


def explain(down: SessionDown) -> str:
    """Why a session ended, in a network engineer's words."""
    if down.notification is None:
        if down.reason.startswith(_LOST):
            return "connection lost"
        return _WE_RESTART.get(down.reason, down.reason)
    code, subcode = down.notification
    text = NOTIFICATION_CODES.get(code, f"NOTIFICATION {code}")
    if code == CEASE:
        text = f"cease: {CEASE_SUBCODES.get(subcode, f'subcode {subcode}')}"
    elif subcode:
        text = f"{text}, subcode {subcode}"
    if code == HOLD_TIMER_EXPIRED and down.sent:
        return "hold timer expired"
    return f"{text} ({'sent to' if down.sent else 'received from'} the peer)"


class Sessions:
    """All configured sessions."""

    def __init__(self) -> None:
        self._sessions: dict[IPAddress, Session] = {}

    def configure(
        self,
        peers: Mapping[IPAddress, tuple[Family, ...]],
        dies_with: Mapping[IPAddress, frozenset[IPAddress]] = MappingProxyType({}),
    ) -> list[Action]:
        """The peers that should be, and what families they may carry; what those that are no longer wanted have said
        goes. `dies_with`: of those that forward nothing."""
        actions: list[Action] = []
        for peer in self._sessions.keys() - peers.keys():
            del self._sessions[peer]
            actions.append(DropAll(peer, "no longer configured"))
        for peer, families in peers.items():
            session = self._sessions.setdefault(peer, Session(peer))
            session.families, session.dies_with = families, dies_with.get(peer)
        return actions

    def get(self, peer: IPAddress) -> Session | None:
        return self._sessions.get(peer)

    def __iter__(self) -> Iterator[Session]:
        return iter(self._sessions.values())

    def on_open(self, peer: IPAddress, opened: PeerOpen) -> list[Action]:
        """The peer's OPEN: what it says of its restart decides about routes it left behind (RFC 4724 4.2)."""
        session = self._sessions.get(peer)
        if session is None:
            return []
        session.opened = opened
        if not session.stale_until or session.we_restarted:
            return []
        kept = opened.restart_families or {}
        actions: list[Action] = []
        for family in [family for family in session.stale_until if not kept.get(family, False)]:
            del session.stale_until[family]
            actions.append(DropStale(peer, family, "the peer did not keep forwarding over its restart"))
        return actions

    def on_up(self, peer: IPAddress, at: float) -> None:
        session = self._sessions.get(peer)
        if session is None:
            return
        session.state, session.since, session.up_at = "established", at, at
        session.last_error = ""
        session.awaited, session.we_restarted, session.silent = set(session.carried), False, False
        session.waits_for_us = session.opened is not None and session.opened.restarting
        session.ends_in_silence = not _sends_end_of_rib(session.opened)
        session.deadline = at + (QUIET_S if session.ends_in_silence else RESYNC_TIMEOUT_S)
        for family in session.stale_until:
            session.stale_until[family] = at + RESYNC_TIMEOUT_S

    def on_heard(self, peer: IPAddress, at: float) -> bool:
        """The peer is still sending: one that does not say when it has told everything is not done yet. False: there is
        no such session, or none any more."""
        session = self._sessions.get(peer)
        if session is None or not session.established:
            return False
        session.updates += 1
        if session.learning and session.ends_in_silence:
            session.deadline = at + QUIET_S
        return True

    def on_end_of_rib(self, peer: IPAddress, family: Family) -> list[Action]:
        """Also the end of a refresh."""
        session = self._sessions.get(peer)
        if session is None:
            return []
        if session.awaited is not None:
            session.awaited.discard(family)
        if not session.learning:
            session.deadline = None
        session.stale_until.pop(family, None)
        return [DropStale(peer, family, "not announced again")]

    def on_refresh(self, peer: IPAddress, at: float) -> list[Action]:
        """Everything of an established peer is about to be heard again, because we missed something."""
        session = self._sessions.get(peer)
        if session is None:
            return []
        session.awaited = set(session.carried)
        session.waits_for_us = False
        session.ends_in_silence = session.opened is None or not session.opened.enhanced_refresh
        session.deadline = at + (QUIET_S if session.ends_in_silence else RESYNC_TIMEOUT_S)
        for family in session.carried:
            session.stale_until[family] = at + RESYNC_TIMEOUT_S
        return [MarkStale(peer, family) for family in session.carried]

    def on_down(self, down: SessionDown) -> list[Action]:
        """The session ended, or an attempt came to nothing."""
        session = self._sessions.get(down.peer)
        if session is None:
            return []
        was_up = session.established
        session.state = "idle" if not was_up else "active"
        why = explain(down)
        our_own_cease = down.sent and down.notification is not None and down.notification[0] == CEASE
        if was_up or not (why == "connection lost" or our_own_cease):  # the reason for it is known already
            session.last_error = why
        if not was_up:
            return []
        session.since, session.deadline = down.at, None
        session.flaps += 1
        if down.reason in _WE_RESTART:
            return self._keep_over_our_restart(session, down.at)
        if down.sent and down.notification is not None and down.notification[0] == HOLD_TIMER_EXPIRED:
            return self._fall_silent(session, down.at, why)
        if down.notification is None and down.reason.startswith(_LOST):
            return self._keep(session, down.at, why)
        session.stale_until.clear()
        return [DropAll(down.peer, why)]

    @staticmethod
    def _keep(session: Session, at: float, why: str) -> list[Action]:
        """For the families and the time that the peer has asked for; nothing, where it has not."""
        opened, peer = session.opened, session.peer
        agreed = {} if opened is None or not opened.restart_time_s else opened.restart_families or {}
        kept = [family for family in session.carried if family in agreed]
        if opened is None or not kept:
            session.stale_until.clear()
            return [DropAll(peer, why)]
        # What is still stale from an earlier loss is not kept a second time (RFC 4724 4.2).
        actions: list[Action] = [
            DropStale(peer, family, "lost again before it was announced again") for family in session.stale_until
        ]
        # And of other families nothing (RFC 4724 4.2).
        for family in session.carried:
            if family not in kept:
                actions += [MarkStale(peer, family), DropStale(peer, family, why)]
        session.stale_until = dict.fromkeys(kept, at + opened.restart_time_s)
        return actions + [MarkStale(peer, family) for family in kept]

    def _fall_silent(self, session: Session, at: float, why: str) -> list[Action]:
        """What it said is as dead as the peer, unless it forwards nothing."""
        session.silent = True
        if session.dies_with is None:
            session.stale_until.clear()
            return [DropAll(session.peer, why)]
        return [*self._keep(session, at, why), FallSilent(session.peer, session.dies_with, why)]

    def on_speaker_lost(self, at: float) -> list[Action]:
        """Our own speaker died with all its sessions: we are the restarting one, and the peers go on forwarding."""
        actions: list[Action] = []
        for session in self._sessions.values():
            if session.established:
                session.flaps += 1
                session.state, session.since, session.last_error = "active", at, "our own speaker was restarted"
                actions += self._keep_over_our_restart(session, at)
        return actions

    @staticmethod
    def _keep_over_our_restart(session: Session, at: float) -> list[Action]:
        """The peer goes on forwarding, and will not say that it did: it has not restarted."""
        session.deadline, session.we_restarted = None, True
        for family in session.carried:
            session.stale_until[family] = at + RESYNC_TIMEOUT_S
        return [MarkStale(session.peer, family) for family in session.carried]

    def on_replay(self, peer: IPAddress, complete: bool) -> list[Action]:
        """The peer's history is about to be told: all of it from the beginning, or what there is."""
        session = self._sessions.get(peer)
        if session is None:
            return []
        if not complete:
            return []
        counts = session.counts_before_replay or (session.flaps, session.updates)
        self._sessions[peer] = Session(peer, session.families, counts_before_replay=counts, dies_with=session.dies_with)
        return [DropAll(peer, "its history is told again")]

    def on_replay_over(self) -> None:
        """What was told again was counted when it happened."""
        for session in self._sessions.values():
            if session.counts_before_replay is not None:
                session.flaps, session.updates = session.counts_before_replay
                session.counts_before_replay = None

    def on_path_lost(self, peer: IPAddress, at: float, why: str, silent: bool = False) -> list[Action]:
        """The way to the peer is gone: its routes lead nowhere, whatever the session still believes. `silent`: nothing
        is known but that the peer does not answer."""
        session = self._sessions.get(peer)
        if session is None or not (session.established or session.stale_until):
            return []
        was_up = session.established
        session.flaps += was_up
        session.state, session.since, session.last_error = "active", at, why
        session.deadline = None
        if silent and was_up:
            return self._fall_silent(session, at, why)
        session.stale_until.clear()
        return [DropAll(peer, why)]

    def on_connecting(self, peer: IPAddress) -> None:
        session = self._sessions.get(peer)
        if session is not None and not session.established:
            session.state = "connect"

    def on_tick(self, now: float) -> list[Action]:
        """Times that are over."""
        actions: list[Action] = []
        for session in self._sessions.values():
            if session.deadline is not None and now >= session.deadline:
                for family in session.carried:
                    actions += self.on_end_of_rib(session.peer, family)
                session.deadline = None
            for family in [family for family, until in session.stale_until.items() if now >= until]:
                del session.stale_until[family]
                actions.append(DropStale(session.peer, family, "its restart time is over"))
        return actions


def _sends_end_of_rib(opened: PeerOpen | None) -> bool:
    """Only a peer with the graceful-restart capability promises one (RFC 4724 2)."""
    return opened is not None and opened.restart_families is not None
