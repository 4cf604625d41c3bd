"""Where flow records go as JSON lines: a file that is rotated by size, or standard output.

Written on a thread of its own, so that a slow disk holds nobody up; what is too much for it is refused."""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

log = logging.getLogger(__name__)

MOST_WAITING = 8
"""Pieces of about a second each."""


class FlowFile:
    """`path` None: standard output. At `rotate_bytes` the file becomes `path.1`, that `path.2`, up to `keep`."""

    def __init__(self, path: Path | None, rotate_bytes: int = 10 << 20, keep: int = 3) -> None:
        self._path = path
        self._rotate_bytes = rotate_bytes
        self._keep = keep
        self._thread = ThreadPoolExecutor(1, "flow-file")
        self._lock = threading.Lock()
        self._waiting = 0
        self._failed = False

    def write(self, lines: Sequence[bytes]) -> bool:
        """Whether it will be written, in the order of calls. False: too much waits already."""
        with self._lock:
            if self._waiting >= MOST_WAITING:
                return False
            self._waiting += 1
        data = b"".join(line + b"\n" for line in lines)
        self._thread.submit(self._append, data).add_done_callback(self._on_done)
        return True

    def close(self) -> None:
        """After what waits has been written."""
        self._thread.shutdown()

    def _append(self, data: bytes) -> None:
        if self._path is None:
            sys.stdout.buffer.write(data)
            sys.stdout.buffer.flush()
            return
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("ab") as file:
            if file.tell() and file.tell() + len(data) > self._rotate_bytes:
                self._rotate(self._path)
                with self._path.open("ab") as fresh:
                    fresh.write(data)
            else:
                file.write(data)

    def _rotate(self, path: Path) -> None:
        for number in range(self._keep, 0, -1):
            older = path if number == 1 else path.with_name(f"{path.name}.{number - 1}")
            if older.exists():
                os.replace(older, path.with_name(f"{path.name}.{number}"))

    def _on_done(self, done: Future[None]) -> None:
        with self._lock:
            self._waiting -= 1
        error = done.exception()
        if error is not None and not self._failed:
            log.error("the flow log cannot be written: %s", error)
        self._failed = error is not None
