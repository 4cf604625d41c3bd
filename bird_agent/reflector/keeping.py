"""The file with what the datastore said last, and when it is read and written.

An adapter. It is read where the datastore has not answered a moment after the start, and written some seconds after
each change that may concern the plan: in one step, so that a kill at any instant leaves the old or the new one. A file
that cannot be used is said to be so in the log, and is left alone until there is something to write."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import threading
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from bird_agent.reflector import recall
from bird_agent.reflector.recall import Recall, UnusableError, Whose
from weft.datastore.syncer import SyncEvent

log = logging.getLogger("weft-reflector")

ANSWER_S: Final = 1.0
"""The datastore gets so long after the start, and after each part of what it says, before what was kept counts."""
BETWEEN_WRITES_S: Final = 5.0
_MODE: Final = 0o600


def path_of(state_dir: Path, reflector: str) -> Path:
    return state_dir / f"reflector-{reflector}.kept"


def read(path: Path) -> bytes | None:
    """None: there is none. Raises OSError, and UnusableError for a file that others could have written."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return None
    with open(descriptor, "rb") as file:
        about = os.fstat(descriptor)
        if about.st_uid != os.geteuid() or about.st_mode & 0o022:
            raise UnusableError("others than this user can write it")
        return file.read()


def write(path: Path, data: bytes) -> None:
    """In one step, and on the disk when it returns. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(path.name + ".new")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, _MODE)
    with open(descriptor, "wb") as file:
        os.fchmod(descriptor, _MODE)
        file.write(data)
        file.flush()
        os.fsync(descriptor)
    fresh.replace(path)
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


class Keeping:
    """Between the syncer and `consumer`, who says whether what it was told may concern the plan."""

    def __init__(self, path: Path, whose: Whose, consumer: Callable[[Sequence[SyncEvent]], bool]) -> None:
        self._path = path
        self._whose = whose
        self._consumer = consumer
        self._recall = Recall()
        self._answered = asyncio.Event()
        self._changed = asyncio.Event()
        self._heard = 0
        self._writing = threading.Lock()
        self._unwritten = False
        self._closed = False
        self._forgotten = False
        self._kept_at = ""
        self._trouble = ""

    @property
    def recalling(self) -> bool:
        """The datastore has not answered since the start, and what it said before counts."""
        return self._recall.recalling

    def notices(self) -> list[str]:
        """What an administrator should know of it."""
        found = []
        if self.recalling:
            found.append(f"the datastore has not answered since the start: what it said until {self._kept_at} counts")
        if self._trouble:
            found.append(f"what to begin with when the datastore is away, cannot be kept: {self._trouble}")
        return found

    def on_datastore(self, batch: Sequence[SyncEvent]) -> None:
        self._heard += 1
        told = self._recall.on_datastore(batch)
        if told and self._consumer(told):
            self._changed.set()
        if self._recall.answered:
            self._answered.set()

    async def run(self) -> None:
        """For ever."""
        if not await self._is_answered():
            self._begin_with_what_was_kept()
        while True:
            await self._changed.wait()
            self._changed.clear()
            await self._keep()
            await asyncio.sleep(BETWEEN_WRITES_S)

    def close(self) -> None:
        """The process ends: what has changed since the last time is written. A thread that is still writing is waited
        for, and one that has yet to begin writes nothing."""
        with self._writing:
            self._closed = True
            if self._forgotten:
                self._path.unlink(missing_ok=True)
            elif self._changed.is_set() or self._unwritten:
                self._write(self._encoded())

    def forget(self) -> None:
        """Nobody follows: there is to be no file when the process ends."""
        self._forgotten = True

    async def _is_answered(self) -> bool:
        """Whether the datastore says everything without a long pause: a large one takes its time, and is there."""
        heard = -1
        while heard != self._heard:
            heard = self._heard
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(ANSWER_S):
                    await self._answered.wait()
                    return True
        return False

    def _begin_with_what_was_kept(self) -> None:
        try:
            data = read(self._path)
            if data is None:
                log.warning("the datastore does not answer, and there is no %s to begin with", self._path)
                return
            kept = recall.decode(self._whose, data)
        except (OSError, UnusableError) as error:
            log.error("the datastore does not answer, and %s cannot be used: %s", self._path, error)
            return
        self._kept_at = datetime.fromtimestamp(kept.at_s, UTC).isoformat()
        log.warning("the datastore does not answer: what it said until %s counts", self._kept_at)
        self._consumer(self._recall.on_recalled(kept.events))

    async def _keep(self) -> None:
        self._unwritten = True
        await asyncio.to_thread(self._write_unless_closed, self._encoded())  # a disk may take its time

    def _encoded(self) -> bytes:
        return recall.encode(self._whose, int(time.time()), self._recall.known)

    def _write_unless_closed(self, data: bytes) -> None:
        with self._writing:
            if not self._closed:
                self._write(data)

    def _write(self, data: bytes) -> None:
        try:
            write(self._path, data)
        except OSError as error:
            if self._trouble != str(error):
                log.error("%s cannot be written: %s", self._path, error)
            self._trouble = str(error)
        else:
            self._trouble = ""
            self._unwritten = False
