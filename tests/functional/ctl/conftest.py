"""Runs weftctl as its user would, except that it need not start a new process."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conftest import EtcdServer
from weft.ctl.main import main

MANIFESTS = Path(__file__).parent / "manifests"


@dataclass(frozen=True, slots=True)
class Result:
    code: int
    out: str
    err: str


Weftctl = Callable[..., Result]


@pytest.fixture
def weftctl(
    etcd: EtcdServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Weftctl:
    """`weftctl("get", "pools")` with nothing but etcd's endpoint; `stdin` is what it reads from `-f -`."""
    monkeypatch.setenv("ETCD_ENDPOINTS", etcd.endpoint)
    monkeypatch.setenv("WEFT_RUN_DIR", str(tmp_path))

    def run(*arguments: str, stdin: str = "") -> Result:
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(stdin.encode())))
        try:
            code = main(arguments)
        except SystemExit as stop:
            code = int(stop.code or 0)
        captured = capsys.readouterr()
        return Result(code, captured.out, captured.err)

    return run


@pytest.fixture
def put(etcd: EtcdServer) -> Callable[[str, str], None]:
    """Store a value behind weftctl's back."""
    import os
    import subprocess

    def write(key: str, value: str) -> None:
        command = ["etcdctl", "--endpoints", etcd.endpoint, "put", key, value]
        subprocess.run(command, env={**os.environ, "ETCDCTL_API": "3"}, check=True, capture_output=True, timeout=20)

    return write


@pytest.fixture
def read(etcd: EtcdServer) -> Callable[[str], str]:
    """What is stored at a key; "" for nothing."""
    import os
    import subprocess

    def get(key: str) -> str:
        command = ["etcdctl", "--endpoints", etcd.endpoint, "get", "--print-value-only", key]
        environ = {**os.environ, "ETCDCTL_API": "3"}
        return subprocess.run(command, env=environ, check=True, capture_output=True, timeout=20, text=True).stdout

    return get
