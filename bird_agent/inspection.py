"""What the BGP agent tells of its peers and routes, and why it decided as it did (`weftctl bgp`).

Values from the agent's memory only; nothing is asked of the speaker or the kernel for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from bird_agent.agent import Agent
from bird_agent.bestpath import ORIGIN_NAMES, Rank, Standing, explain
from bird_agent.drain import Phase
from bird_agent.exabgp.commands import Announcement
from bird_agent.kernel import KernelView
from bird_agent.path_report import path_report
from bird_agent.rib import AdjRibIn, sorted_prefixes
from bird_agent.routetables import RouteTables
from bird_agent.session_config import Problem, SessionConfig
from bird_agent.sessions import STATE_NAMES
from weft.admin.bgp import ConfigReport, PathReport, PathView, PeerReport, TraceReport
from weft.model.address import IPAddress, IPNetwork
from weft.model.errors import NotFoundError


class BgpInspection:
    """The agent's BgpProvider. `speaker_text` is what the speaker was given, without passwords, `problems` what is
    asked for and has no effect."""

    def __init__(
        self,
        agent: Agent,
        kernel: KernelView,
        tables: RouteTables,
        speaker_text: Callable[[], str],
        problems: Callable[[], list[Problem]],
    ) -> None:
        self._agent = agent
        self._kernel = kernel
        self._tables = tables
        self._speaker_text = speaker_text
        self._problems = problems

    @property
    def caught_up(self) -> bool:
        """An agent that has only just begun has yet to hear of its sessions, and of their routes."""
        if not self._agent.in_sync or not self._agent.conversation.synced:
            return False
        return not any(one.established and one.learning for one in self._agent.sessions)

    def peers(self) -> list[PeerReport]:
        found = []
        for session in self._agent.sessions:
            config = self._configs().get(session.peer)
            if config is None:
                continue
            opened, counts = session.opened, self._agent.rib.counts(session.peer)
            found.append(
                PeerReport(
                    address=session.peer,
                    asn=config.peer_as,
                    local_as=config.local_as,
                    local_address=config.local,
                    resource=config.resource,
                    state=STATE_NAMES[session.state],
                    since_s=session.since,
                    last_error=session.last_error,
                    router_id=None if opened is None else opened.router_id,
                    hold_time_s=0 if opened is None else min(opened.hold_time_s, config.hold_time_s),
                    received=counts.received,
                    accepted=counts.accepted,
                    announced=len(self._agent.announcer.told(session.peer)) if session.established else 0,
                    updates=session.updates,
                    flaps=session.flaps,
                    restarting=session.restarting,
                    filters=config.filters,
                    max_prefixes=config.max_prefixes or 0,
                    has_password=config.password is not None,
                    ttl_security_hops=config.ttl_security_hops or 0,
                    bfd=self._bfd_state(config),
                )
            )
        return sorted(found, key=lambda each: (each.address.version, int(each.address)))

    def not_enforced(self) -> list[str]:
        return [f"{one.subject}: {one.text}" for one in self._problems()]

    def paths(self, view: PathView, peer: IPAddress | None) -> Iterator[list[PathReport]]:
        adjs = list(self._agent.rib.peers())
        match view:
            case PathView.ADVERTISED:
                return self._advertised(self._known(peer))
            case PathView.RECEIVED:
                address = self._known(peer).peer
                adjs = [adj for adj in adjs if adj.peer.address == address]
                return self._each(adjs, lambda one: one.peer == address)
            case PathView.BEST:
                used = (Rank.BEST.value, Rank.USED.value)
                return self._each(adjs, lambda one: one.standing in used)
            case PathView.ALL:
                return self._each(adjs, lambda one: True)

    def trace(self, destination: IPNetwork) -> TraceReport:
        prefix = self._most_specific(destination)
        if prefix is None:
            return TraceReport(None)
        target = self._tables.actual().get(prefix)
        hops = () if target is None else target.hops
        return TraceReport(
            prefix,
            tuple(self._paths_to(prefix)),
            tuple(self._announcements_of(prefix)),
            tuple(f"via {hop.gateway} dev {self._kernel.name_of(hop.link) or '?'}" for hop in hops),
        )

    def config(self) -> ConfigReport:
        planned = self._agent.peering
        if planned is None:
            return ConfigReport(0, None, 0, (), None, self._speaker_text())
        return ConfigReport(
            planned.asn,
            planned.router_id,
            planned.port,
            planned.addresses,
            planned.cluster_id,
            self._speaker_text(),
        )

    def _bfd_state(self, config: SessionConfig) -> str:
        if config.bfd is None:
            return ""
        state = self._agent.paths.state(config.peer)
        return "unknown" if state is None else state.name.lower().replace("_", " ")

    def _configs(self) -> dict[IPAddress, SessionConfig]:
        planned = self._agent.peering
        return {} if planned is None else dict(planned.sessions)

    def _known(self, peer: IPAddress | None) -> SessionConfig:
        config = None if peer is None else self._configs().get(peer)
        if config is None:
            raise NotFoundError(f"BGP peer {peer}")
        return config

    def _each(self, adjs: Sequence[AdjRibIn], wanted: Callable[[PathReport], bool]) -> Iterator[list[PathReport]]:
        for prefix in sorted_prefixes({prefix for adj in adjs for prefix in adj.paths}):
            yield [one for one in self._paths_to(prefix) if wanted(one)]

    def _paths_to(self, prefix: IPNetwork) -> Iterator[PathReport]:
        candidates = self._agent.rib.candidates(prefix)
        cost = [self._agent.forwarding.cost(path.next_hop) for path in candidates]
        adjs = {adj.peer.address: adj for adj in self._agent.rib.peers() if prefix in adj.paths}
        for standing in explain(candidates, cost):
            yield _received(prefix, standing, adjs[standing.path.peer.address])
        for adj in adjs.values():
            if prefix in adj.rejected:
                yield _refused(prefix, adj)

    def _advertised(self, config: SessionConfig) -> Iterator[list[PathReport]]:
        for prefix in sorted_prefixes(self._agent.announcer.told(config.peer)):
            told = self._agent.announcer.told(config.peer).get(prefix)
            yield [] if told is None else [_told(prefix, config, told, self._why(config, prefix) or "")]

    def _announcements_of(self, prefix: IPNetwork) -> Iterator[PathReport]:
        for config in self._configs().values():
            reason = self._why(config, prefix)
            if reason is not None and prefix.version in config.versions:
                yield _told(prefix, config, self._agent.announcer.told(config.peer).get(prefix), reason)

    def _why(self, config: SessionConfig, prefix: IPNetwork) -> str | None:
        """Why a peer is told of a prefix, or not; None for one that there is nothing to say about."""
        reason, phase = self._agent.rulebook.exporter.explain(config, prefix), self._agent.conversation.drain.phase
        if reason is None or phase is Phase.ANNOUNCING:
            return reason
        return f"this node is drained ({phase.value}); else: {reason}"

    def _most_specific(self, destination: IPNetwork) -> IPNetwork | None:
        exported = self._agent.rulebook.exporter.candidates
        adjs = list(self._agent.rib.peers())
        for length in range(destination.prefixlen, -1, -1):
            prefix = destination.supernet(new_prefix=length)
            known = prefix in exported or any(prefix in adj.paths for adj in adjs)
            if known or self._agent.forwarding.has_gateway(prefix):
                return prefix
        return None


def _received(prefix: IPNetwork, standing: Standing, adj: AdjRibIn) -> PathReport:
    return path_report(prefix, standing.path, standing.rank.value, standing.reason, prefix in adj.stale)


def _refused(prefix: IPNetwork, adj: AdjRibIn) -> PathReport:
    return path_report(prefix, adj.paths[prefix], "refused", adj.rejected[prefix], prefix in adj.stale)


def _told(prefix: IPNetwork, config: SessionConfig, told: Announcement | None, reason: str) -> PathReport:
    if told is None:
        return PathReport(prefix=prefix, peer=config.peer, next_hop=None, standing="not announced", reason=reason)
    usual = () if config.internal else (config.local_as,)
    return PathReport(
        prefix=prefix,
        peer=config.peer,
        next_hop=told.next_hop,
        standing="announced",
        reason=reason,
        as_path=" ".join(map(str, told.as_path or usual)),
        origin=ORIGIN_NAMES[told.origin],
        local_preference=told.local_preference,
        med=told.med,
        communities=(*told.communities, *told.large_communities),
        originator_id=told.originator_id,
        cluster_list=told.cluster_list,
    )
