"""What tests share: a real etcd and network namespaces, both removed by exact name even when a test fails."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from lab.netns import NetNs

settings.register_profile("default", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("default")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Name every test's group where `--dist loadgroup` looks for it: pytest-xdist 3.8 writes it into an attribute that
    pytest 9 no longer reads, and would spread a group over all workers."""
    if not getattr(config.option, "loadgroup", False):
        return
    for item in items:
        group = item.get_closest_marker("xdist_group")
        if group is not None and "@" not in item.nodeid.rpartition("]")[2]:
            item._id = type(item.id).parse(f"{item.nodeid}@{group.args[0]}")


@dataclass(frozen=True, slots=True)
class EtcdServer:
    """A real etcd on loopback, for one test worker."""

    endpoint: str
    data_dir: Path
    process: subprocess.Popen[bytes]
    env: dict[str, str] = field(default_factory=dict)

    def wipe(self) -> None:
        subprocess.run(
            ["etcdctl", "--endpoints", self.endpoint, "del", "", "--from-key"],
            env={**os.environ, "ETCDCTL_API": "3"},
            check=True,
            capture_output=True,
            timeout=20,
        )


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait_for_port(port: int, process: subprocess.Popen[bytes], timeout_s: float = 20) -> None:
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"{process.args!r} ended with {process.returncode}")
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.02)
    raise TimeoutError(f"nothing listens on 127.0.0.1:{port}")


@pytest.fixture(scope="session")
def etcd_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EtcdServer]:
    data_dir = tmp_path_factory.mktemp("etcd")
    client, peer = free_port(), free_port()
    with (data_dir / "log").open("wb") as log:
        process = subprocess.Popen(
            [
                "etcd",
                f"--data-dir={data_dir / 'data'}",
                f"--listen-client-urls=http://127.0.0.1:{client}",
                f"--advertise-client-urls=http://127.0.0.1:{client}",
                f"--listen-peer-urls=http://127.0.0.1:{peer}",
                f"--initial-advertise-peer-urls=http://127.0.0.1:{peer}",
                f"--initial-cluster=default=http://127.0.0.1:{peer}",
                "--log-level=error",
            ],
            stdout=log,
            stderr=log,
        )
    endpoint = f"127.0.0.1:{client}"
    try:
        wait_for_port(client, process)
        yield EtcdServer(endpoint, data_dir, process, {"ETCD_ENDPOINTS": f"http://{endpoint}"})
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def etcd(etcd_server: EtcdServer) -> Iterator[EtcdServer]:
    """A real etcd with an empty keyspace."""
    yield etcd_server
    etcd_server.wipe()


@pytest.fixture
def netns() -> Iterator[Callable[[str], NetNs]]:
    """Makes network namespaces by a short name; they are removed, with the processes inside, after the test."""
    with namespaces() as make:
        yield make


@contextmanager
def namespaces() -> Iterator[Callable[[str], NetNs]]:
    """What `netns` is made of, for fixtures that last longer than a test: their names must differ from all others."""
    made: list[NetNs] = []

    def make(name: str) -> NetNs:
        made.append(NetNs(f"weft-{os.getpid()}-{name}").create())
        return made[-1]

    from lab import process

    try:
        yield make
    finally:
        for one in made:
            process.stop(process.in_netns(one), grace_s=1)
            one.delete()
