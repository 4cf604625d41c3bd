"""weftctl bgp --node: the BGP of any node, asked from where no agent runs and from other nodes."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.functional.bgp.asking import weftctl
from tests.functional.bgp.fabric import AgentNode, Store, segment, wait_until
from tests.functional.bgp.pair import FIRST, Pair
from tests.functional.bgp.reflectors import ReflectorNode, Segment, clients, session
from weft.admin.mailbox import Mailbox
from weft.admin.v1 import bgp_pb2 as pb
from weft.config import EtcdConfig
from weft.datastore.etcd import EtcdDatastore
from weft.model import keys
from weft.model.keys import Addressee

pytestmark = pytest.mark.root

QUESTIONS = [
    ("peers",),
    ("peers", "-o", "wide"),
    ("routes",),
    ("best", "-o", "yaml"),
    ("received", "10.1.0.254"),
    ("advertised", "10.1.0.254", "-o", "json"),
    ("trace", "203.0.113.7"),
    ("trace", "192.0.2.1"),
    ("config",),
]


def steady(text: str) -> str:
    """Without what grows by itself."""
    return re.sub(r"(?m)( \d+m?s | ([Uu]pdates\W+)?\d+ +(?=password|filter|$))", " ", text)


def left(store: Store) -> bytes:
    return store._etcdctl("get", "--prefix", "--keys-only", keys.WEFT)


def test_every_command_answers_for_another_node_as_at_its_own_socket(
    pair: Pair, make_node: Callable[[str], AgentNode], store: Store, tmp_path: Path
) -> None:
    second = make_node("n2")
    segment(pair.node.netns, second.netns, "mesh", "10.2.0.1/24", "10.2.0.2/24")
    store.node("n2", "10.2.0.2/24")
    store.block("n2", "10.65.1.0/26")
    second.start()
    wait_until("n2 is asked", lambda: weftctl(second.run_dir, None, "peers")[0] == 0)
    nowhere = tmp_path / "nowhere"
    for question in QUESTIONS:
        at_home = weftctl(pair.node.run_dir, None, *question)
        from_afar = weftctl(nowhere, store.endpoint, *question, "--node", "n1")
        from_n2 = weftctl(second.run_dir, store.endpoint, *question, "--node", "n1")
        assert at_home[0] == from_afar[0] == from_n2[0] == 0, (question, at_home, from_afar)
        assert steady(at_home[1]) == steady(from_afar[1]) == steady(from_n2[1]), question
    # The other way round, and where the node is this machine's no datastore is needed.
    code, out, _ = weftctl(pair.node.run_dir, store.endpoint, "config", "--node", "n2")
    assert (code, "router id 10.2.0.2" in out) == (0, True)
    code, out, _ = weftctl(pair.node.run_dir, None, "best", "--node", "n1", "-o", "json")
    assert {one["prefix"] for one in json.loads(out)} >= FIRST
    refused = weftctl(nowhere, store.endpoint, "received", "192.0.2.1", "--node", "n1")
    assert refused == (1, "", "resource does not exist: BGP peer 192.0.2.1\n")
    unknown = weftctl(nowhere, store.endpoint, "peers", "--node", "n7")
    assert unknown == (1, "", "no Node named n7: there are n1, n2\n")
    code, _, complaint = weftctl(nowhere, None, "peers", "--node", "n1")
    assert (code, "name etcd endpoints" in complaint) == (1, True)
    assert left(store) == b""
    assert "asked by" in pair.node.log()


def test_a_dead_agent_is_said_to_be_dead_and_the_one_that_follows_answers_what_waits(
    pair: Pair, store: Store, tmp_path: Path
) -> None:
    pair.node.kill()
    code, _, complaint = weftctl(tmp_path / "nowhere", store.endpoint, "peers", "--node", "n1")
    assert code == 1
    assert complaint.startswith("node n1 has not answered within 5 s: its BGP agent is not running, cannot reach")
    assert left(store) == b""

    async def ask() -> bytes:
        datastore = EtcdDatastore(EtcdConfig((store.endpoint,)))
        try:
            asked = asyncio.create_task(
                Mailbox(datastore, silence_s=60, lifetime_s=60).ask(
                    Addressee("agent", "n1"), "weft.admin.v1.BgpService/ListBgpPaths", b""
                )
            )
            while not await asyncio.to_thread(left, store):
                await asyncio.sleep(0.05)
            pair.node.start()
            return await asked
        finally:
            await datastore.close()

    # It knows its routes, not only its name: an agent that has just begun waits until it does.
    assert {path.prefix for path in pb.BgpPaths.FromString(asyncio.run(ask())).paths} == FIRST
    assert left(store) == b""


def test_a_reflector_of_its_own_is_asked_by_its_name(
    reflector: ReflectorNode, network: Segment, store: Store, tmp_path: Path
) -> None:
    clients(store, [11])
    bird = network.bird(11, session(11))
    reflector.start()
    wait_until("the reflector has the route", lambda: bird.established("rr1_ipv4") and reflector.ask("best"))
    for question in (("peers",), ("routes",), ("received", "10.1.0.11"), ("trace", "10.65.11.1"), ("config",)):
        at_home = weftctl(reflector.run_dir, None, *question, "--reflector")
        from_afar = weftctl(tmp_path / "nowhere", store.endpoint, *question, "--reflector", "--node", "rr")
        assert at_home[0] == from_afar[0] == 0, (at_home, from_afar)
        assert steady(at_home[1]) == steady(from_afar[1])
        assert from_afar[1] == weftctl(reflector.run_dir, None, *question, "--reflector", "--node", "rr")[1]
