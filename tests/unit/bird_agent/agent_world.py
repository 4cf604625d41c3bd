"""The agent of n1, its resources, and a speaker that refuses like ExaBGP: what the tests of the agent are made of."""

from __future__ import annotations

from ipaddress import IPv4Interface, ip_address, ip_network
from typing import Any

from bird_agent.agent import Agent, Step
from bird_agent.exabgp import events
from bird_agent.exabgp.events import PathAttributes
from bird_agent.nexthops import Underlay
from tests.fakes.speaker import FakeSpeaker
from weft.datastore.syncer import InSync, Upserted
from weft.model import keys
from weft.model.base import Metadata
from weft.model.ipam import AffinityValue
from weft.model.keys import AffinityKey, Key, Owner
from weft.model.node import Node, NodeBGPSpec, NodeSpec
from weft.model.pool import IPPool, IPPoolSpec

PEERS = ["10.0.0.2", "10.0.0.3"]


BLOCKS = [f"10.65.{number}.0/26" for number in range(3)]


UNDERLAY = Underlay({ip_network("10.0.0.0/24"): frozenset({2})}, {}, frozenset({2}))


BORROWED = ["10.65.2.7/32", "10.65.9.1/32"]  # the first lies in one of the blocks


POOL = IPPool(metadata=Metadata(name="pool"), spec=IPPoolSpec(cidr=ip_network("10.65.0.0/16")))


LEARNT = ip_network("10.66.0.0/26")


def node(number: int) -> Upserted:
    bgp = NodeBGPSpec(ipv4_address=IPv4Interface(f"10.0.0.{number}/24"))
    resource = Node(metadata=Metadata(name=f"n{number}"), spec=NodeSpec(bgp=bgp))
    return Upserted(keys.of(resource), resource, 1)


def block_key(cidr: str) -> Key:
    return AffinityKey(Owner("host", "n1"), ip_network(cidr))


def block(cidr: str, state: Any = "confirmed") -> Upserted:
    return Upserted(block_key(cidr), AffinityValue(state=state), 1)


class World:
    """An agent with its speaker, and the kernel's routes as told by the steps."""

    def __init__(self, *peers: int) -> None:
        self.agent = Agent("n1", started_at=0.0)
        self.agent.on_underlay(UNDERLAY)
        self.speaker = FakeSpeaker(self.agent)
        self.now = 0.0
        self.kernel: dict[Any, Any] = {}
        self.swept = False
        self.notes: list[str] = []
        self.peers = peers

    def begin(self, *more: Upserted) -> None:
        self.agent.on_datastore([node(1), *(node(number) for number in self.peers), *more, InSync()])
        self.step()
        self.speaker.configure(f"10.0.0.{number}" for number in self.peers)

    def step(self, seconds: float = 0.01) -> list[Step]:
        """Until there is nothing more to do."""
        steps = []
        self.now += seconds
        for _ in range(10):
            step = self.agent.step(self.now)
            steps.append(step)
            self.notes += step.notes
            self.swept = self.swept or step.sweep
            for prefix, target in step.routes.items():
                if target is None:
                    self.kernel.pop(prefix, None)
                else:
                    self.kernel[prefix] = target
            if not step.commands:
                return steps
            self.speaker.obey(step.commands)
        raise AssertionError("the agent never comes to rest")

    def learn(self, peer: str, prefix: Any = LEARNT) -> None:
        address = ip_address(peer)
        self.speaker.tell(events.RoutesReceived(address, PathAttributes(0), ((prefix, address),), ()))

    def sent(self, peer: str) -> list[str]:
        return self.speaker.peers[ip_address(peer)].sent


def running(*peers: int, blocks: list[str] = BLOCKS[:1]) -> World:
    """Attached, all sessions up, everything announced."""
    world = World(*peers)
    world.begin(*map(block, blocks))
    world.speaker.attach()
    world.step()
    for number in peers:
        world.speaker.up(f"10.0.0.{number}")
    world.step()
    return world
