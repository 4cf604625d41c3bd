"""The sessions of an automatic reflector, and those of nodes with it: both ends have to want the same."""

from __future__ import annotations

import re
from ipaddress import IPv4Address, ip_address

import msgspec
import pytest

from bird_agent.automatic.client import AutomaticSessions
from bird_agent.automatic.decision import Shared
from bird_agent.automatic.serving import Identity, Member, reflector_plan
from bird_agent.automatic.source import ADDRESSES, ChosenNode
from bird_agent.bfd.session import BfdSettings
from bird_agent.bfd.wire import Watch
from bird_agent.peering import peering
from bird_agent.survey import BgpResources
from tests.unit.bird_agent.peering_cases import node
from weft.config import AgentConfig
from weft.datastore.syncer import InSync, SyncEvent, Upserted
from weft.model.address import IPAddress
from weft.model.base import Metadata
from weft.model.bgp import BGPConfiguration, BGPConfigurationSpec
from weft.model.keys import ReflectorKey, ResourceKey
from weft.model.reflectors import ReflectorRecord
from weft.reflectors.plan import Plan

REFLECTORS: dict[str, tuple[IPAddress, ...]] = {"n1": (ip_address("10.9.0.1"),), "n2": (ip_address("10.9.0.2"),)}
WISH, WATCH = "100ms x 3", Watch(BfdSettings(100_000, 3))


def test_both_ends_watch_each_path_over_several_hops_but_for_that_to_oneself() -> None:
    names = ("n1", "n2", "n3")
    plan = Plan("reflectors", 1, {"": ("n1", "n2")}, dict.fromkeys(names, ""))
    members = [Member(name, (ip_address(f"10.0.0.{number}"),)) for number, name in enumerate(names, 1)]
    identity = Identity(node="n1", asn=64512, addresses=REFLECTORS["n1"], router_id=IPv4Address("10.9.0.1"), bfd=WATCH)
    others = {"n2": REFLECTORS["n2"]}
    sessions = reflector_plan(identity, Shared(plan), members, others).sessions
    theirs = {str(peer): one.config.bfd is not None and one.config.bfd.multihop for peer, one in sessions.items()}
    assert theirs == {"10.0.0.1": False, "10.0.0.2": True, "10.0.0.3": True, "10.9.0.2": True}

    default = BGPConfiguration(
        metadata=Metadata(name="default", annotations={"weft/bfd": WISH}), spec=BGPConfigurationSpec()
    )
    for number, name in enumerate(names, 1):
        resources = BgpResources(
            {each: node(index) for index, each in enumerate(names, 1)},
            {"default": default},
            automatic=AutomaticSessions(frozenset(names) - {name}, REFLECTORS),
        )
        planned = peering(name, resources)
        assert planned is not None
        ours = planned.sessions[REFLECTORS["n1"][0]].bfd
        assert (ours is not None and ours.multihop) == theirs[f"10.0.0.{number}"]


def test_what_dies_with_an_automatic_reflector_is_what_leads_to_its_node_and_with_any_other_peer_everything() -> None:
    names = ("n1", "n2", "n3")
    nodes = {each: node(index) for index, each in enumerate(names, 1)}
    plan = Plan("reflectors", 1, {"": ("n1", "n2")}, dict.fromkeys(names, ""))
    members = [Member(name, (ip_address(f"10.0.0.{number}"),)) for number, name in enumerate(names, 1)]
    identity = Identity(node="n1", asn=64512, addresses=REFLECTORS["n1"], router_id=IPv4Address("10.9.0.1"))
    sessions = reflector_plan(identity, Shared(plan), members, {"n2": REFLECTORS["n2"]}).sessions
    second = frozenset([ip_address("10.0.0.2")])
    assert {str(peer): one.config.dies_with for peer, one in sessions.items()} == {
        "10.0.0.1": None,
        "10.0.0.2": None,
        "10.0.0.3": None,
        "10.9.0.2": second,
    }
    resources = BgpResources(nodes, {}, automatic=AutomaticSessions(frozenset(["n1"]), REFLECTORS))
    planned = peering("n1", resources)
    assert planned is not None
    assert {str(peer): one.dies_with for peer, one in planned.sessions.items()} == {
        "10.0.0.2": None,
        "10.0.0.3": None,
        "10.9.0.1": frozenset(),
        "10.9.0.2": second,
    }


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("192.0.2.9, 2001:db8::9", ""),
        ("192.0.2.300", "192.0.2.300"),
        ("10.0.0.2", "10.0.0.2 is that of Node/n2; a reflector has addresses of its own"),
        ("10.0.0.1", "10.0.0.1 is that of Node/n1; a reflector has addresses of its own"),
        ("10.9.0.2", "10.9.0.2 is that of the reflector on n2; a reflector has addresses of its own"),
        ("10.9.0.1", ""),
    ],
)
def test_addresses_that_a_node_asks_for_are_nobody_elses(text: str, complaint: str) -> None:
    source = ChosenNode(AgentConfig.from_environ({"NODENAME": "n1"}))
    own, other = node(1), node(2)
    own = msgspec.structs.replace(own, metadata=Metadata(name="n1", annotations={ADDRESSES: text}))
    events: list[SyncEvent] = [Upserted(ResourceKey("Node", each.name), each, 1) for each in (own, other)]
    for name, addresses in REFLECTORS.items():
        events.append(Upserted(ReflectorKey("serving", name), ReflectorRecord(addresses=addresses), 1))
    source.on_datastore([*events, InSync()])
    if complaint:
        with pytest.raises(OSError, match=re.escape(f"annotation {ADDRESSES} of Node/n1: {text!r}: ") + ".*") as found:
            source.configured_addresses()
        assert complaint in str(found.value)
    else:
        assert source.configured_addresses() == tuple(map(ip_address, text.split(", ")))
