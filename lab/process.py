"""Long-running processes of a lab: started, watched and ended by pid.

A process is remembered by its pid together with its start time from /proc, so that a pid which the kernel has given to
somebody else is never signalled."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lab.netns import NetNs


class ProcessEndedError(Exception):
    """A process that should be running has ended; carries the end of its log."""

    def __init__(self, name: str, log_tail: str) -> None:
        super().__init__(f"{name} has ended; the end of its log:\n{log_tail}")
        self.name = name


@dataclass(frozen=True, slots=True)
class Process:
    """A process by identity: `start_ticks` is field 22 of /proc/PID/stat."""

    name: str
    pid: int
    start_ticks: int
    log: str

    def alive(self) -> bool:
        found = _stat(self.pid)
        return found is not None and found.start_ticks == self.start_ticks and found.state != "Z"

    def signal(self, number: int) -> None:
        """Nothing happens to a process that has ended, at whichever moment."""
        with contextlib.suppress(ProcessLookupError):
            held = os.pidfd_open(self.pid)
            try:
                if self.alive():
                    signal.pidfd_send_signal(held, number)
            finally:
                os.close(held)

    def log_tail(self, lines: int = 25) -> str:
        try:
            text = Path(self.log).read_text(errors="replace")
        except FileNotFoundError:
            return "(no log)"
        return "\n".join(text.splitlines()[-lines:])

    def require_alive(self) -> None:
        if not self.alive():
            raise ProcessEndedError(self.name, self.log_tail())


@dataclass(frozen=True, slots=True)
class _Stat:
    state: str
    parent: int
    start_ticks: int


def _stat(pid: int) -> _Stat | None:
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = text.rsplit(")", 1)[1].split()
    return _Stat(state=fields[0], parent=int(fields[1]), start_ticks=int(fields[19]))


def identify(name: str, pid: int, log: str) -> Process:
    found = _stat(pid)
    return Process(name, pid, found.start_ticks if found else 0, log)


def start(
    name: str,
    argv: Sequence[str],
    *,
    log: Path,
    netns: NetNs | None = None,
    environ: Mapping[str, str] | None = None,
) -> Process:
    """Start a process in a session of its own, its output appended to `log`. It outlives the caller."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as out:
        child = subprocess.Popen(
            netns.command(argv) if netns else list(argv),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            env={**os.environ, **(environ or {})},
            start_new_session=True,
        )
    child.returncode = 0  # it is nobody's to wait for: a later command of the lab ends it
    return identify(name, child.pid, str(log))


def descendants(roots: Sequence[Process]) -> list[Process]:
    """The processes below `roots` (their own children that outlive them excepted), parents first."""
    children: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit() and (found := _stat(int(entry))) is not None:
            children.setdefault(found.parent, []).append(int(entry))
    result, queue = [], [root.pid for root in roots if root.alive()]
    while queue:
        for pid in children.get(queue.pop(0), []):
            result.append(identify(f"pid {pid}", pid, ""))
            queue.append(pid)
    return result


def in_netns(netns: NetNs) -> list[Process]:
    """Every process inside a namespace."""
    if not netns.exists():
        return []
    pids = subprocess.run(
        ["ip", "netns", "pids", netns.name], capture_output=True, text=True, check=False
    ).stdout.split()
    return [identify(f"pid {pid}", int(pid), "") for pid in pids]


def stop(processes: Sequence[Process], *, grace_s: float = 5.0) -> None:
    """End processes: SIGTERM first, SIGKILL for those still there after `grace_s`."""
    for process in processes:
        process.signal(signal.SIGTERM)
    deadline = time.monotonic() + grace_s
    while any(process.alive() for process in processes) and time.monotonic() < deadline:
        time.sleep(0.02)
    for process in processes:
        process.signal(signal.SIGKILL)
    while any(process.alive() for process in processes) and time.monotonic() < deadline + 5:
        time.sleep(0.01)
