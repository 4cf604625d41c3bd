"""The BGP agent's whole state and every decision it takes, without I/O.

Inputs come through `on_*`: datastore events, the kernel's routes, what the speaker says, the time. `step` returns what
has to be done about it (configuration, commands, kernel routes, log lines) and nothing else has an effect. What it
returns depends on the state, not on the order of the inputs. The daemon owns all loops and sockets."""

from __future__ import annotations

from collections.abc import Iterable, Sequence, Set
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address
from typing import Literal, assert_never

from bird_agent import sessions as session_states
from bird_agent.announcer import Announcer
from bird_agent.bestpath import Local, Peer
from bird_agent.datastore_view import DatastoreView
from bird_agent.exabgp import commands, events, link
from bird_agent.exabgp.events import SpeakerEvent
from bird_agent.fib import target_of
from bird_agent.nexthops import NextHops, Underlay
from bird_agent.peering import Peering, SessionConfig
from bird_agent.policy import Exports, Own, concerned, importer
from bird_agent.rib import Best, Rib
from bird_agent.sessions import DropAll, DropStale, MarkStale, Session, Sessions
from weft.datastore.syncer import SyncEvent
from weft.model.address import IPAddress, IPNetwork
from weft.netlink.route import Target

SETTLE_TIMEOUT_S = 120.0  # as long as peers keep our routes
MAX_ROUNDS = 8  # of routes that change how other routes' next hops are reached, in one step


@dataclass(slots=True)
class Step:
    """What to do now. `peering` is set when the speaker's configuration has to change; `sweep` once, when routes that
    an earlier run left in the kernel may go."""

    peering: Peering | None = None
    commands: list[bytes] = field(default_factory=list)
    routes: dict[IPNetwork, Target | None] = field(default_factory=dict)
    sweep: bool = False
    notes: list[str] = field(default_factory=list)


@dataclass(slots=True)
class _Attachment:
    """One attachment to the speaker link, and how far it has come. `continues`: to the speaker we knew, if any."""

    continues: bool
    replayed: set[IPAddress] = field(default_factory=set)
    live: bool = False
    synced: bool = False
    reports: dict[IPAddress, events.SessionReport] = field(default_factory=dict)
    advertised: dict[IPAddress, set[IPNetwork]] = field(default_factory=dict)


