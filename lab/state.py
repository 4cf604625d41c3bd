"""What a running lab is, written down, so that a later command finds it again.

Several commands may change a lab at the same time: each changes the state as it is then, under the lab's lock, never
the state that it read when it started."""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from lab.netns import NetNs
from lab.process import Process
from lab.topology import Topology, build

LABS = Path("/run/weft-lab")
PROGRAMS = Path(__file__).resolve().parent.parent / "build" / "cni"


class LabError(Exception):
    """A step of the lab went wrong; the message says which and why."""


class Workload(msgspec.Struct, frozen=True):
    node: str
    name: str
    namespace: str
    labels: dict[str, str]
    container_id: str
    addresses: list[str]


class State(msgspec.Struct):
    """`processes` maps a host's name to what was started in it, in starting order."""

    name: str
    topology: str
    nodes: int
    processes: dict[str, list[Process]] = msgspec.field(default_factory=dict)
    workloads: list[Workload] = msgspec.field(default_factory=list)


class Lab:
    """A lab's places on the machine, and its state file."""

    def __init__(self, state: State) -> None:
        self.state = state
        self.topology: Topology = build(state.topology, state.nodes)

    @property
    def name(self) -> str:
        return self.state.name

    @property
    def directory(self) -> Path:
        return LABS / self.name

    def host_directory(self, host: str) -> Path:
        return self.directory / host

    def log(self, host: str, program: str) -> Path:
        return self.directory / "log" / f"{host}-{program}.log"

    def netns(self, host: str) -> NetNs:
        return NetNs(f"{self.name}-{host}")

    def fabric_netns(self) -> NetNs:
        """The namespace that holds the segments' bridges."""
        return self.netns("fabric")

    def workload_netns(self, node: str, name: str) -> NetNs:
        return self.netns(f"{node}-{name}")

    def find_workload(self, name: str, node: str | None = None) -> Workload:
        """By `NAME`, `NODE/NAME` or `NODE-NAME`; `LabError` when there is none or more than one."""
        if node is None and "/" in name:
            node, name = name.split("/", 1)
        found = [one for one in self.state.workloads if one.name == name and node in (None, one.node)]
        found = found or [one for one in self.state.workloads if f"{one.node}-{one.name}" == name]
        if len(found) != 1:
            known = ", ".join(f"{one.node}/{one.name}" for one in self.state.workloads) or "none"
            raise LabError(f"workload {name}: {'on several nodes' if found else 'not in this lab'}; there are: {known}")
        return found[0]

    def find_netns(self, host: str) -> NetNs:
        """The namespace of a host or a workload."""
        if any(one.name == host for one in self.topology.hosts):
            return self.netns(host)
        if host == "fabric":
            return self.fabric_netns()
        try:
            workload = self.find_workload(host)
        except LabError as error:
            hosts = ", ".join(one.name for one in self.topology.hosts)
            raise LabError(f"host {host}: not in this lab; its hosts: {hosts}; {error}") from error
        return self.workload_netns(workload.node, workload.name)

    @property
    def file(self) -> Path:
        return self.directory / "state.json"

    def claim(self) -> None:
        """Write the state of a new lab; `LabError` if there is one of this name."""
        self.directory.mkdir(parents=True, exist_ok=True)
        new = self._written(f"claim{os.getpid()}")
        try:
            os.link(new, self.file)
        except FileExistsError:
            raise LabError(
                f"lab {self.name} is up already; take it down with: weft-lab down --name {self.name}"
            ) from None
        finally:
            new.unlink()

    @contextmanager
    def changing(self) -> Iterator[State]:
        """The state as it is now, to change; it is written at the end. `LabError` if the lab is gone."""
        try:
            lock = os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:
            raise _gone(self.name) from None
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not self.refresh():
                raise _gone(self.name)
            yield self.state
            os.replace(self._written("new"), self.file)
        finally:
            os.close(lock)

    def refresh(self) -> bool:
        """Take over what other commands have changed. False if the lab is gone; what was known then stays."""
        try:
            self.state = msgspec.json.decode(self.file.read_bytes(), type=State)
        except FileNotFoundError:
            return False
        return True

    def _written(self, suffix: str) -> Path:
        path = self.file.with_suffix(f".{suffix}")
        path.write_bytes(msgspec.json.format(msgspec.json.encode(self.state)))
        return path


def _gone(name: str) -> LabError:
    return LabError(f"lab {name} was taken down meanwhile")


def check_name(name: str) -> str:
    if not re.fullmatch(r"[a-z0-9]{1,12}", name):
        raise LabError(f"--name {name!r}: 1 to 12 lower-case letters and digits")
    return name


def load(name: str) -> Lab:
    path = LABS / check_name(name) / "state.json"
    try:
        return Lab(msgspec.json.decode(path.read_bytes(), type=State))
    except FileNotFoundError:
        running = ", ".join(names()) or "none"
        raise LabError(f"no lab named {name} is up (running: {running}); start one with: weft-lab up") from None


def names() -> list[str]:
    return sorted(path.parent.name for path in LABS.glob("*/state.json"))
