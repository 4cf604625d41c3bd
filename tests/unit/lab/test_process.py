"""A lab signals the processes that it remembers, and nobody else."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from unittest.mock import patch

import pytest

from lab.process import Process, identify


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["sleep", "60"]) as started:
        yield started
        started.kill()


def test_a_process_is_signalled_unless_its_pid_is_somebody_elses(sleeper: subprocess.Popen[bytes]) -> None:
    known = identify("sleeper", sleeper.pid, "")
    replace(known, start_ticks=known.start_ticks - 1).signal(signal.SIGKILL)
    assert known.alive()
    known.signal(signal.SIGTERM)
    assert sleeper.wait(10) == -signal.SIGTERM


def test_a_process_that_ends_at_the_moment_of_the_signal_is_no_error(sleeper: subprocess.Popen[bytes]) -> None:
    known = identify("sleeper", sleeper.pid, "")
    sleeper.kill()
    sleeper.wait(10)
    known.signal(signal.SIGTERM)
    with patch.object(Process, "alive", return_value=True):  # it was, when it was asked
        known.signal(signal.SIGTERM)
