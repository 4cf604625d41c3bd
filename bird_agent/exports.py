"""What this node could announce, and what it announces unless a filter says otherwise.

Pure. By itself a node announces its blocks as aggregates, its workloads' addresses that lie in a pool but in none of
its blocks (borrowed ones), and the configured service ranges; a pool with `disableBGPExport` keeps what lies in it.
A workload's address in one of its blocks, a connected network or another route of the kernel is announced only
where an export filter accepts it. What was learnt by BGP is bird_agent/passing.py's."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import Enum
from typing import Final

from msgspec import Struct

from bird_agent.exabgp.prefixes import number_of
from bird_agent.filters import Community, LargeCommunity, interface_pattern, parse_community
from bird_agent.session_config import Problem
from bird_agent.settings import default_configuration, setting
from weft.model.address import IPNetwork
from weft.model.bgp import BGPConfiguration, BGPConfigurationSpec, ServiceBlock
from weft.model.felix_configuration import FelixConfigurationSpec
from weft.model.node import Node
from weft.model.pool import IPPool

NO_SERVICES_LABEL: Final = "node.kubernetes.io/exclude-from-external-load-balancers"
NEVER_CONNECTED: Final = ("cali*", "kube-ipvs*")
"""Interfaces whose networks are not the node's own, beside those of `ignoredInterfaces`."""


class Source(Enum):
    """Where a candidate comes from; of several with one prefix the first counts."""

    BLOCK = "block"
    SERVICE = "service range"
    WORKLOAD = "workload"
    CONNECTED = "connected network"
    KERNEL = "kernel route"


class Candidate(Struct, frozen=True):
    """One prefix. `announced`: by itself; `metric`: that of a route which is not ours; `interface`: where it leads."""

    prefix: IPNetwork
    source: Source
    announced: bool
    interface: str = ""
    metric: int | None = None


class Tagging(Struct, frozen=True):
    """Communities by prefix: what lies inside is announced with them."""

    by_prefix: tuple[tuple[IPNetwork, tuple[Community | LargeCommunity, ...]], ...] = ()

    def of(self, prefix: IPNetwork) -> tuple[Community | LargeCommunity, ...]:
        found: list[Community | LargeCommunity] = []
        for network, communities in self.by_prefix:
            if network.version == prefix.version and prefix.subnet_of(network):  # type: ignore[arg-type]
                found += communities
        return tuple(dict.fromkeys(found))


class Advertising(Struct, frozen=True):
    """What the resources say about announcements. What lies in `private_pools` stays; `service_ranges` are everybody's,
    and `announced_ranges` are those that this node announces; a reflector passes on what lies in `reflected_ranges`.
    What is learnt of `foreign` networks is not for this node's kernel. `normal_priority` is IPv4's and IPv6's."""

    pools: frozenset[IPNetwork] = frozenset()
    private_pools: frozenset[IPNetwork] = frozenset()
    service_ranges: frozenset[IPNetwork] = frozenset()
    announced_ranges: frozenset[IPNetwork] = frozenset()
    reflected_ranges: frozenset[IPNetwork] = frozenset()
    foreign: frozenset[IPNetwork] = frozenset()
    tagging: Tagging = Tagging()
    normal_priority: tuple[int, int] = (1024, 1024)
    ignored_interfaces: tuple[str, ...] = ()
    problems: tuple[Problem, ...] = ()


