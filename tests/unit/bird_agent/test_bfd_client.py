"""The agent's side of weft-bfd, with a process that is none."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from contextlib import suppress
from ipaddress import ip_address
from pathlib import Path

import pytest

from bird_agent.bfd.client import BfdClient, own_version
from bird_agent.bfd.session import BfdSettings
from bird_agent.bfd.wire import Program, Wanted, encode_report
from weft import singleton

WANTED = Wanted(ip_address("10.1.0.254"), ip_address("10.1.0.1"), False, BfdSettings(100_000, 3))
HOLDER = """
import signal, sys
from pathlib import Path
from weft import singleton
signal.signal(signal.SIGHUP, lambda *_: print("hangup", flush=True))
singleton.hold(Path(sys.argv[1]))
print("ready", flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize(("version", "asked"), [(own_version(), 0), ("0.0.1", 1)], ids=["our own", "another"])
def test_a_process_of_another_version_is_asked_once_to_let_ours_go_on(version: str, asked: int, tmp_path: Path) -> None:
    connections: list[int] = []

    async def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(1)
        writer.write(encode_report(Program(version)))
        writer.close()  # with what the agent says unread: it must not mind

    async def connect_three_times() -> None:
        server = await asyncio.start_unix_server(serve, tmp_path / "bfd.sock")
        client = BfdClient(tmp_path, lambda _: None, lambda: None)
        client.set_wanted([WANTED])
        running = asyncio.ensure_future(client.run())
        while len(connections) < 3 and not running.done():
            await asyncio.sleep(0.01)
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running
        server.close()

    lock = singleton.lock_path(tmp_path, "bfd")
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(lock)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        asyncio.run(asyncio.wait_for(connect_three_times(), 30))
        said, _ = process.communicate(timeout=30)
    assert len(connections) == 3
    assert said.count("hangup") == asked
