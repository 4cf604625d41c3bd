"""What every router of the tests can do: the values that set it up, and one interface over four implementations.

A router runs in a namespace that the caller made, with its files below a directory that the caller removes; its
processes end with the namespace. It never routes packets: what it learns stays in its own tables."""

from __future__ import annotations

import json
import signal
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lab.netns import CommandError, NetNs
from lab.process import Process
from tests.functional.bgp.fabric import wait_until

RESTART_TIME_S = 120


@dataclass(frozen=True, slots=True, kw_only=True)
class Neighbour:
    """One session, of the family of its addresses. `client`: the router reflects to it. `multihop`: it may be that many
    hops away. `gtsm`: its packets must have a TTL of 255."""

    address: str
    local: str
    asn: int
    password: str | None = None
    gtsm: bool = False
    multihop: int | None = None
    passive: bool = False
    client: bool = False
    hold_time_s: int = 30

    @property
    def version(self) -> int:
        return version_of(self.address)


@dataclass(frozen=True, slots=True)
class Announced:
    """A route that the router originates, with communities as "64512:1" and "64512:1:2"."""

    prefix: str
    communities: tuple[str, ...] = ()
    large_communities: tuple[str, ...] = ()

    @property
    def version(self) -> int:
        return version_of(self.prefix)


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    asn: int
    router_id: str = "10.1.0.254"
    neighbours: tuple[Neighbour, ...]
    announced: tuple[Announced, ...] = ()

    @property
    def versions(self) -> list[int]:
        return sorted({one.version for one in (*self.neighbours, *self.announced)})

    def next_hop(self, route: Announced) -> str:
        """The router's address on a session of the route's family."""
        return next(one.local for one in self.neighbours if one.version == route.version)


@dataclass(frozen=True, slots=True, kw_only=True)
class Learnt:
    """A path as the router has it from a neighbour."""

    next_hop: str
    as_path: tuple[int, ...]
    communities: frozenset[str] = frozenset()
    large_communities: frozenset[str] = frozenset()
    originator: str | None = None
    clusters: tuple[str, ...] = ()


def version_of(address: str) -> int:
    return 6 if ":" in address else 4


@dataclass
class Router(ABC):
    """A real router. `name` and what it cannot do are of the class; `setup` is what it starts with."""

    netns: NetNs
    directory: Path
    setup: Setup
    processes: list[Process] = field(default_factory=list)

    name = ""
    restarts_gracefully = True
    """It asks its peers to keep its routes while it restarts (RFC 4724 3)."""
    internal_gtsm = True
    """It has TTL security on sessions within an AS."""
    sends_back = False
    """It announces a neighbour's routes to that neighbour, too, whom the AS path keeps from using them."""

    @abstractmethod
    def start(self, *, restarted: bool = False) -> None:
        """Start with `setup`, and return when it answers. `restarted`: say that it did, and that it kept forwarding."""

    @abstractmethod
    def established(self, address: str) -> bool: ...

    @abstractmethod
    def learnt(self, address: str) -> set[str]:
        """The prefixes that it has from a neighbour now, those it keeps for a neighbour's restart too."""

    @abstractmethod
    def path(self, address: str, prefix: str) -> Learnt | None: ...

    @abstractmethod
    def shut_down(self, address: str) -> None:
        """Administrative shutdown of one session: a NOTIFICATION."""

    @abstractmethod
    def enable(self, address: str) -> None:
        """The opposite of `shut_down`."""

    @abstractmethod
    def announce(self, route: Announced) -> None:
        """Until it is started again, which is with `setup`."""

    @abstractmethod
    def withdraw(self, prefix: str) -> None: ...

    @abstractmethod
    def refresh(self, address: str) -> None:
        """Ask a neighbour to send everything again (RFC 2918)."""

    def kill(self) -> None:
        """As if its machine had lost power, but with the kernel closing its connections."""
        for process in self.processes:
            process.signal(signal.SIGKILL)
        wait_until(f"{self.name} is gone", lambda: not any(process.alive() for process in self.processes))
        self.processes.clear()

    def log(self) -> str:
        return "\n".join(Path(process.log).read_text(errors="replace") for process in self.processes)

    def _ask(self, argv: Sequence[str]) -> str:
        """What a command of the router prints; nothing while the router does not answer."""
        try:
            return self.netns.run(argv)
        except CommandError:
            return ""

    def _json(self, argv: Sequence[str]) -> Any:
        try:
            return json.loads(self._ask(argv) or "{}")
        except json.JSONDecodeError:
            return {}

    def _write(self, name: str, text: str) -> Path:
        self.directory.mkdir(parents=True, exist_ok=True)
        path = self.directory / name
        path.write_text(text)
        path.chmod(0o600)
        return path


def family(version: int, names: Mapping[int, str] | None = None) -> str:
    return (names or {4: "ipv4", 6: "ipv6"})[version]
