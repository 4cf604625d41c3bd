"""An agent's start on a node of a large cluster: from exec to everything in the kernel, and what it then weighs.

Load: 100,000 workload endpoints, 10,000 policies of one rule and 50 namespaces' profiles in a real etcd, filled before;
250 of the endpoints are here, with ten policies each and a veth each. The agent is the real `weft-felix` in a network
namespace; it is done when the kernel has the last of its 250 routes, which come after the policy, and nft is then asked
for the chains, sets and map entries. The rival moves the same bytes and computes nothing: `etcdctl get` of everything
the agent watches, then `nft -f` of the finished table. The bar stands in for a rival of the memory.

What an endpoint costs comes from further starts on the same datastore: one with a tenth of the remote endpoints, and
one as a node that has no workloads."""

from __future__ import annotations

import asyncio
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from lab import processes
from lab.netns import NetNs
from tests.bench.bench_routes import kernel_has
from tests.bench.cluster import interface, policy, workload
from tests.bench.result import Pairs, Result
from weft.config import EtcdConfig
from weft.datastore.base import Create, Plan
from weft.datastore.etcd import EtcdDatastore
from weft.model import codec, keys
from weft.model.base import Metadata, Resource
from weft.model.node import ClusterInformation, ClusterInformationSpec, Node
from weft.model.policy import Profile, ProfileSpec, Rule, Tier

LOCAL, ENDPOINTS, POLICIES, EACH, NAMESPACES = 250, 100_000, 10_000, 10, 50
BAR_S, BAR_MB = 10.0, 400.0
ROUNDS = 5
DEADLINE_S = 120.0


def _fixed() -> Iterator[Resource]:
    ready = ClusterInformationSpec(datastore_ready=True)
    yield ClusterInformation(metadata=Metadata(name="default"), spec=ready)
    yield Node(metadata=Metadata(name="here"))
    yield Tier(metadata=Metadata(name="default"))
    allow = (Rule(action="Allow"),)
    for number in range(NAMESPACES):
        labels = {"pcns.projectcalico.org/name": f"ns{number}", "pcns.team": f"t{number % 7}"}
        spec = ProfileSpec(ingress=allow, egress=allow, labels_to_apply=labels)
        yield Profile(metadata=Metadata(name=f"kns.ns{number}"), spec=spec)
    for number in range(POLICIES):
        yield policy(number, EACH, 1000)


def _workloads(numbers: Iterable[int]) -> Iterator[Resource]:
    """With the labels that a replica in Kubernetes has."""
    for number in numbers:
        more = {"tier": f"t{number % 3}", "version": f"v{number % 20}", "pod-template-hash": f"{number // 8:010x}"}
        yield workload(number, here=number < LOCAL, profiles=(f"kns.ns{number % NAMESPACES}",), **more)


async def _fill(endpoint: str, resources: Iterable[Resource]) -> None:
    store = EtcdDatastore(EtcdConfig((endpoint,)))
    writes = (Create(keys.path(keys.of(one)), codec.encode_stored(one)) for one in resources)
    for group in Plan.chunked(writes).groups:
        await store.commit(Plan((group,)))
    await store.close()


@dataclass(frozen=True, slots=True)
class Start:
    """One start: seconds until all is in the kernel, of the clock and of the processor, resident memory then and at its
    peak, and the table as text."""

    seconds: float
    processor_s: float
    mb: float
    peak_mb: float
    table: str


