"""Real-time scheduling for a process that must be in time and has next to nothing to do.

With it a machine that has twenty times more to do than it can does not make a peer believe that the path is dead. A
process that is kept busy by others (anybody may send packets) takes a processor from nobody for longer than
`LONGEST_BURST_US`: it then gives up its claim by itself and makes it again later. Where the system permits none, it
runs like any other."""

from __future__ import annotations

import logging
import os
import resource
import signal
import time
from typing import Final

log = logging.getLogger("weft-bfd")

LONGEST_BURST_US: Final = 100_000
"""Of processor time without ever sleeping."""
AGAIN_S: Final = 10.0
_MOMENT_S: Final = 0.0001


class Urgency:
    """One process's. Children do not inherit it."""

    def __init__(self) -> None:
        self._again_at: float | None = None

    def claim(self) -> bool:
        """Whether that is permitted."""
        self._again_at = None
        _, hard = resource.getrlimit(resource.RLIMIT_RTTIME)
        try:
            resource.setrlimit(resource.RLIMIT_RTTIME, (LONGEST_BURST_US, hard))
            signal.signal(signal.SIGXCPU, self._give_up)
            os.sched_setscheduler(0, os.SCHED_RR | os.SCHED_RESET_ON_FORK, os.sched_param(1))
        except (OSError, ValueError) as error:
            log.info("no real-time scheduling, which CAP_SYS_NICE would permit: %s", error)
            return False
        time.sleep(
            _MOMENT_S
        )  # the kernel counts from when an urgent process last woke, also over a time without urgency
        return True

    def on_time(self, now: float) -> None:
        if self._again_at is not None and now >= self._again_at:
            self.claim()

    def _give_up(self, *_: object) -> None:
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
        self._again_at = time.monotonic() + AGAIN_S
        log.warning("never at rest for %.1f s: no real-time scheduling for %.0f s", LONGEST_BURST_US / 1e6, AGAIN_S)
