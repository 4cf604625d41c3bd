"""ExaBGP as our launcher starts it, also with some of the corrections left out, and without an agent."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import sys
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from bird_agent.exabgp.configuration import Neighbor, render
from bird_agent.exabgp.supervisor import SpeakerPaths
from lab.netns import NetNs
from lab.process import Process, start
from tests.functional.bgp.fabric import REPOSITORY, wait_until
from weft import singleton

UNCORRECTED = pytest.mark.xfail(raises=AssertionError, strict=True, reason="the defect that is corrected")
OPEN = bytes.fromhex("ff" * 16 + "001d0104fc0000090a0100fe00")

# Runs the launcher with some of the corrections left out, which is how ExaBGP behaves without them.
WITHOUT = """
import sys
from bird_agent.exabgp import corrections
left_out = sys.argv.pop(1).split(",")
apply = corrections.apply
kept = tuple(each for each in corrections.CORRECTIONS if each.defect.split()[0] not in left_out)
corrections.apply = lambda: apply(kept)
from bird_agent.exabgp.launcher import main
sys.exit(main())
"""


def patience_s(left_out: str) -> float:
    """What does not happen without a correction need not be waited for as long as what has to."""
    return 3 if left_out else 60


class Speaker:
    """ExaBGP from our launcher, and our end of its link."""

    def __init__(self, netns: NetNs, directory: Path, peers: list[str]) -> None:
        directory.mkdir()
        self.netns, self.paths = netns, SpeakerPaths(directory)
        self.configure(peers)
        self.process: Process | None = None
        self.lines: list[dict[str, Any]] = []
        self.two_addresses = False
        self.socket = socket.socket(socket.AF_UNIX)
        self._unread = b""

    def configure(self, peers: list[str], extra: str = "", **options: Any) -> None:
        local = ip_address("10.1.0.1")
        common = {"local": local, "router_id": local, "local_as": 64512, "peer_as": 64512, "hold_time_s": 9}
        neighbors = [Neighbor(peer=ip_address(peer), **{**common, **options}) for peer in peers]
        self.text = render(neighbors, self.paths.helper()) + extra
        self.paths.configuration.write_text(self.text)

    def start(self, left_out: str = "") -> None:
        program = ["-c", WITHOUT, left_out] if left_out else ["-m", "bird_agent.exabgp.launcher"]
        arguments = ["serve", str(self.paths.configuration), "--lock", str(self.paths.lock), "--listen", "10.1.0.1"]
        arguments += ["--listen", "10.1.0.2"] if self.two_addresses else []
        self.process = start(
            "speaker", [sys.executable, *program, *arguments], log=self.paths.log, netns=self.netns,
            environ={"PYTHONPATH": str(REPOSITORY)},
        )  # fmt: skip
        self.attach()

    def attach(self) -> None:
        self.socket.close()
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(0.02)

        def connected() -> bool:
            with contextlib.suppress(OSError):
                self.socket.connect(str(self.paths.socket))
                return True
            return False

        wait_until("the link is there", connected)

    def say(self, *lines: str) -> None:
        self.socket.settimeout(10)
        self.socket.sendall("".join(f"{line}\n" for line in lines).encode())
        self.socket.settimeout(0.02)

    def heard(self, **wanted: Any) -> list[dict[str, Any]]:
        with contextlib.suppress(OSError):
            while data := self.socket.recv(1 << 16):
                *lines, self._unread = (self._unread + data).split(b"\n")
                self.lines += [json.loads(line) for line in lines if line.startswith(b"{")]
        return [line for line in self.lines if wanted.items() <= line.items()]

    def reload(self) -> None:
        pid = singleton.holder(self.paths.lock)
        assert pid is not None
        os.kill(pid, signal.SIGUSR1)

    def stop(self) -> None:
        self.socket.close()
        if self.process is not None:
            self.process.signal(signal.SIGKILL)
