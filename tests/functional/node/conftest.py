"""A real weft-node with agents of the test's own in place of the real ones."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from lab.netns import NetNs
from weft import singleton
from weft.config import EtcdConfig
from weft.datastore.etcd import EtcdDatastore
from weft.model import codec, keys
from weft.model.errors import DatastoreUnavailableError
from weft.model.keys import ResourceKey
from weft.model.node import Node
from weft.node.private_etcd import CLIENT_SOCKET

# An agent that does nothing, ends when told to, and notes when it did.
AGENT = """#!/bin/sh
trap 'echo "$(basename $0)" >>"$WEFT_RUN_DIR/ends"; exit 0' TERM
echo "$0 $NODENAME $ETCD_ENDPOINTS" >>"$WEFT_RUN_DIR/starts"
while true; do sleep 0.1; done
"""


@dataclass(slots=True)
class WeftNode:
    """weft-node as a process; everything it may touch is under `directory`."""

    directory: Path
    netns: NetNs | None = None
    env: dict[str, str] = field(default_factory=dict)
    prefix: tuple[str, ...] = ()
    agent: str = AGENT
    process: subprocess.Popen[bytes] | None = None

    @property
    def run_dir(self) -> Path:
        return self.directory / "run"

    @property
    def log(self) -> str:
        return (self.directory / "log").read_text()

    @property
    def endpoints(self) -> tuple[str, ...]:
        if "ETCD_ENDPOINTS" in self.env:
            return (self.env["ETCD_ENDPOINTS"],)
        return (f"unix://{self.run_dir}/{CLIENT_SOCKET}",)

    def start(self) -> "WeftNode":
        """Run it with a python beside which our agents lie."""
        programs = self.directory / "bin"
        if not programs.exists():
            programs.mkdir(parents=True)
            (programs / "python").symlink_to(sys.executable)
            for name in ("weft-felix", "weft-bird-agent"):
                (programs / name).write_text(self.agent)
                (programs / name).chmod(0o755)
        env = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
            "WEFT_RUN_DIR": str(self.run_dir),
            "WEFT_STATE_DIR": str(self.directory / "state"),
            **self.env,
        }
        command = [*self.prefix, str(programs / "python"), "-m", "weft.node.daemon"]
        if self.netns is not None:
            command = self.netns.command(command)
        with (self.directory / "log").open("ab") as log:
            self.process = subprocess.Popen(command, env=env, stdout=log, stderr=log)
        return self

    def holder(self, lock: str) -> int | None:
        return singleton.holder(singleton.lock_path(self.run_dir, lock))

    def pids(self) -> dict[str, int | None]:
        return {name: self.holder(name) for name in ("felix", "bird-agent")}

    def starts(self) -> list[str]:
        """What each agent said when it was started: its path, the node's name, the endpoints."""
        path = self.run_dir / "starts"
        return path.read_text().splitlines() if path.exists() else []

    def running(self) -> bool:
        return all(self.pids().values()) and len(self.starts()) >= 2

    def wait_until(self, condition: Callable[[], bool], timeout_s: float = 10) -> None:
        deadline = time.monotonic() + timeout_s
        while not condition():
            if time.monotonic() > deadline:
                raise TimeoutError(f"weft-node's log:\n{self.log}")
            time.sleep(0.02)

    def signal(self, number: int) -> int:
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(15)

    def node(self, name: str) -> Node | None:
        """What is registered under a name; None while nothing is or nobody answers."""
        return asyncio.run(read_node(self.endpoints, name))

    def addresses(self, name: str) -> tuple[str, str] | None:
        node = self.node(name)
        if node is None or node.spec.bgp is None:
            return None
        return str(node.spec.bgp.ipv4_address), str(node.spec.bgp.ipv6_address)

    def end(self) -> None:
        """Leave nothing running, whatever state the test left."""
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(5)
            except subprocess.TimeoutExpired:
                self.signal(signal.SIGKILL)
        for lock in ("felix", "bird-agent", "etcd"):
            pid = self.holder(lock)
            if pid is not None:
                os.kill(pid, signal.SIGKILL)


async def read_node(endpoints: tuple[str, ...], name: str) -> Node | None:
    key = ResourceKey("Node", name)
    store = EtcdDatastore(EtcdConfig(endpoints, timeout_s=2))
    try:
        kv = await store.get(keys.path(key))
    except DatastoreUnavailableError:
        return None
    finally:
        await store.close()
    value = codec.decode_stored(key, kv.value) if kv else None
    assert value is None or isinstance(value, Node)
    return value


@pytest.fixture
def weft_node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., WeftNode]]:
    made: list[WeftNode] = []

    def make(netns: NetNs | None = None, **env: str) -> WeftNode:
        # Short: a unix socket's path has at most 107 characters.
        made.append(WeftNode(tmp_path_factory.mktemp("n"), netns, {"NODENAME": "n1", **env}))
        return made[-1].start()

    yield make
    for one in made:
        one.end()
