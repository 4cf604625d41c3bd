"""Who this node peers with: Node, BGPConfiguration and BGPPeer resources in, this node's sessions out.

Pure, and exactly Calico's semantics: the node-to-node mesh among nodes that are not route reflectors, global peers,
peers of one node or of a node selector, peers chosen by `peerSelector`, and the reverse of those at the nodes they
choose. For each peer address there is one session: an explicit peer goes before a reversed one, and that before the
mesh. What cannot be done is a problem for the administrator, never an exception."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from enum import Enum
from ipaddress import IPv4Address
from typing import Final, Literal, TypeVar

from weft import selector
from weft.model.address import IPAddress
from weft.model.bgp import BGPConfiguration, BGPConfigurationSpec, BGPPeer
from weft.model.node import Node

DEFAULT_AS: Final = 64512
DEFAULT_PORT: Final = 179
DEFAULT_HOLD_TIME_S: Final = 90
DEFAULT_RESTART_TIME_S: Final = 120
MAX_RESTART_TIME_S: Final = 4095
DEFAULT_CONFIGURATION: Final = "default"


T = TypeVar("T")


class SessionKind(Enum):
    """Why a session exists."""

    MESH = "node-to-node mesh"
    NODE = "node specific"
    GLOBAL = "global"


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionConfig:
    """One session this node should have. `port` is where the peer listens; `resource` asked for it."""

    peer: IPAddress
    peer_as: int
    local: IPAddress
    local_as: int
    kind: SessionKind
    resource: str
    port: int = DEFAULT_PORT
    hold_time_s: int = DEFAULT_HOLD_TIME_S
    restart_time_s: int = DEFAULT_RESTART_TIME_S
    ttl_security_hops: int | None = None
    next_hop_mode: Literal["Auto", "Self", "Keep"] = "Auto"
    filters: tuple[str, ...] = ()

    @property
    def internal(self) -> bool:
        return self.peer_as == self.local_as


@dataclass(frozen=True, slots=True)
class Problem:
    """Something asked for that has no effect here: `subject` is "BGPPeer/tor"."""

    subject: str
    text: str


@dataclass(frozen=True, slots=True)
class Peering:
    """This node as a BGP speaker, and its sessions by peer address."""

    asn: int
    router_id: IPv4Address
    addresses: tuple[IPAddress, ...]
    port: int
    cluster_id: IPv4Address | None = None
    sessions: Mapping[IPAddress, SessionConfig] = field(default_factory=dict)
    problems: tuple[Problem, ...] = ()


def peering(
    node_name: str,
    nodes: Mapping[str, Node],
    configurations: Mapping[str, BGPConfiguration],
    peers: Mapping[str, BGPPeer],
    router_id: IPv4Address | Literal["hash"] | None = None,
) -> Peering | None:
    """This node's sessions; None while the node is not registered or has no address."""
    own = nodes.get(node_name)
    addresses = () if own is None else tuple(_addresses(own))
    if own is None or not addresses:
        return None
    return _Planner(own, addresses, nodes, configurations, peers).plan(router_id)


