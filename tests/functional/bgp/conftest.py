"""Fixtures of the BGP tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from lab.netns import NetNs
from tests.conftest import EtcdServer
from tests.functional.bgp.fabric import AgentNode, Bird, Store, segment, wait_until
from tests.functional.bgp.forward import Forwarder
from tests.functional.bgp.pair import BLOCK, FIRST, Pair, configuration
from tests.functional.bgp.reflectors import CLUSTER, ReflectorNode, Segment
from tests.functional.bgp.speaker import Speaker


@pytest.fixture
def store(etcd: EtcdServer) -> Store:
    return Store(etcd.endpoint)


@pytest.fixture
def make_node(netns: Callable[[str], NetNs], etcd: EtcdServer, tmp_path: Path) -> Iterator[Callable[[str], AgentNode]]:
    """Makes nodes, not started, whose agents reach the datastore on their loopback."""
    made: list[AgentNode] = []
    forwarders: list[Forwarder] = []
    host, _, port = etcd.endpoint.rpartition(":")

    def make(name: str) -> AgentNode:
        inside = netns(name)
        forwarders.append(Forwarder(inside, 2379, (host, int(port))))
        made.append(AgentNode(name, inside, tmp_path / name, {"ETCD_ENDPOINTS": "http://127.0.0.1:2379"}))
        made[-1].run_dir.mkdir()
        return made[-1]

    yield make
    for node in made:
        if node.agent is not None:
            print(f"--- {node.name}\n{node.log()[-5000:]}")
            if (node.run_dir / "speaker.log").exists():
                print((node.run_dir / "speaker.log").read_text()[-2000:])
            node.agent.signal(15)
    for forwarder in forwarders:
        forwarder.close()


@pytest.fixture
def frr_directory() -> Iterator[Path]:
    """FRR's daemons give up root first and then make their files: pytest's own directories are closed to them."""
    with TemporaryDirectory(prefix="weft-frr-") as made:
        Path(made).chmod(0o755)
        yield Path(made)


@pytest.fixture
def node(make_node: Callable[[str], AgentNode]) -> AgentNode:
    return make_node("n1")


@pytest.fixture
def pair(node: AgentNode, store: Store, netns: Callable[[str], NetNs], tmp_path: Path) -> Pair:
    tor = netns("tor")
    segment(node.netns, tor, "up0", "10.1.0.1/24", "10.1.0.254/24")
    store.node("n1", "10.1.0.1/24")
    store.pool("pool", "10.65.0.0/16")
    store.block("n1", BLOCK)
    store.peer("tor", peer_ip="10.1.0.254", as_number=65001)
    bird = Bird(tor, tmp_path / "bird", configuration(FIRST))
    bird.start()
    node.start()
    made = Pair(node, bird, store)
    wait_until("BIRD has our block", lambda: bird.routes("p0") == {BLOCK})
    wait_until("we have its routes", lambda: made.routes() == FIRST)
    return made


@pytest.fixture
def network(netns: Callable[[str], NetNs], tmp_path: Path) -> Segment:
    return Segment.build(netns, tmp_path)


@pytest.fixture
def make_reflector(network: Segment, etcd: EtcdServer, tmp_path: Path) -> Iterator[Callable[[str, int], ReflectorNode]]:
    made: list[ReflectorNode] = []
    forwarders: list[Forwarder] = []
    host, _, port = etcd.endpoint.rpartition(":")

    def make(name: str, number: int) -> ReflectorNode:
        inside = network.host(name, number)
        forwarders.append(Forwarder(inside, 2379, (host, int(port))))
        made.append(ReflectorNode(name, inside, tmp_path / name, {"ETCD_ENDPOINTS": "http://127.0.0.1:2379"}))
        return made[-1]

    yield make
    for node in made:
        if node.process is not None:
            print(f"--- {node.name}\n{node.log()[-5000:]}")
            node.process.signal(15)
    for forwarder in forwarders:
        forwarder.close()


@pytest.fixture
def reflector(make_reflector: Callable[[str, int], ReflectorNode], store: Store) -> ReflectorNode:
    store.node("rr", "10.1.0.1/24", address6="fd01::1/64", cluster_id=CLUSTER)
    return make_reflector("rr", 1)


@pytest.fixture
def speaker(netns: Callable[[str], NetNs], tmp_path: Path) -> Iterator[Speaker]:
    made = Speaker(netns("exa"), tmp_path / "run", ["10.1.0.254"])
    yield made
    print(made.paths.log.read_text()[-2000:])
    made.stop()
