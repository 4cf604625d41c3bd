"""Routes programmed per second: our whole driver beside BIRD 2's kernel protocol, in namespaces of the same shape.

Load: 100,000 IPv4 /24 routes through one gateway, into and out of an empty main table. Ours starts with the desired
routes as the RIB has them (networks and targets) and ends when `apply` has returned; BIRD starts with the routes loaded
as static ones and its kernel protocol switched on or off, and ends when the kernel has all or none. That the kernel has
them is checked in both cases by its own count."""

import os
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

from lab.netns import NetNs
from tests.bench.result import Result, pairs
from weft.netlink.route import IPNetwork, RouteOwner, Target, via
from weft.netlink.routetable import KernelRoutes, RouteTable
from weft.netlink.socket import NetlinkSocket

COUNT = 100_000
ROUNDS = 10
GATEWAY = IPv4Address("192.0.2.2")
OWNER = RouteOwner(186, 1024, 2048)
PREFIXES: list[IPNetwork] = [IPv4Network((0x0A000000 + (number << 8), 24)) for number in range(COUNT)]
DEADLINE_S = 60

BIRD_CONFIG = """
router id 192.0.2.1;
log stderr { fatal };
protocol device {}
protocol kernel kernel4 { disabled; metric 1024; scan time 3600; ipv4 { import none; export all; }; }
protocol static static4 { ipv4; %s }
"""


def kernel_has() -> int:
    """Prefixes in the main table of the current namespace, by the kernel's own count."""
    report = Path("/proc/thread-self/net/fib_triestat").read_text()
    main = report.partition("Main:")[2].partition("Local:")[0] or report
    return sum(int(line.split()[1]) for line in main.splitlines() if line.strip().startswith("Prefixes:"))


@contextmanager
def namespace(name: str) -> Iterator[NetNs]:
    made = NetNs(f"weft-bench-{os.getpid()}-{name}").create()
    try:
        made.ip("link", "add", "up0", "type", "veth", "peer", "name", "up1")
        for end in ("up0", "up1"):
            made.ip("link", "set", end, "up")
        made.ip("addr", "add", "192.0.2.1/24", "dev", "up0")
        yield made
    finally:
        made.delete()


class Ours:
    """Runs in the calling thread's namespace at construction."""

    def __init__(self, netns: NetNs, stack: ExitStack) -> None:
        self._netns = netns
        with netns.enter():
            self._socket = stack.enter_context(NetlinkSocket())
            self._others = kernel_has()

    def add(self) -> float:
        table = self._table()
        seconds = self._timed(table, add=True)
        self._timed(table, add=False)
        return COUNT / seconds

    def delete(self) -> float:
        table = self._table()
        self._timed(table, add=True)
        return COUNT / self._timed(table, add=False)

    def _table(self) -> RouteTable:
        table = RouteTable(KernelRoutes(self._socket, OWNER), OWNER)
        assert table.apply(0.0) == []
        return table

    def _timed(self, table: RouteTable, *, add: bool) -> float:
        target = via(GATEWAY)
        wanted: dict[IPNetwork, Target | None] = dict.fromkeys(PREFIXES, target if add else None)
        started = time.perf_counter()
        table.desire(wanted)
        failures = table.apply(0.0)
        seconds = time.perf_counter() - started
        with self._netns.enter():
            have = kernel_has() - self._others
        if failures or have != (COUNT if add else 0):
            raise RuntimeError(f"{have} routes in the kernel, failures {failures[:1]}")
        return seconds


class Bird:
    """A BIRD with the routes loaded; `add` and `delete` switch its kernel protocol."""

    def __init__(self, netns: NetNs, stack: ExitStack) -> None:
        self._netns = netns
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        listed = "\n".join(f"route {prefix} via {GATEWAY};" for prefix in PREFIXES)
        (directory / "bird.conf").write_text(BIRD_CONFIG % listed)
        self._control = directory / "bird.ctl"
        process = netns.popen(
            ["bird", "-f", "-c", str(directory / "bird.conf"), "-s", str(self._control)], stderr=subprocess.DEVNULL
        )
        stack.callback(self._stop, process)
        with netns.enter():
            self._others = kernel_has()
        _wait(self._control.exists)
        _wait(lambda: f"Total: {COUNT} of {COUNT} routes" in self._say("show route count"))

    @staticmethod
    def _stop(process: subprocess.Popen[bytes]) -> None:
        process.terminate()
        process.wait(DEADLINE_S)

    def add(self) -> float:
        seconds = self._timed("enable", COUNT)
        self._timed("disable", 0)
        return COUNT / seconds

    def delete(self) -> float:
        self._timed("enable", COUNT)
        return COUNT / self._timed("disable", 0)

    def _timed(self, verb: str, expected: int) -> float:
        with self._netns.enter():
            started = time.perf_counter()
            self._say(f"{verb} kernel4")
            _wait(lambda: kernel_has() - self._others == expected)
            return time.perf_counter() - started

    def _say(self, command: str) -> str:
        with socket.socket(socket.AF_UNIX) as control:
            control.settimeout(DEADLINE_S)
            control.connect(str(self._control))
            heard = b""
            for line in ("", f"{command}\n"):
                control.sendall(line.encode())
                heard = b""
                # A reply's last line has a blank behind its four digits.
                while not any(part[4:5] == b" " and part[:4].isdigit() for part in heard.splitlines()[-1:]):
                    received = control.recv(65536)
                    if not received:
                        raise ConnectionError("bird hung up")
                    heard += received
            return heard.decode()


def _wait(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError("the rival did not finish")
        time.sleep(0.005)


def routes() -> list[Result]:
    with ExitStack() as stack:
        ours = Ours(stack.enter_context(namespace("ours")), stack)
        bird = Bird(stack.enter_context(namespace("bird")), stack)
        added, deleted = pairs(ours.add, bird.add, ROUNDS), pairs(ours.delete, bird.delete, ROUNDS)
    rival, unit = "BIRD 2 kernel protocol", "routes/s"
    return [
        added.result("routes programmed", rival, unit, "at least 1.0", lambda _, ratio: ratio >= 1.0),
        deleted.result("routes deleted", rival, unit, "none, shown for comparison", lambda _ours, _ratio: True),
    ]


BENCHMARKS = {"routes": routes}
