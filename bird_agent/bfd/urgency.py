"""Real-time scheduling for a process that must be in time and has next to nothing to do.

With it a machine that has twenty times more to do than it can does not make a peer believe that the path is dead. A
process that is kept busy by others (anybody may send packets) takes a processor from nobody for longer than
`LONGEST_BURST_US` in one go, nor more than `LARGEST_SHARE` of it over `MEASURED_S`: it then gives up its claim by
itself and makes it again later. Where the system permits none, it runs like any other."""

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
LARGEST_SHARE: Final = 0.5
"""Of a processor. Who rests for a moment after each packet is never long at work, and leaves others as little."""
MEASURED_S: Final = 1.0
AGAIN_S: Final = 10.0
_MOMENT_S: Final = 0.0001


class Urgency:
    """One process's. Children do not inherit it."""

    def __init__(self) -> None:
        self._again_at: float | None = None
        self._measured_at: float | None = None
        self._used_s = 0.0

    def claim(self) -> bool:
        """Whether that is permitted."""
        self._again_at = self._measured_at = None
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
        self._measure(time.monotonic())
        return True

    def on_time(self, now: float) -> None:
        """To be called often."""
        if self._again_at is not None:
            if now >= self._again_at:
                self.claim()
        elif self._measured_at is not None and now >= self._measured_at + MEASURED_S:
            share = (time.process_time() - self._used_s) / (now - self._measured_at)
            self._measure(now)
            if share > LARGEST_SHARE:
                self._stand_back(f"{share:.0%} of a processor used")

    def _measure(self, now: float) -> None:
        self._measured_at, self._used_s = now, time.process_time()

    def _give_up(self, *_: object) -> None:
        self._stand_back(f"never at rest for {LONGEST_BURST_US / 1e6:.1f} s")

    def _stand_back(self, why: str) -> None:
        # Without CAP_SYS_NICE (RLIMIT_RTPRIO permits as well) nobody may take back SCHED_RESET_ON_FORK: sched(7).
        os.sched_setscheduler(0, os.SCHED_OTHER | os.SCHED_RESET_ON_FORK, os.sched_param(0))
        self._again_at = time.monotonic() + AGAIN_S
        log.warning("%s: no real-time scheduling for %.0f s", why, AGAIN_S)
