"""weft-bfd when packets keep it busy: what its real-time scheduling does to the machine, and what else it gets to."""

from __future__ import annotations

import socket
import subprocess
import sys
from ipaddress import ip_address
from pathlib import Path

import pytest

from bird_agent.bfd.process import BfdProcess

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


NEVER_LONG_AT_REST = """
import os, time
from bird_agent.bfd.urgency import AGAIN_S, Urgency
urgency = Urgency()
assert urgency.claim()
while os.sched_getscheduler(0) & os.SCHED_RR:
    assert time.process_time() < 5, "it takes nearly all of a processor for ever"
    end = time.thread_time() + 0.02
    while time.thread_time() < end:
        pass
    time.sleep(0.001)
    urgency.on_time(time.monotonic())
urgency.on_time(time.monotonic() + AGAIN_S)
assert os.sched_getscheduler(0) & os.SCHED_RR, "it never claims again"
"""


WITHOUT_THE_CAPABILITY = """
import os, time
from bird_agent.bfd.urgency import Urgency
assert Urgency().claim()
os.setresuid(65534, 65534, 65534)
while os.sched_getscheduler(0) & os.SCHED_RR:
    assert time.process_time() < 5, "it takes a processor for ever"
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


def test_a_process_that_rests_for_a_moment_now_and_then_gives_up_being_urgent_as_well() -> None:
    code, said = run(NEVER_LONG_AT_REST)
    assert code == 0, said
    assert "of a processor used: no real-time scheduling for 10 s" in said


def test_a_process_that_is_urgent_without_the_capability_can_give_that_up() -> None:
    assert run(WITHOUT_THE_CAPABILITY) == (0, "never at rest for 0.1 s: no real-time scheduling for 10 s\n")


def test_a_process_that_may_not_be_urgent_runs_like_any_other() -> None:
    assert run(NOT_PERMITTED) == (0, "")


def test_packets_that_never_end_do_not_keep_it_from_everything_else(tmp_path: Path) -> None:
    process = BfdProcess(tmp_path / "bfd.sock")
    with socket.socket(type=socket.SOCK_DGRAM) as receiver, socket.socket(type=socket.SOCK_DGRAM) as sender:
        receiver.bind(("127.0.0.1", 0))
        receiver.setblocking(False)
        for _ in range(200):  # as many as the kernel keeps for sure
            sender.sendto(b"x", receiver.getsockname())
        process._on_datagrams(receiver, (ip_address("127.0.0.1"), 3784))
        assert receiver.recv(1) == b"x"
    process._selector.close()
    process._server.close()
