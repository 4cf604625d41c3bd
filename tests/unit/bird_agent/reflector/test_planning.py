"""From resources and the environment to what a stand-alone reflector is."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Interface, ip_address

import pytest

from bird_agent.peering import peering
from bird_agent.reflector.planning import reflector_plan
from bird_agent.reflector.registration import Identity, own_environ, register
from bird_agent.survey import BgpResources
from tests.fakes.datastore import MemoryDatastore
from weft.config import ConfigError
from weft.model import codec, keys
from weft.model.base import Metadata
from weft.model.bgp import BGPPeer, BGPPeerSpec
from weft.model.keys import ResourceKey
from weft.model.node import Node, NodeBGPSpec, NodeSpec, NodeWireguardSpec
from weft.model.values import AsNumber
from weft.node.daemon import reflectors

CLUSTER = "1.1.1.1"


def node(name: str, address: str, cluster_id: str | None = None, asn: int | None = None) -> Node:
    bgp = NodeBGPSpec(
        ipv4_address=IPv4Interface(address),
        as_number=None if asn is None else AsNumber(asn),
        route_reflector_cluster_id=None if cluster_id is None else IPv4Address(cluster_id),
    )
    labels = {} if cluster_id is None else {"rr": ""}
    return Node(metadata=Metadata(name=name, labels=labels), spec=NodeSpec(bgp=bgp))


def resources(*nodes: Node, **peers: BGPPeerSpec) -> BgpResources:
    return BgpResources(
        nodes={one.name: one for one in nodes},
        peers={name: BGPPeer(metadata=Metadata(name=name), spec=spec) for name, spec in peers.items()},
    )


def test_internal_peers_of_no_cluster_or_another_one_are_clients() -> None:
    given = resources(
        node("rr", "10.0.0.1/24", CLUSTER),
        node("same", "10.0.0.2/24", CLUSTER),
        node("other", "10.0.0.3/24", "2.2.2.2"),
        node("plain", "10.0.0.4/24"),
        node("abroad", "10.0.0.5/24", asn=65001),
        everybody=BGPPeerSpec(node_selector="has(rr)", peer_selector="all()"),
        tor=BGPPeerSpec(node="rr", peer_ip="10.0.0.254", as_number=AsNumber(64512)),
    )
    plan = reflector_plan("rr", peering("rr", given), given.nodes)
    assert plan is not None
    assert {str(peer): one.client for peer, one in plan.sessions.items()} == {
        "10.0.0.2": False,
        "10.0.0.3": True,
        "10.0.0.4": True,
        "10.0.0.5": False,
        "10.0.0.254": True,
    }
    assert (plan.cluster_id, plan.router_id) == (IPv4Address(CLUSTER), IPv4Address("10.0.0.1"))
    assert plan.addresses == (ip_address("10.0.0.1"),)
    assert [str(each) for each in plan.networks] == ["10.0.0.0/24"]


def test_a_node_of_no_cluster_is_no_reflector_and_is_told_so() -> None:
    given = resources(node("rr", "10.0.0.1/24"), node("plain", "10.0.0.4/24"))
    plan = reflector_plan("rr", peering("rr", given), given.nodes)
    assert plan is not None
    assert plan.sessions == {}
    assert "no routeReflectorClusterID" in plan.problems[-1].text


def test_a_name_that_nobody_has_is_no_plan() -> None:
    assert reflector_plan("rr", peering("rr", resources()), {}) is None


# The environment.

ENVIRON = {
    "NODENAME": "n1",
    "IP": "10.0.0.9/24",
    "CALICO_ROUTER_ID": "10.0.0.9",
    "WEFT_BGP_METRICS": "9092",
    "WEFT_REFLECTOR_NAME": "rr",
    "WEFT_REFLECTOR_CLUSTER_ID": CLUSTER,
    "WEFT_REFLECTOR_IP": "10.0.0.1/24",
    "WEFT_REFLECTOR_LABELS": "rr=, rack=a",
}


def test_a_reflector_beside_a_node_does_not_take_the_nodes_name_for_its_own() -> None:
    own = own_environ(ENVIRON)
    assert own["NODENAME"] == "rr"
    assert not own.keys() & {"CALICO_ROUTER_ID", "WEFT_BGP_METRICS"}
    assert own_environ({**ENVIRON, "WEFT_REFLECTOR_ROUTER_ID": "10.0.0.1"})["CALICO_ROUTER_ID"] == "10.0.0.1"
    assert own_environ({"NODENAME": "stand-alone"})["NODENAME"] == "stand-alone"


def test_weft_node_runs_a_reflector_only_where_one_has_a_name() -> None:
    assert reflectors({"NODENAME": "n1"}) == []
    assert reflectors(ENVIRON) == [("weft-reflector", "reflector-rr", "bird_agent.reflector.process")]


@pytest.mark.parametrize(
    ("setting", "value", "name"),
    [
        ("WEFT_REFLECTOR_CLUSTER_ID", "one", "WEFT_REFLECTOR_CLUSTER_ID"),
        ("WEFT_REFLECTOR_IP", "", "WEFT_REFLECTOR_IP"),
        ("WEFT_REFLECTOR_IP", "fd00::1/64", "WEFT_REFLECTOR_IP"),
        ("WEFT_REFLECTOR_IP", "here", "WEFT_REFLECTOR_IP"),
    ],
)
def test_a_wrong_setting_is_refused_by_its_name(setting: str, value: str, name: str) -> None:
    with pytest.raises(ConfigError) as refused:
        Identity.from_environ("rr", {**ENVIRON, setting: value})
    assert refused.value.name == name


async def test_the_node_is_written_and_what_else_stands_in_it_is_kept() -> None:
    store = MemoryDatastore()
    identity = Identity.from_environ("rr", ENVIRON)
    assert identity is not None
    key = ResourceKey("Node", "rr")
    before = Node(
        metadata=Metadata(name="rr", labels={"kept": ""}),
        spec=NodeSpec(wireguard=NodeWireguardSpec(interface_ipv4_address=IPv4Address("192.0.2.1"))),
    )
    await store.create(keys.path(key), codec.encode_stored(before))
    await register(store, identity)
    kv = await store.get(keys.path(key))
    assert kv is not None
    written = codec.decode_stored(key, kv.value)
    assert isinstance(written, Node)
    assert written.metadata.labels == {"kept": "", "rr": "", "rack": "a"}
    assert written.spec.bgp is not None
    assert written.spec.bgp.route_reflector_cluster_id == IPv4Address(CLUSTER)
    assert written.spec.wireguard == before.spec.wireguard
    await register(store, identity)
    again = await store.get(keys.path(key))
    assert again is not None
    assert again.revision == kv.revision, "what is right already is not written again"
