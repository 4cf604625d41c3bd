"""Who this node peers with: Node, BGPConfiguration and BGPPeer resources in, this node's sessions out.

Pure, and Calico's semantics: the node-to-node mesh among nodes that are not route reflectors, global peers,
peers of one node or of a node selector, peers chosen by `peerSelector`, and the reverse of those at the nodes they
choose. For each peer address there is one session: a global peer goes before a node's own, an explicit peer before a
reversed one, and that before the mesh. What cannot be done is a problem for the administrator, never an exception; a
session whose password cannot be had is not set up in another way either."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from ipaddress import IPv4Address, IPv6Address
from typing import Final, Literal, TypeVar

from msgspec.structs import replace

from bird_agent.bfd.wire import Watch
from bird_agent.bfd.wish import parse_wish, watch_of, watch_of_reflector
from bird_agent.nodes import addresses_of, cluster_of, router_id_of
from bird_agent.session_config import (
    DEFAULT_PORT,
    NOTHING_KNOWN,
    REFLECTOR_HOLD_TIME_S,
    Needs,
    Peering,
    SecretKey,
    SessionConfig,
    SessionKind,
    Surroundings,
)
from bird_agent.session_options import Options, hold_time_s, prefix_limit, restart_time_s, versions
from bird_agent.settings import (
    DEFAULT_CONFIGURATION,
)
from bird_agent.survey import BgpResources, Survey
from bird_agent.workload_peers import selected, virtual_addresses
from weft import selector
from weft.model.address import IPAddress
from weft.model.bgp import BGPPassword, BGPPeer, PeerAddress
from weft.model.node import Node

MAX_PREFIXES: Final = "weft/max-prefixes"
BFD: Final = "weft/bfd"
FAMILIES: Final = "weft/address-families"
"""Annotations of a BGPPeer, or of the default BGPConfiguration for all sessions: Calico has no such settings."""

T = TypeVar("T")
_Planned = tuple[IPAddress, SessionConfig | None]
"""A session with a peer; None: it is asked for and cannot be had, and nothing else may stand in for it."""


def peering(
    node_name: str,
    resources: BgpResources,
    router_id: IPv4Address | Literal["hash"] | None = None,
    surroundings: Surroundings = NOTHING_KNOWN,
) -> Peering | None:
    """This node's sessions; None while the node is not registered or has no address."""
    own = resources.nodes.get(node_name)
    addresses = () if own is None else tuple(addresses_of(own))
    if own is None or not addresses:
        return None
    return _Planner(own, addresses, resources, surroundings).plan(router_id)


