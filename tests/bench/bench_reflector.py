"""The route reflector beside BIRD in its place: N clients with four routes each, until each has every other's.

Both run in turn in one namespace, with the same scripted clients behind the same link, all of them configured one by
one as Calico does. Ours is the whole process with its datastore. The clock runs from the moment at which the clients
begin to connect to a reflector that has been running, until the last of them has exactly what it should have; CPU
time is the reflector's own meanwhile, memory its peak. The simulation has no sockets: it says what the
reflector's own part costs at a size that one machine's kernel would not carry."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from pathlib import Path
from tempfile import TemporaryDirectory

from bird_agent.reflector.prefixes import IPV4, nlri_of
from lab import processes
from lab.netns import NetNs
from lab.process import Process, start
from lab.speakers.driver import Speakers, attach, clients
from tests.bench.result import Result
from tests.conftest import free_port, wait_for_port
from tests.functional.bgp.fabric import Bird, wait_until
from tests.functional.bgp.forward import Forwarder
from tests.unit.bird_agent.reflector.world import World, attributes, plan, session
from weft.config import EtcdConfig
from weft.datastore.etcd import EtcdDatastore
from weft.model import codec, keys
from weft.model.address import IPAddress
from weft.model.base import Metadata, Resource
from weft.model.bgp import BGPPeer, BGPPeerSpec
from weft.model.node import Node, NodeBGPSpec, NodeSpec
from weft.model.values import AsNumber

SUBNET, ADDRESSES, ROUTES = IPv4Network("10.99.0.0/30"), IPv4Network("10.99.16.0/20"), IPv4Network("100.64.0.0/10")
EACH = 4
SIZES = (200, 500)
PAIRS = 3
SIMULATED = 2000


@dataclass(frozen=True)
class Run:
    """What one contender needed. `change_ms`: one more route of one client, until every other has it."""

    seconds: float
    cpu_s: float
    memory_mb: float
    change_ms: float
    pss_mb: float


def _memory_mb(pid: int) -> float:
    text = Path(f"/proc/{pid}/status").read_text()
    return int(text.split("VmHWM:")[1].split()[0]) / 1024


def _pss_mb(pid: int) -> float:
    """With its part of each page that other processes have as well: a node runs several of ours."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return int(text.split("\nPss:")[1].split()[0]) / 1024