class Cluster:
    """A datastore on a unix socket and a node's network namespace, in which the agent can be started again."""

    def __init__(self, netns: NetNs, directory: Path, stack: ExitStack) -> None:
        self._netns, self._directory = netns, directory
        self.endpoint = f"unix://{directory}/client:0"
        log = stack.enter_context((directory / "etcd.log").open("wb"))
        urls = {"listen-client": "client:0", "advertise-client": "client:0", "listen-peer": "peer:0"}
        etcd = subprocess.Popen(
            [
                "etcd",
                *(f"--{option}-urls=unix://{name}" for option, name in urls.items()),
                *(
                    "--initial-advertise-peer-urls=unix://peer:0",
                    "--initial-cluster=bench=unix://peer:0",
                    "--name=bench",
                ),
                *(f"--data-dir={directory / 'data'}", "--logger=zap", "--log-level=error"),
            ],
            cwd=directory,
            stdout=log,
            stderr=log,
        )
        stack.callback(etcd.wait)
        stack.callback(etcd.kill)
        _wait((directory / "client:0").exists, 0.05)
        for first in range(0, LOCAL, 2):
            netns.ip("link", "add", interface(first), "type", "veth", "peer", "name", interface(first + 1))
            for name in (interface(first), interface(first + 1)):
                netns.ip("link", "set", name, "up")

    def fill(self, resources: Iterable[Resource]) -> None:
        asyncio.run(_fill(self.endpoint, resources))

    def start(self, node: str, routes: int) -> Start:
        """As that node, until the kernel has the table and so many routes more. Leaves neither behind."""
        environment = {**os.environ, "NODENAME": node, "ETCD_ENDPOINTS": self.endpoint}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)  # an agent that is installed has its bytecode
        environment |= {"WEFT_RUN_DIR": str(self._directory / "run"), "WEFT_STATE_DIR": str(self._directory / "state")}
        before = self._routes()
        with (self._directory / "felix.log").open("ab") as log:
            begin = time.monotonic()
            agent = self._netns.popen([sys.executable, "-m", "felix.daemon"], env=environment, stdout=log, stderr=log)
        try:
            _wait(lambda: agent.poll() is not None or self._is_done(before + routes), 0.02)
            seconds = time.monotonic() - begin
            if agent.poll() is not None:
                raise RuntimeError((self._directory / "felix.log").read_text()[-2000:])
            memory, processor_s = _memory_mb(agent.pid), processes.cpu_s(agent.pid)
        finally:
            agent.terminate()
            agent.wait()
        table = self._netns.run(["nft", "list", "table", "inet", "weft"])
        self._netns.run(["nft", "delete", "table", "inet", "weft"])
        self._netns.ip("route", "flush", "proto", "80")
        return Start(seconds, processor_s, memory["VmRSS"], memory["VmHWM"], table)

    def _routes(self) -> int:
        with self._netns.enter():
            return kernel_has()

    def _is_done(self, routes: int) -> bool:
        """The routes come last; without any, the verdict maps are the table's last objects."""
        if self._routes() < routes:
            return False
        asked = self._netns.command(["nft", "list", "map", "inet", "weft", "known_endpoints"])
        return subprocess.run(asked, capture_output=True, check=False).returncode == 0

    def move_bytes(self, table: str) -> float:
        """Seconds that the rival takes: everything read by etcdctl, the finished table written by nft."""
        begin = time.monotonic()
        arguments = ["etcdctl", "--endpoints", self.endpoint, "get", "--prefix", "/calico/resources/"]
        with (self._directory / "everything").open("wb") as everything:
            subprocess.run(arguments, stdout=everything, env={**os.environ, "ETCDCTL_API": "3"}, check=True)
        self._netns.run(["nft", "-f", "-"], stdin=table)
        seconds = time.monotonic() - begin
        self._netns.run(["nft", "delete", "table", "inet", "weft"])
        return seconds


def _wait(condition: Callable[[], bool], pause_s: float) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError("the agent does not get there")
        time.sleep(pause_s)


def _memory_mb(pid: int) -> dict[str, float]:
    lines = (line.split() for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return {fields[0].rstrip(":"): int(fields[1]) / 1024 for fields in lines if fields[0] in ("VmRSS:", "VmHWM:")}


@contextmanager
def _cluster() -> Iterator[Cluster]:
    netns = NetNs(f"weft-{os.getpid()}-bench-cold").create()
    try:
        with ExitStack() as stack:
            directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="weft-cold-")))
            yield Cluster(netns, directory, stack)
    finally:
        netns.delete()


def cold_start() -> list[Result]:
    with _cluster() as cluster:
        cluster.fill(_fixed())
        few = ENDPOINTS // 10
        cluster.fill(_workloads(range(few)))
        small = cluster.start("here", LOCAL)
        cluster.fill(_workloads(range(few, ENDPOINTS)))
        nowhere = cluster.start("nowhere", 0)
        started, moved = [], []
        for _ in range(ROUNDS):
            started.append(cluster.start("here", LOCAL))
            moved.append(cluster.move_bytes(started[-1].table))
    for one in started:
        _check(one.table)
    measured = Pairs([one.seconds for one in started] * 5, moved * 5)
    name = f"cold start, {LOCAL} endpoints here of {ENDPOINTS:,}, {POLICIES:,} policies"
    rival = "etcdctl get + nft -f"
    peak = statistics.median(one.peak_mb for one in started)
    resident = statistics.median(one.mb for one in started)
    processor_s = statistics.median(one.processor_s for one in started)
    remote_bytes = (resident - small.mb) * 2**20 / (ENDPOINTS - few)
    local_ms = (processor_s - nowhere.processor_s) * 1000 / LOCAL
    return [
        measured.result(name, rival, "s", f"within {BAR_S:g} s", lambda found, _: found <= BAR_S),
        _reported(f"{name}: processor time", processor_s, "the bar", BAR_S, "s"),
        Result(f"{name}: RSS", resident, "the bar", BAR_MB, "MB", f"under {BAR_MB:g} MB", resident < BAR_MB),
        Result(f"{name}: peak RSS", peak, "the bar", BAR_MB, "MB", f"under {BAR_MB:g} MB", peak < BAR_MB),
        _reported("each remote endpoint", remote_bytes, "its value in etcd", _stored_bytes(), "bytes"),
        _reported(
            "each local endpoint with its policies", local_ms, "the bar", BAR_S * 1000 / LOCAL, "ms of processor"
        ),
    ]


def _reported(name: str, ours: float, rival: str, its: float, unit: str) -> Result:
    return Result(name, ours, rival, its, unit, "reported", True)


def _stored_bytes() -> float:
    [one] = _workloads([ENDPOINTS - 1])
    return len(codec.encode_stored(one))


def _check(table: str) -> None:
    assert table.count('counter name "ingress/gnp/') == LOCAL * EACH
    for number in range(LOCAL):
        assert table.count(f'"{interface(number)}"') == 3


BENCHMARKS = {"cold-start": cold_start}
