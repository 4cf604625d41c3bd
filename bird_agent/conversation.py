"""What has been said between the agent and the speaker: how each session stands, and what of it is news.

Pure. It follows an attachment to the speaker link from the history that is told again to live events, corrects what
was believed when the speaker reports (`weft sync`), and keeps the RIB's view of each peer. What should be announced or
accepted, and which sessions there should be, it is told."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import assert_never

from bird_agent import sessions as session_states
from bird_agent.announcer import Announcer
from bird_agent.attachment import Attachment
from bird_agent.bestpath import Peer
from bird_agent.drain import PHASES, Drain, Situation
from bird_agent.exabgp import commands, events, link
from bird_agent.exabgp.commands import FAMILIES, Family
from bird_agent.exabgp.events import SpeakerEvent
from bird_agent.rib import Rib
from bird_agent.session_config import Peering, SessionConfig
from bird_agent.sessions import DropAll, DropStale, FallSilent, MarkStale, Session, Sessions
from weft.model.address import IPAddress

SETTLE_TIMEOUT_S = 120.0  # as long as peers keep our routes


class Conversation:
    """With one speaker after another. `commands` and `notes` are what is to be said and logged, until taken."""

    def __init__(self, rib: Rib, announcer: Announcer, started_at: float) -> None:
        self._rib = rib
        self._announcer = announcer
        self._started_at = started_at
        self._attachment: Attachment | None = None
        self._speaker_pid: int | None = None
        self._speaker_was_running = False
        self._in_doubt_since: float | None = None
        """While a history is told again: what comes of half of it must not reach the kernel."""
        self.now = started_at
        self.drain = Drain()
        self.sessions = Sessions()
        self.peering: Peering | None = None
        """The sessions there should be now."""
        self.commands: list[bytes] = []
        self.notes: list[str] = []

    # How far it has come.

    @property
    def synced(self) -> bool:
        """The speaker has said how everything stands."""
        return self._attachment is not None and self._attachment.synced

    @property
    def in_doubt(self) -> bool:
        """Only half of a history is known, and there is still reason to wait for the rest."""
        return self._in_doubt_since is not None and self.now - self._in_doubt_since < SETTLE_TIMEOUT_S

    @property
    def settled(self) -> bool:
        """Is everything that will be learnt without waiting for the absent learnt?"""
        if self.now - self._started_at >= SETTLE_TIMEOUT_S:
            return True
        return self._has_heard(lambda session: session.learning)

    @property
    def may_finish(self) -> bool:
        """Is everything learnt that is told before this node says that it has told everything?"""
        return not self.in_doubt and self._has_heard(lambda session: session.tells_first)

    def _has_heard(self, is_awaited: Callable[[Session], bool]) -> bool:
        if not self.synced or self.peering is None:
            return False
        return all(
            not is_awaited(session) if session.established else self._speaker_was_running for session in self.sessions
        )

    @property
    def age_s(self) -> float:
        """How long the agent has been there."""
        return self.now - self._started_at

    def carried(self, peer: IPAddress) -> tuple[Family, ...]:
        """The families that a session carries."""
        session = self.sessions.get(peer)
        return () if session is None else session.carried

    @property
    def extended_to(self) -> frozenset[IPAddress]:
        """The peers that have agreed to IPv6 next hops of IPv4 prefixes: those that said so, of ours that offer it."""
        return frozenset(
            session.peer
            for session in self.sessions
            if session.opened is not None and session.opened.extended_next_hop and _offers(session)
        )

    def config_of(self, peer: IPAddress) -> SessionConfig | None:
        return None if self.peering is None else self.peering.sessions.get(peer)

    # What it is told.

    def on_tick(self, now: float) -> None:
        self.now = now
        self._do(self.sessions.on_tick(now))

    def configure(self, peering: Peering | None) -> None:
        """The sessions there should be from now on."""
        self.peering = peering
        sessions = {} if peering is None else peering.sessions
        families = {peer: tuple(FAMILIES[each] for each in one.versions) for peer, one in sessions.items()}
        dies_with = {peer: one.dies_with for peer, one in sessions.items() if one.dies_with is not None}
        self._do(self.sessions.configure(families, dies_with))
        self._announcer.on_sessions_changed()

    def name_peers(self) -> None:
        """Every session's settings may have changed, and with them what the RIB knows of its peer."""
        for session in self.sessions:
            self._name_peer(session)

    def on_path_lost(self, peer: IPAddress, why: str, farewell: bytes, silent: bool = False) -> None:
        """The way to an established peer is gone: its routes go, and the speaker is told to end the session. `silent`:
        BFD alone says so, so those of a peer that forwards nothing stay."""
        self._do(self.sessions.on_path_lost(peer, self.now, why, silent))
        self._announcer.on_down(peer)
        self.commands.append(farewell)
        self.note(peer, f"down: {why}{self._kept_text(peer)}")

    def on_attached(self, hello: link.Hello) -> None:
        is_new = self._speaker_pid is not None and hello.speaker_pid != self._speaker_pid
        if is_new:
            self._do(self.sessions.on_speaker_lost(self.now))
        self._attachment = Attachment(continues=not is_new)
        self._speaker_pid = hello.speaker_pid
        self._in_doubt_since = self.now
        self._announcer.on_detached()

    def on_replaying(self, peer: IPAddress, complete: bool) -> None:
        assert self._attachment is not None
        if complete:
            self._attachment.replayed.add(peer)
        if self._attachment.continues:
            self._do(self.sessions.on_replay(peer, complete))
        # A new speaker's history is news: what the peer said to the last one is kept until it was said again.

    def on_live(self) -> None:
        assert self._attachment is not None
        self._attachment.live = True
        self.sessions.on_replay_over()
        self.commands.append(commands.sync())

    def on_detached(self) -> None:
        self._attachment = None

    def on_speaker_ended(self) -> None:
        """It died with all its sessions; whether another can be started, is open."""
        self._do(self.sessions.on_speaker_lost(self.now))
        self._announcer.on_detached()

    def on_speaker_started(self) -> None:
        """It is a new one, whose sessions have yet to come up: routes of an earlier run wait for them."""
        self._speaker_was_running = False

    def on_speaker_found(self) -> None:
        """It was running already."""
        self._speaker_was_running = True

    def on_configured(self) -> None:
        """The speaker runs with the configuration that was asked for: ask how everything stands with it."""
        if self._attachment is not None and self._attachment.live:
            self.commands.append(commands.sync())

    def on_event(self, event: SpeakerEvent) -> None:
        match event:
            case events.RoutesReceived():
                # Of a session that we have given up, it was on its way when the speaker heard of that.
                if self.sessions.on_heard(event.peer, self.now):
                    self._rib.update(event.peer, event.attributes, event.announced, event.withdrawn)
            case events.SessionConnecting():
                self.sessions.on_connecting(event.peer)
            case events.SessionOpened():
                self._on_open(event.peer, event.opened)
            case events.SessionUp():
                self._on_up(event.peer, event.at)
            case events.SessionDown():
                self._on_down(event)
            case events.EndOfRib():
                self._do(self.sessions.on_end_of_rib(event.peer, event.family))
            case events.RefreshMark():
                if event.begins:
                    self._rib.mark_stale(event.peer, event.family)
                else:
                    self._do(self.sessions.on_end_of_rib(event.peer, event.family))
            case events.SessionReport():
                if self._attachment is not None:
                    self._attachment.reports[event.peer] = event
            case events.AdvertisedReport():
                if self._attachment is not None:
                    self._attachment.advertised.setdefault(event.peer, set()).update(event.prefixes)
            case events.SyncEnd():
                self._on_synced()
            case events.UnsentReport():
                self.drain.on_unsent(event.number, event.peers)
            case events.ReloadReport():
                pass  # the supervisor's
            case events.CommandRefused():
                self.notes.append(f"the speaker refused a command ({event.problem}): {event.command}")
            case events.Unrecognised():
                self.notes.append(f"the speaker said something unexpected ({event.problem}): {event.line}")
            case _:
                assert_never(event)

    def _on_open(self, peer: IPAddress, opened: events.PeerOpen) -> None:
        self._do(self.sessions.on_open(peer, opened))
        session = self.sessions.get(peer)
        if session is not None:
            self._name_peer(session)

    def _on_up(self, peer: IPAddress, at: float) -> None:
        self.sessions.on_up(peer, at)
        self._rib.end_silence(peer)
        self._announcer.on_up(peer, self.carried(peer))
        self.note(peer, "up")
        if self._attachment is not None and self._attachment.live:
            self._attachment.seen_up.add(peer)

    def _on_down(self, down: events.SessionDown) -> None:
        session = self.sessions.get(down.peer)
        was_up = session is not None and session.established
        self._do(self.sessions.on_down(down))
        self._announcer.on_down(down.peer)
        if session is not None and was_up:
            self.note(down.peer, f"down: {session_states.explain(down)}{self._kept_text(down.peer)}")

    def _kept_text(self, peer: IPAddress) -> str:
        """What becomes of the routes of a peer that has just been lost."""
        session = self.sessions.get(peer)
        if session is None or not session.restarting:
            return ""
        how_long = "until others bring them" if session.silent else "while it restarts"
        return f"; its {self._rib.received(peer)} routes are kept {how_long}"

    def _name_peer(self, session: Session) -> None:
        config = self.config_of(session.peer)
        if config is not None and session.opened is not None:
            opened = session.opened
            allowed = config.allowed_own_as
            self._rib.set_peer(
                Peer(session.peer, opened.router_id, opened.asn, config.internal, config.local_as, allowed)
            )

    def _on_synced(self) -> None:
        """The speaker has said how everything stands: correct what we believed, and ask for what we missed."""
        attachment = self._attachment
        if attachment is None:
            return
        first, attachment.synced = not attachment.synced, True
        for session in list(self.sessions):
            report = attachment.reports.get(session.peer)
            if report is None or report.opened is None:
                if session.established:
                    self._on_down(events.SessionDown(session.peer, self.now, "closing connection", None))
                continue
            # A peer that was taken away and given back before the speaker heard of it never went down there.
            missed = not session.established
            if missed:
                self._on_open(session.peer, report.opened)
                self._on_up(session.peer, report.since)
            if first:
                self._announcer.on_up(session.peer, session.carried)
                if session.peer not in attachment.seen_up:
                    self.note(session.peer, "is established")
                missed = missed or session.peer not in attachment.replayed
            if missed:
                self._refresh(session.peer, report.opened)
        self._announcer.on_report(list(attachment.reports), attachment.advertised)
        attachment.reports.clear()
        attachment.advertised.clear()
        self._in_doubt_since = None

    def _refresh(self, peer: IPAddress, opened: events.PeerOpen) -> None:
        """We missed what the peer said: it says everything again, or the session starts anew."""
        self._do(self.sessions.on_refresh(peer, self.now))
        if opened.route_refresh:
            self.commands.append(link.forget(str(peer)))
            for family in self.carried(peer):
                self.commands.append(commands.route_refresh(peer, family))
        else:
            self.commands.append(commands.teardown(peer, 4))

    def _do(self, actions: Iterable[session_states.Action]) -> None:
        for action in actions:
            match action:
                case MarkStale():
                    self._rib.mark_stale(action.peer, action.family)
                case DropStale():
                    count = self._rib.drop_stale(action.peer, action.family)
                    if count:
                        self.note(action.peer, f"{count} stale routes removed: {action.why}")
                case DropAll():
                    if self.sessions.get(action.peer) is None:
                        self._rib.remove_peer(action.peer)
                    else:
                        self._rib.drop(action.peer)
                case FallSilent():
                    self._rib.fall_silent(action.peer, action.dead)
                case _:
                    assert_never(action)

    def step_drain(self) -> None:
        """Go on with the node's graceful shutdown, if that is wished."""
        up = {session.peer for session in self.sessions if session.established}
        announcing = any(self._announcer.told(peer) for peer in up)
        if self.drain.step(self.now, Situation(self.synced, up, announcing)):
            self._announcer.set_phase(self.drain.phase)
            self.notes.append(f"graceful shutdown: {PHASES[self.drain.phase]}")

    # What comes of it.

    def note(self, peer: IPAddress, text: str) -> None:
        """A line for the log; history that is told again is no news."""
        if self._attachment is not None and not self._attachment.live:
            return
        config = self.config_of(peer)
        who = f"{peer}" if config is None else f"{peer} (AS {config.peer_as}, {config.resource})"
        self.notes.append(f"BGP session with {who} {text}")

    def take(self) -> tuple[list[bytes], list[str]]:
        """Commands and log lines since the last time."""
        taken = self.commands, self.notes
        self.commands, self.notes = [], []
        return taken


def _offers(session: Session) -> bool:
    """An IPv6 session that carries both families offers it (bird_agent/exabgp/configuration.py)."""
    return session.peer.version == 6 and len(session.families) == len(FAMILIES)
