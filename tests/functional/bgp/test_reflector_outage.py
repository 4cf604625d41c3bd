"""A reflector that is killed while the datastore is away, stand-alone and automatic: it begins with what it knew."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bird_agent.reflector import keeping
from lab.netns import NetNs
from tests.functional.bgp.fabric import AgentNode, Bird, Store, wait_until
from tests.functional.bgp.forward import Forwarder
from tests.functional.bgp.pair import nothing_deleted
from tests.functional.bgp.reflectors import CLUSTER, ReflectorNode, Segment, ask_reflector, clients, session
from tests.functional.datastore.servers import Etcd
from weft import singleton
from weft.model.bgp import BGPPassword, SecretKeySelector
from weft.model.keys import ReflectorKey
from weft.model.reflectors import ReflectorSettings

pytestmark = pytest.mark.root

KERNEL = "protocol kernel { ipv4 { import none; export where source = RTS_BGP; }; }"
ENVIRON = {"ETCD_ENDPOINTS": "http://127.0.0.1:2379"}


@pytest.fixture
def outage(tmp_path: Path) -> Iterator[Etcd]:
    """A datastore that the test stops and starts again."""
    directory = tmp_path / "etcd"
    directory.mkdir()
    made = Etcd(directory).start()
    yield made
    made.kill()


@pytest.fixture
def reach(outage: Etcd) -> Iterator[Callable[[NetNs], None]]:
    made: list[Forwarder] = []
    yield lambda netns: made.append(Forwarder(netns, 2379, ("127.0.0.1", outage.client_port)))
    for one in made:
        one.close()


@pytest.fixture
def standing(
    outage: Etcd, reach: Callable[[NetNs], None], network: Segment, tmp_path: Path
) -> Iterator[tuple[ReflectorNode, Store]]:
    """A reflector with clients 11, whose session has a password, and 12."""
    store = Store(outage.endpoint)
    store.node("rr", "10.1.0.1/24", cluster_id=CLUSTER)
    clients(store, [11], password=BGPPassword(secret_key_ref=SecretKeySelector(name="bgp", key="key")))
    clients(store, [12])
    netns = network.host("rr", 1)
    reach(netns)
    made = ReflectorNode("rr", netns, tmp_path / "rr", ENVIRON)
    secret = made.run_dir / "secrets" / "kube-system" / "bgp" / "key"
    secret.parent.mkdir(parents=True)
    secret.write_text("right")
    yield made, store
    print(f"--- rr\n{made.log()[-5000:]}")


def kept(reflector: ReflectorNode) -> Path:
    return keeping.path_of(reflector.run_dir / "state", "rr")


def start(reflector: ReflectorNode) -> None:
    reflector.start(WEFT_BGP_SECRETS_DIR=str(reflector.run_dir / "secrets"))


def kill(reflector: ReflectorNode, birds: dict[int, Bird]) -> None:
    reflector.end(signal.SIGKILL)
    wait_until("both have noticed", lambda: not any(bird.established("rr1_ipv4") for bird in birds.values()))


@pytest.fixture
def birds(network: Segment) -> dict[int, Bird]:
    extra = {11: 'password "right";', 12: ""}
    return {n: network.bird(n, session(n, extra=extra[n]) + "\n" + KERNEL) for n in extra}


def told(birds: dict[int, Bird]) -> bool:
    return all(birds[a].routes("rr1_ipv4") == {f"10.65.{b}.0/26"} for a, b in ((11, 12), (12, 11)))


def test_a_reflector_that_is_killed_while_the_datastore_is_away_costs_no_route(
    standing: tuple[ReflectorNode, Store], outage: Etcd, birds: dict[int, Bird]
) -> None:
    reflector, store = standing
    start(reflector)
    wait_until("they have each other's routes", lambda: told(birds))
    wait_until("what it knows is on the disk", kept(reflector).exists)
    assert b"right" not in kept(reflector).read_bytes()
    outage.kill()
    with nothing_deleted(birds[11].netns) as first, nothing_deleted(birds[12].netns) as second:
        kill(reflector, birds)
        start(reflector)
        wait_until("both are back", lambda: all(bird.established("rr1_ipv4") for bird in birds.values()))
        wait_until("it tells its clients", lambda: "peers are told now" in reflector.log())
        # What one announces now reaches the other, though nobody has asked the datastore.
        own = "route 10.65.11.0/26 blackhole;"
        birds[11].reconfigure(birds[11].configuration.replace(own, f"{own} route 10.66.0.0/26 blackhole;"))
        wait_until("news pass", lambda: "10.66.0.0/26" in birds[12].routes("rr1_ipv4"))
    assert (first, second) == ([], [])
    connections = {number: bird.connection() for number, bird in birds.items()}
    outage.start()
    store.configuration({"another": "value"})
    store.remove_peer("rr-c12")
    wait_until("the datastore's word counts again", lambda: not birds[12].established("rr1_ipv4"))
    assert birds[11].connection() == connections[11]


def test_a_file_that_cannot_be_used_is_said_to_be_so_and_replaced_when_the_datastore_answers(
    standing: tuple[ReflectorNode, Store], outage: Etcd, birds: dict[int, Bird]
) -> None:
    reflector, _ = standing
    keeping.write(kept(reflector), b"something else")
    outage.kill()
    start(reflector)
    wait_until("it says so", lambda: "rr.kept cannot be used: it does not begin as it should" in reflector.log())
    assert kept(reflector).read_bytes() == b"something else"
    assert reflector.ask("peers") == []
    outage.start()
    wait_until("they have each other's routes", lambda: told(birds))
    wait_until("it is replaced", lambda: kept(reflector).read_bytes() != b"something else")


def test_an_automatic_reflector_that_is_killed_while_the_datastore_is_away_serves_on(
    outage: Etcd, reach: Callable[[NetNs], None], network: Segment, tmp_path: Path
) -> None:
    store = Store(outage.endpoint)
    store.pool("reflectors", "10.9.0.0/24", allowed_uses=("Tunnel",), block_size=29)
    nodes = {}
    for number in (1, 2):
        netns = network.host(f"n{number}", number)
        reach(netns)
        node = nodes[f"n{number}"] = AgentNode(f"n{number}", netns, tmp_path / f"n{number}", ENVIRON)
        node.run_dir.mkdir()
        store.node(node.name, f"10.1.0.{number}/24")
        store.block(node.name, f"10.65.{number}.0/26")
    settings = ReflectorSettings(enabled=True, above_nodes=1, per_domain=1, replace_after_seconds=12)
    store.put(ReflectorKey("settings"), settings)
    for node in nodes.values():
        node.start()

    def pid(node: AgentNode) -> int | None:
        return singleton.holder(singleton.lock_path(node.run_dir, "reflector"))

    def serving(node: AgentNode) -> bool:
        peers = ask_reflector(node.run_dir, node.name, "peers")
        return peers is not None and sum(one["state"] == "Established" for one in peers) == len(nodes)

    def only(node: AgentNode) -> bool:
        """No session of the mesh is left: whatever is told, is told by the reflector."""
        lines = node.netns.run(["ss", "-Htn", "state", "established", "( sport = 179 or dport = 179 )"]).splitlines()
        return bool(lines) and all("10.9.0." in line for line in lines)

    chosen = wait_until("one is chosen", lambda: next((node for node in nodes.values() if pid(node)), None))
    client = next(node for node in nodes.values() if node is not chosen)
    wait_until("it serves all", lambda: serving(chosen), 120)
    wait_until("the mesh is gone", lambda: only(client), 120)
    wait_until("what it knows is on the disk", keeping.path_of(chosen.run_dir / "state", chosen.name).exists)
    addresses = chosen.netns.ip_json("-4", "address", "show", "dev", "lo")
    outage.kill()
    with nothing_deleted(client.netns) as deleted:
        before = pid(chosen)
        assert before is not None
        chosen.kill()  # the agent, too: who else should start it?
        os.kill(before, signal.SIGKILL)
        chosen.start()
        wait_until("another process serves all", lambda: pid(chosen) not in (None, before) and serving(chosen))
    assert deleted == []
    assert chosen.netns.ip_json("-4", "address", "show", "dev", "lo") == addresses
    log = (chosen.run_dir / "reflector.log").read_text()
    outage.start()
    store.delete(ReflectorKey("beats", chosen.name))
    wait_until("it gives signs of life again", lambda: store.has(ReflectorKey("beats", chosen.name)))
    assert serving(chosen)
    assert " down: " not in (chosen.run_dir / "reflector.log").read_text()[len(log) :]
    assert chosen.netns.ip_json("-4", "address", "show", "dev", "lo") == addresses
