"""Keep the agents of this node running, each for itself.

An agent that ends is started again at once, and with growing pauses if it keeps ending quickly; its end never touches
another. An agent that already runs, because the weft-node before us was killed, is adopted by the lock it holds and not
started a second time. On our own orderly end the agents are stopped one after another, in the order given.
"""

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from msgspec import Struct

from weft import singleton
from weft.node.children import Ended, Watch, reap_orphans, spawn

log = logging.getLogger(__name__)

STEADY_S = 10.0
"""An agent that ran this long did start: the next start is immediate again."""
FIRST_PAUSE_S = 0.5
LONGEST_PAUSE_S = 30.0
STOP_S = 10.0
"""How long an agent may take to end before it is killed."""


class Program(Struct, frozen=True):
    """Something to keep running.

    `argv[0]` is a path, `lock` the name of the lock that it holds while it runs; `leftovers` are files that one
    which was killed leaves behind and the next would stumble over.
    """

    name: str
    lock: str
    argv: tuple[str, ...]
    directory: Path | None = None
    leftovers: tuple[Path, ...] = ()


class ProgramStatus(Struct, frozen=True):
    """How a program does; `pid` None: not running now."""

    name: str
    pid: int | None
    adopted: bool
    restarts: int
    last_end: str | None


def agent_program(script: str, lock: str, module: str) -> Program:
    """An agent's console script beside our interpreter, or its module where there is no script."""
    path = Path(sys.executable).with_name(script)
    return Program(script, lock, (str(path),) if path.exists() else (sys.executable, "-m", module))


class Keeper:
    """Keeps one program running."""

    def __init__(self, program: Program, env: Mapping[str, str], lock: Path) -> None:
        self.program = program
        self._env = env
        self._lock = lock
        self._watch: Watch | None = None
        self._adopted = False
        self._restarts = 0
        self._quick_ends = 0
        self._last_end: str | None = None
        self._started_at = 0.0
        self._ended = asyncio.Event()
        self._stopping = False
        self._restart: asyncio.TimerHandle | None = None

    @property
    def status(self) -> ProgramStatus:
        pid = self._watch.pid if self._watch else None
        return ProgramStatus(self.program.name, pid, self._adopted, self._restarts, self._last_end)

    def start(self) -> None:
        """Adopt the running one, or start it."""
        self._restart = None
        loop = asyncio.get_running_loop()
        pid = singleton.holder(self._lock)
        self._adopted = pid is not None
        try:
            if pid is None:
                for path in self.program.leftovers:
                    path.unlink(missing_ok=True)
                pid = spawn(self._locked(), self._env, self.program.directory)
            self._ended.clear()
            self._watch = Watch(pid, self._on_end)
        except ProcessLookupError:  # the holder ended this moment
            self._restart = loop.call_later(FIRST_PAUSE_S, self.start)
            return
        except OSError as error:
            self._last_end = f"cannot be started: {error}"
            log.error("%s %s", self.program.name, self._last_end)
            self._restart_later()
            return
        self._started_at = loop.time()
        log.info("%s: %s process %d", self.program.name, "adopted" if self._adopted else "started", pid)

    def _locked(self) -> Sequence[str]:
        # The child takes the lock and then becomes the program: etcd knows nothing of our locks, and an agent that
        # takes its own again has it already.
        return (sys.executable, "-I", "-S", singleton.__file__, str(self._lock), *self.program.argv)

    def _on_end(self, ended: Ended) -> None:
        self._watch = None
        self._last_end = str(ended)
        self._ended.set()
        if self._stopping:
            log.info("%s: %s", self.program.name, ended)
            return
        ran_s = asyncio.get_running_loop().time() - self._started_at
        self._quick_ends = 0 if ran_s >= STEADY_S else self._quick_ends + 1
        self._restarts += 1
        self._restart_later()

    def _restart_later(self) -> None:
        pause_s = 0.0
        if self._quick_ends > 1:
            pause_s = min(FIRST_PAUSE_S * 2 ** (self._quick_ends - 2), LONGEST_PAUSE_S)
        elif self._watch is None and self._last_end and self._last_end.startswith("cannot"):
            pause_s = LONGEST_PAUSE_S
        when = f"in {pause_s:g} s" if pause_s else "now"
        log.warning("%s: process %s, starting again %s", self.program.name, self._last_end, when)
        self._restart = asyncio.get_running_loop().call_later(pause_s, self.start)

    async def stop(self) -> None:
        """SIGTERM, and after a while SIGKILL; returns when it has ended."""
        self._stopping = True
        if self._restart is not None:
            self._restart.cancel()
        if self._watch is None:
            return
        self._watch.signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(STOP_S):
                await self._ended.wait()
        except TimeoutError:
            log.warning("%s: still running %g s after SIGTERM, killing it", self.program.name, STOP_S)
            if self._watch is not None:
                self._watch.signal(signal.SIGKILL)
                await self._ended.wait()

    def leave(self) -> None:
        """Stop keeping it and let it run."""
        self._stopping = True
        if self._restart is not None:
            self._restart.cancel()
        if self._watch is not None:
            self._watch.close()
            self._watch = None


class Supervisor:
    """Keeps programs running; they are stopped in the order in which they are to be stopped, not started."""

    def __init__(self, run_dir: Path, env: Mapping[str, str]) -> None:
        self._run_dir = run_dir
        self._env = dict(env)
        self._keepers: list[Keeper] = []
        if os.getpid() == 1:
            asyncio.get_running_loop().add_signal_handler(signal.SIGCHLD, self._reap)

    @property
    def status(self) -> tuple[ProgramStatus, ...]:
        return tuple(keeper.status for keeper in self._keepers)

    def keep(self, program: Program, env: Mapping[str, str] | None = None) -> None:
        """Keep a program running from now on; those kept later are stopped earlier."""
        keeper = Keeper(program, env or self._env, singleton.lock_path(self._run_dir, program.lock))
        self._keepers.insert(0, keeper)
        keeper.start()

    async def stop(self) -> None:
        """Stop all, one after another: the last kept first."""
        for keeper in self._keepers:
            await keeper.stop()

    def leave(self) -> None:
        """Let all run on without us."""
        for keeper in self._keepers:
            keeper.leave()

    def _reap(self) -> None:
        pids = {status.pid for status in self.status}
        reap_orphans(lambda pid: pid in pids)
