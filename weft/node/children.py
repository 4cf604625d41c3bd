"""Start processes so that they outlive us, and hear when any process ends, ours or not.

A child gets a session of its own and no tie to us: when weft-node is killed its agents go on. Nothing here forks with
Python code in between (gRPC's threads would not survive that), and no child is ever waited for by another part of the
program, because whoever reaps first gets the only exit status.
"""

import asyncio
import errno
import os
import signal
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from msgspec import Struct


class Ended(Struct, frozen=True):
    """How a process ended; `status` is None for a process that was not our child."""

    pid: int
    status: int | None

    def __str__(self) -> str:
        if self.status is None:
            return "ended"
        if self.status < 0:
            return f"was ended by {signal.Signals(-self.status).name}"
        return f"exited with status {self.status}"


def spawn(argv: Sequence[str], env: Mapping[str, str], directory: Path | None = None) -> int:
    """Start a program (found by its path) with our standard streams; its pid. Raises OSError."""
    if directory is not None:
        # posix_spawn cannot change the directory; env(1) can, and becomes the program.
        argv = ("/usr/bin/env", f"--chdir={directory}", *argv)
    actions = [(os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0)]
    # A child starts with the default answer to every signal, whatever our event loop has set.
    defaults = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE]
    return os.posix_spawn(argv[0], list(argv), dict(env), file_actions=actions, setsid=True, setsigdef=defaults)


class Watch:
    """Calls back once when a process has ended; `Ended.status` is known for our own children."""

    def __init__(self, pid: int, on_end: Callable[[Ended], None]) -> None:
        """Raises ProcessLookupError if there is no such process."""
        self.pid = pid
        self._on_end = on_end
        self._descriptor = os.pidfd_open(pid)
        asyncio.get_running_loop().add_reader(self._descriptor, self._ended)

    def signal(self, number: int) -> None:
        """Send a signal to exactly this process, even if its pid is somebody else's by now."""
        try:
            signal.pidfd_send_signal(self._descriptor, number)
        except ProcessLookupError:
            return

    def close(self) -> None:
        """Stop watching; the process is left alone."""
        if self._descriptor >= 0:
            asyncio.get_running_loop().remove_reader(self._descriptor)
            os.close(self._descriptor)
            self._descriptor = -1

    def _ended(self) -> None:
        status: int | None = None
        try:
            _, wait_status = os.waitpid(self.pid, os.WNOHANG)
            status = os.waitstatus_to_exitcode(wait_status)
        except ChildProcessError:
            status = None
        self.close()
        self._on_end(Ended(self.pid, status))


def reap_orphans(known: Callable[[int], bool]) -> None:
    """As the container's first process: reap what others left to us, but none of our own children."""
    while True:
        try:
            found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except OSError as error:
            if error.errno == errno.ECHILD:
                return
            raise
        if found is None or known(found.si_pid):
            return
        os.waitpid(found.si_pid, os.WNOHANG)
