"""What a CalicoNodeStatus resource is told of this node, in the words of Calico's own.

Values of the agent in, a status out; no I/O. Calico reads all of it off its two BIRDs; so a node here is Ready in a
family when it has an address of it and its one speaker answers, and a block's blackhole is a Static route. Writing is
the reporter's."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Final

from msgspec import Struct

from bird_agent.agent import Agent
from bird_agent.bestpath import Path
from bird_agent.exports import Candidate, Source
from bird_agent.rib import sorted_prefixes
from bird_agent.session_config import SessionConfig, SessionKind
from bird_agent.sessions import STATE_NAMES, Session
from weft.model.address import IPNetwork
from weft.model.node_status import (
    BGPDaemonStatus,
    CalicoNodeAgentStatus,
    CalicoNodeBGPRouteStatus,
    CalicoNodeBGPStatus,
    CalicoNodePeer,
    CalicoNodeRoute,
    CalicoNodeRouteLearnedFrom,
    CalicoNodeStatus,
    CalicoNodeStatusSpec,
    CalicoNodeStatusStatus,
    PeerType,
    SessionState,
    SourceType,
)

MOST_ROUTES: Final = 5000
"""Of each family: a value in etcd ends at 1.5 MB."""

_SINCE_IS_A_DATE_S: Final = 20 * 3600  # BIRD's own default
PEER_TYPES: Final[dict[SessionKind, PeerType]] = {
    SessionKind.MESH: "NodeMesh",
    SessionKind.NODE: "NodePeer",
    SessionKind.GLOBAL: "GlobalPeer",
    SessionKind.REFLECTOR: "NodeMesh",  # which it stands in for
}
SOURCES: Final[dict[Source, SourceType]] = {
    Source.BLOCK: "Static",
    Source.SERVICE: "Static",
    Source.WORKLOAD: "Kernel",
    Source.CONNECTED: "Direct",
    Source.KERNEL: "Kernel",
}
SESSION_STATES: Final[dict[str, SessionState]] = {
    "Idle": "Idle",
    "Connect": "Connect",
    "Active": "Active",
    "Established": "Established",
}


class Daemon(Struct, frozen=True):
    """What there is to say of the program: its version, and when it was started and last given another configuration
    (seconds since the epoch)."""

    version: str
    started_at: float
    configured_at: float


class Schedule:
    """When each resource is due: when it is new or asks for something else, and after each period."""

    def __init__(self) -> None:
        self._specs: dict[str, CalicoNodeStatusSpec] = {}
        self._due: dict[str, float] = {}

    def due(self, wanted: Mapping[str, CalicoNodeStatus], now: float) -> list[CalicoNodeStatus]:
        """Those of `wanted` to be looked at now; each once."""
        for gone in self._specs.keys() - wanted.keys():
            del self._specs[gone], self._due[gone]
        found = []
        for name, resource in wanted.items():
            spec = resource.spec
            if self._specs.get(name) == spec and now < self._due[name]:
                continue
            self._specs[name] = spec
            self._due[name] = now + spec.update_period_seconds if spec.update_period_seconds else float("inf")
            found.append(resource)
        return found

    def try_again(self, name: str, at: float) -> None:
        """It could not be written."""
        if name in self._due:
            self._due[name] = min(at, self._due[name])


def status_of(agent: Agent, spec: CalicoNodeStatusSpec, daemon: Daemon, now: float) -> CalicoNodeStatusStatus:
    """Of the classes that are asked for, without the time."""
    asked = spec.classes
    return CalicoNodeStatusStatus(
        agent=_agent(agent, daemon) if "Agent" in asked else CalicoNodeAgentStatus(),
        bgp=_bgp(agent, now) if "BGP" in asked else CalicoNodeBGPStatus(),
        routes=_routes(agent) if "Routes" in asked else CalicoNodeBGPRouteStatus(),
    )


def _agent(agent: Agent, daemon: Daemon) -> CalicoNodeAgentStatus:
    def one(version: int) -> BGPDaemonStatus:
        planned = agent.peering
        has_address = planned is not None and any(each.version == version for each in planned.addresses)
        if planned is None or not has_address or not agent.conversation.synced:
            return BGPDaemonStatus(state="NotReady")
        return BGPDaemonStatus(
            state="Ready",
            version=daemon.version,
            router_id=str(planned.router_id),
            last_boot_time=_moment(daemon.started_at),
            last_reconfiguration_time=_moment(daemon.configured_at),
        )

    return CalicoNodeAgentStatus(bird_v4=one(4), bird_v6=one(6))


def _bgp(agent: Agent, now: float) -> CalicoNodeBGPStatus:
    known: list[tuple[Session, SessionConfig]] = []
    for session in agent.sessions:
        config = agent.conversation.config_of(session.peer)
        if config is not None and config.kind in PEER_TYPES:  # Calico tells of no peer that is a workload
            known.append((session, config))
    known.sort(key=lambda each: int(each[0].peer))

    def peers(version: int) -> tuple[CalicoNodePeer, ...]:
        return tuple(
            CalicoNodePeer(
                peer_ip=str(session.peer),
                type=PEER_TYPES[config.kind],
                state=SESSION_STATES[STATE_NAMES[session.state]],
                since=_since(session.since, now),
            )
            for session, config in known
            if session.peer.version == version
        )

    def established(version: int, wanted: bool) -> int:
        return sum(one.established is wanted for one, _ in known if one.peer.version == version)

    return CalicoNodeBGPStatus(
        number_established_v4=established(4, True),
        number_not_established_v4=established(4, False),
        number_established_v6=established(6, True),
        number_not_established_v6=established(6, False),
        peers_v4=peers(4),
        peers_v6=peers(6),
    )


def _routes(agent: Agent) -> CalicoNodeBGPRouteStatus:
    own = agent.rulebook.exporter.candidates
    prefixes = sorted_prefixes({*own, *(prefix for adj in agent.rib.peers() for prefix in adj.paths)})

    def of_family(version: int) -> tuple[CalicoNodeRoute, ...]:
        found: list[CalicoNodeRoute] = []
        for prefix in prefixes:
            if prefix.version == version and len(found) < MOST_ROUTES:
                found += _routes_to(agent, prefix, own.get(prefix))
        return tuple(found[:MOST_ROUTES])

    return CalicoNodeBGPRouteStatus(routes_v4=of_family(4), routes_v6=of_family(6))


def _routes_to(agent: Agent, prefix: IPNetwork, own: Candidate | None) -> Iterator[CalicoNodeRoute]:
    """What is used for forwarding first."""
    if own is not None:
        blackhole = own.source in (Source.BLOCK, Source.SERVICE)
        yield CalicoNodeRoute(
            type="FIB",
            destination=str(prefix),
            gateway="N/A",
            interface="blackhole" if blackhole else own.interface,
            learned_from=CalicoNodeRouteLearnedFrom(source_type=SOURCES[own.source]),
        )
    best: Sequence[Path] = () if own is not None else agent.rib.best.get(prefix, ())
    used = {path.peer.address for path in best}
    others: Iterable[Path] = (path for path in agent.rib.candidates(prefix) if path.peer.address not in used)
    for path in (*best, *others):
        config = agent.conversation.config_of(path.peer.address)
        mesh = config is not None and config.kind in (SessionKind.MESH, SessionKind.REFLECTOR)
        yield CalicoNodeRoute(
            type="FIB" if path.peer.address in used else "RIB",
            destination=str(prefix),
            gateway=str(path.next_hop).partition("%")[0],
            interface=agent.forwarding.interface_of(path.next_hop),
            learned_from=CalicoNodeRouteLearnedFrom(
                source_type="NodeMesh" if mesh else "BGPPeer", peer_ip=str(path.peer.address)
            ),
        )


def _since(at: float, now: float) -> str:
    """Time of day, or the date of what is longer ago; local time; empty where nothing has happened yet."""
    if not at:
        return ""
    moment = datetime.fromtimestamp(at)
    return moment.strftime("%H:%M:%S" if now - at < _SINCE_IS_A_DATE_S else "%Y-%m-%d")


def _moment(at: float) -> str:
    return datetime.fromtimestamp(at).strftime("%Y-%m-%d %H:%M:%S") if at else ""
