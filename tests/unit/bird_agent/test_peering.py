"""Resources and the sessions that come of them."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Interface, IPv6Interface, ip_address
from typing import Any

import pytest

from bird_agent.peering import Peering, SessionKind, peering
from weft.model.base import Metadata
from weft.model.bgp import BGPConfiguration, BGPConfigurationSpec, BGPPassword, BGPPeer, BGPPeerSpec
from weft.model.node import Node, NodeBGPSpec, NodeSpec
from weft.model.values import AsNumber, Duration


def node(number: int, labels: dict[str, str] | None = None, **bgp: Any) -> Node:
    bgp.setdefault("ipv4_address", IPv4Interface(f"10.0.0.{number}/24"))
    return Node(metadata=Metadata(name=f"n{number}", labels=labels or {}), spec=NodeSpec(bgp=NodeBGPSpec(**bgp)))


def peer(name: str = "p", **spec: Any) -> BGPPeer:
    if "as_number" in spec:
        spec["as_number"] = AsNumber(spec["as_number"])
    return BGPPeer(metadata=Metadata(name=name), spec=BGPPeerSpec(**spec))


def configuration(name: str = "default", **spec: Any) -> BGPConfiguration:
    return BGPConfiguration(metadata=Metadata(name=name), spec=BGPConfigurationSpec(**spec))


def plan(own: int, *resources: Node | BGPPeer | BGPConfiguration, **more: Any) -> Peering:
    nodes = {each.name: each for each in resources if isinstance(each, Node)}
    peers = {each.name: each for each in resources if isinstance(each, BGPPeer)}
    configurations = {each.name: each for each in resources if isinstance(each, BGPConfiguration)}
    made = peering(f"n{own}", nodes, configurations, peers, **more)
    assert made is not None
    return made


def sessions(made: Peering) -> dict[str, tuple[int, str]]:
    """peer -> (its AS, why)."""
    return {str(each.peer): (each.peer_as, each.resource) for each in made.sessions.values()}


NO_MESH = configuration(node_to_node_mesh_enabled=False)
THREE = [node(1), node(2), node(3)]
REFLECTOR = node(9, {"role": "rr"}, route_reflector_cluster_id=IPv4Address("244.0.0.1"))


@pytest.mark.parametrize(
    ("own", "resources", "expected"),
    [
        pytest.param(1, THREE, {"10.0.0.2": (64512, "Node/n2"), "10.0.0.3": (64512, "Node/n3")}, id="mesh by default"),
        pytest.param(1, [*THREE, NO_MESH], {}, id="mesh off"),
        pytest.param(
            1,
            [*THREE, configuration(as_number=AsNumber(65000))],
            {"10.0.0.2": (65000, "Node/n2"), "10.0.0.3": (65000, "Node/n3")},
            id="AS number of the configuration",
        ),
        pytest.param(
            1,
            [node(1), node(2, as_number=AsNumber(65002))],
            {"10.0.0.2": (65002, "Node/n2")},
            id="AS number of the node",
        ),
        pytest.param(1, [node(1), node(2), REFLECTOR], {"10.0.0.2": (64512, "Node/n2")}, id="reflectors are no mesh"),
        pytest.param(9, [node(1), REFLECTOR], {}, id="a reflector has no mesh"),
        pytest.param(
            1,
            [node(1), NO_MESH, peer(peer_ip="192.0.2.1", as_number=65001)],
            {"192.0.2.1": (65001, "BGPPeer/p")},
            id="global peer",
        ),
        pytest.param(
            1,
            [node(1), NO_MESH, peer(peer_ip="192.0.2.1", as_number=65001, node="n2")],
            {},
            id="peer of another node",
        ),
        pytest.param(
            1,
            [node(1, {"rack": "a"}), NO_MESH, peer(peer_ip="192.0.2.1", as_number=65001, node_selector="rack == 'a'")],
            {"192.0.2.1": (65001, "BGPPeer/p")},
            id="peer of a node selector",
        ),
        pytest.param(
            1,
            [node(1, {"rack": "b"}), NO_MESH, peer(peer_ip="192.0.2.1", as_number=65001, node_selector="rack == 'a'")],
            {},
            id="peer of another rack",
        ),
        pytest.param(
            1,
            [node(1), node(2), REFLECTOR, NO_MESH, peer(node_selector="!has(role)", peer_selector="role == 'rr'")],
            {"10.0.0.9": (64512, "BGPPeer/p")},
            id="client of a reflector",
        ),
        pytest.param(
            9,
            [node(1), node(2), REFLECTOR, NO_MESH, peer(node_selector="!has(role)", peer_selector="role == 'rr'")],
            {"10.0.0.1": (64512, "BGPPeer/p"), "10.0.0.2": (64512, "BGPPeer/p")},
            id="reflector towards its clients",
        ),
        pytest.param(
            9,
            [node(1), REFLECTOR, NO_MESH, peer(peer_selector="role == 'rr'", reverse_peering="Manual")],
            {},
            id="manual reverse peering",
        ),
        pytest.param(
            2,
            [*THREE, NO_MESH, peer(node="n1", peer_ip="10.0.0.2", as_number=64512)],
            {"10.0.0.1": (64512, "BGPPeer/p")},
            id="reverse of a peer by address",
        ),
        pytest.param(
            1,
            [*THREE, peer(peer_ip="10.0.0.2", as_number=65009)],
            {"10.0.0.2": (65009, "BGPPeer/p"), "10.0.0.3": (64512, "Node/n3")},
            id="explicit before mesh",
        ),
        pytest.param(1, [node(1), NO_MESH, peer(peer_ip="10.0.0.1", as_number=64512)], {}, id="not with itself"),
    ],
)
def test_who_peers_with_whom(
    own: int, resources: list[Node | BGPPeer | BGPConfiguration], expected: dict[str, tuple[int, str]]
) -> None:
    assert sessions(plan(own, *resources)) == expected


def test_each_family_has_a_session_of_its_own_where_both_ends_have_it() -> None:
    both = {"ipv6_address": IPv6Interface("fd00::1/64")}
    other = {"ipv6_address": IPv6Interface("fd00::2/64")}
    made = plan(1, node(1, **both), node(2, **other), node(3))
    assert set(sessions(made)) == {"10.0.0.2", "fd00::2", "10.0.0.3"}
    assert made.sessions[ip_address("fd00::2")].local == ip_address("fd00::1")


def test_options_of_a_peer_reach_its_session() -> None:
    spec = {
        "peer_ip": "192.0.2.1:1179",
        "as_number": 65001,
        "node": "n1",
        "local_as_number": AsNumber(65100),
        "max_restart_time": Duration.parse("2m10s"),
        "ttl_security": 1,
        "keep_original_next_hop": True,
    }
    made = plan(1, node(1), NO_MESH, peer(**spec)).sessions[ip_address("192.0.2.1")]
    assert (made.port, made.local_as, made.restart_time_s, made.ttl_security_hops) == (1179, 65100, 130, 1)
    assert (made.kind, made.next_hop_mode, made.internal) == (SessionKind.NODE, "Keep", False)


def test_a_restart_time_is_no_longer_than_the_capability_can_carry() -> None:
    made = plan(1, node(1), NO_MESH, peer(peer_ip="192.0.2.1", as_number=65001, max_restart_time=Duration.parse("24h")))
    assert made.sessions[ip_address("192.0.2.1")].restart_time_s == 4095


def test_configuration_of_the_node_goes_before_the_default_one_field_by_field() -> None:
    made = plan(
        1,
        node(1),
        node(2),
        configuration(listen_port=1790, as_number=AsNumber(65000)),
        configuration("node.n1", listen_port=1791),
    )
    assert (made.port, made.asn) == (1791, 65000)
    assert made.sessions[ip_address("10.0.0.2")].port == 1790


@pytest.mark.parametrize(
    ("wanted", "bgp", "router_id"),
    [
        pytest.param(None, {}, "10.0.0.1", id="the IPv4 address"),
        pytest.param(IPv4Address("1.2.3.4"), {}, "1.2.3.4", id="as asked for"),
        pytest.param("hash", {}, "103.107.139.184", id="hash of the name"),
        pytest.param(
            None, {"ipv4_address": None, "ipv6_address": IPv6Interface("fd00::1/64")}, "103.107.139.184", id="only IPv6"
        ),
    ],
)
def test_the_router_id(wanted: Any, bgp: dict[str, Any], router_id: str) -> None:
    assert plan(1, node(1, **bgp), router_id=wanted).router_id == IPv4Address(router_id)


@pytest.mark.parametrize(
    ("resource", "text"),
    [
        pytest.param(peer(peer_ip="192.0.2.1"), "asNumber is needed", id="no AS number"),
        pytest.param(peer(as_number=1), "neither peerIP nor peerSelector", id="nobody to peer with"),
        pytest.param(peer(peer_ip="fd00::9", as_number=1), "no IPv6 address", id="family that we have not"),
        pytest.param(peer(peer_selector="role =", as_number=1), "", id="selector that does not parse"),
        pytest.param(peer(peer_ip="192.0.2.1", as_number=1, password=BGPPassword()), "password", id="password"),
    ],
)
def test_what_cannot_be_done_is_a_problem_and_stops_nothing_else(resource: BGPPeer, text: str) -> None:
    made = plan(1, node(1), node(2), resource)
    assert set(sessions(made)) == {"10.0.0.2"}
    (problem,) = made.problems
    assert problem.subject == "BGPPeer/p"
    assert text in problem.text


def test_an_unregistered_node_has_no_sessions_yet() -> None:
    assert peering("n1", {"n2": node(2)}, {}, {}) is None
    assert peering("n1", {"n1": node(1, ipv4_address=None)}, {}, {}) is None
