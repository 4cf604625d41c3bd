"""What the fabric costs when it is quiet, and how quickly a new block is reached, beside BIRD in the agents' place.

New block: three nodes in a mesh. Ours begins with the write of the confirmed affinity to the datastore,
as the IPAM does it, and takes watch, agent, ExaBGP, both link processes and the other node's agent. BIRD begins
with `birdc configure`, one more static route in its configuration, as Calico's confd has it: what confd needs before
(its own watch, templates and files) is not in it. Both end when the other node's kernel reports the route.

Idle: a node with a mesh of 100 peers, hold time 90 s, each of which has told one block. The peers are scripted
speakers, alike for both. Counted is the CPU time of all processes in the node's namespace over the same
minute; the datastore is elsewhere, and has nothing to do. BIRD scans the kernel every 2 s, as Calico configures it."""

from __future__ import annotations

import asyncio
import os
import select
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec

from lab import process
from lab.netns import NetNs, bridge, link
from lab.speakers.driver import Speakers, clients
from tests.bench import datastore
from tests.bench.result import Result, pairs
from tests.functional.bgp.fabric import AgentNode, Bird, wait_until
from weft.config import EtcdConfig
from weft.datastore.etcd import EtcdDatastore
from weft.model import codec, keys
from weft.model.ipam import AffinityValue
from weft.model.keys import AffinityKey, Owner
from weft.netlink.route import RTM_NEWROUTE, RTNLGRP_IPV4_ROUTE, decode_route
from weft.netlink.socket import NETLINK_ROUTE, NetlinkSocket

NODES, PEERS = 3, 100
HOLD_TIME_S = 90
ROUNDS = 20
IDLE_S = 60
SETTLE_S = 15
BLOCK = IPv4Network("10.65.200.0/26")

BIRD = """router id %(address)s;
log stderr { fatal };
protocol device { scan time 2; }
protocol kernel { learn; scan time 2; ipv4 { export where source = RTS_BGP; import all; }; }
protocol static blocks { ipv4; %(blocks)s }
%(sessions)s
"""
SESSION = """protocol bgp p%(number)d { local %(local)s as 64512; neighbor %(peer)s as 64512; hold time 90;
  connect delay time 1; connect retry time 1; ipv4 { import all; export where %(told)s; next hop self; }; }
"""


class Place:
    """Where contenders live: namespaces that go with it, and a segment for those that are linked."""

    def __init__(self, stack: ExitStack, name: str) -> None:
        self._stack = stack
        self._name = name
        self.directory = Path(stack.enter_context(TemporaryDirectory(prefix="weft-bench-")))
        self._switch = self.netns("sw")
        bridge(self._switch, "br0")

    def netns(self, name: str) -> NetNs:
        made = NetNs(f"weft-{os.getpid()}-{self._name}-{name}").create()
        self._stack.callback(made.delete)
        return made

    def host(self, name: str, *addresses: IPv4Address) -> NetNs:
        """With these addresses (/16) on the segment."""
        made = self.netns(name)
        link(made, "up0", self._switch, name)
        self._switch.ip("link", "set", name, "master", "br0")
        for address in addresses:
            made.ip("address", "add", f"{address}/16", "dev", "up0")
        return made

    def start(self, what: Bird | AgentNode) -> None:
        what.start()
        self._stack.callback(partial(_end, what))


def _end(what: Bird | AgentNode) -> None:
    running = what.process if isinstance(what, Bird) else what.agent
    if running is not None:
        running.signal(15)
        wait_until("it has ended", lambda: not running.alive())


class Watch:
    """Tells when a node's kernel has a route."""

    def __init__(self, netns: NetNs) -> None:
        with netns.enter():
            self._socket = NetlinkSocket(NETLINK_ROUTE, (RTNLGRP_IPV4_ROUTE,))
        self._poll = select.poll()
        self._poll.register(self._socket.fileno(), select.POLLIN)

    def close(self) -> None:
        self._socket.close()

    def wait(self, prefix: IPv4Network, *, there: bool) -> None:
        """Until it comes, or goes."""
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            self._poll.poll(1000)
            for notification in self._socket.receive():
                route = decode_route(notification)
                if route is not None and route.destination == prefix and there == (notification.kind == RTM_NEWROUTE):
                    return
        raise AssertionError(f"{prefix} is {'not ' if there else ''}there after 60 s")


def timed(change: Callable[[], object], undo: Callable[[], object], watch: Watch) -> float:
    """From the beginning of a change until the other node's kernel has it, in milliseconds."""
    began = time.perf_counter()
    change()
    watch.wait(BLOCK, there=True)
    took = time.perf_counter() - began
    undo()
    watch.wait(BLOCK, there=False)
    time.sleep(0.2)
    return took * 1000


def addresses(count: int, network: int = 1) -> list[IPv4Address]:
    return [IPv4Address(f"10.3.{network}.{number + 1}") for number in range(count)]


def mesh(own: IPv4Address, peers: list[IPv4Address], blocks: str, told: str = 'proto = "blocks"') -> str:
    sessions = "".join(
        SESSION % {"number": number, "local": own, "peer": peer, "told": told} for number, peer in enumerate(peers)
    )
    return BIRD % {"address": own, "blocks": blocks, "sessions": sessions}


