"""The owner's side of weft-bfd (the agent's or a reflector's): see that it runs while there are sessions to watch, and
say which.

The process is found by its lock, so one that an earlier agent left is taken over with its sessions. One that dies is
started again; that says nothing about any path, so it is never reported as one that went down."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Final

from bird_agent.bfd.succession import PROGRAM
from bird_agent.bfd.wire import Program, Report, Trouble, Wanted, decode_report, encode_wanted
from weft import singleton

log = logging.getLogger(__name__)

RETRY_S: Final = 0.2
NAME: Final = "bfd"
"""Of the agent's process: its socket, lock and log are called so."""


@cache
def own_version() -> str:
    """Of this program. Only who has a weft-bfd loads what tells it: 1.6 MB."""
    from importlib.metadata import version

    return version("weft")


def stop_bfd(run_dir: Path, name: str = NAME) -> bool:
    """End the process, if there is one; it closes its sessions by will."""
    pid = singleton.holder(singleton.lock_path(run_dir, name))
    if pid is None:
        return False
    with contextlib.suppress(ProcessLookupError):  # it has ended by itself
        os.kill(pid, signal.SIGINT)
    return True


class BfdClient:
    """Keeps to one process; `set_wanted` says what should be, `run` keeps it so."""

    def __init__(
        self, run_dir: Path, on_report: Callable[[Report], None], on_lost: Callable[[], None], name: str = NAME
    ) -> None:
        """`on_lost`: nothing is known of any session for now."""
        self._run_dir = run_dir
        self._name = name
        self._on_report = on_report
        self._on_lost = on_lost
        self._wanted: tuple[Wanted, ...] = ()
        self._changed = asyncio.Event()
        self._process: subprocess.Popen[bytes] | None = None
        self._asked_to_go: int | None = None
        self.trouble = ""

    def set_wanted(self, wanted: Sequence[Wanted]) -> None:
        """All sessions there should be."""
        if tuple(wanted) != self._wanted:
            self._wanted = tuple(wanted)
            self._changed.set()

    async def run(self) -> None:
        """For ever."""
        while True:
            while not self._wanted:
                await self._changed.wait()
                self._changed.clear()
            self._ensure_process()
            try:
                reader, writer = await asyncio.open_unix_connection(self._run_dir / f"{self._name}.sock")
            except (FileNotFoundError, ConnectionRefusedError):
                await asyncio.sleep(RETRY_S)
                continue
            try:
                await self._converse(reader, writer)
            finally:
                writer.close()
                self._on_lost()
            await asyncio.sleep(RETRY_S)

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Until the process is gone, or there is nothing to watch any more."""
        self._changed.set()
        listening = asyncio.ensure_future(self._listen(reader))
        try:
            while not listening.done():
                changed = asyncio.ensure_future(self._changed.wait())
                await asyncio.wait([listening, changed], return_when=asyncio.FIRST_COMPLETED)
                changed.cancel()
                if self._changed.is_set():
                    self._changed.clear()
                    writer.write(encode_wanted(self._wanted))
                    await writer.drain()
                if not self._wanted:
                    stop_bfd(self._run_dir, self._name)
                    return
        except ConnectionError as error:
            log.warning("weft-bfd is gone: %s", error)
        finally:
            listening.cancel()
            with contextlib.suppress(asyncio.CancelledError, ConnectionError):  # it died with our words unread
                await listening

    async def _listen(self, reader: asyncio.StreamReader) -> None:
        while line := await reader.readline():
            try:
                report = decode_report(line)
            except (ValueError, KeyError) as error:
                log.error("weft-bfd said something unexpected: %s", error)
                continue
            if isinstance(report, Program):
                self._on_program(report.version)
            elif isinstance(report, Trouble):
                if report.text and report.text != self.trouble:
                    log.error("%s", report.text)
                self.trouble = report.text
            else:
                self._on_report(report)

    def _on_program(self, version: str) -> None:
        """One that an agent of another version left goes on until ours has its sessions; it is asked once."""
        pid = singleton.holder(singleton.lock_path(self._run_dir, self._name))
        ours = own_version()
        if version == ours or pid is None or pid == self._asked_to_go:
            return
        log.info("weft-bfd is of version %s, and is replaced by that of %s", version, ours)
        self._asked_to_go = pid
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGHUP)

    def _ensure_process(self) -> None:
        if self._process is not None and self._process.poll() is None:
            return
        if singleton.holder(singleton.lock_path(self._run_dir, self._name)) is not None:
            return
        with (self._run_dir / f"{self._name}.log").open("wb") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", PROGRAM, str(self._run_dir / f"{self._name}.sock")],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        log.info("weft-bfd started as process %d", self._process.pid)
