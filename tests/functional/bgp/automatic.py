"""A fabric of real agents on one segment, which may turn to automatic reflectors."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from lab.netns import NetNs, link
from tests.functional.bgp.fabric import AgentNode, Store, wait_until
from tests.functional.bgp.reflectors import ask_reflector
from weft import singleton
from weft.model.keys import ReflectorKey
from weft.model.reflectors import ReflectorSettings

DOMAIN = "topology.kubernetes.io/zone"


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


def build(
    make_node: Callable[[str], AgentNode],
    store: Store,
    switch: NetNs,
    domains: Mapping[int, str],
    not_reflectors: frozenset[int] = frozenset(),
) -> Fabric:
    """A mesh of the nodes of these numbers, on the bridge br0, each in its failure domain ("": none)."""
    store.pool("workloads", "10.65.0.0/16", allowed_uses=("Workload",))
    store.pool("reflectors", "10.9.0.0/24", allowed_uses=("Tunnel",), block_size=29)
    store.pool("reflectors6", "fd09::/116", allowed_uses=("Tunnel",), block_size=122)
    nodes = {}
    for number, domain in domains.items():
        name = f"n{number}"
        node = nodes[name] = make_node(name)
        link(node.netns, "up0", switch, name)
        switch.ip("link", "set", name, "master", "br0")
        node.netns.ip("address", "add", f"10.1.0.{number}/24", "dev", "up0")
        node.netns.ip("address", "add", f"{workload(number)}/32", "dev", "lo")
        node.netns.ip("address", "add", f"fd01::{number}/64", "dev", "up0", "nodad")
        store.node(
            name,
            f"10.1.0.{number}/24",
            address6=f"fd01::{number}/64",
            labels={DOMAIN: domain} if domain else {},
            annotations={"weft/reflector": "never"} if number in not_reflectors else {},
        )
        store.block(name, f"10.65.{number}.0/26")
    made = Fabric(nodes, store)
    for node in nodes.values():
        node.start()
    wait_until("there is a mesh", made.is_mesh, 120)
    wait_until("all routes are there", made.routes_are_whole)
    return made
