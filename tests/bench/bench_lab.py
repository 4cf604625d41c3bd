"""The flat lab as a whole: how long until pings flow, and what each process of a node weighs."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

from lab import fabric, processes, workloads
from lab.netns import CommandError
from lab.state import Lab
from tests.bench.result import Result

NAME = f"bench{os.getpid()}"
BAR_S = 30.0


def lab_up() -> list[Result]:
    """From nothing to an answered ping between workloads on two nodes; the bar stands in for a rival."""
    started = time.monotonic()
    lab = fabric.up(NAME, "flat", 3, lambda text: None)
    try:
        workloads.add(lab, "node1", "one")
        target = workloads.add(lab, "node3", "two").addresses[0].partition("/")[0]
        ping = ["ping", "-c", "1", "-W", "1", target]
        while True:
            try:
                lab.workload_netns("node1", "one").run(ping)
                break
            except CommandError:
                if time.monotonic() - started > 2 * BAR_S:
                    raise
        took_s = time.monotonic() - started
        up = Result("lab up until pings flow", took_s, "the bar", BAR_S, "s", "under 30 s", took_s < BAR_S)
        return [up, *_memory(lab)]
    finally:
        fabric.down(lab)


def _memory(lab: Lab) -> list[Result]:
    bird = processes.resident_kib(lab.state.processes["tor"][0].pid) / 1024
    return [
        Result(
            f"RSS of {name}", processes.resident_kib(one.pid) / 1024, "BIRD on the ToR", bird, "MB", "reported", True
        )
        for name, one in sorted(processes.of_node(lab, "node1").items())
    ]


BENCHMARKS: dict[str, Callable[[], list[Result]]] = {"lab": lab_up}
