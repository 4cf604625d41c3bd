"""What a reflector tells of its peers and routes, and why it decided as it did (`weftctl bgp --reflector`).

Values from memory only."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from bird_agent.bestpath import ORIGIN_NAMES, Rank, path_text
from bird_agent.exabgp.commands import Family, family_of
from bird_agent.path_report import path_report
from bird_agent.reflector.prefixes import FAMILIES, Nlri, network_of, nlri_of
from bird_agent.reflector.reflection import Told, role_of
from bird_agent.reflector.reflector import Reflector
from bird_agent.reflector.rib import Route
from bird_agent.reflector.standing import Standing
from bird_agent.session_config import Problem
from weft.admin.bgp import ConfigReport, PathReport, PathView, PeerReport, TraceReport
from weft.model.address import IPAddress, IPNetwork
from weft.model.errors import NotFoundError

_USED = Rank.USED.value


class ReflectorInspection:
    """The reflector's BgpProvider. `wall_time` turns a time of the reflector's clock into seconds since the epoch;
    `bfd` says how the BFD session with a peer stands, `problems` what is asked for and has no effect."""

    def __init__(
        self,
        reflector: Reflector,
        wall_time: Callable[[float], float],
        bfd: Callable[[IPAddress], str],
        problems: Callable[[], list[Problem]],
    ) -> None:
        self._reflector = reflector
        self._wall_time = wall_time
        self._bfd = bfd
        self._problems = problems

    def peers(self) -> list[PeerReport]:
        found = [self._peer(peer, standing) for peer, standing in self._reflector.peers.items()]
        return sorted(found, key=lambda each: (each.address.version, int(each.address)))

    def not_enforced(self) -> list[str]:
        return [f"{one.subject}: {one.text}" for one in self._problems()]

    def _peer(self, peer: IPAddress, standing: Standing) -> PeerReport:
        config, negotiated, tables = standing.wanted.config, standing.negotiated, self._reflector.tables
        return PeerReport(
            address=peer,
            asn=config.peer_as,
            local_as=config.local_as,
            local_address=config.local,
            resource=config.resource,
            state=standing.session.state.value,
            since_s=self._wall_time(standing.since),
            last_error=standing.last_error,
            router_id=None if negotiated is None else negotiated.router_id,
            hold_time_s=0 if negotiated is None else negotiated.hold_time_s,
            received=tables.rib.received(peer),
            accepted=tables.rib.accepted(peer),
            announced=sum(group.size(peer) for _, group in tables.groups(peer)),
            updates=standing.updates,
            flaps=standing.flaps,
            restarting=standing.restarting,
            filters=config.filters,
            max_prefixes=config.max_prefixes or 0,
            has_password=config.password is not None,
            ttl_security_hops=config.ttl_security_hops or 0,
            bfd=self._bfd(peer),
            role=tables.role(peer).value,
            behind=sum(group.behind(peer) for _, group in tables.groups(peer)),
        )

    def paths(self, view: PathView, peer: IPAddress | None) -> Iterator[list[PathReport]]:
        match view:
            case PathView.ADVERTISED:
                return self._advertised(self._known(peer))
            case PathView.RECEIVED:
                return self._received(self._known(peer))
            case PathView.BEST:
                return ([one for one in paths if one.standing == Rank.BEST.value] for paths in self._all())
            case PathView.ALL:
                return self._all()

    def trace(self, destination: IPNetwork) -> TraceReport:
        family = family_of(destination)
        prefixes = self._reflector.tables.rib.prefixes(family)
        for length in range(destination.prefixlen, -1, -1):
            prefix = destination.supernet(new_prefix=length)
            nlri = nlri_of(prefix)
            if nlri in prefixes:
                refused = self._reflector.tables.rib.refused(family).get(nlri, [])
                paths = tuple(self._paths_to(family, nlri, refused))
                return TraceReport(prefix, paths, tuple(self._announcements(family, nlri)))
        return TraceReport(None)

    def config(self) -> ConfigReport:
        plan = self._reflector.plan
        if plan is None:
            return ConfigReport(0, None, 0, (), None, "")
        ordered = sorted(plan.sessions, key=lambda each: (each.version, int(each)))
        lines = [f"reflector {plan.name}"]
        for peer in ordered:
            lines.append(f"  {peer}: {role_of(plan.sessions[peer]).value}, {plan.sessions[peer].config.resource}")
        text = "".join(f"{line}\n" for line in lines)
        return ConfigReport(plan.asn, plan.router_id, plan.port, plan.addresses, plan.cluster_id, text)

    def _known(self, peer: IPAddress | None) -> IPAddress:
        if peer is None or peer not in self._reflector.peers:
            raise NotFoundError(f"BGP peer {peer}")
        return peer

    def _all(self) -> Iterator[list[PathReport]]:
        for family in FAMILIES:
            refused = self._reflector.tables.rib.refused(family)
            for nlri in _sorted(self._reflector.tables.rib.prefixes(family)):
                yield list(self._paths_to(family, nlri, refused.get(nlri, [])))

    def _received(self, peer: IPAddress) -> Iterator[list[PathReport]]:
        for family in FAMILIES:
            adj = self._reflector.tables.rib.adj(peer, family)
            for nlri in _sorted(adj.routes):
                refused = [adj.refused[nlri]] if nlri in adj.refused else []
                yield [one for one in self._paths_to(family, nlri, refused) if one.peer == peer]

    def _paths_to(self, family: Family, nlri: Nlri, refused: Iterable[Route]) -> Iterator[PathReport]:
        """One path is passed on, so what is as good as the best loses to it by the last tie-breaks."""
        rib = self._reflector.tables.rib
        prefix = network_of(family, nlri)
        for standing in rib.standings(family, nlri):
            rank, reason = standing.rank.value, standing.reason
            if rank == _USED:
                rank, reason = Rank.LOST.value, "as good as the best but for router id, cluster list and address"
            stale = nlri in rib.adj(standing.path.peer.address, family).stale
            yield path_report(prefix, standing.path, rank, reason, stale)
        for route in refused:
            stale = nlri in rib.adj(route.path.peer.address, family).stale
            yield path_report(prefix, route.path, "refused", route.refused, stale)

    def _advertised(self, peer: IPAddress) -> Iterator[list[PathReport]]:
        told = list(self._reflector.tables.told(peer))
        for family, nlri, one in sorted(told, key=lambda each: (each[0], each[1][1:], each[1][0])):
            yield [_told(network_of(family, nlri), peer, one)]

    def _announcements(self, family: Family, nlri: Nlri) -> Iterator[PathReport]:
        for peer in sorted(self._reflector.peers, key=lambda each: (each.version, int(each))):
            yield _told(network_of(family, nlri), peer, self._reflector.tables.told_of(peer, family, nlri))


def _sorted(prefixes: Iterable[Nlri]) -> list[Nlri]:
    return sorted(prefixes, key=lambda nlri: (nlri[1:], nlri[0]))


def _told(prefix: IPNetwork, peer: IPAddress, told: Told | str) -> PathReport:
    if isinstance(told, str):
        return PathReport(prefix=prefix, peer=peer, next_hop=None, standing="not announced", reason=told)
    known = told.attributes.path
    large = [":".join(map(str, community)) for community in known.large_communities]
    return PathReport(
        prefix=prefix,
        peer=peer,
        next_hop=told.next_hop,
        standing="announced",
        reason=f"best path, from {told.source}",
        as_path=path_text(known.as_path),
        origin=ORIGIN_NAMES[known.origin],
        local_preference=known.local_preference,
        med=known.med,
        communities=(*(f"{high}:{low}" for high, low in known.communities), *large),
        originator_id=known.originator_id,
        cluster_list=known.cluster_list,
    )
