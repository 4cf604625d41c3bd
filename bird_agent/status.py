"""What the BGP agent answers its administrator: sessions, learnt routes, and what has no effect.

Values from the agent's memory only; nothing is asked of the speaker or the kernel for it."""

from __future__ import annotations

import os
import time
from importlib.metadata import version
from typing import Final

from bird_agent.agent import Agent
from bird_agent.kernel import KernelView
from bird_agent.rib import sorted_prefixes
from bird_agent.routetables import RouteTables
from bird_agent.session_config import SessionConfig, SessionKind
from bird_agent.sessions import STATE_NAMES, Session
from weft.admin.status import (
    AgentStatus,
    NextHop,
    NodeStatus,
    Notice,
    RouteOrigin,
    RouteStatus,
    SessionStatus,
    SessionType,
    Severity,
)
from weft.datastore.syncer import Syncer
from weft.model.address import IPNetwork
from weft.netlink.route import Target

_TYPES: Final = {
    SessionKind.MESH: SessionType.NODE_TO_NODE_MESH,
    SessionKind.NODE: SessionType.NODE_SPECIFIC,
    SessionKind.GLOBAL: SessionType.GLOBAL,
    SessionKind.REFLECTOR: SessionType.NODE_TO_NODE_MESH,  # which it stands in for
    SessionKind.WORKLOAD: SessionType.NODE_SPECIFIC,
}


class BirdAgentStatus:
    """The agent's StatusProvider."""

    def __init__(
        self, node: str, started_at: float, agent: Agent, kernel: KernelView, tables: RouteTables, syncer: Syncer
    ) -> None:
        self._node = node
        self._started_at = started_at
        self._agent = agent
        self._kernel = kernel
        self._tables = tables
        self._syncer = syncer
        self.speaker_error = ""
        self.bfd_trouble = ""
        self.left_out: dict[str, str] = {}  # sessions that ExaBGP cannot express: resource -> why

    def node_status(self) -> NodeStatus:
        sync = self._syncer.status
        return NodeStatus(
            node=self._node,
            agent=AgentStatus(
                name="bird-agent",
                version=version("weft"),
                pid=os.getpid(),
                started_at_s=self._started_at,
                datastore_connected=sync.connected,
                in_sync=sync.in_sync,
                datastore_error=sync.last_error or "",
            ),
            sessions=tuple(self._sessions()),
            routes=tuple(self._routes()),
            notices=tuple(self._notices()),
        )

    def _sessions(self) -> list[SessionStatus]:
        planned = self._agent.peering
        found = []
        for session in self._agent.sessions:
            config = None if planned is None else planned.sessions.get(session.peer)
            if config is not None:
                found.append(self._session(session, config))
        return sorted(found, key=lambda each: (each.peer_ip.version, int(each.peer_ip)))

    def _session(self, session: Session, config: SessionConfig) -> SessionStatus:
        return SessionStatus(
            peer_ip=session.peer,
            peer_as=config.peer_as,
            local_as=config.local_as,
            type=_TYPES[config.kind],
            state=STATE_NAMES[session.state],
            since_s=session.since,
            last_error=session.last_error,
            resource=config.resource,
            routes_received=self._agent.rib.received(session.peer),
            routes_announced=len(self._agent.announcer.told(session.peer)) if session.established else 0,
            restarting=session.restarting,
        )

    def _routes(self) -> list[RouteStatus]:
        actual = self._tables.actual()
        return [self._route(prefix, actual) for prefix in sorted_prefixes(self._agent.rib.best)]

    def _route(self, prefix: IPNetwork, actual: dict[IPNetwork, Target]) -> RouteStatus:
        best = self._agent.rib.best[prefix]
        target = actual.get(prefix)
        if target is None:
            hops: tuple[NextHop, ...] = tuple(NextHop(path.next_hop, "") for path in best)
        else:
            hops = tuple(NextHop(hop.gateway, self._kernel.name_of(hop.link)) for hop in target.hops)
        numbers = [str(number) for segment in best[0].attributes.as_path for number in segment.numbers]
        return RouteStatus(
            destination=prefix,
            next_hops=hops,
            origin=RouteOrigin.BGP,
            peers=tuple(str(path.peer.address) for path in best),
            as_path=" ".join(numbers),
            installed=target is not None,
        )

    def _notices(self) -> list[Notice]:
        problems = self._agent.problems(time.time())
        notices = [Notice(Severity.NOT_ENFORCED, each.subject, each.text) for each in problems]
        if self._agent.peering is None and self._agent.in_sync:
            text = "no address yet: BGP waits for the node to be registered"
            notices.append(Notice(Severity.WARNING, f"Node/{self._node}", text))
        drain_state, _ = self._agent.drain_state
        if drain_state is not None:
            notices.append(Notice(Severity.WARNING, f"Node/{self._node}", drain_state))
        notices += [Notice(Severity.NOT_ENFORCED, resource, why) for resource, why in self.left_out.items()]
        if self.speaker_error:
            notices.append(Notice(Severity.WARNING, f"Node/{self._node}", self.speaker_error))
        if self.bfd_trouble:
            notices.append(Notice(Severity.NOT_ENFORCED, f"Node/{self._node}", self.bfd_trouble))
        for failure in self._tables.failures:
            text = f"route to {failure.prefix} refused by the kernel: {failure.text}"
            notices.append(Notice(Severity.WARNING, f"Node/{self._node}", text))
        return notices
