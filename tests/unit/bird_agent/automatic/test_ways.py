"""The way to other nodes' reflectors: BGP tells of their addresses by them, so it must not be needed for that."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

from bird_agent.exabgp import events
from tests.unit.bird_agent.test_agent import running
from weft.datastore.syncer import Deleted, Upserted
from weft.model.keys import ReflectorKey
from weft.model.reflectors import ReflectorRecord
from weft.netlink.route import Hop, via

ADDRESS = ip_network("10.9.0.2/32")
SERVING = Upserted(ReflectorKey("serving", "n2"), ReflectorRecord(addresses=(ip_address("10.9.0.2"),)), 1)


def test_a_reflector_is_reached_by_its_node_before_anything_is_learnt_and_after_all_of_it_is_lost() -> None:
    world = running(2)
    world.agent.on_datastore([SERVING])
    world.step()
    by_its_node = via(Hop(ip_address("10.0.0.2"), 2))
    assert world.kernel == {ADDRESS: by_its_node}
    world.learn("10.0.0.2", ADDRESS)
    world.speaker.tell(events.SessionDown(ip_address("10.0.0.2"), world.now, "x", (6, 2)))
    world.step()
    assert world.kernel == {ADDRESS: by_its_node}
    world.agent.on_datastore([Deleted(SERVING.key)])
    world.step()
    assert world.kernel == {}
