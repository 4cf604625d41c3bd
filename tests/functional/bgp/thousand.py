"""A fabric of a thousand nodes: a few real ones with the real agent, the others scripted and behind one link of theirs.

Real nodes are on one segment; so is a router behind which all scripted nodes have their addresses. Two failure domains,
of which each has two real nodes; only real nodes may become reflectors."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Interface, IPv4Network

from lab import process, processes
from lab.netns import NetNs, bridge, link
from lab.process import Process
from tests.functional.bgp.fabric import AgentNode, wait_until
from tests.functional.bgp.scripted_nodes import Place, ScriptedNodes
from weft.datastore.base import Datastore
from weft.model import codec, keys
from weft.model.base import Metadata
from weft.model.ipam import AffinityValue
from weft.model.keys import AffinityKey, Owner
from weft.model.node import Node, NodeBGPSpec, NodeSpec
from weft.model.pool import IPPool, IPPoolSpec
from weft.reflectors.plan import CANDIDATE

DOMAINS = ("a", "b")
REAL = [
    Place(f"r{number}", IPv4Address(f"10.1.0.{number}"), IPv4Network(f"10.65.{number}.0/26")) for number in range(1, 5)
]
SCRIPTED_ADDRESSES = IPv4Network("10.2.0.0/16")
SCRIPTED_BLOCKS = IPv4Network("10.128.0.0/14")
REFLECTORS = IPv4Network("10.9.0.0/24")


def scripted_places(count: int) -> list[Place]:
    blocks = SCRIPTED_BLOCKS.subnets(new_prefix=26)
    return [Place(f"s{number:04}", SCRIPTED_ADDRESSES[256 + number], next(blocks)) for number in range(1, count + 1)]


def domain_of(place: Place) -> str:
    """Of real ones the first two are in a; of scripted ones every other."""
    number = int(place.name[1:])
    return DOMAINS[(number > 2) if place.name[0] == "r" else number % 2]


async def fill(store: Datastore, scripted: list[Place]) -> None:
    for place in [*REAL, *scripted]:
        candidate = {} if place in REAL else {CANDIDATE: "never"}
        metadata = Metadata(
            name=place.name, labels={"topology.kubernetes.io/zone": domain_of(place)}, annotations=candidate
        )
        length = 24 if place in REAL else 16
        bgp = NodeBGPSpec(ipv4_address=IPv4Interface((place.address, length)))
        node = Node(metadata=metadata, spec=NodeSpec(bgp=bgp))
        await store.create(keys.path(keys.of(node)), codec.encode_stored(node))
    for place in REAL:
        key = AffinityKey(Owner("host", place.name), place.block)
        await store.create(keys.path(key), codec.encode_stored(AffinityValue(state="confirmed")))
    for name, cidr, uses in (("pool", "10.65.0.0/16", ("Workload",)), ("reflectors", str(REFLECTORS), ("Tunnel",))):
        pool = IPPool(metadata=Metadata(name=name), spec=IPPoolSpec(cidr=IPv4Network(cidr), allowed_uses=uses))
        await store.create(keys.path(keys.of(pool)), codec.encode_stored(pool))


@dataclass(frozen=True, slots=True)
class Used:
    program: str
    cpu_s: float
    resident_mb: float


@dataclass
class World:
    """What is real of it. `scripted` may be set later."""

    agents: dict[str, AgentNode]
    speakers_at: NetNs
    routed: set[IPv4Address] = field(default_factory=set)

    def lead_to_reflectors(self, nodes: ScriptedNodes) -> None:
        """What a node learns from the mesh about the way to a reflector, scripted nodes get told."""
        for name, record in nodes.records.serving.items():
            via = next(place.address for place in REAL if place.name == name)
            for address in record.addresses:
                if address not in self.routed:
                    self.speakers_at.ip("route", "replace", str(address), "via", str(via))
                    self.routed.add(IPv4Address(str(address)))

    def routes(self, name: str) -> int:
        return len(self.agents[name].netns.ip_json("route", "show", "proto", "186"))

    def lose(self, names: Iterable[str]) -> None:
        """Every process on these real nodes ends at once, and then their links go down."""
        gone = [self.agents.pop(name).netns for name in names]
        running = [one for netns in gone for one in process.in_netns(netns)]
        for one in running:
            one.signal(signal.SIGKILL)
        wait_until("they have ended", lambda: not any(one.alive() for one in running))
        for netns in gone:
            netns.ip("link", "set", "up0", "down")

    def used(self) -> dict[int, Used]:
        """By process, of the real nodes that are left."""
        running = [one for agent in self.agents.values() for one in process.in_netns(agent.netns)]
        return {
            one.pid: Used(_program(one), processes.cpu_s(one.pid), processes.resident_kib(one.pid) / 1024)
            for one in running
        }


def _program(one: Process) -> str:
    words = " ".join(processes.command_line(one.pid)[:4])
    for mark, name in (("launcher", "exabgp"), ("speaker_link", "link"), ("bfd", "bfd"), ("automatic", "reflector")):
        if mark in words:
            return name
    return "agent" if "bird_agent.daemon" in words else ""


def build(stack: ExitStack, make: Callable[[str], NetNs], make_node: Callable[[str], AgentNode]) -> World:
    switch, outside = make("switch"), make("scripted")
    bridge(switch, "br0")
    agents = {place.name: make_node(place.name) for place in REAL}
    ends = [(agent.netns, name, f"10.1.0.{name[1:]}/24") for name, agent in agents.items()]
    for end, port, address in [*ends, (outside, "outside", "10.1.0.254/24")]:
        link(end, "up0", switch, port)
        switch.ip("link", "set", port, "master", "br0")
        end.ip("address", "add", address, "dev", "up0")
    for agent in agents.values():
        agent.netns.sysctl(ipv4__ip_forward=1)
        agent.netns.ip("route", "add", str(SCRIPTED_ADDRESSES), "via", "10.1.0.254")
    outside.ip("route", "add", "local", str(SCRIPTED_ADDRESSES), "dev", "lo")
    return World(agents, outside)
