"""Keep exactly one speaker running, whoever started it, with the configuration that is desired.

A speaker is found by the lock that its launcher holds, so one left by an agent that was killed is taken over, not
doubled. One that dies is started again at once; one that keeps dying, after a pause. A configuration is validated
by ExaBGP itself before it replaces the old one, and a reload counts only when the speaker has reported its digest.
Ending the agent leaves the speaker running (its sessions survive an upgrade); `stop` ends it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from msgspec import Struct

from bird_agent.exabgp.configuration import digest_of, without_passwords
from bird_agent.exabgp.launcher import API_VERSION, EXIT_REFUSED
from bird_agent.exabgp.spool import DEFAULT_LIMIT_BYTES
from bird_agent.waiting import is_set_within
from weft import singleton
from weft.model.address import IPAddress

log = logging.getLogger(__name__)

LAUNCHER = "bird_agent.exabgp.launcher"
HEALTHY_AFTER_S = 5.0
LONGEST_PAUSE_S = 5.0
RELOAD_TIMEOUT_S = 5.0
STOP_TIMEOUT_S = 5.0
STOP_AGAIN_S = 0.5
VALIDATE_TIMEOUT_S = 60.0
MAX_LOG_BYTES = 4 << 20


class SpeakerRefusedError(Exception):
    """The launcher will not start this ExaBGP; starting again cannot help."""


class InvalidConfigurationError(Exception):
    """ExaBGP does not accept a rendered configuration: a defect of ours. The old one stays in force."""


class SpeakerPaths(Struct, frozen=True):
    """Where the speaker's files are, all below the run directory, and how much the link may keep."""

    run_dir: Path
    spool_bytes: int = DEFAULT_LIMIT_BYTES

    @property
    def socket(self) -> Path:
        return self.run_dir / "speaker.sock"

    @property
    def configuration(self) -> Path:
        return self.run_dir / "speaker.conf"

    @property
    def lock(self) -> Path:
        return singleton.lock_path(self.run_dir, "speaker")

    @property
    def log(self) -> Path:
        return self.run_dir / "speaker.log"

    def helper(self) -> list[str]:
        """The argument list of the speaker link."""
        script = Path(__file__).with_name("speaker_link.py")
        return [sys.executable, "-I", "-S", str(script), str(self.socket), str(self.spool_bytes)]


def pause_s(last_s: float, lived_s: float) -> float:
    """Before a speaker is started again that has lived for so long: none for one that was well, more each time for one
    that keeps ending. `last_s` is what it was the last time."""
    return 0.0 if lived_s > HEALTHY_AFTER_S else min(LONGEST_PAUSE_S, last_s * 2 + 0.1)


def stop_speaker(paths: SpeakerPaths) -> bool:
    """End the speaker, if there is one. Sessions close without NOTIFICATION: peers keep routes for the restart time."""
    pid = singleton.holder(paths.lock)
    if pid is None:
        return False
    with contextlib.suppress(ProcessLookupError):  # it has ended by itself
        deadline = time.monotonic() + STOP_TIMEOUT_S
        while singleton.holder(paths.lock) == pid:
            # ExaBGP forgets a signal that comes while it has another one in hand: say it again.
            os.kill(pid, signal.SIGKILL if time.monotonic() > deadline else signal.SIGTERM)
            _wait_for_end(paths.lock, pid)
    return True


def _wait_for_end(lock: Path, pid: int) -> None:
    again_at = time.monotonic() + STOP_AGAIN_S
    while singleton.holder(lock) == pid and time.monotonic() < again_at:
        time.sleep(0.02)


