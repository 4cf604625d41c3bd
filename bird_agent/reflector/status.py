"""What a reflector answers `weftctl node status`. Values from memory only."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Protocol

from bird_agent.reflector.reflector import Reflector
from bird_agent.session_config import Problem, SessionKind
from weft.admin.bgp import PeerReport
from weft.admin.status import AgentStatus, NodeStatus, Notice, SessionStatus, SessionType, Severity
from weft.datastore.syncer import Syncer

_TYPES = {
    SessionKind.MESH: SessionType.NODE_TO_NODE_MESH,
    SessionKind.NODE: SessionType.NODE_SPECIFIC,
    SessionKind.GLOBAL: SessionType.GLOBAL,
    SessionKind.REFLECTOR: SessionType.NODE_TO_NODE_MESH,  # which it stands in for
    SessionKind.WORKLOAD: SessionType.NODE_SPECIFIC,
}


class Peers(Protocol):
    def peers(self) -> list[PeerReport]: ...


class Sockets(Protocol):
    @property
    def trouble(self) -> str: ...


class ReflectorStatus:
    """The StatusProvider."""

    def __init__(
        self, name: str, started_at: float, reflector: Reflector, peers: Peers, syncer: Syncer, sockets: Sockets
    ) -> None:
        self._name = name
        self._started_at = started_at
        self._reflector = reflector
        self._peers = peers
        self._syncer = syncer
        self._sockets = sockets
        self.problems: Callable[[], list[Problem]] = list
        """What is asked for and has no effect."""
        self.keeping: Callable[[], list[str]] = list
        """What there is to say of the file with what the datastore said."""

    def node_status(self) -> NodeStatus:
        from importlib.metadata import version  # 1.6 MB that nobody else here needs

        sync = self._syncer.status
        agent = AgentStatus(
            name="reflector",
            version=version("weft"),
            pid=os.getpid(),
            started_at_s=self._started_at,
            datastore_connected=sync.connected,
            in_sync=sync.in_sync,
            datastore_error=sync.last_error or "",
        )
        sessions = tuple(self._session(one) for one in self._peers.peers())
        return NodeStatus(self._name, agent, sessions=sessions, notices=tuple(self._notices()))

    def _session(self, one: PeerReport) -> SessionStatus:
        kind = self._reflector.peers[one.address].wanted.config.kind
        return SessionStatus(
            peer_ip=one.address,
            peer_as=one.asn,
            local_as=one.local_as,
            type=_TYPES[kind],
            state=one.state,
            since_s=one.since_s,
            last_error=one.last_error,
            resource=one.resource,
            routes_received=one.received,
            routes_announced=one.announced,
            restarting=one.restarting,
        )

    def _notices(self) -> list[Notice]:
        subject = f"Node/{self._name}"
        notices = [Notice(Severity.NOT_ENFORCED, each.subject, each.text) for each in self.problems()]
        if self._reflector.plan is None and self._syncer.status.in_sync:
            notices.append(Notice(Severity.WARNING, subject, "there is no such Node, or it has no address"))
        elif self._reflector.deferring:
            text = "started not long ago: peers are told nothing before everything has been learnt"
            notices.append(Notice(Severity.INFO, subject, text))
        notices += [Notice(Severity.WARNING, subject, each) for each in self.keeping()]
        if self._sockets.trouble:
            notices.append(Notice(Severity.WARNING, subject, self._sockets.trouble))
        return notices
