"""Both nodes with a failure domain's reflectors fall silent without a word, and the other nodes live."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Callable, Mapping

import pytest

from lab import process
from lab.netns import NetNs, bridge
from lab.traffic import Report, Traffic
from tests.functional.bgp.automatic import DOMAIN, Fabric, build, workload
from tests.functional.bgp.fabric import AgentNode, Store, wait_until
from tests.functional.bgp.pair import nothing_deleted
from tests.functional.bgp.reflectors import ask_agent

pytestmark = [pytest.mark.root, pytest.mark.soak, pytest.mark.timeout(900)]

ZONES = {1: "a", 2: "a", 3: "a", 4: "a", 5: "b", 6: "b", 7: "b"}
REFLECTORS = {"a": (3, 4), "b": (5, 6)}
CLIENTS = frozenset((1, 2, 7))
FLOWS = ((1, 7), (7, 1), (1, 2))
NOTHING_PASSES = """table inet power {
  chain in { type filter hook input priority -500; policy drop; }
  chain out { type filter hook output priority -500; policy drop; }
}"""


@pytest.fixture
def switch(netns: Callable[[str], NetNs]) -> NetNs:
    made = netns("switch")
    bridge(made, "br0")
    bridge(made, "br1")
    return made


@pytest.fixture
def fabric(make_node: Callable[[str], AgentNode], store: Store, switch: NetNs) -> Fabric:
    store.configuration({"weft/bfd": "1s x 3"})
    return build(make_node, store, switch, ZONES, CLIENTS)


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


def separate(switch: NetNs, apart: bool) -> None:
    """Cut the first domain's reflectors off from everybody else."""
    for number in (3, 4):
        switch.ip("link", "set", f"n{number}", "master", "br1" if apart else "br0")


def is_watched(node: AgentNode) -> bool:
    """Every session with a reflector of another node."""
    peers = [each for each in ask_agent(node.run_dir, "peers") or [] if each["resource"] != f"Node/{node.name}"]
    return bool(peers) and all(each["bfd"] == "up" for each in peers)


def are_attached(fabric: Fabric, domains: Mapping[int, str]) -> bool:
    """Each of these nodes has sessions with the reflectors of its domain, and no other."""
    addresses = fabric.reflectors()
    return all(
        fabric.sessions(f"n{number}") == {addresses.get(f"n{each}") for each in REFLECTORS[domain]}
        for number, domain in domains.items()
    )


def test_no_packet_between_living_nodes_is_lost_when_both_reflectors_of_a_domain_fall_silent(
    fabric: Fabric, switch: NetNs
) -> None:
    """At first they are cut off, come back and find everybody; then they lose power."""
    own, reserve = {1: "a", 2: "a", 7: "b"}, {1: "b", 2: "b", 7: "b"}
    blocks = {f"10.65.{number}.0/26" for number in REFLECTORS["a"]}
    fabric.settings(enabled=True, above_nodes=3, domain_label=DOMAIN)

    def use_the_reserve() -> None:
        others = [node for name, node in fabric.nodes.items() if name not in ("n3", "n4")]
        wait_until("their own blocks are gone", lambda: not any(blocks & set(node.routes()) for node in others))
        wait_until("the others use the next domain's", lambda: are_attached(fabric, reserve), 100)

    def cut_off_and_join() -> None:
        separate(switch, True)
        use_the_reserve()
        separate(switch, False)
        wait_until("each uses its own again", lambda: are_attached(fabric, own), 100)

    def lose_power() -> None:
        for node in dead:
            cut_power(node)
        use_the_reserve()

    wait_until("each has the reflectors of its domain", lambda: are_attached(fabric, own), 120)
    wait_until("all routes are there", fabric.routes_are_whole)
    wait_until("BFD is up on every session", lambda: all(map(is_watched, fabric.nodes.values())))
    control, addresses = meanwhile(fabric, lambda: time.sleep(2)), set(fabric.reflectors().values())
    with nothing_deleted(fabric.nodes["n1"].netns) as deleted:
        cut_off = meanwhile(fabric, cut_off_and_join)
    hosts = [line.split()[1] for line in deleted if "/" not in line.split()[1]]
    assert not set(hosts) & addresses, "the ways to reflectors stay"
    wait_until("all routes are there", fabric.routes_are_whole)
    wait_until("BFD is up on every session", lambda: all(map(is_watched, fabric.nodes.values())))
    dead = [fabric.nodes.pop(f"n{number}") for number in REFLECTORS["a"]]
    without_power = meanwhile(fabric, lose_power)
    assert fabric.routes_are_whole()
    for name in ("n1", "n2"):
        assert "routes are kept until others bring them" in fabric.nodes[name].log()
    for before, *after in zip(control, cut_off, without_power, strict=True):
        for report in after:
            assert report.udp_lost <= before.udp_lost
            assert report.tcp_lost == 0
