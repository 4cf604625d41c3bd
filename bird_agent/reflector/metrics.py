"""A reflector's metrics, for Prometheus: those of its sessions are named as the BGP agent's.

The scraper's thread only ever sees a finished snapshot, which the loop replaces."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from prometheus_client.core import GaugeMetricFamily, Metric

from bird_agent.metrics import per_peer
from weft.admin.bgp import PeerReport


class _Snapshot(NamedTuple):
    """What there is to say at one moment."""

    peers: Sequence[PeerReport] = ()
    routes: int = 0
    deferring: bool = True
    in_sync: bool = False


class ReflectorMetrics:
    """A collector for a registry."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._snapshot = _Snapshot()

    def take(self, peers: Sequence[PeerReport], routes: int, deferring: bool, in_sync: bool) -> None:
        """What there is to say from now on."""
        self._snapshot = _Snapshot(peers, routes, deferring, in_sync)

    def collect(self) -> Iterator[Metric]:
        now = self._snapshot
        figures = {
            "in_sync": ("1 once the datastore has been read.", int(now.in_sync)),
            "routes": ("Prefixes with a best path.", now.routes),
            "deferring": ("1 after a start, until peers are told anything.", int(now.deferring)),
            "changes_behind": (
                "Changes that peers have yet to take, of all together.",
                sum(p.behind for p in now.peers),
            ),
        }
        for name, (text, value) in figures.items():
            gauge = GaugeMetricFamily(f"weft_reflector_{name}", text, labels=("reflector",))
            gauge.add_metric([self._name], value)
            yield gauge
        yield from per_peer(now.peers, "weft_reflector")

    def describe(self) -> Iterable[Metric]:
        return []