class _Planner:
    """One computation; holds what all its steps need."""

    def __init__(
        self,
        own: Node,
        addresses: tuple[IPAddress, ...],
        nodes: Mapping[str, Node],
        configurations: Mapping[str, BGPConfiguration],
        peers: Mapping[str, BGPPeer],
    ) -> None:
        self._own = own
        self._local = {address.version: address for address in addresses}
        self._nodes = nodes
        self._configurations = configurations
        self._peers = peers
        self._problems: list[Problem] = []

    def plan(self, router_id: IPv4Address | Literal["hash"] | None) -> Peering:
        sessions: dict[IPAddress, SessionConfig] = {}
        for step in (self._explicit, self._reversed, self._mesh):
            for session in step():
                sessions.setdefault(session.peer, session)
        own = self._own
        return Peering(
            asn=self._as_of(own),
            router_id=_router_id(own, router_id),
            addresses=tuple(self._local.values()),
            port=self._port_of(own),
            cluster_id=own.spec.bgp.route_reflector_cluster_id if own.spec.bgp else None,
            sessions=sessions,
            problems=tuple(self._problems),
        )

    def _mesh(self) -> Iterator[SessionConfig]:
        setting = self._setting(self._own, lambda spec: spec.node_to_node_mesh_enabled)
        if setting is False or _is_reflector(self._own):
            return
        restart = self._setting(self._own, lambda spec: spec.node_mesh_max_restart_time)
        if self._setting(self._own, lambda spec: spec.node_mesh_password) is not None:
            self._problems.append(
                Problem("BGPConfiguration/default", "nodeMeshPassword is not supported: mesh sessions are not set up")
            )
            return
        for name, node in self._nodes.items():
            if name == self._own.name or _is_reflector(node):
                continue
            yield from self._with_node(
                node,
                SessionKind.MESH,
                f"Node/{name}",
                _Options(restart_time_s=_restart_time_s(restart)),
            )

    def _explicit(self) -> Iterator[SessionConfig]:
        for name in sorted(self._peers):
            peer = self._peers[name]
            if not self._is_for(peer, self._own) or not self._is_possible(peer):
                continue
            kind = SessionKind.NODE if peer.spec.node or peer.spec.node_selector else SessionKind.GLOBAL
            options = self._options(peer)
            if peer.spec.peer_selector:
                for node in self._selected(peer.spec.peer_selector, f"BGPPeer/{name}"):
                    yield from self._with_node(node, kind, f"BGPPeer/{name}", options)
            else:
                yield from self._with_address(peer, kind, options)

    def _reversed(self) -> Iterator[SessionConfig]:
        """Peers that other nodes have towards this one: both ends need the session."""
        for name in sorted(self._peers):
            peer = self._peers[name]
            spec = peer.spec
            if spec.reverse_peering == "Manual" or not self._chooses_us(peer) or spec.local_workload_selector:
                continue
            if spec.password is not None:
                continue  # reported where it is explicit
            kind = SessionKind.NODE if spec.node or spec.node_selector else SessionKind.GLOBAL
            for node in self._nodes.values():
                if node.name != self._own.name and self._is_for(peer, node):
                    yield from self._with_node(node, kind, f"BGPPeer/{name}", self._options(peer))

    def _with_address(self, peer: BGPPeer, kind: SessionKind, options: _Options) -> Iterator[SessionConfig]:
        subject, spec = f"BGPPeer/{peer.name}", peer.spec
        target = spec.peer_address
        if target is None:
            self._problems.append(Problem(subject, "neither peerIP nor peerSelector is given"))
            return
        if target.address in self._local.values():
            return  # a global peer that is this node itself
        known = self._node_at(target.address)
        asn = spec.as_number or (None if known is None else self._as_of(known))
        if not asn:
            self._problems.append(Problem(subject, f"asNumber is needed for {target.address}, which is no node"))
            return
        port = target.port or (DEFAULT_PORT if known is None else self._port_of(known))
        session = self._session(target.address, int(asn), port, kind, subject, options)
        if session is not None:
            yield session

    def _with_node(self, node: Node, kind: SessionKind, resource: str, options: _Options) -> Iterator[SessionConfig]:
        if node.name == self._own.name:
            return
        for address in _addresses(node):
            if address.version in self._local:
                port = self._port_of(node)
                session = self._session(address, self._as_of(node), port, kind, resource, options)
                if session is not None:
                    yield session

    def _session(
        self, peer: IPAddress, asn: int, port: int, kind: SessionKind, resource: str, options: _Options
    ) -> SessionConfig | None:
        local = self._local.get(peer.version)
        if local is None:
            self._problems.append(Problem(resource, f"this node has no IPv{peer.version} address to reach {peer}"))
            return None
        return SessionConfig(
            peer=peer,
            peer_as=asn,
            local=local,
            local_as=options.local_as or self._as_of(self._own),
            kind=kind,
            resource=resource,
            port=port,
            restart_time_s=options.restart_time_s,
            ttl_security_hops=options.ttl_security_hops,
            next_hop_mode=options.next_hop_mode,
            filters=options.filters,
        )

    def _options(self, peer: BGPPeer) -> _Options:
        spec = peer.spec
        mode = spec.next_hop_mode or ("Keep" if spec.keep_original_next_hop else "Auto")
        restart = spec.max_restart_time
        return _Options(
            local_as=None if spec.local_as_number is None else int(spec.local_as_number),
            restart_time_s=_restart_time_s(restart),
            ttl_security_hops=spec.ttl_security or None,
            next_hop_mode=mode,
            filters=spec.filters,
        )

    def _is_possible(self, peer: BGPPeer) -> bool:
        subject = f"BGPPeer/{peer.name}"
        if peer.spec.password is not None:
            self._problems.append(Problem(subject, "password is not supported: the session is not set up"))
            return False
        if peer.spec.local_workload_selector:
            self._problems.append(Problem(subject, "localWorkloadSelector is not supported"))
            return False
        return True

    def _is_for(self, peer: BGPPeer, node: Node) -> bool:
        spec = peer.spec
        if spec.node:
            return spec.node == node.name
        if spec.node_selector:
            return self._matches(spec.node_selector, node, f"BGPPeer/{peer.name}")
        return True

    def _chooses_us(self, peer: BGPPeer) -> bool:
        spec = peer.spec
        if spec.peer_selector:
            return self._matches(spec.peer_selector, self._own, f"BGPPeer/{peer.name}")
        target = spec.peer_address
        if target is None or target.address not in self._local.values():
            return False
        return spec.as_number in (None, 0, self._as_of(self._own)) and target.port in (0, self._port_of(self._own))

    def _selected(self, text: str, subject: str) -> list[Node]:
        return [node for node in self._nodes.values() if self._matches(text, node, subject)]

    def _matches(self, text: str, node: Node, subject: str) -> bool:
        try:
            return bool(selector.parse(text).matches(node.metadata.labels))
        except selector.SelectorError as error:
            problem = Problem(subject, str(error))
            if problem not in self._problems:
                self._problems.append(problem)
            return False

    def _node_at(self, address: IPAddress) -> Node | None:
        return next((node for node in self._nodes.values() if address in _addresses(node)), None)

    def _as_of(self, node: Node) -> int:
        if node.spec.bgp is not None and node.spec.bgp.as_number:
            return int(node.spec.bgp.as_number)
        return int(self._setting(node, lambda spec: spec.as_number) or DEFAULT_AS)

    def _port_of(self, node: Node) -> int:
        return self._setting(node, lambda spec: spec.listen_port or None) or DEFAULT_PORT

    def _setting(self, node: Node, read: Callable[[BGPConfigurationSpec], T | None]) -> T | None:
        """The node's own configuration goes before the default one, field by field."""
        for name in (f"node.{node.name}", DEFAULT_CONFIGURATION):
            found = self._configurations.get(name)
            value = None if found is None else read(found.spec)
            if value is not None:
                return value
        return None


