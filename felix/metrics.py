"""felix's numbers for Prometheus: what a snapshot of the agent becomes, and how long the kernel takes over a batch.

Names that Calico's agent has keep them. The number of series is bounded: policies that have counted nothing have none,
and what is more than `MOST_POLICIES` is added up under the name "(others)" (docs/design/counters.md)."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

from msgspec import Struct, field
from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from felix.dataplane.nft_state import KernelTable, NftKernel, Refusal
from felix.rules.operations import Operation
from felix.rules.values import Count
from weft.model.keys import ResourceKey
from weft.policy.values import Action, Direction

MOST_POLICIES = 1000
OTHERS = ResourceKey("NetworkPolicy", "(others)", "(others)")
_SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1.0, 5.0)

Tally = tuple[ResourceKey, Direction, Action, Count]


class Snapshot(Struct, frozen=True):
    """Of one moment. not_enforced, malformed: kind of resource -> how many. tallies: what counted anything."""

    in_kernel: bool
    endpoints: int
    host_endpoints: int
    policies: int
    sets: int
    members: int
    not_enforced: Mapping[str, int]
    malformed: Mapping[str, int]
    failures: int
    tallies: Sequence[Tally] = ()
    ended: Mapping[Direction, Count] = field(default_factory=dict)
    """Denied by the end of a tier, or because nothing allowed it."""
    flows: int = 0
    flows_lost: int = 0
    connections_cut: int = 0
    connections_resumed: int = 0


class FelixCollector(Collector):
    """`snapshot` is called at each scrape, on the scraper's thread."""

    def __init__(self, snapshot: Callable[[], Snapshot]) -> None:
        self._snapshot = snapshot

    def describe(self) -> list[Metric]:
        """Nothing is asked of the agent before the first scrape."""
        return []

    def collect(self) -> Iterator[Metric]:
        return families(self._snapshot())


def families(now: Snapshot) -> Iterator[Metric]:
    yield _gauge("felix_active_local_endpoints", "Workloads of this node with policy.", now.endpoints)
    yield _gauge("felix_active_local_policies", "Policies and profiles that endpoints here use.", now.policies)
    yield _gauge("weft_felix_host_endpoints", "Host endpoints of this node.", now.host_endpoints)
    yield _gauge("felix_ipsets_calico", "Sets of addresses and ports in the kernel.", now.sets)
    yield _gauge("weft_felix_set_members", "Members of all sets.", now.members)
    yield _gauge("weft_felix_in_kernel", "1 while everything desired is in the kernel.", int(now.in_kernel))
    yield _gauge("weft_felix_failures", "Objects and routes that the kernel refuses.", now.failures)
    yield _by_kind("weft_felix_not_enforced", "Resources that ask for something they do not get.", now.not_enforced)
    yield _by_kind("weft_felix_malformed", "Stored resources that cannot be read.", now.malformed)
    yield from _policy_families(now.tallies)
    denied = sum((t[3] for t in now.tallies if t[2] is Action.DENY), sum(now.ended.values(), Count()))
    yield _counter("weft_felix_denied_packets", "Packets that policy denied.", denied.packets)
    yield _counter("weft_felix_denied_bytes", "Bytes of packets that policy denied.", denied.bytes)
    yield _counter("weft_felix_flows", "Records of the flow log.", now.flows)
    yield _counter("weft_felix_flow_packets_lost", "Packets that the flow log tells nothing of.", now.flows_lost)
    yield _counter("weft_felix_connections_cut", "Live connections that policy refused later.", now.connections_cut)
    yield _counter("weft_felix_connections_resumed", "Of these, allowed again.", now.connections_resumed)


def _policy_families(tallies: Sequence[Tally]) -> Iterator[Metric]:
    labels = ("kind", "namespace", "policy", "direction", "action")
    packets = CounterMetricFamily("weft_felix_policy_packets", "First packets of connections, by rules.", labels=labels)
    octets = CounterMetricFamily("weft_felix_policy_bytes", "Bytes of these packets.", labels=labels)
    for key, direction, action, count in bounded(tallies, MOST_POLICIES):
        values = (key.kind, key.namespace, key.name, direction.value, action.value.lower())
        packets.add_metric(values, count.packets)
        octets.add_metric(values, count.bytes)
    yield packets
    yield octets


def bounded(tallies: Sequence[Tally], most: int) -> list[Tally]:
    """The first `most` policies, in order, and the rest added up under one name."""
    shown = set(sorted({key for key, *_ in tallies}, key=_order)[:most])
    rest: dict[tuple[Direction, Action], Count] = {}
    found: list[Tally] = []
    for key, direction, action, count in tallies:
        if key in shown:
            found.append((key, direction, action, count))
        else:
            rest[direction, action] = rest.get((direction, action), Count()) + count
    return found + [(OTHERS, direction, action, count) for (direction, action), count in rest.items()]


def _order(key: ResourceKey) -> tuple[str, str, str]:
    return key.kind, key.namespace, key.name


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(name, text, value=value)


def _counter(name: str, text: str, value: float) -> Metric:
    return CounterMetricFamily(name, text, value=value)


def _by_kind(name: str, text: str, values: Mapping[str, int]) -> Metric:
    family = GaugeMetricFamily(name, text, labels=("kind",))
    for kind, value in sorted(values.items()):
        family.add_metric((kind,), value)
    return family


class MeasuredKernel:
    """An `NftKernel` whose batches are timed, and its refusals counted."""

    def __init__(self, kernel: NftKernel, registry: CollectorRegistry) -> None:
        self._kernel = kernel
        self._seconds = Histogram(
            "weft_felix_nft_commit_seconds", "Time of one batch, in the kernel.", buckets=_SECONDS, registry=registry
        )
        self._refused = Counter("weft_felix_nft_refusals", "Batches that the kernel refused.", registry=registry)

    def read(self) -> KernelTable:
        return self._kernel.read()

    def counts(self, names: Collection[str]) -> Mapping[str, Count]:
        return self._kernel.counts(names)

    def commit(self, operations: Sequence[Operation]) -> list[Refusal]:
        begin_s = time.perf_counter()
        refusals = self._kernel.commit(operations)
        self._seconds.observe(time.perf_counter() - begin_s)
        if refusals:
            self._refused.inc()
        return refusals
