"""Who goes on when weft-bfd dies or is replaced, so that no peer notices.

A standby is a fork of the process as it was at the last change of any session: it has the same discriminators and the
same sockets, and waits for nothing but the end of the line to its original. A successor is the program started anew
with the same sockets, for another version; it is given the sessions in words once it is ready. Neither sends anything
while the original lives. What a session is, it does not know."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from bird_agent.bfd.urgency import Urgency
from weft import singleton

PROGRAM: Final = "bird_agent.bfd.process"
_DISMISSED: Final = b"q"
_READY: Final = b"2"
"""It also names the form of the words: another version that reads them otherwise says something else."""
LOCK_PATIENCE_S: Final = 1.0


class Standby:
    """At most one at a time."""

    def __init__(self, urgency: Urgency) -> None:
        self._urgency = urgency
        self._line: socket.socket | None = None

    def renew(self) -> bool:
        """Put a fork of this process in the place of the last one. Returns True only in a fork whose original has died,
        which is then the process."""
        self.dismiss()
        ours, theirs = socket.socketpair()
        if os.fork():
            theirs.close()
            self._line = ours
            return False
        ours.close()
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        self._urgency.claim()  # to be there at once
        if theirs.recv(1) == _DISMISSED:
            os._exit(0)
        theirs.close()
        return True

    def dismiss(self) -> None:
        if self._line is not None:
            try:
                self._line.send(_DISMISSED)
            except OSError:
                pass  # it has died before us
            self._line.close()
            self._line = None


class Successor:
    """The program started anew, as long as this one goes on. `line` is readable when it is ready, or has failed."""

    def __init__(self, path: Path, descriptors: Iterable[int]) -> None:
        self.descriptors = frozenset(descriptors)
        self.line, theirs = socket.socketpair()
        self._process = subprocess.Popen(
            [sys.executable, "-m", PROGRAM, str(path), "--succeed", str(theirs.fileno())],
            stdin=subprocess.DEVNULL,
            pass_fds=[*self.descriptors, theirs.fileno()],
            start_new_session=True,
        )
        theirs.close()

    def is_ready(self) -> bool:
        """Asked when the line is readable."""
        return self.line.recv(1) == _READY

    def give(self, words: bytes) -> None:
        """Everything there is to know; from here on it is the process."""
        self.line.sendall(words)
        self.line.close()

    def abandon(self) -> None:
        self._process.kill()
        self._process.wait()
        self.line.close()


def succeed(descriptor: int) -> bytes:
    """In the successor: say that we are ready, and wait for what there is to know. Empty: the original has changed its
    mind, or died, and its standby goes on."""
    with socket.socket(fileno=descriptor) as line:
        line.sendall(_READY)
        words = b""
        while data := line.recv(1 << 16):
            words += data
    return words


def hold_lock(path: Path, patience_s: float = LOCK_PATIENCE_S) -> bool:
    """Take over the lock of a process that is about to be gone; whether that was possible."""
    deadline = time.monotonic() + patience_s
    while True:
        try:
            singleton.hold(path)
        except singleton.AlreadyRunningError:
            if time.monotonic() >= deadline:
                return False
            time.sleep(0.001)
        else:
            return True
