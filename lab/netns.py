"""Network namespaces and the links between them.

Namespaces are named ones under /run/netns, so that `ip netns exec` reaches them by hand. Nothing here touches the
namespace it is called from: every link is made with both ends inside namespaces of ours, and everything is removed by
its exact name."""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

NETNS_DIR = Path("/run/netns")
CLONE_NEWNET = 0x40000000  # <linux/sched.h>

_libc = ctypes.CDLL(None, use_errno=True)


class CommandError(Exception):
    """A program ended with an error; carries what it printed."""

    def __init__(self, argv: Sequence[str], returncode: int, output: str) -> None:
        super().__init__(f"{' '.join(argv)}: exit status {returncode}\n{output.strip()}")
        self.argv = tuple(argv)
        self.returncode = returncode
        self.output = output


def run(argv: Sequence[str], *, stdin: str | None = None, timeout_s: float = 60) -> str:
    """Run a program to its end and return its standard output; `CommandError` when it fails."""
    done = subprocess.run(argv, input=stdin, capture_output=True, text=True, timeout=timeout_s, check=False)
    if done.returncode != 0:
        raise CommandError(argv, done.returncode, done.stdout + done.stderr)
    return done.stdout


@dataclass(frozen=True, slots=True)
class NetNs:
    """One named network namespace."""

    name: str

    @property
    def path(self) -> str:
        return str(NETNS_DIR / self.name)

    def create(self) -> NetNs:
        run(["ip", "netns", "add", self.name])
        self.ip("link", "set", "lo", "up")
        return self

    def delete(self) -> None:
        """Remove the namespace if it is there; processes inside are the caller's to end first."""
        if os.path.exists(self.path):
            run(["ip", "netns", "delete", self.name])

    def exists(self) -> bool:
        return os.path.exists(self.path)

    def command(self, argv: Sequence[str]) -> list[str]:
        """The arguments that run `argv` inside this namespace. nsenter, unlike `ip netns exec`, makes no mount
        namespace, so that a lab's processes and their children stay reachable through /run/netns."""
        return ["nsenter", f"--net={self.path}", "--", *argv]

    def run(self, argv: Sequence[str], *, stdin: str | None = None, timeout_s: float = 60) -> str:
        return run(self.command(argv), stdin=stdin, timeout_s=timeout_s)

    def popen(self, argv: Sequence[str], **options: Any) -> subprocess.Popen[Any]:
        return subprocess.Popen(self.command(argv), **options)

    def ip(self, *arguments: str) -> str:
        return run(["ip", "-n", self.name, *arguments])

    def ip_json(self, *arguments: str) -> list[dict[str, Any]]:
        answer: list[dict[str, Any]] = json.loads(self.ip("-j", *arguments) or "[]")
        return answer

    def sysctl(self, **settings: str | int) -> None:
        """Set kernel settings of this namespace, named as below /proc/sys/net with `__` for `/`."""
        with self.enter():
            for name, value in settings.items():
                Path("/proc/sys/net", *name.split("__")).write_text(str(value))

    @contextmanager
    def enter(self) -> Iterator[None]:
        """The calling thread is inside the namespace for the duration."""
        home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        there = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            _setns(there)
            try:
                yield
            finally:
                _setns(home)
        finally:
            os.close(there)
            os.close(home)


def _setns(fd: int) -> None:
    if _libc.setns(fd, CLONE_NEWNET) != 0:
        errno = ctypes.get_errno()
        raise OSError(errno, f"setns: {os.strerror(errno)}")


def link(left: NetNs, left_name: str, right: NetNs, right_name: str) -> None:
    """Make a veth pair between two namespaces, both ends up."""
    peer = ["peer", "name", right_name, "netns", right.name]
    run(["ip", "link", "add", left_name, "netns", left.name, "type", "veth", *peer])
    left.ip("link", "set", left_name, "up")
    right.ip("link", "set", right_name, "up")


def bridge(netns: NetNs, name: str) -> None:
    """Make a bridge that forwards from the first packet on."""
    netns.ip("link", "add", name, "type", "bridge", "forward_delay", "0")
    netns.ip("link", "set", name, "up")
