"""What faults cost weft and BIRD in the same place: packets lost of 5,000 a second, and the longest time without
a path.

Each run ends only when one has seen that the fault happened and, afterwards, that all is as it was before it."""

from __future__ import annotations

import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.bench.dual_homed import ANYCAST, ANYCAST_AT, BirdFabric, Fabric, WeftFabric, workload_address
from tests.bench.faults import FAULTS, TOR, VICTIM, Fault, Goal
from tests.bench.flows import Flow, Losses
from tests.bench.result import Result
from tests.functional.bgp.fabric import wait_until

RUNS = 3
ATTEMPTS = 4
BEFORE_S = 0.5
REPAIRED_MS = 400


@contextmanager
def fabrics() -> Iterator[tuple[Fabric, Fabric]]:
    with ExitStack() as stack:
        directory = Path(stack.enter_context(TemporaryDirectory(prefix="weft-bench-")))
        made: list[Fabric] = []
        for letter, kind in (("a", WeftFabric), ("b", BirdFabric)):
            place = directory / letter
            place.mkdir()
            made.append(kind(stack, f"weft-{os.getpid()}{letter}-", place))
            made[-1].start()
        yield made[0], made[1]


@dataclass(frozen=True, slots=True)
class Cost:
    """`away`: what the node repairs. `towards`: what its ToRs and the router behind them do, which are BIRD in either
    case; None where only one direction is looked at."""

    away: Losses
    towards: Losses | None

    @property
    def lost(self) -> int:
        return self.away.lost + (self.towards.lost if self.towards else 0)

    @property
    def outage_ms(self) -> float:
        return max(self.away.outage_ms, self.towards.outage_ms if self.towards else 0)


def run(fabric: Fabric, fault: Fault) -> Cost:
    """Once, or again where the machine stood still for so long that the routers took each other for dead: then nobody
    can tell what the fault has cost."""
    for _ in range(ATTEMPTS):
        cost, steady = _run(fabric, fault)
        if steady or fault.goal is not Goal.NOTHING_LOST:
            return cost
        print(f"{fault.name}: not counted, the routers lost each other", file=sys.stderr)
    raise RuntimeError(f"{fault.name}: the routers lost each other in each of {ATTEMPTS} runs")


def _run(fabric: Fabric, fault: Fault) -> tuple[Cost, bool]:
    """What it cost, and whether the routers kept their sessions with each other."""
    wait_until("the fabric is whole", fabric.ready, 90)
    time.sleep(1)  # until BFD has agreed on the short interval
    before = fabric.between_routers()
    with ExitStack() as stack:
        flows = [stack.enter_context(flow) for flow in _flows(fabric, fault)]
        time.sleep(BEFORE_S)
        mend = fault.strike(fabric)
        time.sleep(fault.watch_s)
    mend()
    steady = fabric.between_routers() == before
    return Cost(flows[0].losses, flows[1].losses if len(flows) > 1 else None), steady


def _flows(fabric: Fabric, fault: Fault) -> list[Flow]:
    if fault.anycast:
        targets = [fabric.workloads[node] for node in ANYCAST_AT]
        return [Flow(fabric.workloads["node3"], targets, ANYCAST, workload_address("node3"))]
    outside, workload = fabric.client(VICTIM, TOR), workload_address(VICTIM)
    away = Flow(fabric.workloads[VICTIM], [fabric.outside], outside, workload)
    towards = Flow(fabric.outside, [fabric.workloads[VICTIM]], workload, outside)
    return [away, towards]


def failures(chosen: Sequence[Fault] = FAULTS, runs: int = RUNS) -> list[Result]:
    results: list[Result] = []
    with fabrics() as (ours, rival):
        for fault in chosen:
            costs = [(run(ours, fault), run(rival, fault)) for _ in range(runs)]
            results += _results(fault, [pair[0] for pair in costs], [pair[1] for pair in costs])
    return results


def _results(fault: Fault, ours: Sequence[Cost], rival: Sequence[Cost]) -> list[Result]:
    def row(what: str, unit: str, figure: Callable[[Cost], float], goal: str, met: bool = True) -> Result:
        mine, theirs = ([figure(cost) for cost in runs] for runs in (ours, rival))
        spread = f"ours {', '.join(f'{one:g}' for one in mine)}; BIRD {', '.join(f'{one:g}' for one in theirs)}"
        name = f"{fault.name}: {what}"
        return Result(name, statistics.median(mine), "BIRD", statistics.median(theirs), unit, goal, met, spread)

    if fault.goal is not Goal.REPAIRED:
        met = fault.goal is Goal.REPORTED or all(cost.lost == 0 for cost in ours)
        return [
            row("packets lost", "packets", lambda cost: cost.lost, fault.goal.value, met),
            row("without a path", "ms", lambda cost: cost.outage_ms, Goal.REPORTED.value),
        ]
    repaired = statistics.median(cost.away.outage_ms for cost in ours) < REPAIRED_MS
    rows = [
        row("packets lost", "packets", lambda cost: cost.lost, Goal.REPORTED.value),
        row("repaired by the node", "ms", lambda cost: cost.away.outage_ms, fault.goal.value, repaired),
    ]
    if ours[0].towards is not None:
        rows.append(
            row(
                "repaired by its ToRs (BIRD)",
                "ms",
                lambda cost: cost.towards.outage_ms if cost.towards else 0,
                "reported",
            )
        )
    return rows


BENCHMARKS: dict[str, Callable[[], list[Result]]] = {"bgp-failures": failures}
