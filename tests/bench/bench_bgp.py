"""The BGP agent beside BIRD in its place: a path that dies without a word, routes told, routes learnt.

Each of the two has a namespace of its own with a router (BIRD, alike) behind a switch that can cut the path while
both links stay up. Ours is the whole way: datastore, agent, ExaBGP, weft-bfd, kernel. Every run ends only when what it
timed has happened: the routes are gone from the kernel, all addresses are in the router's table, all routes in the
kernel. Telling begins when the last of the addresses is in the node's kernel."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from ipaddress import IPv4Address
from pathlib import Path
from tempfile import TemporaryDirectory

from lab import processes
from lab.netns import NetNs, bridge, link
from tests.bench import datastore
from tests.bench.result import Result, pairs
from tests.functional.bgp.fabric import AgentNode, Bird, wait_until

ADDRESSES, ROUTES = 10_000, 100_000
BFD = 'protocol bfd { interface "*" { interval 100 ms; multiplier 3; }; }'
ROUTER = """router id 10.1.0.254;
log stderr all;
protocol device {}
%s
protocol static few { ipv4; route 203.0.113.0/24 blackhole; }
protocol static many { disabled; ipv4; %s }
protocol bgp p0 { local 10.1.0.254 as 65001; neighbor 10.1.0.1 as 64512; hold time 240; bfd on;
  connect retry time 1; connect delay time 1; error wait time 1, 2;
  ipv4 { import all; export where proto = "few" || proto = "many"; next hop self; }; }
"""
BIRD_NODE = """router id 10.1.0.1;
log stderr all;
protocol device {}
%s
protocol kernel { learn; scan time 2; ipv4 { export where source = RTS_BGP; import all; }; }
protocol bgp p0 { local 10.1.0.1 as 64512; neighbor 10.1.0.254 as 65001; hold time 240; bfd on;
  connect retry time 1; connect delay time 1; error wait time 1, 2;
  ipv4 { import all; export where source != RTS_BGP; next hop self; }; }
"""


def prefixes_in(netns: NetNs) -> int:
    """How many the kernel's main table has."""
    with netns.enter():
        text = Path("/proc/thread-self/net/fib_triestat").read_text()
    return int(text.split("Main:", 1)[-1].split("Prefixes:", 1)[1].split()[0])


@dataclass
class Contender:
    """A node, the router behind the switch, and how to know that BFD watches the path."""

    node: NetNs
    switch: NetNs
    router: Bird
    pid: Callable[[], int]

    def ready(self) -> None:
        wait_until("the routes are there", lambda: "203.0.113.0/24" in self.node.run(["ip", "route"]))
        wait_until("BFD is up", lambda: " Up " in self.router.ask("show bfd sessions"))

    def dead_path_ms(self) -> float:
        self.switch.ip("link", "set", "router", "master", "br0")
        self.ready()
        time.sleep(1)  # until both have agreed on the short interval
        before = prefixes_in(self.node)
        began = time.perf_counter()
        self.switch.ip("link", "set", "router", "nomaster")
        _spin(lambda: prefixes_in(self.node) < before)
        took = time.perf_counter() - began
        self.switch.ip("link", "set", "router", "master", "br0")
        return took * 1000

    def told_s(self) -> float:
        self.ready()
        took = self._batch("add", lambda: self._told() >= ADDRESSES)
        self._batch("delete", lambda: self._told() < 10)
        return took

    def learnt_s(self) -> float:
        self.ready()
        before = prefixes_in(self.node)
        began = time.perf_counter()
        self.router.ask("enable many")
        _spin(lambda: prefixes_in(self.node) >= before + ROUTES)
        took = time.perf_counter() - began
        self.router.ask("disable many")
        _spin(lambda: prefixes_in(self.node) <= before)
        return took

    def _batch(self, verb: str, done: Callable[[], bool]) -> float:
        first = int(IPv4Address("10.65.128.0"))
        lines = "".join(
            f"route {verb} {IPv4Address(first + number)}/32 dev lo proto 80\n" for number in range(ADDRESSES)
        )
        self.node.run(["ip", "-batch", "-"], stdin=lines)
        began = time.perf_counter()
        _spin(done, every_s=0.02)  # to ask takes BIRD and us a process each time
        return time.perf_counter() - began

    def _told(self) -> int:
        for line in self.router.ask("show protocols all p0").splitlines():
            if "Routes:" in line:
                return int(line.split()[1])
        return 0


