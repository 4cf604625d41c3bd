"""The real weft-reflector and BIRDs as its clients, on one segment."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lab.netns import NetNs, bridge, link
from lab.process import Process, start
from tests.functional.bgp.fabric import REPOSITORY, Bird, Store, wait_until

CLUSTER = "1.1.1.1"


def ask_reflector(run_dir: Path, name: str, *arguments: str) -> Any:
    """What weftctl prints as JSON; None where nobody answers."""
    return ask_agent(run_dir, *arguments, "--reflector", name)


def ask_agent(run_dir: Path, *arguments: str) -> Any:
    """What weftctl prints as JSON; None where nobody answers."""
    done = subprocess.run(
        [sys.executable, "-m", "weft.ctl.main", "bgp", *arguments, "-o", "json"],
        cwd=REPOSITORY,
        env={"PATH": "/usr/bin:/bin", "WEFT_RUN_DIR": str(run_dir)},
        capture_output=True,
        text=True,
        check=False,
    )
    return json.loads(done.stdout) if done.returncode == 0 else None


@dataclass
class ReflectorNode:
    """A namespace in which the reflector runs; its Node has the same name."""

    name: str
    netns: NetNs
    run_dir: Path
    environ: Mapping[str, str]
    process: Process | None = None

    def start(self, **environ: str) -> None:
        self.run_dir.mkdir(exist_ok=True)
        self.process = start(
            f"reflector {self.name}",
            [sys.executable, "-m", "bird_agent.reflector.process"],
            log=self.run_dir / "reflector.log",
            netns=self.netns,
            environ={
                **self.environ,
                "NODENAME": self.name,
                "WEFT_RUN_DIR": str(self.run_dir),
                "WEFT_STATE_DIR": str(self.run_dir / "state"),
                **environ,
            },
        )

    def end(self, number: int = signal.SIGTERM) -> None:
        assert self.process is not None
        process = self.process
        process.signal(number)
        wait_until("the reflector has ended", lambda: not process.alive())

    def log(self) -> str:
        return (self.run_dir / "reflector.log").read_text()

    def ask(self, *arguments: str) -> Any:
        """What weftctl prints as JSON; None where nobody answers."""
        return ask_reflector(self.run_dir, self.name, *arguments)


@dataclass
class Segment:
    """Hosts on one bridge, which is in a namespace of its own; addresses are 10.1.0.0/24 and fd01::/64."""

    switch: NetNs
    make: Callable[[str], NetNs]
    directory: Path
    birds: dict[str, Bird] = field(default_factory=dict)

    @classmethod
    def build(cls, make: Callable[[str], NetNs], directory: Path) -> Segment:
        switch = make("switch")
        bridge(switch, "br0")
        return cls(switch, make, directory)

    def host(self, name: str, number: int) -> NetNs:
        made = self.make(name)
        link(made, "up0", self.switch, name)
        self.switch.ip("link", "set", name, "master", "br0")
        made.ip("address", "add", f"10.1.0.{number}/24", "dev", "up0")
        made.ip("address", "add", f"fd01::{number:x}/64", "dev", "up0", "nodad")
        return made

    def bird(self, number: int, sessions: str, routes: str = "") -> Bird:
        """BIRD with the given `sessions` (whole protocols); it announces `routes`, by default one that is its own."""
        name = f"c{number}"
        own = routes or f"route 10.65.{number}.0/26 blackhole;"
        text = (
            f"router id 10.1.0.{number};\nlog stderr all;\nprotocol device {{}}\n"
            f"protocol static own4 {{ ipv4; {own} }}\n"
            f"protocol static own6 {{ ipv6; route fd65:{number:x}::/64 blackhole; }}\n{sessions}\n"
        )
        made = self.birds[name] = Bird(self.host(name, number), self.directory / name, text)
        made.start()
        return made


def session(number: int, to: int = 1, asn: int = 64512, family: str = "ipv4", extra: str = "") -> str:
    """One BGP protocol of client `number` towards the reflector `to`, named after both."""
    ours, theirs = (f"10.1.0.{each}" if family == "ipv4" else f"fd01::{each:x}" for each in (number, to))
    return (
        f"protocol bgp rr{to}_{family} {{ local {ours} as {asn}; neighbor {theirs} as 64512; hold time 90;"
        f" connect retry time 1; connect delay time 1; error wait time 1, 2; graceful restart on; {extra}"
        f' {family} {{ import all; export where proto ~ "own*"; next hop self; }}; }}'
    )


def clients(store: Store, numbers: list[int], reflector: str = "rr", asn: int | None = None, **spec: Any) -> None:
    """Peers by address of one reflector, over IPv4."""
    for number in numbers:
        store.peer(f"{reflector}-c{number}", node=reflector, peer_ip=f"10.1.0.{number}", as_number=asn or 64512, **spec)
