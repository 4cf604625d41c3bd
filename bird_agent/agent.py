"""The BGP agent's whole state and every decision it takes, without I/O.

Inputs come through `on_*`: datastore events, the kernel's routes, what the speaker says, the time. `step` returns what
has to be done about it (configuration, commands, kernel routes, log lines) and nothing else has an effect. What it
returns depends on the state, not on the order of the inputs. The daemon owns all loops and sockets."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from ipaddress import IPv4Address
from typing import Literal, assert_never

from bird_agent import sessions as session_states
from bird_agent.announcer import Announcer
from bird_agent.attachment import Attachment, Step
from bird_agent.bestpath import Local, Peer
from bird_agent.bfd.wire import Report, Wanted
from bird_agent.datastore_view import Concern, DatastoreView
from bird_agent.exabgp import commands, events, link
from bird_agent.exabgp.events import SpeakerEvent
from bird_agent.forwarding import Forwarding
from bird_agent.holdoffs import HoldOffs
from bird_agent.nexthops import Underlay
from bird_agent.pathwatch import PathWatch
from bird_agent.rib import Rib
from bird_agent.rulebook import Rulebook
from bird_agent.session_config import Needs, Peering, Problem, SessionConfig, Surroundings
from bird_agent.sessions import DropAll, DropStale, MarkStale, Session, Sessions
from weft.datastore.syncer import SyncEvent
from weft.model.address import IPAddress, IPNetwork

SETTLE_TIMEOUT_S = 120.0  # as long as peers keep our routes
MAX_PREFIXES_REACHED = 1  # subcodes of cease (RFC 4486 3, RFC 9384)
BFD_DOWN = 10


class Agent:
    """See the module. Not thread-safe: one loop owns it."""

    def __init__(
        self, node_name: str, started_at: float, router_id: IPv4Address | Literal["hash"] | None = None
    ) -> None:
        self._view = DatastoreView(node_name, router_id)
        self._now = started_at
        self._started_at = started_at
        self._surroundings = Surroundings()
        self._planned: Peering | None = None
        self._peering: Peering | None = None
        self.hold_offs = HoldOffs()
        self.paths = PathWatch()
        self.sessions = Sessions()
        self.announcer = Announcer()
        self.rulebook = Rulebook(self.announcer)
        self._attachment: Attachment | None = None
        self._speaker_pid: int | None = None
        self._speaker_was_running = False
        self._in_doubt_since: float | None = None
        """While a history is told again: what comes of half of it must not reach the kernel."""
        self._swept = False
        self._next = Step()

    # The rest of the node.

    @property
    def rib(self) -> Rib:
        return self.forwarding.rib

    @property
    def forwarding(self) -> Forwarding:
        return self.rulebook.forwarding

    @property
    def peering(self) -> Peering | None:
        """The sessions there should be now: those that are held down are left out."""
        return self._peering

    @property
    def in_sync(self) -> bool:
        """The datastore's first snapshot is complete."""
        return self._view.in_sync

    @property
    def swept(self) -> bool:
        """Routes of an earlier run that nobody announces any more are gone."""
        return self._swept

    @property
    def needs(self) -> Needs:
        """What `on_surroundings` should tell."""
        return Needs() if self._planned is None else self._planned.needs

    def problems(self, now: float) -> list[Problem]:
        """What is asked for and has no effect."""
        planned = () if self._planned is None else self._planned.problems
        return [*planned, *self.rulebook.problems, *self.hold_offs.problems(now)]

    def on_datastore(self, batch: Sequence[SyncEvent]) -> None:
        concern = self._view.on_events(batch)
        if not self._view.in_sync:
            return
        if concern & Concern.SESSIONS:
            self._on_resources()
        if concern & Concern.POLICY:
            self.rulebook.set_policies(self._view.policies(self._peering))
        if concern & (Concern.SESSIONS | Concern.EXPORTS):
            self._on_own()

    def on_surroundings(self, surroundings: Surroundings) -> None:
        """The answer to `needs`."""
        if surroundings != self._surroundings:
            self._surroundings = surroundings
            if self._view.in_sync:
                self._on_resources()

    def on_workloads(self, added: Mapping[IPNetwork, str], removed: Iterable[IPNetwork]) -> None:
        """Local workloads' addresses that the kernel has routes to (with their interfaces), or no longer has."""
        self.rulebook.on_workloads(added, removed)

    def on_underlay(self, underlay: Underlay) -> None:
        """The routes and links that are not the fabric's."""
        self.forwarding.set_underlay(underlay)
        self.rulebook.on_underlay()
        for session in list(self.sessions):
            if session.established and self.forwarding.is_link_down(session.peer):
                self._do(self.sessions.on_path_lost(session.peer, self._now, "interface down"))
                self._next.commands.append(commands.teardown(session.peer, 6))
                self._note(session.peer, "down: interface down")

    def bfd_wanted(self) -> list[Wanted]:
        """The BFD sessions there should be."""
        sessions = () if self._peering is None else self._peering.sessions.values()
        return self.paths.wanted(sessions, self.forwarding.is_adjacent)

    def on_bfd(self, report: Report) -> None:
        """What BFD says of a path; a lost one ends the BGP session at once."""
        why, session = self.paths.on_report(report), self.sessions.get(report.peer)
        if why is not None and session is not None and session.established:
            self._do(self.sessions.on_path_lost(report.peer, self._now, why))
            self.announcer.on_down(report.peer)
            self._next.commands.append(commands.cease(report.peer, BFD_DOWN))
            self._note(report.peer, f"down: {why}")

    def _on_resources(self) -> None:
        self._planned = planned = self._view.peering(self._surroundings)
        if planned is not None:
            self.hold_offs.on_planned(dict(planned.sessions))
        self._on_planned()

    def _on_planned(self) -> None:
        """The sessions there should be, without those that are held down."""
        planned, before = self._planned, self._peering
        if planned is not None:
            sessions = {peer: one for peer, one in planned.sessions.items() if peer not in self.hold_offs}
            planned = replace(planned, sessions=sessions)
        if planned == before:
            return
        wanted = set() if planned is None else set(planned.sessions)
        for gone in {session.peer for session in self.sessions} - wanted:
            if gone not in self.hold_offs:
                self._note(gone, "ended: no longer configured")
        self._peering = self._next.peering = planned
        self._do(self.sessions.configure(wanted))
        self.announcer.on_sessions_changed()
        self.rulebook.set_policies(self._view.policies(planned))
        if planned is None:
            # A node that is no longer registered has nobody to peer with; where it listened does no harm.
            self._next.peering = None if before is None else replace(before, sessions={})
            self.forwarding.set_gateways({})
            return
        gateways = {one.peer: one.gateway for one in planned.sessions.values() if one.gateway is not None}
        self.forwarding.set_gateways(gateways)
        local = Local(planned.asn, planned.router_id, planned.cluster_id)
        if before is None or local != Local(before.asn, before.router_id, before.cluster_id):
            self.rib.set_local(local)
        for session in self.sessions:
            self._name_peer(session)

    def _on_own(self) -> None:
        addresses = frozenset() if self._peering is None else frozenset(self._peering.addresses)
        self.rulebook.set_own(addresses, self._view.blocks, self._view.advertising())

    # The speaker.

    def on_attached(self, hello: link.Hello) -> None:
        is_new = self._speaker_pid is not None and hello.speaker_pid != self._speaker_pid
        if is_new:
            self._do(self.sessions.on_speaker_lost(self._now))
        self._attachment = Attachment(continues=not is_new)
        self._speaker_pid = hello.speaker_pid
        self._in_doubt_since = self._now
        self.announcer.on_detached()

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
        self._next.commands.append(commands.sync())

    def on_detached(self) -> None:
        self._attachment = None

    def on_speaker_ended(self) -> None:
        """It died with all its sessions; whether another can be started, is open."""
        self._do(self.sessions.on_speaker_lost(self._now))
        self.announcer.on_detached()

    def on_speaker_started(self) -> None:
        """It is a new one, whose sessions have yet to come up: routes of an earlier run wait for them."""
        self._speaker_was_running = False

    def on_speaker_found(self) -> None:
        """It was running already."""
        self._speaker_was_running = True

    def on_configured(self) -> None:
        """The speaker runs with the configuration that was asked for: ask how everything stands with it."""
        if self._attachment is not None and self._attachment.live:
            self._next.commands.append(commands.sync())

    def on_speaker(self, event: SpeakerEvent) -> None:
        match event:
            case events.RoutesReceived():
                self.sessions.on_heard(event.peer, self._now)
                self.rib.update(event.peer, event.attributes, event.announced, event.withdrawn)
                self._limit(event.peer)
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
                    self.rib.mark_stale(event.peer, event.family)
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
            case events.ReloadReport():
                pass  # the supervisor's
            case events.Unrecognised():
                self._next.notes.append(f"the speaker said something unexpected ({event.problem}): {event.line}")
            case _:
                assert_never(event)

    def _on_open(self, peer: IPAddress, opened: events.PeerOpen) -> None:
        self._do(self.sessions.on_open(peer, opened))
        session = self.sessions.get(peer)
        if session is not None:
            self._name_peer(session)

    def _on_up(self, peer: IPAddress, at: float) -> None:
        self.sessions.on_up(peer, at)
        self.announcer.on_up(peer)
        self._note(peer, "up")

    def _on_down(self, down: events.SessionDown) -> None:
        session = self.sessions.get(down.peer)
        was_up = session is not None and session.established
        self._do(self.sessions.on_down(down))
        self.announcer.on_down(down.peer)
        if session is not None and was_up:
            kept = (
                f"; its {self.rib.received(down.peer)} routes are kept while it restarts" if session.restarting else ""
            )
            self._note(down.peer, f"down: {session_states.explain(down)}{kept}")

    def _name_peer(self, session: Session) -> None:
        config = self._config_of(session.peer)
        if config is not None and session.opened is not None:
            opened = session.opened
            allowed = config.allowed_own_as
            self.rib.set_peer(
                Peer(session.peer, opened.router_id, opened.asn, config.internal, config.local_as, allowed)
            )

    def _limit(self, peer: IPAddress) -> None:
        """More prefixes than a peer may announce end its session, and keep it down for a while."""
        config = self._config_of(peer)
        if config is None or config.max_prefixes is None or self.rib.received(peer) <= config.max_prefixes:
            return
        if self._attachment is None or not self._attachment.synced:
            return  # history: how it stands now is said at its end
        self._note(peer, f"down: it announced more than {config.max_prefixes} prefixes; held down for now")
        self.hold_offs.begin(config, self._now)
        self._next.commands.append(commands.cease(peer, MAX_PREFIXES_REACHED, stay_down=True))
        self._on_planned()

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
                    self._on_down(events.SessionDown(session.peer, self._now, "closing connection", None))
                continue
            # A peer that was taken away and given back before the speaker heard of it never went down there.
            missed = not session.established
            if missed:
                self._on_open(session.peer, report.opened)
                self._on_up(session.peer, report.since)
            if first:
                self.announcer.on_up(session.peer)
                self._note(session.peer, "is established")
                missed = missed or session.peer not in attachment.replayed
            if missed:
                self._refresh(session.peer, report.opened)
        for session in list(self.sessions):
            self._limit(session.peer)
        self.announcer.on_report(list(attachment.reports), attachment.advertised)
        attachment.reports.clear()
        attachment.advertised.clear()
        self._in_doubt_since = None

    def _refresh(self, peer: IPAddress, opened: events.PeerOpen) -> None:
        """We missed what the peer said: it says everything again, or the session starts anew."""
        self._do(self.sessions.on_refresh(peer, self._now))
        if opened.route_refresh:
            self._next.commands.append(link.forget(str(peer)))
            self._next.commands.append(commands.route_refresh(peer, commands.family_of(peer)))
        else:
            self._next.commands.append(commands.teardown(peer, 4))

    # The outcome.

    def step(self, now: float) -> Step:
        """What to do about everything since the last step."""
        self._now = now
        self._do(self.sessions.on_tick(now))
        if self.hold_offs.on_tick(now):
            self._on_planned()
        done, self._next = self._next, Step()
        if not self._view.in_sync:
            return done
        if self._attachment is not None and self._attachment.synced:
            sessions = {} if self._peering is None else self._peering.sessions
            done.commands += self.announcer.next_commands(sessions, self.rulebook.exporter)
        if self._in_doubt_since is None or now - self._in_doubt_since >= SETTLE_TIMEOUT_S:
            done.routes = self.forwarding.take_changes()
            if not self._swept and self._settled(now):
                self._swept = done.sweep = True
        return done

    def _settled(self, now: float) -> bool:
        """Is everything that will be learnt without waiting for the absent learnt?"""
        if now - self._started_at >= SETTLE_TIMEOUT_S:
            return True
        if self._attachment is None or not self._attachment.synced or self._peering is None:
            return False
        for session in self.sessions:
            if session.established and session.learning:
                return False
            if not session.established and not self._speaker_was_running:
                return False
        return True

    def _do(self, actions: Iterable[session_states.Action]) -> None:
        for action in actions:
            match action:
                case MarkStale():
                    self.rib.mark_stale(action.peer, action.family)
                case DropStale():
                    count = self.rib.drop_stale(action.peer, action.family)
                    if count:
                        self._note(action.peer, f"{count} stale routes removed: {action.why}")
                case DropAll():
                    if self.sessions.get(action.peer) is None:
                        self.rib.remove_peer(action.peer)
                    else:
                        self.rib.drop(action.peer)
                case _:
                    assert_never(action)

    def _config_of(self, peer: IPAddress) -> SessionConfig | None:
        return None if self._peering is None else self._peering.sessions.get(peer)

    def _note(self, peer: IPAddress, text: str) -> None:
        """A line for the log; history that is told again is no news."""
        if self._attachment is not None and not self._attachment.live:
            return
        config = self._config_of(peer)
        who = f"{peer}" if config is None else f"{peer} (AS {config.peer_as}, {config.resource})"
        self._next.notes.append(f"BGP session with {who} {text}")