def advertising(
    node: Node | None,
    configurations: Mapping[str, BGPConfiguration],
    pools: Iterable[IPPool],
    felix: FelixConfigurationSpec | None = None,
) -> Advertising:
    """Services' single addresses belong to each service and are not announced here, as in Calico. `felix`: the default
    FelixConfiguration."""
    spec = default_configuration(configurations)
    ranges = frozenset(
        [
            *_ranges(spec.service_cluster_ips, single=True),
            *_ranges(spec.service_external_ips, single=False),
            *(() if spec.service_load_balancer_aggregation == "Disabled" else _ranges(spec.service_load_balancer_ips)),
        ]
    )
    excluded = node is None or node.metadata.labels.get(NO_SERVICES_LABEL) == "true"
    tagging, problems = _tagging("" if node is None else node.name, configurations)
    known = list(pools)
    reflected = [block.cidr for block in (*spec.service_external_ips, *spec.service_load_balancer_ips)]
    return Advertising(
        pools=frozenset(pool.spec.cidr for pool in known),
        private_pools=frozenset(pool.spec.cidr for pool in known if pool.spec.disable_bgp_export),
        service_ranges=ranges,
        announced_ranges=frozenset() if excluded else ranges,
        reflected_ranges=frozenset(cidr for cidr in reflected if cidr is not None),
        foreign=ranges if _leads_to_pools(spec, felix) else ranges | {pool.spec.cidr for pool in known},
        tagging=tagging,
        normal_priority=(spec.ipv4_normal_route_priority or 1024, spec.ipv6_normal_route_priority or 1024),
        ignored_interfaces=spec.ignored_interfaces,
        problems=tuple(problems),
    )


def _leads_to_pools(spec: BGPConfigurationSpec, felix: FelixConfigurationSpec | None) -> bool:
    """Whether learnt routes into pools are for the kernel. Of the two agents that may have them there in Calico, this
    one does it for both, and leaves it only where neither shall (docs/adr/0168)."""
    return spec.program_cluster_routes != "Disabled" or (
        felix is not None and felix.program_cluster_routes == "Enabled"
    )


class Networks:
    """A set of networks that answers whether one of them contains a given one, in a step per prefix length."""

    def __init__(self, networks: Iterable[IPNetwork]) -> None:
        by_length: dict[int, dict[int, set[int]]] = {4: {}, 6: {}}
        for each in networks:
            by_length[each.version].setdefault(each.prefixlen, set()).add(int(each.network_address))
        # Numbers, because making a network of each length for a hundred thousand prefixes takes seconds.
        self._known = {
            version: [
                (length, ((1 << length) - 1) << (width - length), frozenset(by_length[version][length]))
                for length in sorted(by_length[version])
            ]
            for version, width in ((4, 32), (6, 128))
        }

    def covers(self, prefix: IPNetwork) -> bool:
        known = self._known[prefix.version]
        if not known:
            return False
        address, longest = number_of(prefix), prefix.prefixlen
        for length, mask, numbers in known:
            if length > longest:
                return False
            if address & mask in numbers:
                return True
        return False


