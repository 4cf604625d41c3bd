"""A mesh that turns to reflectors by itself and back, on real agents; what traffic and kernels say of it."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from lab import process
from lab.netns import NetNs, bridge
from lab.traffic import Report, Traffic
from tests.functional.bgp.asking import weftctl
from tests.functional.bgp.automatic import Fabric, build, workload
from tests.functional.bgp.fabric import AgentNode, Store, wait_until
from weft.model.keys import ReflectorKey, ResourceKey
from weft.model.reflectors import ReflectorBeat, ReflectorRecord

# The longest test: groups begin before single tests, and large ones first.
pytestmark = [pytest.mark.root, pytest.mark.xdist_group("router-bird")]

NODES = 4


@pytest.fixture
def fabric(make_node: Callable[[str], AgentNode], store: Store, netns: Callable[[str], NetNs]) -> Fabric:
    switch = netns("switch")
    bridge(switch, "br0")
    return build(make_node, store, switch, dict.fromkeys(range(1, NODES + 1), ""))


def meanwhile(fabric: Fabric, what: Callable[[], None]) -> Report:
    """Sequenced packets from the first node's workload to the last one's."""
    source, target = fabric.nodes["n1"].netns, fabric.nodes[f"n{NODES}"].netns
    with Traffic(source, target, workload(NODES)) as traffic:
        time.sleep(0.5)
        what()
        time.sleep(0.5)
    return traffic.report()


def test_from_mesh_to_reflectors_over_the_death_of_one_and_back_without_losing_a_packet(
    fabric: Fabric, tmp_path: Path
) -> None:
    """Agents are killed in the middle of the first transition."""
    settings = {"above_nodes": NODES - 2, "replace_after_seconds": 6}
    control = meanwhile(fabric, lambda: time.sleep(1))
    # Of a node that died after it was no longer chosen.
    fabric.store.put(ReflectorKey("beats", "n9"), ReflectorBeat())
    fabric.store.put(ReflectorKey("serving", "n9"), ReflectorRecord(up=True))
    fabric.store.configuration({"weft/bfd": "1s x 3"})

    def turn() -> None:
        fabric.settings(enabled=True, **settings)
        wait_until("the fabric turns", fabric.reflectors)
        for name in ("n1", f"n{NODES}"):
            fabric.nodes[name].kill()
            fabric.nodes[name].start()
        wait_until("every node has two reflectors and no other session", fabric.is_reflected, 120)

    turned = meanwhile(fabric, turn)
    assert fabric.routes_are_whole()
    wait_until("BFD is up between every node and every other's reflector", fabric.is_watched)
    for name in fabric.reflectors():
        code, shown, _ = weftctl(tmp_path, fabric.store.endpoint, "peers", "--reflector", "--node", name)
        assert (code, "Established" in shown) == (0, True)
    before = fabric.reflectors()
    dead = min(before.keys() - {"n1", f"n{NODES}"})  # which are chosen, the names decide
    gone = fabric.nodes.pop(dead)

    def lose_a_node() -> None:
        for one in process.in_netns(gone.netns):
            one.signal(signal.SIGKILL)
        time.sleep(1)
        gone.netns.ip("link", "set", "up0", "down")
        wait_until("another takes its place", lambda: fabric.is_reflected() and fabric.reflectors() != before, 120)

    lost = meanwhile(fabric, lose_a_node)
    assert dead not in fabric.reflectors()
    assert "is replaced: no sign of life and no session" in "".join(each.log() for each in fabric.nodes.values())

    def turn_back() -> None:
        fabric.store.delete(ResourceKey("Node", dead))
        fabric.settings(enabled=False, **settings)
        wait_until("there is a mesh", fabric.is_mesh, 120)

    turned_back = meanwhile(fabric, turn_back)
    assert fabric.routes_are_whole()
    for report in (turned, lost, turned_back):
        assert report.udp_lost <= control.udp_lost
        assert report.tcp_lost == 0
    wait_until("the leftover is gone", lambda: not fabric.store.has(ReflectorKey("serving", "n9")))