@dataclass(frozen=True, slots=True)
class _Options:
    """What a BGPPeer says about the session itself."""

    local_as: int | None = None
    restart_time_s: int = DEFAULT_RESTART_TIME_S
    ttl_security_hops: int | None = None
    next_hop_mode: Literal["Auto", "Self", "Keep"] = "Auto"
    filters: tuple[str, ...] = ()


def _addresses(node: Node) -> Iterable[IPAddress]:
    if node.spec.bgp is None:
        return []
    both = (node.spec.bgp.ipv4_address, node.spec.bgp.ipv6_address)
    return [interface.ip for interface in both if interface is not None]


def _restart_time_s(wanted: timedelta | None) -> int:
    """As much of it as the capability can carry (RFC 4724 3)."""
    return DEFAULT_RESTART_TIME_S if wanted is None else min(int(wanted.total_seconds()), MAX_RESTART_TIME_S)


def _is_reflector(node: Node) -> bool:
    return node.spec.bgp is not None and node.spec.bgp.route_reflector_cluster_id is not None


def _router_id(node: Node, wanted: IPv4Address | Literal["hash"] | None) -> IPv4Address:
    """As asked for; else the node's IPv4 address; without one, a number made of the node's name."""
    if isinstance(wanted, IPv4Address):
        return wanted
    bgp = node.spec.bgp
    if wanted is None and bgp is not None and bgp.ipv4_address is not None:
        return bgp.ipv4_address.ip
    number = int.from_bytes(hashlib.sha256(node.name.encode()).digest()[:4], "big")
    return IPv4Address(max(1, number % 0xE0000000))  # below the multicast range, and not zero