def _spin(condition: Callable[[], bool], every_s: float = 0.005) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError("not within 120 s")
        time.sleep(every_s)


@contextmanager
def _contenders() -> Iterator[tuple[Contender, Contender]]:
    with ExitStack() as stack:
        directory = Path(stack.enter_context(TemporaryDirectory(prefix="weft-bench-")))

        def netns(name: str) -> NetNs:
            made = NetNs(f"weft-{os.getpid()}-bench-{name}").create()
            stack.callback(made.delete)
            return made

        ours_at, ours_switch, ours_router = _segment(netns, "a", directory)
        bird_at, bird_switch, bird_router = _segment(netns, "b", directory)
        agent = _our_node(stack, ours_at, directory)
        bird = Bird(bird_at, directory / "bird-node", BIRD_NODE % BFD)
        for router in (ours_router, bird_router, bird):
            router.start()
            stack.callback(partial(_end, router))
        agent.start()
        stack.callback(partial(_end, agent))
        assert agent.agent is not None
        assert bird.process is not None
        agents, birds = agent.agent.pid, bird.process.pid
        yield (
            Contender(ours_at, ours_switch, ours_router, lambda: agents),
            Contender(bird_at, bird_switch, bird_router, lambda: birds),
        )


def _end(what: Bird | AgentNode) -> None:
    process = what.process if isinstance(what, Bird) else what.agent
    if process is not None:
        process.signal(15)
        wait_until("it has ended", lambda: not process.alive())


def _segment(netns: Callable[[str], NetNs], name: str, directory: Path) -> tuple[NetNs, NetNs, Bird]:
    node, switch, router = netns(f"{name}n"), netns(f"{name}s"), netns(f"{name}r")
    bridge(switch, "br0")
    for end, port, address in ((node, "node", "10.1.0.1/24"), (router, "router", "10.1.0.254/24")):
        link(end, "up0", switch, port)
        switch.ip("link", "set", port, "master", "br0")
        end.ip("address", "add", address, "dev", "up0")
    first = int(IPv4Address("11.0.0.0"))
    many = " ".join(f"route {IPv4Address(first + (number << 8))}/24 blackhole;" for number in range(ROUTES))
    return node, switch, Bird(router, directory / f"router-{name}", ROUTER % (BFD, many))


def _our_node(stack: ExitStack, netns: NetNs, directory: Path) -> AgentNode:
    store = datastore.start(stack, directory, netns)
    store.node("n1", "10.1.0.1/24")
    store.pool("pool", "10.65.0.0/16")
    store.block("n1", "10.65.0.0/26")
    store.peer("tor", {"weft/bfd": "100ms x 3"}, peer_ip="10.1.0.254", as_number=65001)
    environ = {**datastore.ENVIRON, "WEFT_SPEAKER_LIFETIME": "agent"}
    made = AgentNode("n1", netns, directory / "n1", environ)
    made.run_dir.mkdir()
    return made


def dead_path() -> list[Result]:
    with _contenders() as (ours, bird):
        found = pairs(ours.dead_path_ms, bird.dead_path_ms)
    name = "a path dies without a word, BFD 100 ms x 3, until its routes are gone"
    return [found.result(name, "BIRD", "ms", "under 400 ms", lambda ms, _: ms < 400)]


def routes() -> list[Result]:
    with _contenders() as (ours, bird):
        told = pairs(ours.told_s, bird.told_s, 3)
        learnt = pairs(ours.learnt_s, bird.learnt_s, 2)
        resident = [processes.resident_kib(one.pid()) / 1024 for one in (ours, bird)]
    return [
        told.result(
            "10,000 addresses in the kernel, until a router has all", "BIRD", "s", "under 0.5 s", lambda s, _: s < 0.5
        ),
        learnt.result(
            "100,000 routes learnt into the kernel", "BIRD", "s", "within 4 times BIRD's", lambda _, ratio: ratio < 4
        ),
        Result(
            "memory with 100,000 routes seen (agent)",
            resident[0],
            "BIRD",
            resident[1],
            "MB",
            "under 200 MB",
            resident[0] < 200,
        ),
    ]


BENCHMARKS: dict[str, Callable[[], list[Result]]] = {"bgp-dead-path": dead_path, "bgp-routes": routes}
