"""See that the reflector's process runs while this node is chosen, or still has clients. It ends by itself.

An adapter. The process is found by its lock, so one that an earlier agent left is taken over."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Final

from bird_agent.bfd.client import stop_bfd
from bird_agent.reflector.watching import process_name
from weft import singleton

log = logging.getLogger("weft-bird-agent")

LOCK: Final = "reflector"
PROGRAM: Final = "bird_agent.automatic.process"
BETWEEN_STARTS_S: Final = 2.0


def stop_reflector(run_dir: Path, node: str) -> None:
    """End the process, if there is one; its peers keep its routes for the restart time."""
    pid = singleton.holder(singleton.lock_path(run_dir, LOCK))
    if pid is not None:
        with contextlib.suppress(ProcessLookupError):  # it has ended by itself
            os.kill(pid, signal.SIGTERM)
    stop_bfd(run_dir, process_name(node))


class ReflectorRunner:
    """Of one node."""

    def __init__(self, run_dir: Path) -> None:
        self._run_dir = run_dir
        self._process: subprocess.Popen[bytes] | None = None
        self._started_at = -BETWEEN_STARTS_S

    def ensure(self, now: float) -> None:
        """There should be one."""
        if self._process is not None and self._process.poll() is None:
            return
        if now - self._started_at < BETWEEN_STARTS_S:
            return
        if singleton.holder(singleton.lock_path(self._run_dir, LOCK)) is not None:
            return
        self._started_at = now
        with (self._run_dir / "reflector.log").open("ab") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", PROGRAM],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        log.info("this node is chosen as a route reflector: started as process %d", self._process.pid)
