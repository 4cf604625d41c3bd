"""A reflector is killed, and upgraded, while packets go from one of its clients to another."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.bench.flows import Flow, Losses
from tests.bench.reflected import BirdReflected, Reflected, WeftReflected, address_of
from tests.bench.result import Result
from tests.functional.bgp.fabric import wait_until

RUNS = 3
BEFORE_S, WATCH_S = 0.5, 7.0

FAULTS: dict[str, Callable[[Reflected], None]] = {
    "reflector killed and started again": lambda where: where.kill(),
    "reflector upgraded": lambda where: where.upgrade(),
}


def _run(where: Reflected, fault: Callable[[Reflected], None]) -> Losses:
    """The packets go on until the reflector that was started has told everything again, and beyond."""
    wait_until("the nodes know of each other", where.ready)
    with Flow(where.nodes["n1"], [where.nodes["n2"]], address_of("n2"), address_of("n1")) as flow:
        time.sleep(BEFORE_S)
        fault(where)
        wait_until("its sessions are back", where.converged, 30)
        time.sleep(WATCH_S)
    wait_until("the nodes know of each other again", where.ready)
    return flow.losses


def reflector_failures() -> list[Result]:
    results = []
    with ExitStack() as stack:
        directory = Path(stack.enter_context(TemporaryDirectory(prefix="weft-bench-")))
        places: list[Reflected] = []
        for letter, kind in (("a", WeftReflected), ("b", BirdReflected)):
            (directory / letter).mkdir()
            places.append(kind(stack, f"weft-{os.getpid()}{letter}-", directory / letter))
        for name, fault in FAULTS.items():
            runs = [[_run(where, fault) for where in places] for _ in range(RUNS)]
            ours, rival = ([run[which].lost for run in runs] for which in (0, 1))
            spread = f"ours {', '.join(map(str, ours))}; BIRD {', '.join(map(str, rival))}"
            mine, theirs = statistics.median(ours), statistics.median(rival)
            met = max(ours) == 0
            results.append(Result(f"{name}: packets lost", mine, "BIRD", theirs, "packets", "none", met, spread))
    return results


BENCHMARKS: dict[str, Callable[[], list[Result]]] = {"bgp-reflector-failures": reflector_failures}
