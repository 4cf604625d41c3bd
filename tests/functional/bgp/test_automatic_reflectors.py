"""A mesh that turns to reflectors by itself and back, on real agents; what traffic and kernels say of it."""

from __future__ import annotations

import re
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from lab import process
from lab.netns import NetNs, bridge, link
from lab.traffic import Report, Traffic
from tests.functional.bgp.asking import weftctl
from tests.functional.bgp.fabric import AgentNode, Store, wait_until
from tests.functional.bgp.reflectors import ask_reflector
from weft import singleton
from weft.model.keys import ReflectorKey, ResourceKey
from weft.model.reflectors import ReflectorBeat, ReflectorRecord, ReflectorSettings

pytestmark = pytest.mark.root

NODES = 4


def workload(number: int) -> str:
    return f"10.65.{number}.1"


@dataclass
class Fabric:
    """Nodes on one segment, each with a block and an address in it."""

    nodes: dict[str, AgentNode]
    store: Store

    def settings(self, **settings: Any) -> None:
        self.store.put(ReflectorKey("settings"), ReflectorSettings(**settings))

    def sessions(self, name: str) -> set[str]:
        """The peers of a node's established sessions, from its kernel."""
        lines = self.nodes[name].netns.run(["ss", "-Htn", "state", "established"]).splitlines()
        ends = [re.findall(r"\[?([0-9a-f.:]+?)\]?:(\d+)(?=\s|$)", line.split(maxsplit=2)[2]) for line in lines]
        here = f"10.1.0.{name[1:]}"
        return {far for (near, near_port), (far, far_port) in ends if near == here and "179" in (near_port, far_port)}

    def reflectors(self) -> dict[str, str]:
        """Node -> the address of the reflector whose process runs on it."""
        found = {}
        for name, node in self.nodes.items():
            marked = [
                each["local"]
                for one in node.netns.ip_json("-4", "address", "show", "dev", "lo")
                for each in one["addr_info"]
                if each["local"].startswith("10.9.")
            ]
            if marked and self.reflector_pid(name) is not None:
                found[name] = marked[0]
        return found

    def reflector_pid(self, name: str) -> int | None:
        return singleton.holder(singleton.lock_path(self.nodes[name].run_dir, "reflector"))

    def is_mesh(self) -> bool:
        return all(self.sessions(name) == self.others(name) for name in self.nodes) and not self.reflectors()

    def others(self, name: str) -> set[str]:
        return {f"10.1.0.{other[1:]}" for other in self.nodes if other != name}

    def is_reflected(self, count: int = 2) -> bool:
        """Every node has a session with each reflector, and there is no other."""
        addresses = set(self.reflectors().values())
        return len(addresses) == count and all(self.sessions(name) == addresses for name in self.nodes)

    def is_watched(self) -> bool:
        """By the reflectors' own word, over IPv4 and IPv6, but for the node's session with its own."""
        asked = [(name, ask_reflector(self.nodes[name].run_dir, name, "peers")) for name in self.reflectors()]
        if not all(peers and {":" in each["address"] for each in peers} == {True, False} for _, peers in asked):
            return False
        return all(
            (each["bfd"] == "up") == (each["resource"] != f"Node/{name}") for name, peers in asked for each in peers
        )

    def routes_are_whole(self) -> bool:
        return all(
            {f"10.65.{other[1:]}.0/26" for other in self.nodes if other != name} <= set(node.routes())
            for name, node in self.nodes.items()
        )

    def explain(self) -> str:
        return "\n".join(f"{name}: {sorted(self.sessions(name))}" for name in self.nodes) + f"\n{self.reflectors()}"


@pytest.fixture
def fabric(make_node: Callable[[str], AgentNode], store: Store, netns: Callable[[str], NetNs]) -> Fabric:
    switch = netns("switch")
    bridge(switch, "br0")
    store.pool("workloads", "10.65.0.0/16", allowed_uses=("Workload",))
    store.pool("reflectors", "10.9.0.0/24", allowed_uses=("Tunnel",), block_size=29)
    store.pool("reflectors6", "fd09::/116", allowed_uses=("Tunnel",), block_size=122)
    nodes = {}
    for number in range(1, NODES + 1):
        name = f"n{number}"
        node = nodes[name] = make_node(name)
        link(node.netns, "up0", switch, name)
        switch.ip("link", "set", name, "master", "br0")
        node.netns.ip("address", "add", f"10.1.0.{number}/24", "dev", "up0")
        node.netns.ip("address", "add", f"{workload(number)}/32", "dev", "lo")
        node.netns.ip("address", "add", f"fd01::{number}/64", "dev", "up0", "nodad")
        store.node(name, f"10.1.0.{number}/24", address6=f"fd01::{number}/64")
        store.block(name, f"10.65.{number}.0/26")
    made = Fabric(nodes, store)
    for node in nodes.values():
        node.start()
    wait_until("there is a mesh", made.is_mesh)
    wait_until("all routes are there", made.routes_are_whole)
    return made


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
