"""weft-reflector between real BIRDs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lab.netns import NetNs
from tests.conftest import EtcdServer
from tests.functional.bgp.fabric import Bird, Store, wait_until
from tests.functional.bgp.forward import Forwarder
from tests.functional.bgp.reflectors import CLUSTER, ReflectorNode, Segment, clients, session

pytestmark = pytest.mark.root


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


def wait_for(bird: Bird, protocol: str, routes: set[str]) -> None:
    wait_until(f"{bird.directory.name} has {sorted(routes)}", lambda: bird.routes(protocol) == routes)


def test_clients_get_each_others_routes_of_both_families(
    reflector: ReflectorNode, network: Segment, store: Store
) -> None:
    numbers = [11, 12, 13]
    clients(store, numbers)
    for number in numbers:
        store.peer(f"six-{number}", node="rr", peer_ip=f"fd01::{number:x}", as_number=64512)
    birds = {n: network.bird(n, session(n) + "\n" + session(n, family="ipv6")) for n in numbers}
    reflector.start()
    for number, bird in birds.items():
        others = [other for other in numbers if other != number]
        wait_for(bird, "rr1_ipv4", {f"10.65.{other}.0/26" for other in others})
        wait_for(bird, "rr1_ipv6", {f"fd65:{other:x}::/64" for other in others})
    said = birds[11].attributes("10.65.12.0/26", "rr1_ipv4")
    assert said["originator_id"] == "10.1.0.12"
    assert said["cluster_list"] == CLUSTER
    assert said["next_hop"] == "10.1.0.12"
    peers = reflector.ask("peers")
    assert {(one["state"], one["role"], one["received"], one["announced"]) for one in peers} == {
        ("Established", "client", 1, 2)
    }
