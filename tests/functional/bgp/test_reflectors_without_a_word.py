"""Both nodes with a failure domain's reflectors lose power: nobody hears of it, and the other nodes live."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Callable

import pytest

from lab import process
from lab.netns import NetNs
from lab.traffic import Report, Traffic
from tests.functional.bgp.automatic import DOMAIN, Fabric, build, workload
from tests.functional.bgp.fabric import AgentNode, Store, wait_until
from tests.functional.bgp.reflectors import ask_agent

pytestmark = pytest.mark.root

ZONES = {1: "a", 2: "a", 3: "a", 4: "a", 5: "b", 6: "b", 7: "b"}
CLIENTS = (1, 2, 7)
FLOWS = ((1, 7), (7, 1), (1, 2))
NOTHING_PASSES = """table inet power {
  chain in { type filter hook input priority -500; policy drop; }
  chain out { type filter hook output priority -500; policy drop; }
}"""


@pytest.fixture
def fabric(make_node: Callable[[str], AgentNode], store: Store, netns: Callable[[str], NetNs]) -> Fabric:
    store.configuration({"weft/bfd": "1s x 3"})
    return build(make_node, store, netns, ZONES, frozenset(CLIENTS))


def meanwhile(fabric: Fabric, what: Callable[[], None]) -> list[Report]:
    """Sequenced packets between living nodes, within the domain and across."""
    with contextlib.ExitStack() as stack:
        flows = [
            stack.enter_context(
                Traffic(fabric.nodes[f"n{here}"].netns, fabric.nodes[f"n{there}"].netns, workload(there), 7000 + here)
            )
            for here, there in FLOWS
        ]
        time.sleep(0.5)
        what()
        time.sleep(0.5)
    return [flow.report() for flow in flows]


def cut_power(node: AgentNode) -> None:
    """No packet leaves any more, so neither does the end of a connection."""
    node.netns.run(["nft", "-f", "-"], stdin=NOTHING_PASSES)
    for one in process.in_netns(node.netns):
        one.signal(signal.SIGKILL)


def is_watched(node: AgentNode) -> bool:
    """Every session with a reflector of another node."""
    peers = [each for each in ask_agent(node.run_dir, "peers") or [] if each["resource"] != f"Node/{node.name}"]
    return bool(peers) and all(each["bfd"] == "up" for each in peers)


def test_no_packet_between_living_nodes_is_lost_when_both_reflectors_of_a_domain_lose_power(fabric: Fabric) -> None:
    fabric.settings(enabled=True, above_nodes=3, domain_label=DOMAIN, replace_after_seconds=20)
    reflecting = {"a": ("n3", "n4"), "b": ("n5", "n6")}

    def attached_to(number: int, domain: str) -> bool:
        addresses = fabric.reflectors()
        wanted = {addresses.get(name, "") for name in reflecting[domain]}
        return fabric.sessions(f"n{number}") == wanted

    wait_until(
        "each has the reflectors of its domain",
        lambda: all(attached_to(number, domain) for number, domain in ZONES.items() if number in CLIENTS),
        120,
    )
    wait_until("all routes are there", fabric.routes_are_whole)
    wait_until("BFD is up on every session", lambda: all(map(is_watched, fabric.nodes.values())))
    control = meanwhile(fabric, lambda: time.sleep(2))
    dead = [fabric.nodes.pop(name) for name in reflecting["a"]]
    blocks = {f"10.65.{number}.0/26" for number in (3, 4)}

    def both_die() -> None:
        for node in dead:
            cut_power(node)
        wait_until(
            "their own blocks are gone everywhere",
            lambda: not any(blocks & set(n.routes()) for n in fabric.nodes.values()),
        )
        wait_until("the others use the next domain's", lambda: all(attached_to(number, "b") for number in CLIENTS), 100)

    lost = meanwhile(fabric, both_die)
    assert fabric.routes_are_whole()
    for name in ("n1", "n2"):
        assert "routes are kept until others bring them" in fabric.nodes[name].log()
    for before, after in zip(control, lost, strict=True):
        assert after.udp_lost <= before.udp_lost
        assert after.tcp_lost == 0
