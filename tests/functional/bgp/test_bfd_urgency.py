"""Real-time scheduling of weft-bfd: what it does to the machine when packets keep it busy."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytestmark = pytest.mark.root

NEVER_AT_REST = """
import os, time
from bird_agent.bfd.urgency import AGAIN_S, Urgency
urgency = Urgency()
assert urgency.claim() and os.sched_getscheduler(0) & os.SCHED_RR
if not os.fork():
    os._exit(os.sched_getscheduler(0) & ~os.SCHED_RESET_ON_FORK)
assert os.wait()[1] == 0, "a child is as urgent"
while os.sched_getscheduler(0) & os.SCHED_RR:
    assert time.process_time() < 5, "it takes a processor for ever"
urgency.on_time(time.monotonic())
assert not os.sched_getscheduler(0) & os.SCHED_RR, "it claims again at once"
urgency.on_time(time.monotonic() + AGAIN_S)
assert os.sched_getscheduler(0) & os.SCHED_RR, "it never claims again"
"""


NOT_PERMITTED = """
import os
from bird_agent.bfd.urgency import Urgency
os.setresuid(65534, 65534, 65534)
assert not Urgency().claim() and os.sched_getscheduler(0) == os.SCHED_OTHER
"""


def run(program: str) -> tuple[int, str]:
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=False)
    return done.returncode, done.stderr


def test_a_process_that_is_never_at_rest_gives_up_being_urgent_for_a_while() -> None:
    assert run(NEVER_AT_REST) == (0, "never at rest for 0.1 s: no real-time scheduling for 10 s\n")


def test_a_process_that_may_not_be_urgent_runs_like_any_other() -> None:
    assert run(NOT_PERMITTED) == (0, "")
