"""Two nodes that know of each other only by way of one reflector: weft throughout, and BIRD throughout.

Graceful restart of 120 s on every session and no BFD towards the reflector, which no packet passes."""

from __future__ import annotations

import signal
from abc import ABC, abstractmethod
from contextlib import ExitStack
from pathlib import Path

from lab import process
from lab.netns import NetNs, bridge, link
from tests.bench import datastore
from tests.functional.bgp.fabric import AgentNode, Bird, wait_until
from tests.functional.bgp.reflectors import CLUSTER, ReflectorNode

NODES = ("n1", "n2")
REFLECTOR = 100
SESSION = (
    "hold time 90; graceful restart on; graceful restart time 120;"
    " connect retry time 1; connect delay time 1; error wait time 1, 2;"
)
KERNEL = "protocol kernel { scan time 2; persist; ipv4 { import none; export where source = RTS_BGP; }; }"


def number_of(node: str) -> int:
    return int(node[-1])


def address_of(node: str) -> str:
    """Of the workload on a node: an address of the block that the node announces."""
    return f"10.65.{number_of(node)}.2"


class Reflected(ABC):
    def __init__(self, stack: ExitStack, prefix: str, directory: Path) -> None:
        self._stack, self._prefix, self.directory = stack, prefix, directory
        self._switch = self._netns("switch")
        bridge(self._switch, "br0")
        self.nodes = {node: self._host(node, number_of(node)) for node in NODES}
        self.reflector = self._host("rr", REFLECTOR)
        for node, netns in self.nodes.items():
            netns.ip("address", "add", f"{address_of(node)}/32", "dev", "lo")

    @abstractmethod
    def kill(self) -> None:
        """End the reflector as the kernel does, and start it again at once."""

    @abstractmethod
    def upgrade(self) -> None:
        """End it in good order, and start it again at once."""

    @abstractmethod
    def converged(self) -> bool:
        """The reflector that runs now has told each node the other's block."""

    def ready(self) -> bool:
        routes = (
            self.nodes["n1"].ip_json("route", "show", "10.65.2.0/26"),
            self.nodes["n2"].ip_json("route", "show", "10.65.1.0/26"),
        )
        return self.converged() and all(any("gateway" in route for route in found) for found in routes)

    def _netns(self, name: str) -> NetNs:
        made = NetNs(f"{self._prefix}{name}").create()
        made.sysctl(ipv4__ip_forward=1)
        self._stack.callback(made.delete)
        self._stack.callback(lambda: process.stop(process.in_netns(made), grace_s=1))
        return made

    def _host(self, name: str, number: int) -> NetNs:
        made = self._netns(name)
        link(made, "up0", self._switch, name)
        self._switch.ip("link", "set", name, "master", "br0")
        made.ip("address", "add", f"10.1.0.{number}/24", "dev", "up0")
        return made


class WeftReflected(Reflected):
    def __init__(self, stack: ExitStack, prefix: str, directory: Path) -> None:
        super().__init__(stack, prefix, directory)
        store = datastore.start(stack, directory, self.reflector, *self.nodes.values())
        store.configuration(node_to_node_mesh_enabled=False)
        store.pool("pool", "10.65.0.0/16")
        for node in NODES:
            store.node(node, f"10.1.0.{number_of(node)}/24")
            store.block(node, f"10.65.{number_of(node)}.0/26")
        store.peer("reflector", peer_selector="role == 'reflector'", node_selector="all()")
        for node, netns in self.nodes.items():
            agent = AgentNode(node, netns, directory / node, datastore.ENVIRON)
            agent.run_dir.mkdir()
            agent.start()
        environ = {
            **datastore.ENVIRON,
            "WEFT_REFLECTOR_CLUSTER_ID": CLUSTER,
            "WEFT_REFLECTOR_LABELS": "role=reflector",
            "WEFT_REFLECTOR_IP": f"10.1.0.{REFLECTOR}/24",
        }
        self._process = ReflectorNode("rr", self.reflector, directory / "rr", environ)
        self._process.start()

    def kill(self) -> None:
        self._process.end(signal.SIGKILL)
        self._process.start()

    def upgrade(self) -> None:
        self._process.end(signal.SIGTERM)
        self._process.start()

    def converged(self) -> bool:
        found = self._process.ask("peers")
        return found is not None and sum(peer["state"] == "Established" for peer in found) == len(NODES)


class BirdReflected(Reflected):
    def __init__(self, stack: ExitStack, prefix: str, directory: Path) -> None:
        super().__init__(stack, prefix, directory)
        for node, netns in self.nodes.items():
            number = number_of(node)
            own = f"protocol static own {{ ipv4; route 10.65.{number}.0/26 blackhole; }}"
            session = (
                f"protocol bgp reflector {{ local 10.1.0.{number} as 64512; neighbor 10.1.0.{REFLECTOR} as 64512;"
                f" {SESSION}"
                ' ipv4 { import all; export where proto = "own"; next hop self; }; }'
            )
            Bird(netns, directory / node, _text(f"10.1.0.{number}", KERNEL, own, session)).start()
        clients = [
            f"protocol bgp {node} {{ local 10.1.0.{REFLECTOR} as 64512; neighbor 10.1.0.{number_of(node)} as 64512;"
            f" rr client; rr cluster id {CLUSTER}; {SESSION} ipv4 {{ import all; export all; }}; }}"
            for node in NODES
        ]
        self._bird = Bird(self.reflector, directory / "rr", _text(f"10.1.0.{REFLECTOR}", *clients))
        self._bird.start()

    def kill(self) -> None:
        assert self._bird.process is not None
        self._bird.process.signal(signal.SIGKILL)
        self._again()

    def upgrade(self) -> None:
        self._bird.ask("graceful restart")
        self._again()

    def converged(self) -> bool:
        return self._bird.ask("show protocols").count("Established") == len(NODES)

    def _again(self) -> None:
        bird, old = self._bird, self._bird.process
        assert old is not None
        wait_until("BIRD has ended", lambda: not old.alive())
        argv = ["bird", "-R", "-f", "-c", str(bird.directory / "bird.conf"), "-s", bird.control]
        bird.process = process.start("bird", argv, log=bird.directory / "bird.log", netns=bird.netns)


def _text(router_id: str, *rest: str) -> str:
    direct = 'protocol direct { interface "up*"; ipv4; }'
    return "\n".join((f"router id {router_id};", "log stderr all;", "protocol device { scan time 2; }", direct, *rest))
