"""An etcd of a benchmark's own."""

from __future__ import annotations

import subprocess
from contextlib import ExitStack
from pathlib import Path

from lab.netns import NetNs
from tests.conftest import free_port, wait_for_port
from tests.functional.bgp.fabric import Store
from tests.functional.bgp.forward import Forwarder

ENVIRON = {"ETCD_ENDPOINTS": "http://127.0.0.1:2379"}
"""Of agents in namespaces that reach it."""


def start(stack: ExitStack, directory: Path, *reach_it: NetNs) -> Store:
    """It ends with the stack."""
    client, peer = free_port(), free_port()
    etcd = subprocess.Popen(
        [
            "etcd",
            f"--data-dir={directory / 'etcd'}",
            f"--listen-client-urls=http://127.0.0.1:{client}",
            f"--advertise-client-urls=http://127.0.0.1:{client}",
            f"--listen-peer-urls=http://127.0.0.1:{peer}",
            f"--initial-advertise-peer-urls=http://127.0.0.1:{peer}",
            f"--initial-cluster=default=http://127.0.0.1:{peer}",
            "--log-level=error",
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    stack.callback(etcd.wait)
    stack.callback(etcd.terminate)
    wait_for_port(client, etcd)
    for netns in reach_it:
        stack.callback(Forwarder(netns, 2379, ("127.0.0.1", client)).close)
    return Store(f"127.0.0.1:{client}")