class _Planner:
    """One computation; holds what all its steps need."""

    def __init__(
        self, own: Node, addresses: tuple[IPAddress, ...], resources: BgpResources, surroundings: Surroundings
    ) -> None:
        self._own = own
        self._local = {address.version: address for address in addresses}
        self._nodes = resources.nodes
        self._configurations = resources.configurations
        self._peers = [resources.peers[name] for name in sorted(resources.peers)]
        self._filters = resources.filters
        self._workloads = resources.workloads
        self._automatic = resources.automatic
        self._surroundings = surroundings
        self._survey = Survey(own, addresses, resources)
        self._complain = self._survey.complain
        self._secrets: set[SecretKey] = set()
        self._sources: set[IPAddress] = set()

    def plan(self, router_id: IPv4Address | Literal["hash"] | None) -> Peering:
        planned: dict[IPAddress, SessionConfig | None] = {}
        for peer, session in self._explicit():
            first = planned.setdefault(peer, session)
            if first is not None and session is not None:
                self._compare(first, session)
        for step in (self._reversed, self._mesh):
            for peer, session in step():
                planned.setdefault(peer, session)
        own = self._own
        self._survey.complain_of_configuration()
        sessions = {peer: session for peer, session in planned.items() if session is not None}
        with_workloads = [one.local for one in sessions.values() if one.kind is SessionKind.WORKLOAD]
        return Peering(
            asn=self._survey.as_of(own),
            router_id=router_id_of(own, router_id),
            addresses=tuple(self._local.values()),
            port=self._survey.port_of(own),
            cluster_id=cluster_of(own),
            sessions=sessions,
            listen=self._listen(sessions.values()),
            virtual=tuple(dict.fromkeys(with_workloads)),
            problems=tuple(self._survey.problems),
            needs=Needs(frozenset(self._secrets), frozenset(self._sources)),
        )

    def _compare(self, first: SessionConfig, other: SessionConfig) -> None:
        """Two BGPPeers may ask for one session; as long as they ask for the same there is nothing to tell."""
        if first.resource != other.resource and first != replace(other, resource=first.resource, kind=first.kind):
            text = f"the session with {first.peer} is that of {first.resource}: what is different here has no effect"
            self._complain(other.resource, text)

    def _mesh(self) -> Iterator[_Planned]:
        default = self._survey.default
        if default.node_to_node_mesh_enabled is False or cluster_of(self._own) is not None:
            return
        subject = f"BGPConfiguration/{DEFAULT_CONFIGURATION}"
        options = self._with_password(
            Options(
                restart_time_s=restart_time_s(default.node_mesh_max_restart_time),
                max_prefixes=self._annotated(MAX_PREFIXES, prefix_limit),
                bfd=self._annotated(BFD, self._watch),
                versions=self._annotated(FAMILIES, versions) or frozenset(),
            ),
            default.node_mesh_password,
            subject,
        )
        left_out = self._automatic.without_mesh
        for name, node in self._nodes.items():
            if name != self._own.name and name not in left_out and cluster_of(node) is None:
                yield from self._with_node(node, SessionKind.MESH, f"Node/{name}", options)
        # A reflector tells more than any single node.
        options = replace(options, max_prefixes=None, hold_time_s=REFLECTOR_HOLD_TIME_S)
        for name, addresses in self._automatic.reflectors.items():
            yield from self._with_reflector(name, addresses, options)

    def _explicit(self) -> Iterator[_Planned]:
        for peer in sorted(self._peers, key=lambda each: bool(each.spec.node or each.spec.node_selector)):
            spec, subject = peer.spec, f"BGPPeer/{peer.name}"
            if not self._survey.is_for(peer, self._own):
                continue
            if spec.local_workload_selector:
                yield from self._with_workloads(peer)
                continue
            kind = SessionKind.NODE if spec.node or spec.node_selector else SessionKind.GLOBAL
            options = self._options(peer)
            if spec.peer_selector:
                if spec.local_as_number or spec.num_allowed_local_as_numbers:
                    text = "localASNumber and numAllowedLocalASNumbers have no effect beside peerSelector"
                    self._complain(subject, text)
                for node in self._survey.selected(spec.peer_selector, subject):
                    yield from self._with_node(node, kind, subject, options)
            else:
                yield from self._with_address(peer, kind, options)

    def _reversed(self) -> Iterator[_Planned]:
        """Peers that other nodes have towards this one: both ends need the session."""
        for peer in self._peers:
            spec = peer.spec
            if spec.reverse_peering == "Manual" or not self._survey.chooses_us(peer) or spec.local_workload_selector:
                continue
            options = self._options(peer)
            target = None if spec.peer_selector else spec.peer_address
            for node in self._nodes.values():
                if node.name != self._own.name and self._survey.is_for(peer, node):
                    for address, session in self._with_node(node, SessionKind.NODE, f"BGPPeer/{peer.name}", options):
                        if target is None or target.address.version == address.version:
                            yield address, session

    def _with_address(self, peer: BGPPeer, kind: SessionKind, options: Options) -> Iterator[_Planned]:
        subject, spec = f"BGPPeer/{peer.name}", peer.spec
        target = spec.peer_address
        if target is None:
            self._complain(subject, "neither peerIP nor peerSelector is given")
            return
        if target.address in self._local.values():
            return  # a global peer that is this node itself
        known = self._survey.node_at(target.address)
        asn = spec.as_number or (None if known is None else self._survey.as_of(known))
        if not asn:
            self._complain(subject, f"asNumber is needed for {target.address}, which is no node")
            return
        if spec.reachable_by is not None and spec.reachable_by.version != target.address.version:
            self._complain(subject, f"reachableBy {spec.reachable_by} is of another family than {target.address}")
            yield target.address, None
            return
        port = target.port
        if not port:
            ours = known is not None and self._survey.as_of(known) == asn
            port = self._survey.port_of(known) if known is not None and ours else DEFAULT_PORT
        options = replace(
            options,
            local_as=int(spec.local_as_number) if spec.local_as_number else None,
            allowed_own_as=spec.num_allowed_local_as_numbers or 0,
        )
        yield from self._session(PeerAddress(target.address, port), int(asn), (kind, subject), options)

    def _with_workloads(self, peer: BGPPeer) -> Iterator[_Planned]:
        """As in Calico: the workload connects, from its address to the one that all nodes have for this; of the BGPPeer
        only the AS numbers and the filters count."""
        spec, subject = peer.spec, f"BGPPeer/{peer.name}"
        if not spec.as_number:
            self._complain(subject, "asNumber, that of the workloads, is needed beside localWorkloadSelector")
            return
        rivals = [each for each in self._peers if each.spec.local_workload_selector]
        rivals = [each for each in rivals if self._survey.is_for(each, self._own)]
        try:
            chosen = selected(rivals, self._workloads)[peer.name]
        except selector.SelectorError as error:
            self._complain(subject, str(error))
            return
        local_as = int(spec.local_as_number or self._survey.as_of(self._own))
        asn = int(spec.as_number)
        client = asn == local_as and cluster_of(self._own) is not None
        for workload in chosen:
            for address in workload.addresses:
                local = virtual_addresses(self._survey.default).get(address.version)
                if local is None:
                    text = f"the default BGPConfiguration has no localWorkloadPeeringIPV{address.version}"
                    self._complain(subject, f"{text}, or a link-local IPv6 address: no session with {address}")
                    continue
                other = self._local.get(6 if address.version == 4 else 4)
                yield (
                    address,
                    SessionConfig(
                        peer=address,
                        peer_as=asn,
                        local=local,
                        local_as=local_as,
                        kind=SessionKind.WORKLOAD,
                        resource=subject,
                        filters=spec.filters,
                        client=client,
                        other_local=other,
                        passive=True,
                    ),
                )

    def _listen(self, sessions: Iterable[SessionConfig]) -> tuple[IPAddress, ...]:
        """As `bindMode` says: on this node's addresses, or on all there are."""
        if self._survey.default.bind_mode == "NodeIP":
            return tuple(self._local.values())
        used = {*self._local, *(session.local.version for session in sessions)}
        anywhere: dict[int, IPAddress] = {4: IPv4Address(0), 6: IPv6Address(0)}
        return tuple(anywhere[version] for version in sorted(used))

    def _with_node(self, node: Node, kind: SessionKind, resource: str, options: Options) -> Iterator[_Planned]:
        if node.name == self._own.name:
            return
        options = replace(options, peer_cluster=cluster_of(node))
        for address in addresses_of(node):
            if address.version in self._local:
                target = PeerAddress(address, self._survey.port_of(node))
                yield from self._session(target, self._survey.as_of(node), (kind, resource), options)

    def _with_reflector(self, name: str, addresses: Iterable[IPAddress], options: Options) -> Iterator[_Planned]:
        """The reflector on a node, perhaps this one, has addresses of its own: behind those of the node."""
        behind = tuple(addresses_of(self._nodes[name])) if name in self._nodes and name != self._own.name else ()
        ways = {each.version: each for each in behind}
        options = replace(
            options, bfd=watch_of_reflector(options.bfd, name == self._own.name), dies_with=frozenset(behind)
        )
        for address in (each for each in addresses if each.version in self._local):
            via, cause = replace(options, gateway=ways.get(address.version)), (SessionKind.REFLECTOR, f"Node/{name}")
            yield from self._session(PeerAddress(address, DEFAULT_PORT), self._survey.as_of(self._own), cause, via)

    def _session(
        self, target: PeerAddress, asn: int, cause: tuple[SessionKind, str], options: Options
    ) -> Iterator[_Planned]:
        peer, (kind, resource) = target.address, cause
        local = self._local.get(peer.version)
        if options.source_is_free:
            self._sources.add(peer)
            local = self._surroundings.sources.get(peer, local)
        if local is None:
            self._complain(resource, f"this node has no IPv{peer.version} address to reach {peer}")
            return
        if options.wants_password and options.password is None:
            yield peer, None
            return
        local_as = options.local_as or self._survey.as_of(self._own)
        keep = options.keep_external_next_hop and asn != local_as
        own_cluster = cluster_of(self._own)
        gateway = options.gateway
        yield (
            peer,
            SessionConfig(
                peer=peer,
                peer_as=asn,
                local=local,
                local_as=local_as,
                kind=kind,
                resource=resource,
                port=target.port,
                hold_time_s=options.hold_time_s,
                restart_time_s=options.restart_time_s,
                ttl_security_hops=options.ttl_security_hops,
                password=options.password,
                next_hop_mode="Keep" if keep else options.next_hop_mode,
                allowed_own_as=options.allowed_own_as,
                gateway=gateway if gateway is not None and gateway.version == peer.version else None,
                filters=options.filters,
                max_prefixes=options.max_prefixes,
                bfd=options.bfd,
                dies_with=options.dies_with,
                versions=tuple(sorted(options.versions | {peer.version})),
                other_local=self._local.get(6 if peer.version == 4 else 4),
                client=asn == local_as and own_cluster is not None and options.peer_cluster != own_cluster,
            ),
        )

    def _options(self, peer: BGPPeer) -> Options:
        spec, subject = peer.spec, f"BGPPeer/{peer.name}"
        for name in spec.filters:
            if name not in self._filters:
                self._complain(subject, f"BGPFilter/{name} does not exist: nothing is filtered by it")
        options = Options(
            hold_time_s=hold_time_s(spec.keepalive_time),
            restart_time_s=restart_time_s(spec.max_restart_time),
            ttl_security_hops=spec.ttl_security or None,
            source_is_free=spec.source_address == "None",
            next_hop_mode=spec.next_hop_mode or "Auto",
            keep_external_next_hop=spec.next_hop_mode is None and spec.keep_original_next_hop,
            gateway=spec.reachable_by,
            filters=spec.filters,
            max_prefixes=self._annotated(MAX_PREFIXES, prefix_limit, peer),
            bfd=self._annotated(BFD, self._watch, peer),
            versions=self._annotated(FAMILIES, versions, peer) or frozenset(),
        )
        return self._with_password(options, spec.password, subject)

    def _with_password(self, options: Options, wanted: BGPPassword | None, subject: str) -> Options:
        if wanted is None or wanted.secret_key_ref is None:
            return options
        reference = wanted.secret_key_ref
        key = SecretKey(reference.name, reference.key)
        self._secrets.add(key)
        password = self._surroundings.secrets.get(key)
        if password is None and not reference.optional:
            self._complain(subject, f"the secret {key} is not there: no session without its password")
        return replace(options, password=password, wants_password=not reference.optional)

    def _watch(self, text: str) -> Watch:
        wish = parse_wish(text)
        self._secrets |= wish.secrets
        watch, left_out = watch_of(wish, self._surroundings.secrets)
        for text in left_out:
            self._complain(f"annotation {BFD}", text)
        return watch

    def _annotated(self, name: str, parse: Callable[[str], T], peer: BGPPeer | None = None) -> T | None:
        """An annotation of the peer, or of the default configuration; None also for one that makes no sense."""
        for resource in (peer, self._configurations.get(DEFAULT_CONFIGURATION)):
            text = None if resource is None else resource.metadata.annotations.get(name)
            if resource is None or text is None:
                continue
            try:
                return parse(text)
            except ValueError as error:
                self._complain(f"{resource.kind}/{resource.name}", f"annotation {name}: {error}")
                return None
        return None