@contextmanager
def _three_agents() -> Iterator[Callable[[], float]]:
    with ExitStack() as stack:
        place, own = Place(stack, "nb-a"), addresses(NODES)
        hosts = [place.host(f"n{number}", address) for number, address in enumerate(own)]
        store = datastore.start(stack, place.directory, *hosts)
        store.pool("pool", "10.65.0.0/16")
        for number, address in enumerate(own):
            store.node(f"n{number}", f"{address}/16")
            store.block(f"n{number}", f"10.65.{number}.0/26")
        for number, netns in enumerate(hosts):
            node = AgentNode(
                f"n{number}", netns, place.directory / f"n{number}",
                {**datastore.ENVIRON, "WEFT_SPEAKER_LIFETIME": "agent"},
            )  # fmt: skip
            node.run_dir.mkdir()
            place.start(node)
            wait_until("the routes of a start", lambda node=node: node.log())
        for netns in hosts:
            wait_until("a mesh", lambda netns=netns: netns.run(["ip", "route"]).count("proto bgp") == NODES - 1)
        runner = stack.enter_context(asyncio.Runner())
        etcd = EtcdDatastore(EtcdConfig(endpoints=(f"http://{store.endpoint}",)))
        stack.callback(lambda: runner.run(etcd.close()))
        key = keys.path(AffinityKey(Owner("host", "n0"), BLOCK))
        value = codec.encode_stored(AffinityValue(state="confirmed"))
        watch = Watch(hosts[1])
        stack.callback(watch.close)
        time.sleep(SETTLE_S / 5)
        yield lambda: timed(lambda: runner.run(etcd.create(key, value)), lambda: runner.run(etcd.delete(key)), watch)


@contextmanager
def _three_birds() -> Iterator[Callable[[], float]]:
    with ExitStack() as stack:
        place, own = Place(stack, "nb-b"), addresses(NODES)
        birds = []
        for number, address in enumerate(own):
            others = [one for one in own if one != address]
            text = mesh(address, others, f"route 10.65.{number}.0/26 blackhole;")
            birds.append(Bird(place.host(f"n{number}", address), place.directory / f"n{number}", text))
            place.start(birds[-1])
        for bird in birds:
            wait_until("a mesh", lambda bird=bird: bird.netns.run(["ip", "route"]).count("proto bird") >= NODES - 1)
        text, first = birds[0].configuration, birds[0]
        more = text.replace(
            "protocol static blocks { ipv4;", f"protocol static blocks {{ ipv4; route {BLOCK} blackhole;"
        )
        watch = Watch(birds[1].netns)
        stack.callback(watch.close)
        configuration = first.directory / "bird.conf"

        def change(to: str) -> None:
            configuration.write_text(to)
            first.ask("configure")

        yield lambda: timed(lambda: change(more), lambda: change(text), watch)


def new_block() -> list[Result]:
    with _three_agents() as ours, _three_birds() as bird:
        found = pairs(ours, bird, ROUNDS)
    name = f"a new block, datastore to the other node's kernel ({NODES} nodes)"
    return [found.result(name, "BIRD from birdc configure", "ms", "median under 20 ms", lambda ms, _: ms < 20)]


def _start_peers(stack: ExitStack, place: Place, node: IPv4Address) -> Speakers:
    """A hundred nodes in one process, each with one block."""
    netns = place.host("peers", *addresses(PEERS))
    scripts = clients(PEERS, node, IPv4Network("10.3.1.0/24"), IPv4Network("10.65.0.0/16"))
    made = stack.enter_context(
        Speakers(netns, [msgspec.structs.replace(one, hold_time_s=HOLD_TIME_S) for one in scripts])
    )
    made.connect()
    return made


def cpu_s(netns: NetNs) -> float:
    """Used so far by all processes in the namespace."""
    tasks = (task for one in process.in_netns(netns) for task in Path(f"/proc/{one.pid}/task").iterdir())
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9


def _has_all(netns: NetNs) -> bool:
    return netns.run(["ip", "route"]).count("10.65.") >= PEERS


def idle() -> list[Result]:
    with ExitStack() as stack:
        at = IPv4Address("10.3.0.1")
        ours, rival = Place(stack, "id-a"), Place(stack, "id-b")
        node_netns = ours.host("node", at)
        store = datastore.start(stack, ours.directory, node_netns)
        store.node("node", f"{at}/16")
        for number, address in enumerate(addresses(PEERS)):
            store.node(f"peer{number:03d}", f"{address}/16")
        environ = {**datastore.ENVIRON, "WEFT_SPEAKER_LIFETIME": "agent"}
        node = AgentNode("node", node_netns, ours.directory / "node", environ)
        node.run_dir.mkdir()
        ours.start(node)
        bird = Bird(rival.host("node", at), rival.directory / "node", mesh(at, addresses(PEERS), "", "false"))
        rival.start(bird)
        for place in (ours, rival):
            _start_peers(stack, place, at).wait_established(120)
        for netns in (node_netns, bird.netns):
            wait_until("all blocks", lambda netns=netns: _has_all(netns), 120)
        time.sleep(SETTLE_S)
        before = [cpu_s(netns) for netns in (node_netns, bird.netns)]
        time.sleep(IDLE_S)
        used = [
            (cpu_s(netns) - begun) / IDLE_S * 100 for netns, begun in zip((node_netns, bird.netns), before, strict=True)
        ]
        assert _has_all(node_netns)
        assert _has_all(bird.netns)
    name = f"idle with {PEERS} mesh peers, hold time 90 s, all processes of the node"
    return [Result(name, used[0], "BIRD", used[1], "% of a core", "under 8 %", used[0] < 8)]


BENCHMARKS: dict[str, Callable[[], list[Result]]] = {"bgp-new-block": new_block, "bgp-idle": idle}