class Exports:
    """The candidates. Each change returns the prefixes about which something changed."""

    def __init__(self) -> None:
        self._workloads: dict[IPNetwork, str] = {}
        self._others: dict[IPNetwork, Candidate] = {}
        self._advertising = Advertising()
        self._inside = self._private = self._covered = self._services = Networks(())
        self._blocks: frozenset[IPNetwork] = frozenset()
        self.candidates: dict[IPNetwork, Candidate] = {}

    @property
    def advertising(self) -> Advertising:
        return self._advertising

    def announced(self) -> set[IPNetwork]:
        """What is announced where no filter says otherwise."""
        return {prefix for prefix, candidate in self.candidates.items() if candidate.announced}

    def set_basis(self, blocks: frozenset[IPNetwork], advertising: Advertising) -> set[IPNetwork]:
        """This node's blocks, and what the resources say."""
        if (blocks, advertising) == (self._blocks, self._advertising):
            return set()
        retagged = self._retagged(advertising)
        self._advertising = advertising
        self._inside, self._private = Networks(advertising.pools), Networks(advertising.private_pools)
        self._services = Networks(advertising.announced_ranges)
        self._blocks, self._covered = blocks, Networks(blocks)
        prefixes = {*blocks, *advertising.announced_ranges, *self._workloads, *self._others, *self.candidates}
        changed = self._look_at(prefixes)
        return changed | (self.candidates.keys() if retagged else set())

    def change_workloads(self, added: Mapping[IPNetwork, str], removed: Iterable[IPNetwork]) -> set[IPNetwork]:
        """Addresses of local workloads, as host routes, with their interfaces."""
        removed = set(removed)
        for prefix in removed:
            self._workloads.pop(prefix, None)
        self._workloads.update(added)
        return self._look_at(removed | added.keys())

    def set_others(self, others: Iterable[tuple[IPNetwork, Source, str, int]]) -> set[IPNetwork]:
        """The kernel's routes that are not the fabric's: prefix, what it is, interface, metric."""
        ignored = [interface_pattern(text) for text in (*self._advertising.ignored_interfaces, *NEVER_CONNECTED)]
        found: dict[IPNetwork, Candidate] = {}
        for prefix, source, interface, metric in others:
            if source is Source.CONNECTED and any(pattern.fullmatch(interface) for pattern in ignored):
                continue
            found[prefix] = Candidate(prefix, source, False, interface, None if source is Source.CONNECTED else metric)
        looked_at = {
            prefix for prefix in found.keys() | self._others.keys() if found.get(prefix) != self._others.get(prefix)
        }
        self._others = found
        return self._look_at(looked_at)

    def _retagged(self, advertising: Advertising) -> bool:
        before = self._advertising
        return (before.tagging, before.normal_priority) != (advertising.tagging, advertising.normal_priority)

    def _look_at(self, prefixes: Iterable[IPNetwork]) -> set[IPNetwork]:
        changed: set[IPNetwork] = set()
        for prefix in prefixes:
            candidate = self._candidate(prefix)
            if candidate == self.candidates.get(prefix):
                continue
            changed.add(prefix)
            if candidate is None:
                del self.candidates[prefix]
            else:
                self.candidates[prefix] = candidate
        return changed

    def _candidate(self, prefix: IPNetwork) -> Candidate | None:
        public = not self._private.covers(prefix)
        if prefix in self._blocks:
            return Candidate(prefix, Source.BLOCK, public)
        if prefix in self._advertising.announced_ranges:
            return Candidate(prefix, Source.SERVICE, public)
        interface = self._workloads.get(prefix)
        if interface is not None:
            return Candidate(prefix, Source.WORKLOAD, public and self._is_borrowed_or_service(prefix), interface)
        return self._others.get(prefix)

    def _is_borrowed_or_service(self, prefix: IPNetwork) -> bool:
        if self._covered.covers(prefix):
            return False
        return self._inside.covers(prefix) or self._services.covers(prefix)


def _ranges(blocks: Iterable[ServiceBlock], single: bool = False) -> list[IPNetwork]:
    given = [block.cidr for block in blocks if block.cidr is not None]
    return [cidr for cidr in given if single or cidr.prefixlen < cidr.max_prefixlen]


def _tagging(node: str, configurations: Mapping[str, BGPConfiguration]) -> tuple[Tagging, list[Problem]]:
    """The node's own advertisements replace the default ones as a whole, with the names of their own resource."""

    def own(spec: BGPConfigurationSpec) -> BGPConfigurationSpec | None:
        return spec if spec.prefix_advertisements else None

    spec = setting(configurations, node, own) or BGPConfigurationSpec()
    names = {community.name: community.value for community in spec.communities}
    problems: list[Problem] = []
    by_prefix = []
    for advertisement in spec.prefix_advertisements:
        communities: list[Community | LargeCommunity] = []
        for text in advertisement.communities:
            try:
                communities.append(parse_community(names.get(text, text)))
            except ValueError:
                what = (
                    f"prefixAdvertisements of {advertisement.cidr}: {text!r} is neither a community nor the name of one"
                )
                problems.append(Problem("BGPConfiguration", what))
        by_prefix.append((advertisement.cidr, tuple(communities)))
    return Tagging(tuple(by_prefix)), problems