class Agent:
    """See the module. Not thread-safe: one loop owns it."""

    def __init__(
        self, node_name: str, started_at: float, router_id: IPv4Address | Literal["hash"] | None = None
    ) -> None:
        self._view = DatastoreView(node_name, router_id)
        self._now = started_at
        self._started_at = started_at
        self._own = Own()
        self._peering: Peering | None = None
        self._exports = Exports()
        self.sessions = Sessions()
        self._next_hops = NextHops()
        self._next_hops_of_best: dict[IPNetwork, tuple[IPAddress, ...]] = {}
        self._next_hops.set_learnt(self._next_hops_of_best)
        self.rib = Rib(Local(0, IPv4Address(0)), importer(self._own), self._next_hops.cost)
        self._attachment: _Attachment | None = None
        self._speaker_pid: int | None = None
        self._speaker_was_running = False
        self._in_doubt_since: float | None = None
        """While a history is told again: what comes of half of it must not reach the kernel."""
        self.announcer = Announcer()
        self._resolve_again: set[IPNetwork] = set()
        self._swept = False
        self._next = Step()

    # The rest of the node.

    @property
    def peering(self) -> Peering | None:
        return self._peering

    @property
    def in_sync(self) -> bool:
        """The datastore's first snapshot is complete."""
        return self._view.in_sync

    @property
    def exported(self) -> Set[IPNetwork]:
        """What every peer is told."""
        return self._exports.prefixes

    @property
    def swept(self) -> bool:
        """Routes of an earlier run that nobody announces any more are gone."""
        return self._swept

    def on_datastore(self, batch: Sequence[SyncEvent]) -> None:
        was_in_sync = self._view.in_sync
        concerns_peering = self._view.on_events(batch)
        if self._view.in_sync:
            if concerns_peering or not was_in_sync:
                self._on_resources()
            self._on_own()

    def on_workloads(self, added: Iterable[IPNetwork], removed: Iterable[IPNetwork]) -> None:
        """Local workloads' addresses that the kernel has routes to, or no longer has."""
        self.announcer.on_prefixes_changed(self._exports.change_workloads(added, removed))

    def on_underlay(self, underlay: Underlay) -> None:
        """The routes and links that are not the fabric's."""
        changed = self._next_hops.set_underlay(underlay)
        self.rib.reconsider_through(changed)
        self._mark_for_resolving(changed)
        for session in list(self.sessions):
            link_index = self._next_hops.connected_link(session.peer)
            if session.established and link_index is not None and link_index not in underlay.links_up:
                self._do(self.sessions.on_interface_down(session.peer, self._now))
                self._next.commands.append(commands.teardown(session.peer, 6))
                self._note(session.peer, "down: interface down")

    def _on_resources(self) -> None:
        planned, before = self._view.peering(), self._peering
        if planned == before:
            return
        wanted = set() if planned is None else set(planned.sessions)
        for gone in {session.peer for session in self.sessions} - wanted:
            self._note(gone, "ended: no longer configured")
        self._peering = self._next.peering = planned
        self._do(self.sessions.configure(wanted))
        self.announcer.on_sessions_changed()
        if planned is None:
            # A node that is no longer registered has nobody to peer with; where it listened does no harm.
            self._next.peering = None if before is None else replace(before, sessions={})
            return
        local = Local(planned.asn, planned.router_id, planned.cluster_id)
        if before is None or local != Local(before.asn, before.router_id, before.cluster_id):
            self.rib.set_local(local)
        for session in self.sessions:
            self._name_peer(session)

    def _on_own(self) -> None:
        addresses = frozenset() if self._peering is None else frozenset(self._peering.addresses)
        own = Own(addresses, self._view.blocks)
        if own != self._own:
            self.rib.set_import(importer(own), concerned(self._own, own))
            self._own = own
        self.announcer.on_prefixes_changed(self._exports.set_basis(own.blocks, self._view.pools))

    # The speaker.

    def on_attached(self, hello: link.Hello) -> None:
        is_new = self._speaker_pid is not None and hello.speaker_pid != self._speaker_pid
        if is_new:
            self._do(self.sessions.on_speaker_lost(self._now))
        self._attachment = _Attachment(continues=not is_new)
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
            self.rib.set_peer(Peer(session.peer, opened.router_id, opened.asn, config.internal))

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
        done, self._next = self._next, Step()
        if not self._view.in_sync:
            return done
        if self._attachment is not None and self._attachment.synced:
            sessions = {} if self._peering is None else self._peering.sessions
            done.commands += self.announcer.next_commands(sessions, self._exports.prefixes)
        if self._in_doubt_since is None or now - self._in_doubt_since >= SETTLE_TIMEOUT_S:
            done.routes = self._route_changes()
            if not self._swept and self._settled(now):
                self._swept = done.sweep = True
        return done

    def _route_changes(self) -> dict[IPNetwork, Target | None]:
        """A route may lead to other routes' next hops, so what changes may change more; what goes round in circles
        goes on in the next step."""
        changes: dict[IPNetwork, Best] = {}
        for _ in range(MAX_ROUNDS):
            found = self.rib.take_changes()
            if not found:
                break
            changes.update(found)
            for prefix, best in found.items():
                if best:
                    self._next_hops_of_best[prefix] = tuple(path.next_hop for path in best)
                else:
                    self._next_hops_of_best.pop(prefix, None)
            moved = self._next_hops.on_learnt_changed(found)
            self.rib.reconsider_through(moved)
            self._mark_for_resolving(moved)
        for prefix in self._resolve_again:
            changes.setdefault(prefix, self.rib.best.get(prefix, ()))
        self._resolve_again.clear()
        return {prefix: target_of(prefix, best, self._next_hops) for prefix, best in changes.items()}

    def _mark_for_resolving(self, next_hops: set[IPAddress]) -> None:
        if next_hops:
            for prefix, used in self._next_hops_of_best.items():
                if not next_hops.isdisjoint(used):
                    self._resolve_again.add(prefix)

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
