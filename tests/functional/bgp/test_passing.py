"""A node that passes on what it learns, among real routers: a reflector between BIRDs, and what a ToR hears of them."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface
from pathlib import Path
from typing import Any

import pytest

from lab.netns import NetNs, bridge, link
from tests.functional.bgp.fabric import AgentNode, Bird, Store, bird_configuration, wait_until
from weft.model import drain, keys
from weft.model.base import Metadata
from weft.model.node import Node, NodeBGPSpec, NodeSpec

pytestmark = pytest.mark.root

CLUSTER = IPv4Address("244.0.0.1")
OWN, FIRST, SECOND, FROM_TOR = "10.65.0.0/26", "10.65.1.0/26", "10.65.2.0/26", "10.65.200.0/24"
LATER, BEYOND = "10.65.3.0/26", "203.0.113.0/24"


@dataclass
class Reflecting:
    """A node that is a reflector, with two clients and a ToR."""

    node: AgentNode
    first: Bird
    second: Bird
    tor: Bird


@pytest.fixture
def reflecting(node: AgentNode, store: Store, netns: Callable[[str], NetNs], tmp_path: Path) -> Reflecting:
    switch = netns("switch")
    bridge(switch, "br0")

    def plug(member: NetNs, name: str, address: str) -> None:
        link(member, "up0", switch, name)
        switch.ip("link", "set", name, "master", "br0")
        member.ip("address", "add", address, "dev", "up0")

    def router(name: str, last: int, asn: int, routes: list[str], extra: str = "") -> Bird:
        inside = netns(name)
        plug(inside, name, f"10.1.0.{last}/24")
        body = f"local 10.1.0.{last} as {asn}; neighbor 10.1.0.9 as 64512; hold time 30;"
        bird = Bird(inside, tmp_path / name, bird_configuration(f"10.1.0.{last}", [body], routes, extra=extra))
        bird.start()
        return bird

    plug(node.netns, "rr", "10.1.0.9/24")
    _write_node(store)
    store.pool("pool", "10.65.0.0/16")
    store.block("n1", OWN)
    for name, last, asn in (("first", 1, 64512), ("second", 2, 64512), ("tor", 254, 65001)):
        store.peer(name, peer_ip=f"10.1.0.{last}", as_number=asn)
    made = Reflecting(
        node,
        router("first", 1, 64512, [FIRST, BEYOND]),
        router("second", 2, 64512, [SECOND]),
        router("tor", 254, 65001, [FROM_TOR]),
    )
    node.start()
    wait_until("the clients hear of each other", lambda: made.first.routes("p0") == {OWN, SECOND, FROM_TOR})
    wait_until("in both directions", lambda: made.second.routes("p0") == {OWN, FIRST, FROM_TOR})
    wait_until("and the ToR of both", lambda: made.tor.routes("p0") == {OWN, FIRST, SECOND})
    return made


def test_a_reflector_passes_on_what_lies_in_pools_with_what_rfc_4456_asks_for(
    reflecting: Reflecting, store: Store
) -> None:
    seen = reflecting.second.attributes(FIRST, "p0")
    assert (seen["originator_id"], seen["cluster_list"]) == ("10.1.0.1", "244.0.0.1")
    assert (seen["next_hop"], seen["as_path"]) == ("10.1.0.1", "")
    seen = reflecting.tor.attributes(FIRST, "p0")
    assert (seen["as_path"], seen["next_hop"]) == ("64512", "10.1.0.9")
    assert "originator_id" not in seen
    seen = reflecting.first.attributes(FROM_TOR, "p0")
    assert (seen["as_path"], seen["next_hop"], seen["local_pref"]) == ("65001", "10.1.0.254", "100")
    assert "originator_id" not in seen
    # nextHopMode, each way.
    store.peer("second", peer_ip="10.1.0.2", as_number=64512, next_hop_mode="Self")
    store.peer("tor", peer_ip="10.1.0.254", as_number=65001, next_hop_mode="Keep")

    def next_hop(bird: Bird) -> Any:
        return bird.attributes(FIRST, "p0").get("next_hop")

    wait_until("Self is this node", lambda: next_hop(reflecting.second) == "10.1.0.9")
    wait_until("Keep is the client", lambda: next_hop(reflecting.tor) == "10.1.0.1")
    # A client that is lost takes its routes from all; a pool that keeps its routes, too.
    store.pool("pool", "10.65.0.0/16", disable_bgp_export=True)
    wait_until("the pool keeps its routes", lambda: reflecting.tor.routes("p0") == set())
    store.pool("pool", "10.65.0.0/16")
    wait_until("and gives them back", lambda: reflecting.tor.routes("p0") == {OWN, FIRST, SECOND})
    reflecting.first.ask("disable p0")
    wait_until("the ToR hears no more of it", lambda: reflecting.tor.routes("p0") == {OWN, SECOND})
    assert reflecting.second.routes("p0") == {OWN, FROM_TOR}


def test_killing_a_reflectors_agent_and_its_speaker_costs_its_clients_no_route(
    reflecting: Reflecting,
) -> None:
    node, bird = reflecting.node, reflecting.second
    expected = {OWN, FIRST, FROM_TOR}
    connection = bird.connection()
    withdrawn = _withdrawn(bird)
    node.kill()
    node.start()
    wait_until("the next agent has learnt all", lambda: learnt_all(node) == 2)
    assert (bird.routes("p0"), bird.connection(), _withdrawn(bird)) == (expected, connection, withdrawn)
    # With its speaker: graceful restart, and the end of the RIB only behind what was learnt again.
    speaker = node.speaker()
    node.kill()
    node.netns.run(["kill", "-9", str(speaker)])
    node.start()
    seen: list[set[str]] = []

    def learnt() -> bool:
        seen.append(bird.routes("p0"))
        return learnt_all(node) == 3

    wait_until("all is learnt again", learnt)
    wait_until("BIRD has heard that this is all", lambda: "Stale" not in bird.ask("show route protocol p0 all"))
    assert all(routes == expected for routes in [*seen, bird.routes("p0")])


def test_a_reflector_whose_agent_is_restarted_while_it_is_drained_says_nothing_until_it_is_undrained(
    reflecting: Reflecting, store: Store
) -> None:
    node, birds = reflecting.node, (reflecting.first, reflecting.second, reflecting.tor)
    _write_node(store, {drain.WISH: "0s"})
    wait_until("nothing is announced", lambda: not any(bird.routes("p0") for bird in birds))
    heard = [(_heard(bird), bird.connection()) for bird in birds]
    before = learnt_all(node)
    node.kill()
    reflecting.first.reconfigure(_with_routes(reflecting.first, [FIRST, BEYOND, LATER]))
    node.start()
    wait_until("the next agent has learnt all", lambda: learnt_all(node) > before)
    wait_until("also what came meanwhile", lambda: LATER in node.routes())
    time.sleep(1)
    assert [(_heard(bird), bird.connection()) for bird in birds] == heard
    _write_node(store)
    wait_until("all is announced again", lambda: reflecting.second.routes("p0") == {OWN, FIRST, LATER, FROM_TOR})
    wait_until("to all", lambda: reflecting.tor.routes("p0") == {OWN, FIRST, LATER, SECOND})


def test_a_reflector_whose_agent_is_restarted_while_it_leaves_withdraws_nothing_that_it_passes_on(
    reflecting: Reflecting, store: Store
) -> None:
    node, bird = reflecting.node, reflecting.second
    _write_node(store, {drain.WISH: "300s"})

    def leaves(prefix: str) -> bool:
        return "(65535,0)" in bird.attributes(prefix, "p0").get("community", "")

    wait_until("it says that it leaves", lambda: all(map(leaves, (OWN, FIRST, FROM_TOR))))
    withdrawn, connection = _withdrawn(bird), bird.connection()
    before = learnt_all(node)
    link = node.link_pid()
    node.kill()
    os.kill(link, signal.SIGKILL)  # and with it what peers have said: they are asked again
    node.start()
    wait_until("the next agent has learnt all", lambda: learnt_all(node) > before)
    wait_until("it goes on leaving", lambda: node.log().count("announced with GRACEFUL_SHUTDOWN") == 2)
    time.sleep(1)
    assert all(map(leaves, (OWN, FIRST, FROM_TOR)))
    assert (bird.routes("p0"), bird.connection(), _withdrawn(bird)) == ({OWN, FIRST, FROM_TOR}, connection, withdrawn)


def learnt_all(node: AgentNode) -> int:
    """How many agents have."""
    return node.log().count("everything has been learnt")


def _write_node(store: Store, annotations: Mapping[str, str] | None = None) -> None:
    bgp = NodeBGPSpec(ipv4_address=IPv4Interface("10.1.0.9/24"), route_reflector_cluster_id=CLUSTER)
    resource = Node(metadata=Metadata(name="n1", annotations=annotations or {}), spec=NodeSpec(bgp=bgp))
    store.put(keys.of(resource), resource)


def _with_routes(bird: Bird, routes: list[str]) -> str:
    """Its configuration, with these routes instead."""
    static = " ".join(f"route {route} blackhole;" for route in routes)
    return re.sub(r"(protocol static announced \{ ipv4; ).* \}", rf"\g<1>{static} }}", bird.configuration)


def _heard(bird: Bird) -> list[str]:
    """How many routes BIRD was told, and told to forget."""
    lines = bird.ask("show protocols all p0").splitlines()
    return [line for line in lines if "Import updates" in line or "Import withdraws" in line]


def _withdrawn(bird: Bird) -> str:
    """How many routes BIRD was told to forget."""
    text = bird.ask("show protocols all p0")
    return next(line for line in text.splitlines() if "Import withdraws" in line)