class SpeakerSupervisor:
    """One speaker: `configure` says what it should be, `run` keeps it so."""

    def __init__(
        self, paths: SpeakerPaths, on_running: Callable[[bool], None], on_ended: Callable[[str], None]
    ) -> None:
        """`on_running` is told whenever there is a speaker, and whether it was running before; `on_ended` how it
        ended, when there is none any more and perhaps will be none."""
        self._paths = paths
        self._on_running = on_running
        self._on_ended = on_ended
        self._arguments: list[str] | None = None
        self._running_arguments: list[str] | None = None
        self._desired_digest = ""
        self._running_digest = ""
        self._reported = asyncio.Event()
        self._wake = asyncio.Event()
        self.last_error = ""
        self.restarts = 0

    def on_report(self, digest: str, taken: bool, error: str) -> None:
        """What the speaker says it runs with (ReloadReport, SyncEnd)."""
        if taken:
            self._running_digest = digest
            self.last_error = ""
        else:
            self.last_error = f"ExaBGP did not take configuration {digest}: {without_passwords(error)}"
            log.error("%s", self.last_error)
        self._reported.set()

    async def configure(self, text: str, listen: Sequence[IPAddress], port: int) -> None:
        """Make this the configuration. Raises InvalidConfigurationError, and changes nothing then."""
        content = text.encode()
        digest = digest_of(content)
        if digest != self._desired_digest:
            candidate = self._paths.configuration.with_suffix(".new")
            candidate.write_bytes(content)
            candidate.chmod(0o600)
            await self._validate(candidate)
            candidate.replace(self._paths.configuration)
            self._desired_digest = digest
        self._arguments = _launcher_arguments(self._paths, listen, port)
        self._wake.set()

    @property
    def up_to_date(self) -> bool:
        """The speaker has said that it runs with the configuration that is desired."""
        return self._running_digest == self._desired_digest

    @property
    def replacing(self) -> bool:
        """The speaker that runs is about to end, because it cannot take the desired configuration by a reload."""
        return self._running_arguments != self._arguments

    async def reload(self) -> bool:
        """Bring the running speaker to the desired configuration; True once it has said so."""
        for _ in range(3):
            if self._running_digest == self._desired_digest:
                return True
            pid = singleton.holder(self._paths.lock)
            if pid is None:
                return False
            self._reported.clear()
            os.kill(pid, signal.SIGUSR1)
            if not await is_set_within(self._reported, RELOAD_TIMEOUT_S):
                log.warning("the speaker did not report a reload within %.0f s; asking again", RELOAD_TIMEOUT_S)
        return self._running_digest == self._desired_digest

    async def run(self) -> None:
        """For ever. Raises SpeakerRefusedError when the launcher refuses."""
        pause = 0.0
        while True:
            while self._arguments is None:
                await self._wake.wait()
                self._wake.clear()
            arguments = self._arguments
            began = time.monotonic()
            pid = singleton.holder(self._paths.lock)
            if pid is None:
                pid = self._start(arguments)
                log.info("speaker started as process %d", pid)
                self._on_running(False)
            elif _arguments_of(pid) != arguments:
                log.info(
                    "the running speaker (process %d) listens elsewhere or is of another version: replacing it", pid
                )
                await asyncio.to_thread(stop_speaker, self._paths)
                self._collect(pid)
                continue
            else:
                log.info("took over the running speaker, process %d", pid)
                self._on_running(True)
            self._running_arguments = arguments
            ended = await self._ended_or_changed(pid, arguments)
            if not ended:
                continue
            pause = pause_s(pause, time.monotonic() - began)
            self._after_end(pid, pause)
            await asyncio.sleep(pause)

    def _after_end(self, pid: int, pause: float) -> None:
        self.restarts += 1
        if self._collect(pid) == EXIT_REFUSED:
            raise SpeakerRefusedError(self._log_tail())
        log.error("%s; starting it again%s", self.last_error, f" in {pause:.1f} s" if pause else "")

    def _collect(self, pid: int) -> int | None:
        """What a speaker that has ended leaves behind; its exit status if it was our child."""
        self._running_digest = ""
        status = _reap(pid)
        how = "" if status is None else f" with status {status}"
        self.last_error = f"the speaker (process {pid}) has ended{how}. Its last words: {self._log_tail()}"
        self._on_ended(self.last_error)
        return status

    async def _ended_or_changed(self, pid: int, arguments: list[str]) -> bool:
        """Wait until the process ends (True) or other arguments are wanted (False)."""
        loop = asyncio.get_running_loop()
        ended = asyncio.Event()
        try:
            fd = os.pidfd_open(pid)
        except ProcessLookupError:
            return True
        loop.add_reader(fd, ended.set)
        try:
            while not ended.is_set() and self._arguments == arguments:
                self._wake.clear()
                waits = [asyncio.ensure_future(ended.wait()), asyncio.ensure_future(self._wake.wait())]
                try:
                    await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    for wait in waits:
                        wait.cancel()
            return ended.is_set()
        finally:
            loop.remove_reader(fd)
            os.close(fd)

    def _start(self, arguments: list[str]) -> int:
        if self._paths.log.exists() and self._paths.log.stat().st_size > MAX_LOG_BYTES:
            self._paths.log.replace(self._paths.log.with_suffix(".log.1"))
        with self._paths.log.open("ab") as output:
            child = subprocess.Popen(
                arguments, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
            )
        child.returncode = 0  # it outlives us: `_reap` collects it, never Popen
        return child.pid

    async def _validate(self, candidate: Path) -> None:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            LAUNCHER,
            "validate",
            str(candidate),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        try:
            async with asyncio.timeout(VALIDATE_TIMEOUT_S):
                _, errors = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
        message = without_passwords(errors.decode(errors="replace").strip())
        if process.returncode == EXIT_REFUSED:
            raise SpeakerRefusedError(message)
        if process.returncode != 0:
            raise InvalidConfigurationError(message)

    def _log_tail(self) -> str:
        try:
            lines = self._paths.log.read_text(errors="replace").splitlines()
        except FileNotFoundError:
            return "(no log)"
        return without_passwords(" / ".join(line.strip() for line in lines[-4:]))


def _launcher_arguments(paths: SpeakerPaths, listen: Sequence[IPAddress], port: int) -> list[str]:
    arguments = [sys.executable, "-m", LAUNCHER, "serve", str(paths.configuration), "--lock", str(paths.lock)]
    for address in listen:
        arguments += ["--listen", str(address)]
    return [*arguments, "--port", str(port), "--api", str(API_VERSION)]


def _arguments_of(pid: int) -> list[str] | None:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")[:-1]
    except OSError:
        return None


def _reap(pid: int) -> int | None:
    """The exit status if the process was our child; a speaker that we took over is init's."""
    try:
        _, status = os.waitpid(pid, 0)
    except ChildProcessError:
        return None
    return os.waitstatus_to_exitcode(status)
