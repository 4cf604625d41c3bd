"""The BGP agent's metrics, for Prometheus.

The scraper's thread only ever sees a finished snapshot, which the agent's loop replaces; it never touches the agent."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import accumulate
from typing import Final, NamedTuple

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from weft.admin.bgp import PeerReport
from weft.admin.metrics import MetricsServer
from weft.model.address import IPAddress

log = logging.getLogger(__name__)

CONVERGENCE_S: Final = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
_LABELS: Final = ("peer", "asn", "resource")
_Family = Mapping[str, tuple[str, Callable[[PeerReport], int]]]
_GAUGES: Final[_Family] = {
    "session_up": ("1 while the session is established.", lambda one: int(one.state == "Established")),
    "prefixes_received": ("Prefixes announced by the peer.", lambda one: one.received),
    "prefixes_accepted": ("Those of them that are considered.", lambda one: one.accepted),
    "prefixes_announced": ("Prefixes that the peer is told.", lambda one: one.announced),
}
_COUNTERS: Final[_Family] = {
    "updates": ("UPDATE messages from the peer.", lambda one: one.updates),
    "session_flaps": ("Ends of an established session.", lambda one: one.flaps),
}


class Snapshot(NamedTuple):
    """What there is to say at one moment."""

    peers: Sequence[PeerReport] = ()
    routes: int = 0
    kernel_failures: int = 0
    speaker_restarts: int = 0
    in_sync: bool = False


class Convergence:
    """How long news takes to the kernel: from the first of what was heard (an UPDATE, the end of a session, a link) to
    the routes that come of it having been written. One loop fills it; the scraper's thread reads whole values."""

    def __init__(self) -> None:
        self._since: float | None = None
        self.counts: tuple[int, ...] = (0,) * (len(CONVERGENCE_S) + 1)
        self.sum_s = 0.0

    def on_news(self, now: float) -> None:
        if self._since is None:
            self._since = now

    def on_written(self, now: float, routes: bool) -> None:
        """After every step; `routes`: something was written, so the news was news."""
        since, self._since = self._since, None
        if since is None or not routes:
            return
        took_s = now - since
        counts = list(self.counts)
        counts[sum(took_s > limit for limit in CONVERGENCE_S)] += 1
        self.counts, self.sum_s = tuple(counts), self.sum_s + took_s

    def metric(self) -> Metric:
        names = [*map(str, CONVERGENCE_S), "+Inf"]
        buckets = list(zip(names, accumulate(self.counts), strict=True))
        text = "Time from news (UPDATE, end of a session, link) to the kernel having its routes."
        return HistogramMetricFamily("weft_bgp_convergence_seconds", text, buckets, self.sum_s)


class BgpMetrics:
    """A collector for a registry."""

    def __init__(self, convergence: Convergence) -> None:
        self._convergence = convergence
        self.snapshot = Snapshot()

    def collect(self) -> Iterator[Metric]:
        now = self.snapshot
        yield self._convergence.metric()
        yield GaugeMetricFamily("weft_bgp_in_sync", "1 once the datastore has been read.", int(now.in_sync))
        yield GaugeMetricFamily("weft_bgp_routes", "Prefixes with a best path.", now.routes)
        yield GaugeMetricFamily("weft_bgp_kernel_failures", "Routes that the kernel refused.", now.kernel_failures)
        yield CounterMetricFamily("weft_bgp_speaker_restarts", "Ends of the speaker process.", now.speaker_restarts)
        yield from per_peer(now.peers, "weft_bgp")

    def describe(self) -> Iterable[Metric]:
        return []


def served(collector: Collector, at: tuple[IPAddress, int] | None) -> contextlib.AbstractContextManager[object]:
    """Serve a collector at this address and port; None: nowhere. A port that cannot be had is no reason to end."""
    if at is None:
        return contextlib.nullcontext()
    address, port = at
    registry = CollectorRegistry()
    registry.register(collector)
    try:
        return MetricsServer(registry, port, address)
    except OSError as error:  # routing is worth more
        log.error("metrics are not served on %s, port %d: %s", address, port, error)
        return contextlib.nullcontext()


def per_peer(peers: Sequence[PeerReport], prefix: str) -> Iterator[Metric]:
    """The figures of each session; `prefix` begins their names."""
    for name, (text, read) in _GAUGES.items():
        gauge = GaugeMetricFamily(f"{prefix}_{name}", text, labels=_LABELS)
        for one in peers:
            gauge.add_metric([str(one.address), str(one.asn), one.resource], read(one))
        yield gauge
    for name, (text, read) in _COUNTERS.items():
        counter = CounterMetricFamily(f"{prefix}_{name}", text, labels=_LABELS)
        for one in peers:
            counter.add_metric([str(one.address), str(one.asn), one.resource], read(one))
        yield counter
