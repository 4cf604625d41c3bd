"""Make sure that a program runs once on a node, and find the one that runs.

A lock is a POSIX record lock on `<run dir>/<name>.lock`: the kernel drops it when the holder dies, however it dies; it
survives exec and is not inherited by fork, so the holder's own children never keep it; and anybody can ask who holds it
without taking it. A process must not open its own lock file again: closing that would drop the lock (fcntl(2)).

This module imports the standard library only: run as a program (`singleton.py LOCKFILE PROGRAM ARGUMENT...`) it takes
the lock and becomes the program, which is how a program that knows nothing of locks gets one.
"""

import fcntl
import os
import struct
import sys
from pathlib import Path

# struct flock of <fcntl.h> on 64-bit Linux: l_type, l_whence, l_start, l_len, l_pid.
_FLOCK = struct.Struct("@hhqqi")

EXIT_ALREADY_RUNNING = 75  # EX_TEMPFAIL of <sysexits.h>


class AlreadyRunningError(Exception):
    """Another process holds the lock: leave the work to it."""

    def __init__(self, path: Path, pid: int | None) -> None:
        super().__init__(f"{path} is held by {f'process {pid}' if pid else 'another process'}")
        self.path = path
        self.pid = pid


def lock_path(run_dir: Path, name: str) -> Path:
    """Where the lock of a program is."""
    return run_dir / f"{name}.lock"


def hold(path: Path) -> int:
    """Take the lock until this process ends; the descriptor that holds it. Raises `AlreadyRunningError`."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise AlreadyRunningError(path, holder(path)) from None
    return descriptor


def holder(path: Path) -> int | None:
    """The process that holds the lock; None if none does (or it is not visible from this PID namespace)."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        question = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
        kind, *_, pid = _FLOCK.unpack(fcntl.fcntl(descriptor, fcntl.F_GETLK, question))
    finally:
        os.close(descriptor)
    return None if kind == fcntl.F_UNLCK or pid <= 0 else int(pid)


def _become(path: Path, argv: list[str]) -> None:
    try:
        descriptor = hold(path)
    except AlreadyRunningError as error:
        print(f"{argv[0]}: already running: {error}", file=sys.stderr)
        sys.exit(EXIT_ALREADY_RUNNING)
    os.set_inheritable(descriptor, True)
    os.execvp(argv[0], argv)


if __name__ == "__main__":
    _become(Path(sys.argv[1]), sys.argv[2:])
