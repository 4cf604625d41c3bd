"""How many BFD sessions one process carries, and what one costs: weft-bfd, and BIRD in the same place.

A BIRD of its own is at the other end of all sessions. Each is between two addresses that no other has, because BIRD
tells the sessions of one device by the address of the peer; one link carries all of them. A session that came up and
went down without a fault is a false down; both ends are asked."""

from __future__ import annotations

import os
import re
import resource
import socket
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from tempfile import TemporaryDirectory

from bird_agent.bfd.session import BfdSettings
from bird_agent.bfd.wire import Wanted, encode_wanted
from lab import processes
from lab.netns import NetNs, link
from lab.process import Process, start, stop
from tests.bench.result import Result
from tests.functional.bgp.fabric import Bird, wait_until

DEVICE = "bfd0"
NEAR, FAR = IPv4Network("10.96.0.0/18"), IPv4Network("10.96.64.0/18")
NEAR_HOP, FAR_HOP = IPv4Address("10.96.255.1"), IPv4Address("10.96.255.2")
MULTIPLIER = 3
STEPS = (50, 100, 200, 400, 800, 1600)
TRIES = 3
"""Of each step: other work on the machine may keep either end from its turn for 300 ms."""
HOLD_S = 10.0
UP_WITHIN_S = 20.0


def pairs_of(count: int) -> list[tuple[IPv4Address, IPv4Address]]:
    return [(NEAR[number], FAR[number]) for number in range(1, count + 1)]


def bird(sessions: Sequence[tuple[IPv4Address, IPv4Address]], interval_ms: int) -> str:
    """`sessions`: (local, peer) of each."""
    neighbors = "\n".join(f'  neighbor {peer} dev "{DEVICE}" local {local};' for local, peer in sessions)
    return f"""router id 10.96.0.1;
log stderr {{ warning, error, fatal }};
protocol device {{}}
protocol bfd {{ accept ipv4; interface "{DEVICE}" {{ interval {interval_ms} ms; multiplier {MULTIPLIER}; }};
{neighbors}
}}
"""


def standing(router: Bird) -> dict[str, tuple[str, str]]:
    """peer -> (state, since when), as BIRD has it."""
    lines = re.findall(rf"^([0-9.]+)\s+{DEVICE}\s+(\S+)\s+(\S+)", router.ask("show bfd sessions"), re.MULTILINE)
    return {peer: (state, since) for peer, state, since in lines}


def all_up(router: Bird, count: int) -> bool:
    found = standing(router)
    return len(found) == count and all(state == "Up" for state, _ in found.values())


@contextmanager
def weft_bfd(netns: NetNs, directory: Path, count: int, interval_ms: int) -> Iterator[Process]:
    path = directory / "bfd.sock"
    process = start(
        "weft-bfd", [sys.executable, "-m", "bird_agent.bfd.process", str(path)], log=directory / "bfd.log", netns=netns
    )
    settings = BfdSettings(interval_ms * 1000, MULTIPLIER)
    wanted = [Wanted(peer, local, False, settings) for local, peer in pairs_of(count)]
    try:
        wait_until("weft-bfd listens", path.exists)
        with socket.socket(socket.AF_UNIX) as agent:
            agent.connect(str(path))
            agent.sendall(encode_wanted(wanted))
            yield process
    finally:
        stop([process])


@contextmanager
def bird_bfd(netns: NetNs, directory: Path, count: int, interval_ms: int) -> Iterator[Process]:
    router = Bird(netns, directory / "near", bird(pairs_of(count), interval_ms))
    router.start()
    assert router.process is not None
    try:
        yield router.process
    finally:
        stop([router.process])


Contender = Callable[[NetNs, Path, int, int], AbstractContextManager[Process]]


@dataclass(frozen=True, slots=True)
class Held:
    """What so many sessions did in `HOLD_S`. `cpu_s` is that of the contender's process."""

    came_up: bool
    fell: int
    cpu_s: float

    @property
    def well(self) -> bool:
        return self.came_up and not self.fell


def hold(place: tuple[NetNs, NetNs], contender: Contender, count: int, interval_ms: int) -> Held:
    """Bring so many up, wait, and see which of them were always there."""
    with ExitStack() as stack:
        directory = Path(stack.enter_context(TemporaryDirectory(prefix="weft-bench-")))
        far = Bird(place[1], directory / "far", bird([(far, near) for near, far in pairs_of(count)], interval_ms))
        far.start()
        assert far.process is not None
        stack.callback(stop, [far.process])
        process = stack.enter_context(contender(place[0], directory, count, interval_ms))
        try:
            wait_until("all sessions are up", lambda: all_up(far, count), UP_WITHIN_S)
        except AssertionError:
            return Held(False, 0, 0.0)
        before, began = standing(far), processes.cpu_s(process.pid)
        time.sleep(HOLD_S)
        used, after = processes.cpu_s(process.pid) - began, standing(far)
    return Held(True, sum(after.get(peer) != was for peer, was in before.items()), used)


@dataclass(slots=True)
class Climb:
    """A contender's way up the steps, until one is too much."""

    contender: Contender
    most: int = 0
    costs: dict[int, float] = field(default_factory=dict)
    """In thousandths of a core for each session, by how many there were."""
    over: bool = False

    def step(self, place: tuple[NetNs, NetNs], count: int, interval_ms: int) -> None:
        for _ in range(0 if self.over else TRIES):
            held = hold(place, self.contender, count, interval_ms)
            if held.well:
                self.most = count
                self.costs[count] = held.cpu_s / HOLD_S / count * 1000
                return
        self.over = True


def sessions() -> list[Result]:
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(
        resource.RLIMIT_NOFILE, (most, most)
    )  # those that are started have it, too: BIRD asks for no more
    results: list[Result] = []
    for interval_ms in (100, 300):
        ours, rival = Climb(weft_bfd), Climb(bird_bfd)
        with ExitStack() as stack:
            place = wire(stack)
            for count in STEPS:
                for climb in (ours, rival):
                    climb.step(place, count, interval_ms)
        what = f"{interval_ms} ms x {MULTIPLIER}"
        for count in sorted(ours.costs.keys() & rival.costs.keys()):
            name = f"one of {count} BFD sessions at {what}"
            results.append(
                Result(name, ours.costs[count], "BIRD", rival.costs[count], "thousandths of a core", "reported", True)
            )
        name = f"BFD sessions of one process at {what} without a false down"
        steps = f"of {', '.join(map(str, STEPS))}"
        results.append(Result(name, ours.most, "BIRD", rival.most, "sessions", "reported", True, steps))
    return results


def wire(stack: ExitStack) -> tuple[NetNs, NetNs]:
    """Two namespaces with a link between them; each has all addresses of its side. They are of one network, as BIRD
    asks for, but one neighbour to the kernel, whose table of neighbours is smaller than the largest steps."""
    near, far = (NetNs(f"weft-bench-{os.getpid()}-{end}").create() for end in ("near", "far"))
    for end in (near, far):
        stack.callback(end.delete)
    link(near, DEVICE, far, DEVICE)
    for end, own, hop, others, there in ((near, NEAR, NEAR_HOP, FAR, FAR_HOP), (far, FAR, FAR_HOP, NEAR, NEAR_HOP)):
        end.ip("address", "add", f"{hop}/16", "dev", DEVICE)
        end.ip("route", "add", "local", str(own), "dev", "lo")
        end.ip("route", "add", str(others), "via", str(there))
    return near, far


BENCHMARKS: dict[str, Callable[[], list[Result]]] = {"bfd-sessions": sessions}
