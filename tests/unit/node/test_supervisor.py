"""What is kept running comes back, with pauses where it keeps ending, and is left alone when we go."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from weft.node import supervisor as supervisor_module
from weft.node.children import Ended
from weft.node.supervisor import Program, Supervisor, agent_program


@pytest.fixture
async def supervisor(tmp_path: Path) -> AsyncIterator[Supervisor]:
    made = Supervisor(tmp_path, {"PATH": os.environ["PATH"]})
    yield made
    for status in made.status:
        if status.pid is not None:
            os.kill(status.pid, signal.SIGKILL)
    await made.stop()


def shell(name: str, script: str) -> Program:
    return Program(name, name, ("/bin/sh", "-c", script))


async def eventually(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.01)


async def test_the_end_of_one_does_not_touch_another(supervisor: Supervisor, tmp_path: Path) -> None:
    supervisor.keep(shell("steady", "sleep 60"))
    supervisor.keep(shell("dies", f"echo >>{tmp_path}/starts; exit 3"))
    steady = supervisor.status[1].pid
    await eventually(lambda: supervisor.status[0].restarts >= 2)
    assert supervisor.status[0].last_end == "exited with status 3"
    assert supervisor.status[1].pid == steady
    assert len((tmp_path / "starts").read_text()) >= 2


async def test_quick_ends_bring_growing_pauses(supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor_module, "FIRST_PAUSE_S", 0.2)
    supervisor.keep(shell("dies", "exit 1"))
    await asyncio.sleep(1.2)
    # At once, then after 0.2, 0.4 and 0.8 s.
    assert 2 <= supervisor.status[0].restarts <= 4


async def test_one_that_does_not_listen_to_sigterm_is_killed(
    supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(supervisor_module, "STOP_S", 0.2)
    supervisor.keep(shell("deaf", f"trap '' TERM; touch {tmp_path}/ready; while true; do sleep 0.05; done"))
    await eventually((tmp_path / "ready").exists)
    await supervisor.stop()
    assert supervisor.status[0].pid is None
    assert supervisor.status[0].last_end == "was ended by SIGKILL"


async def test_a_program_that_cannot_be_found_is_told_and_tried_again_later(supervisor: Supervisor) -> None:
    supervisor.keep(Program("missing", "missing", ("/nonexistent/program",)))
    await eventually(lambda: supervisor.status[0].restarts >= 1)
    assert "exited with status" in str(supervisor.status[0].last_end)


async def test_what_a_killed_one_left_is_removed_before_the_next(supervisor: Supervisor, tmp_path: Path) -> None:
    socket = tmp_path / "socket"
    script = f"test ! -e {socket} && touch {socket} && touch {tmp_path}/ok && sleep 60"
    program = Program("etcd", "etcd", ("/bin/sh", "-c", script), leftovers=(socket,))
    socket.touch()
    supervisor.keep(program)
    await eventually((tmp_path / "ok").exists)


async def test_a_child_reads_no_input_of_ours(supervisor: Supervisor, tmp_path: Path) -> None:
    supervisor.keep(shell("reads", f"cat >{tmp_path}/input; echo done >{tmp_path}/done; sleep 60"))
    await eventually((tmp_path / "done").exists)
    assert (tmp_path / "input").read_bytes() == b""


def test_an_agent_is_the_script_beside_the_interpreter_or_else_its_module() -> None:
    assert agent_program("pytest", "p", "pytest").argv == (str(Path(sys.executable).with_name("pytest")),)
    assert agent_program("no-such-script", "p", "some.module").argv == (sys.executable, "-m", "some.module")


@pytest.mark.parametrize(
    ("status", "words"),
    [(0, "exited with status 0"), (-9, "was ended by SIGKILL"), (None, "ended")],
)
def test_an_end_is_told_in_words(status: int | None, words: str) -> None:
    assert str(Ended(1, status)) == words