def _measure(pid: int, netns: NetNs, number: int) -> Run:
    with Speakers(netns, clients(number, SUBNET[1], ADDRESSES, ROUTES, each=EACH)) as speakers:
        speakers.expect()
        before = processes.cpu_s(pid)
        began = time.monotonic()
        speakers.connect(at_once=8)
        took = speakers.wait_complete(timeout_s=120) - began
        cpu_s = processes.cpu_s(pid) - before
        changes = []
        for one in range(5):
            time.sleep(0.2)
            began = time.monotonic()
            speakers.announce((one,), [IPv4Network((int(IPv4Address("172.16.0.0")) + (one << 8), 24))])
            changes.append(speakers.wait_complete() - began)
        return Run(took, cpu_s, _memory_mb(pid), 1000 * sorted(changes)[len(changes) // 2], _pss_mb(pid))


@contextmanager
def _ours(netns: NetNs, directory: Path, etcd: int, number: int) -> Iterator[int]:
    """The process, which is past the time in which it waits for peers of an earlier life."""
    asyncio.run(_write(etcd, number))
    forwarder = Forwarder(netns, 2379, ("127.0.0.1", etcd))
    directory.mkdir()
    environ = {"ETCD_ENDPOINTS": "http://127.0.0.1:2379", "NODENAME": "rr"}
    environ |= {"WEFT_RUN_DIR": str(directory), "WEFT_STATE_DIR": str(directory)}
    argv = [sys.executable, "-m", "bird_agent.reflector.process"]
    process = start("reflector", argv, log=directory / "log", netns=netns, environ=environ)
    try:
        wait_until("it no longer waits", lambda: "peers are told now" in (directory / "log").read_text())
        yield process.pid
    finally:
        _end(process)
        forwarder.close()


async def _write(etcd: int, number: int) -> None:
    store = EtcdDatastore(EtcdConfig((f"http://127.0.0.1:{etcd}",)))
    bgp = NodeBGPSpec(
        ipv4_address=IPv4Interface((SUBNET[1], SUBNET.prefixlen)), route_reflector_cluster_id=IPv4Address("1.1.1.1")
    )
    wanted: list[Resource] = [Node(metadata=Metadata(name="rr"), spec=NodeSpec(bgp=bgp))]
    for one in range(number):
        spec = BGPPeerSpec(node="rr", peer_ip=str(ADDRESSES[1 + one]), as_number=AsNumber(64512))
        wanted.append(BGPPeer(metadata=Metadata(name=f"c{one}"), spec=spec))
    for resource in wanted:
        key = keys.path(keys.of(resource))
        if await store.get(key) is None:
            await store.create(key, codec.encode_stored(resource))
    await store.close()


@contextmanager
def _bird(netns: NetNs, directory: Path, number: int) -> Iterator[int]:
    sessions = "\n".join(
        f"protocol bgp c{one} {{ local {SUBNET[1]} as 64512; neighbor {ADDRESSES[1 + one]} as 64512; multihop;"
        f" rr client; passive; hold time 90; error wait time 1, 2; ipv4 {{ import all; export all; }}; }}"
        for one in range(number)
    )
    text = f"router id {SUBNET[1]};\nlog stderr {{ fatal }};\nprotocol device {{}}\n{sessions}\n"
    bird = Bird(netns, directory, text)
    bird.start()
    assert bird.process is not None
    try:
        yield bird.process.pid
    finally:
        _end(bird.process)


def _end(process: Process) -> None:
    process.signal(15)
    wait_until("it has ended", lambda: not process.alive())


def _runs(number: int) -> tuple[list[Run], list[Run]]:
    ours: list[Run] = []
    birds: list[Run] = []
    with ExitStack() as stack:
        directory = Path(stack.enter_context(TemporaryDirectory(prefix="weft-bench-")))
        made = [NetNs(f"weft-{os.getpid()}-bench-{name}").create() for name in ("rr", "cl")]
        for one in made:
            stack.callback(one.delete)
        attach(*made, SUBNET, ADDRESSES)
        etcd = stack.enter_context(_etcd(directory / "etcd"))
        for turn in range(PAIRS):
            with _ours(made[0], directory / f"ours-{turn}", etcd, number) as pid:
                ours.append(_measure(pid, made[1], number))
            with _bird(made[0], directory / f"bird-{turn}", number) as pid:
                birds.append(_measure(pid, made[1], number))
    return ours, birds


@contextmanager
def _etcd(directory: Path) -> Iterator[int]:
    client, peer = free_port(), free_port()
    argv = ["etcd", f"--data-dir={directory}", "--log-level=error"]
    for name, port in (("client", client), ("peer", peer)):
        argv += [f"--listen-{name}-urls=http://127.0.0.1:{port}"]
    argv += [f"--advertise-client-urls=http://127.0.0.1:{client}"]
    argv += [f"--initial-advertise-peer-urls=http://127.0.0.1:{peer}"]
    argv += [f"--initial-cluster=default=http://127.0.0.1:{peer}"]
    process = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for_port(client, process)
        yield client
    finally:
        process.terminate()
        process.wait()


def _result(
    name: str, unit: str, runs: tuple[Sequence[Run], Sequence[Run]], of: Callable[[Run], float], goal: tuple[str, float]
) -> Result:
    """`goal`: its text, and how many times ours the rival's figure has to be."""
    mine, theirs = (sorted(map(of, each)) for each in runs)
    ours, rival = mine[len(mine) // 2], theirs[len(theirs) // 2]
    text, factor = goal
    spread = f"ours {mine[0]:.3g} to {mine[-1]:.3g}, BIRD {theirs[0]:.3g} to {theirs[-1]:.3g}, {len(mine)} runs each"
    return Result(name, ours, "BIRD as the reflector", rival, unit, text, ours * factor <= rival, spread)


def _simulated() -> Result:
    """UPDATEs of 2,000 clients in, 16 million prefixes out; what every fiftieth client is told is read and counted."""
    world = World(plan(*(session(f"10.{1 + (one >> 8)}.0.{one & 255}") for one in range(SIMULATED))))
    scripts = world.connect_all()
    said = []
    for one, script in enumerate(scripts):
        first = int(IPv4Address("100.64.0.0")) + one * EACH * 64
        prefixes = [nlri_of(IPv4Network((first + each * 64, 26))) for each in range(EACH)]
        known = attributes(world.sets, local_preference=100)
        said.append(b"".join(script.encoder.encode(IPV4, known, script.address, prefixes)))
    sample = scripts[::50]
    told: dict[IPAddress, bytearray] = {script.address: bytearray() for script in sample}
    began = time.process_time()
    for script, data in zip(scripts, said, strict=True):
        world.reflector.on_data(script.address, script.conn, data, world.now)
        world.reflector.on_data(script.address, script.conn, script.encoder.end_of_rib(IPV4), world.now)
    assert world.reflector.choose(world.now)
    for peer, _ in world.reflector.waiting():
        while pieces := world.reflector.advance(peer):
            if peer in told:
                for piece in pieces:
                    told[peer] += piece
    took = time.process_time() - began
    for script in sample:
        script.on_bytes(bytes(told[script.address]), world.plan)
        assert len(script.table) == (SIMULATED - 1) * EACH
    name = f"reflector, {SIMULATED} clients x {EACH} routes, without sockets: CPU"
    return Result(name, took, "none", 0, "s", "none", True)


def reflector() -> list[Result]:
    found = []
    for number in SIZES:
        runs = _runs(number)
        name = f"reflector, {number} clients x {EACH} routes"
        found += [
            _result(f"{name}: all have all", "s", runs, lambda run: run.seconds, ("3 times faster", 3)),
            _result(f"{name}: CPU", "s", runs, lambda run: run.cpu_s, ("none", 1)),
            _result(f"{name}: memory", "MB", runs, lambda run: run.memory_mb, ("less", 1)),
            _result(f"{name}: memory, shared pages by their part", "MB", runs, lambda run: run.pss_mb, ("none", 1)),
            _result(f"{name}: one more route", "ms", runs, lambda run: run.change_ms, ("none", 1)),
        ]
    return [*found, _simulated()]


BENCHMARKS: dict[str, Callable[[], list[Result]]] = {"bgp-reflector": reflector}
