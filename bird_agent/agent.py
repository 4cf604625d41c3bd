"""The BGP agent's whole state and every decision it takes, without I/O.

Inputs come through `on_*`: datastore events, the kernel's routes, what the speaker says, the time. `step` returns what
has to be done about it (configuration, commands, kernel routes, log lines) and nothing else has an effect. What it
returns depends on the state, not on the order of the inputs. The daemon owns all loops and sockets."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from ipaddress import IPv4Address, ip_network
from typing import Literal

from msgspec.structs import replace

from bird_agent.announcer import Announcer
from bird_agent.attachment import Step
from bird_agent.automatic.client import Automatic
from bird_agent.automatic.sight import Eyes
from bird_agent.bestpath import Local
from bird_agent.bfd.wire import Report, Wanted
from bird_agent.conversation import Conversation
from bird_agent.datastore_view import Concern, DatastoreView
from bird_agent.exabgp import commands, events
from bird_agent.exabgp.events import SpeakerEvent
from bird_agent.forwarding import Forwarding
from bird_agent.holdoffs import HoldOffs
from bird_agent.nexthops import Underlay
from bird_agent.pathwatch import PathWatch
from bird_agent.rib import Rib
from bird_agent.rulebook import Rulebook
from bird_agent.session_config import Needs, Peering, Problem, SessionKind, Surroundings
from bird_agent.sessions import Sessions
from weft.datastore.syncer import SyncEvent
from weft.model.address import IPAddress, IPNetwork
from weft.model.node_status import CalicoNodeStatus

MAX_PREFIXES_REACHED = 1  # subcodes of cease (RFC 4486 3, RFC 9384)
OTHER_CHANGE = 6
BFD_DOWN = 10
DEFERRAL_S = 60.0  # of the end-of-RIB, for what has to be learnt before it can be passed on (RFC 4724 4.1)


class Agent:
    """See the module. Not thread-safe: one loop owns it."""

    def __init__(
        self,
        node_name: str,
        started_at: float,
        router_id: IPv4Address | Literal["hash"] | None = None,
        fresh: bool = False,
    ) -> None:
        """`fresh`: no speaker was running when this agent started, so there are no sessions to lose."""
        self._node_name = node_name
        self.automatic = Automatic(node_name, fresh)
        self._view = DatastoreView(node_name, router_id, self.automatic.records)
        self._surroundings = Surroundings()
        self._planned: Peering | None = None
        self.hold_offs = HoldOffs()
        self.paths = PathWatch()
        self.announcer = Announcer()
        self.rulebook = Rulebook(self.announcer)
        self.conversation = Conversation(self.rib, self.announcer, started_at)
        self._swept = False
        self._concern = Concern.NOTHING
        self._reflecting: frozenset[IPAddress] = frozenset()
        """Addresses of the reflector on this node."""
        self._next_peering: Peering | None = None

    # The rest of the node.

    @property
    def rib(self) -> Rib:
        return self.forwarding.rib

    @property
    def forwarding(self) -> Forwarding:
        return self.rulebook.forwarding

    @property
    def sessions(self) -> Sessions:
        return self.conversation.sessions

    @property
    def peering(self) -> Peering | None:
        """The sessions there should be now: those that are held down are left out."""
        return self.conversation.peering

    @property
    def in_sync(self) -> bool:
        """The datastore's first snapshot is complete."""
        return self._view.in_sync

    @property
    def node_statuses(self) -> Mapping[str, CalicoNodeStatus]:
        """The resources that want to be told of this node."""
        return self._view.node_statuses

    @property
    def drain_state(self) -> tuple[str | None, str | None]:
        """How far the node's graceful shutdown is, and what its Node resource says of that."""
        return self.conversation.drain.state(), self._view.drain_state

    @property
    def wants_workloads(self) -> bool:
        """Some BGPPeer asks for workloads: `on_workload_endpoints` should be told of them."""
        return self._view.wants_workloads

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
        sessions = () if self.peering is None else self.peering.sessions.values()
        watching = self.paths.problems(sessions)
        return [*planned, *self._view.problems, *self.rulebook.problems, *watching, *self.hold_offs.problems(now)]

    def on_datastore(self, batch: Sequence[SyncEvent]) -> None:
        concern = self._view.on_events(batch)
        self.conversation.drain.on_wish(self._view.drain_wait_s)
        self._on_concern(concern)

    def on_workload_endpoints(self, batch: Sequence[SyncEvent]) -> None:
        """What the datastore says of workloads, read while `wants_workloads`."""
        self._on_concern(self._view.on_workload_endpoints(batch))

    def _on_concern(self, concern: Concern) -> None:
        self._concern |= concern
        if not self._view.in_sync:
            return
        concern, self._concern = self._concern, Concern.NOTHING
        if concern & Concern.SESSIONS:
            self.automatic.on_fabric(self._view.fabric())
        if concern & Concern.REFLECTORS:
            self._on_records()
        if concern & Concern.SESSIONS:
            self._decide()
            self._on_resources()
        if concern & (Concern.SESSIONS | Concern.REFLECTORS):
            self._set_gateways()
        if concern & Concern.POLICY:
            self.rulebook.set_policies(self._view.policies(self.peering))
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
        established = [session.peer for session in self.sessions if session.established]
        adjacent = [peer for peer in established if self.forwarding.is_adjacent(peer)]
        self.forwarding.set_underlay(underlay)
        self._set_gateways()
        self.rulebook.on_underlay()
        for peer in established:
            if self.forwarding.is_link_down(peer):
                self._lose(peer, "interface down")
            elif peer in adjacent and not self.forwarding.is_adjacent(peer):
                # A link that is switched off takes its networks along, and so does an address that is removed.
                self._lose(peer, "interface down, or its network was removed")
        self._lose_who_is_cut_off()

    def _lose_who_is_cut_off(self) -> None:
        """Also those whose way was gone before anybody looked: the session was found, and believes in it."""
        sessions = {} if self.peering is None else self.peering.sessions
        for session in [session for session in self.sessions if session.established and session.peer in sessions]:
            why = self.forwarding.underlay.cut_off(sessions[session.peer].local, session.peer)
            if why is not None:
                self._lose(session.peer, why)

    def on_silent(self, neighbour: IPAddress) -> None:
        """The kernel asked for it in vain."""
        session = self.sessions.get(neighbour)
        if session is not None and session.established and self.forwarding.is_adjacent(neighbour):
            self._lose(neighbour, "the neighbour answers no ARP or neighbour discovery any more")

    def _lose(self, peer: IPAddress, why: str) -> None:
        self.conversation.on_path_lost(peer, why, commands.teardown(peer, OTHER_CHANGE))

    def bfd_wanted(self) -> list[Wanted]:
        """The BFD sessions there should be."""
        sessions = () if self.peering is None else self.peering.sessions.values()
        return self.paths.wanted(sessions, self.forwarding.is_adjacent)

    def on_bfd(self, report: Report) -> None:
        """What BFD says of a path; a lost one ends the BGP session at once."""
        before = self.paths.refusal(report.peer)
        why, session = self.paths.on_report(report), self.sessions.get(report.peer)
        if report.refused and report.refused != before:
            text = f"is not watched: BFD refuses what comes from there: {report.refused}"
            self.conversation.note(report.peer, text)
        if why is not None and session is not None and session.established:
            self.conversation.on_path_lost(report.peer, why, commands.cease(report.peer, BFD_DOWN), silent=True)
            self.automatic.on_session()

    def _on_records(self) -> None:
        """What is said about automatic reflectors has changed; sessions follow in their own time."""
        self.automatic.on_records()
        own = self.automatic.records.serving.get(self._node_name)
        addresses = frozenset(() if own is None else own.addresses)
        if addresses != self._reflecting:
            before, self._reflecting = self._reflecting, addresses
            added = {ip_network(each): "lo" for each in addresses - before}
            self.rulebook.on_workloads(added, map(ip_network, before - addresses))
            self._on_own()

    def _decide(self) -> bool:
        """Whether there should be other sessions with the mesh or with reflectors."""
        candidates = self.rulebook.exports.candidates
        eyes = Eyes(
            self.peering,
            self.sessions,
            self.announcer,
            self.rib,
            lambda prefix: (found := candidates.get(prefix)) is not None and found.announced,
        )
        now = self.conversation.now
        return self.automatic.decide(lambda kind: eyes.look(kind, now), now)

    def _on_resources(self) -> None:
        self._planned = planned = self._view.peering(self._surroundings, self.automatic.sessions)
        if planned is not None:
            self.hold_offs.on_planned(dict(planned.sessions))
        self._on_planned()

    def _on_planned(self) -> None:
        """The sessions there should be, without those that are held down."""
        planned, before = self._planned, self.peering
        if planned is not None:
            sessions = {peer: one for peer, one in planned.sessions.items() if peer not in self.hold_offs}
            planned = replace(planned, sessions=sessions)
        if planned == before:
            return
        wanted = set() if planned is None else set(planned.sessions)
        for gone in {session.peer for session in self.sessions} - wanted:
            if gone not in self.hold_offs:
                self.conversation.note(gone, "ended: no longer configured")
        self._next_peering = planned
        self.conversation.configure(planned)
        self.rulebook.set_role(planned)
        self.rulebook.set_policies(self._view.policies(planned))
        if planned is None:
            # A node that is no longer registered has nobody to peer with; where it listened does no harm.
            self._next_peering = None if before is None else replace(before, sessions={}, virtual=())
            self._set_gateways()
            return
        self._set_gateways()
        local = _local(planned)
        if before is None or local != _local(before):
            self.rib.set_local(local)
        self.conversation.name_peers()

    def _set_gateways(self) -> None:
        """A reflector's node is the way to it where that is on a network of ours, whether there is a session or not;
        elsewhere it is what is learnt."""
        sessions = () if self.peering is None else self.peering.sessions.values()
        gateways = [(one.peer, one.gateway, one.kind) for one in sessions if one.gateway is not None]
        to_reflectors = {peer: gateway for peer, gateway, kind in gateways if kind is SessionKind.REFLECTOR}
        ways = {peer: gateway for peer, gateway, kind in gateways if kind is not SessionKind.REFLECTOR}
        for peer, gateway in (to_reflectors | self.automatic.ways).items():
            if self.forwarding.is_adjacent(gateway):
                ways.setdefault(peer, gateway)
        self.forwarding.set_gateways(ways)

    def _on_own(self) -> None:
        planned = self.peering
        addresses = frozenset() if planned is None else frozenset([*planned.addresses, *planned.virtual])
        self.rulebook.set_own(addresses | self._reflecting, self._view.blocks, self._view.advertising())

    # The speaker. What `conversation` takes by itself, the daemon gives it.

    def on_speaker(self, event: SpeakerEvent) -> None:
        self.conversation.on_event(event)
        if isinstance(event, events.SessionUp | events.SessionDown | events.EndOfRib | events.SyncEnd):
            self.automatic.on_session()
        if not self.conversation.synced:
            return  # history: how it stands now is said at its end
        if isinstance(event, events.RoutesReceived):
            self._limit(event.peer)
        elif isinstance(event, events.SyncEnd):
            for session in list(self.sessions):
                self._limit(session.peer)
            self._lose_who_is_cut_off()

    def _limit(self, peer: IPAddress) -> None:
        """More prefixes than a peer may announce end its session, and keep it down for a while."""
        conversation = self.conversation
        config = conversation.config_of(peer)
        if config is None or config.max_prefixes is None:
            return
        counts = self.rib.counts(peer)
        if counts.received - counts.stale <= config.max_prefixes:  # what is kept over its restart it does not announce
            return
        conversation.note(peer, f"down: it announced more than {config.max_prefixes} prefixes; held down for now")
        self.hold_offs.begin(config, conversation.now)
        conversation.commands.append(commands.cease(peer, MAX_PREFIXES_REACHED, stay_down=True))
        self._on_planned()

    def step(self, now: float) -> Step:
        """What to do about everything since the last step."""
        self.conversation.on_tick(now)
        if self.hold_offs.on_tick(now):
            self._on_planned()
        if self._view.in_sync and self.automatic.due(now) and self._decide():
            self._on_resources()
        done = Step(self._next_peering, *self.conversation.take())
        self._next_peering = None
        if not self._view.in_sync:
            return done
        if not self.conversation.in_doubt:
            done.routes = self.forwarding.take_changes()
            done.metrics = self.rulebook.metrics_of(done.routes)
            self.rulebook.on_learnt(done.routes)
            if not self._swept and self.conversation.settled:
                self._swept = done.sweep = True
        if self.conversation.synced:
            self.rulebook.set_extended_next_hops(self.conversation.extended_to)
            sessions = {} if self.peering is None else self.peering.sessions
            conversation = self.conversation
            heard = self._swept or conversation.may_finish or conversation.age_s >= DEFERRAL_S
            complete = heard or not self.rulebook.passes
            self.conversation.step_drain()
            done.commands += self.announcer.next_commands(sessions, self.rulebook.exporter, complete)
            done.commands += self.conversation.drain.questions(now)
        return done


def _local(peering: Peering) -> Local:
    addresses = frozenset([*peering.addresses, *peering.virtual])
    return Local(peering.asn, peering.router_id, peering.cluster_id, addresses)
