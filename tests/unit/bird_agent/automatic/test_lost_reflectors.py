"""All reflectors of a domain die while its other nodes live: what a reflector that is left tells its clients."""

from __future__ import annotations

from ipaddress import IPv4Address, ip_network

import pytest

from bird_agent.automatic.process import others_holding
from bird_agent.automatic.source import ChosenNode
from bird_agent.reflector.outputs import Updates
from bird_agent.reflector.prefixes import nlri_of
from bird_agent.session_config import NOTHING_KNOWN
from tests.unit.bird_agent.reflector.world import Script, World, attributes
from tests.unit.reflectors.fabrics import ON, SETTINGS, fabric, zones
from weft.config import AgentConfig
from weft.datastore.syncer import Deleted, InSync, SyncEvent, Upserted
from weft.model.address import IPAddress
from weft.model.keys import ReflectorKey, ResourceKey
from weft.model.reflectors import ReflectorRecord, ReflectorState, Replacement
from weft.reflectors.plan import plan

NODES = zones(12, "a", "b")
BLOCK = "10.65.7.0/26"
OWN_BLOCKS = ("10.65.1.0/26", "10.65.2.0/26")
"""Those of the nodes with the reflectors that are lost."""
REPLACE_AFTER_S, RESTART_TIME_S = 60, 120


def node_address(name: str) -> IPAddress:
    return IPv4Address("10.0.0.0") + int(name[1:])


def reflector_address(name: str) -> IPAddress:
    return IPv4Address("10.9.0.0") + int(name[1:])


class Survivor:
    """The reflector on a node of domain b, and a client of it. `lost` are the reflectors of domain a, of which `far`
    is another node, whose block they have told."""

    def __init__(self) -> None:
        made = plan(fabric(NODES), SETTINGS, ON)
        node, beside = made.reflectors["b"]
        self.lost = made.reflectors["a"]
        self.far, *_ = (name for name, of in made.domain_of.items() if of == "a" and name not in self.lost)
        near, *_ = (name for name, of in made.domain_of.items() if of == "b" and name not in (node, beside))
        self.source = ChosenNode(AgentConfig.from_environ({"NODENAME": node}))
        self.source.addresses = (reflector_address(node),)
        serving = {name: ReflectorRecord(addresses=(reflector_address(name),), up=True) for name in sorted(made.chosen)}
        events = [Upserted(ReflectorKey("serving", name), record, 1) for name, record in serving.items()]
        events += [Upserted(ResourceKey("Node", each.name), each, 1) for each in NODES]
        events += [Upserted(ReflectorKey("settings"), SETTINGS, 1), Upserted(ReflectorKey("state"), ON, 1)]
        self.source.on_datastore([*events, InSync()])
        wanted = self.source.wanted(NOTHING_KNOWN)
        assert wanted is not None
        self.world = World(wanted.plan)
        self.client = self.connect(node_address(near))
        self.connect(reflector_address(beside))
        self.others = [self.connect(reflector_address(name)) for name in self.lost]
        self.world.wait(20)
        for other in self.others:
            self.tell_of_far(other)
            for name, block in zip(self.lost, OWN_BLOCKS, strict=True):
                self.tell(other, name, block)
        self.tick()

    def connect(self, peer: IPAddress) -> Script:
        script = self.world.connect(str(peer))
        self.world.end_of_rib(script)
        return script

    def tell_of_far(self, script: Script) -> None:
        self.tell(script, self.far, BLOCK)

    def tell(self, script: Script, node: str, block: str) -> None:
        self.world.announce(script, [block], attributes(self.world.sets, local_preference=100), str(node_address(node)))

    def reflectors_die(self, how: str = "connection lost") -> None:
        for other in self.others:
            if how == "connection lost":
                self.world.lose(other)
            elif how == "BFD":
                self.world.reflector.on_path_lost(other.address, "BFD: the path is dead", self.world.now)
        self.world.settle()
        self.tick()

    def reflectors_are_replaced(self) -> None:
        """As the node writes that is the first to: the state, and no more word of the dead ones."""
        state = ReflectorState(mode="reflectors", epoch=1, replaced=tuple(Replacement(node=name) for name in self.lost))
        gone: list[SyncEvent] = [Deleted(ReflectorKey("serving", name)) for name in self.lost]
        self.source.on_datastore([Upserted(ReflectorKey("state"), state, 2), *gone])
        self.tick()

    def tick(self) -> None:
        """As the process does when something has changed, and twice a second."""
        self.source.holding = others_holding(self.world.reflector)
        wanted = self.source.wanted(NOTHING_KNOWN)
        assert wanted is not None
        self.world.configure(wanted.plan)

    def withdraws(self, block: str) -> bool:
        """Whether the client was ever told that the block is gone."""
        heard = (each for each in self.client.heard if isinstance(each, Updates))
        return any(nlri_of(ip_network(block)) in each.withdrawn for each in heard)

    @property
    def withdrawn(self) -> bool:
        return self.withdraws(BLOCK)


@pytest.mark.parametrize("how", ["connection lost", "BFD"])
@pytest.mark.parametrize("after_s", [10, REPLACE_AFTER_S])
def test_clients_hear_no_withdrawal_when_the_dead_reflectors_are_replaced_before_their_clients_have_come(
    after_s: int, how: str
) -> None:
    made = Survivor()
    made.reflectors_die(how)
    assert all(made.withdraws(block) == (how == "BFD") for block in OWN_BLOCKS), "the blocks of nodes that are dead"
    made.world.wait(after_s)
    made.reflectors_are_replaced()
    assert not made.withdrawn
    made.world.wait(20)
    made.tick()
    made.tell_of_far(made.connect(node_address(made.far)))
    made.world.wait(RESTART_TIME_S)
    made.tick()
    assert not made.withdrawn
    assert nlri_of(ip_network(BLOCK)) in {nlri for _, nlri in made.client.table}


@pytest.mark.parametrize("how", ["connection lost", "BFD"])
def test_what_nobody_brings_again_goes_with_the_restart_time_of_the_dead_and_so_do_their_sessions(how: str) -> None:
    made = Survivor()
    made.reflectors_die(how)
    made.world.wait(REPLACE_AFTER_S)
    made.reflectors_are_replaced()
    holding = set(made.lost if how == "connection lost" else made.lost[-1:])  # what the last one brought was enough
    assert holding == set(made.lost) & made.source.others().keys()
    made.world.wait(RESTART_TIME_S - REPLACE_AFTER_S + 10)
    assert made.withdrawn
    made.tick()
    assert not set(made.lost) & made.source.others().keys()
    assert not {reflector_address(name) for name in made.lost} & made.world.reflector.peers.keys()


def test_a_reflector_that_left_without_routes_is_forgotten_at_once() -> None:
    made = Survivor()
    for other in made.others:
        made.world.withdraw(other, [BLOCK, *OWN_BLOCKS])
    made.reflectors_die()
    made.reflectors_are_replaced()
    assert not set(made.lost) & made.source.others().keys()
