"""Resources and the sessions that come of them."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Interface, IPv6Address, IPv6Interface, ip_address
from typing import Any

import pytest

from bird_agent.peering import peering
from bird_agent.session_config import Peering, SessionKind
from bird_agent.survey import BgpResources
from bird_agent.workload_peers import LocalWorkload
from tests.unit.bird_agent.peering_cases import (
    NO_MESH,
    REFLECTOR,
    THREE,
    configuration,
    node,
    only,
    peer,
    plan,
    sessions,
)
from weft.model.base import Metadata
from weft.model.bgp import (
    BGPConfiguration,
    BGPPeer,
    BGPPeerSpec,
)
from weft.model.node import Node
from weft.model.values import AsNumber, Duration


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
        pytest.param(
            1,
            [
                node(1),
                NO_MESH,
                peer("a", node="n1", peer_ip="192.0.2.1", as_number=65001),
                peer("b", peer_ip="192.0.2.1", as_number=65002),
            ],
            {"192.0.2.1": (65002, "BGPPeer/b")},
            id="a global peer before a node's own",
        ),
        pytest.param(
            2,
            [*THREE, NO_MESH, peer(node="n1", peer_ip="10.0.0.2", as_number=65009)],
            {},
            id="no reverse where the AS number is another's",
        ),
        pytest.param(
            2,
            [node(1), node(2, as_number=AsNumber(65002)), NO_MESH, peer(node="n1", peer_ip="10.0.0.2")],
            {},
            id="no reverse without an AS number where the node has its own",
        ),
        pytest.param(
            2,
            [*THREE, NO_MESH, peer(node="n1", peer_ip="10.0.0.2:1790", as_number=64512)],
            {},
            id="no reverse where the port is another's",
        ),
        pytest.param(
            2,
            [*THREE, NO_MESH, configuration("node.n2", listen_port=1790), peer(node="n1", peer_ip="10.0.0.2:1790")],
            {"10.0.0.1": (64512, "BGPPeer/p")},
            id="reverse where the port is the node's",
        ),
        pytest.param(
            2,
            [*THREE, peer(node="n1", peer_ip="10.0.0.2", as_number=64512, reverse_peering="Manual")],
            {"10.0.0.1": (64512, "Node/n1"), "10.0.0.3": (64512, "Node/n3")},
            id="mesh where the reverse is manual",
        ),
        pytest.param(
            1,
            [node(1), node(2), configuration("node.n1", node_to_node_mesh_enabled=False, as_number=AsNumber(65000))],
            {"10.0.0.2": (64512, "Node/n2")},
            id="mesh and AS number are not a node's own",
        ),
        pytest.param(
            1,
            [node(1), NO_MESH, peer(node="n1", node_selector="has(rack)", peer_ip="192.0.2.1", as_number=65001)],
            {},
            id="the selector before the name",
        ),
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


def test_the_reverse_of_a_peer_by_address_is_of_its_family_alone() -> None:
    both = [node(number, ipv6_address=IPv6Interface(f"fd00::{number}/64")) for number in (1, 2)]
    made = plan(2, *both, NO_MESH, peer(node="n1", peer_ip="fd00::2", as_number=64512))
    assert set(sessions(made)) == {"fd00::1"}


def test_the_port_of_a_node_is_used_where_address_and_as_number_are_its_own() -> None:
    there = [node(1), node(2), NO_MESH, configuration("node.n2", listen_port=1790)]
    assert only(plan(1, *there, peer(peer_ip="10.0.0.2", as_number=64512))).port == 1790
    assert only(plan(1, *there, peer(peer_ip="10.0.0.2", as_number=65001))).port == 179
    assert only(plan(1, *there, peer(peer_ip="10.0.0.2:180", as_number=64512))).port == 180


def test_bind_mode_says_where_the_speaker_listens() -> None:
    everywhere = (IPv4Address(0),)
    assert plan(1, node(1)).listen == everywhere
    assert plan(1, node(1), configuration(bind_mode="None")).listen == everywhere
    made = plan(1, node(1), configuration(bind_mode="NodeIP"))
    assert made.listen == made.addresses


VIRTUAL = IPv4Address("169.254.0.179")


def workload(name: str, *addresses: str, **labels: str) -> LocalWorkload:
    return LocalWorkload(name, labels, tuple(map(ip_address, addresses)))


def chosen(*given: Any, **spec: Any) -> Peering:
    """With what BGPPeers and workloads there are."""
    spec = {"local_workload_peering_ip_v4": VIRTUAL, "node_to_node_mesh_enabled": False, **spec}
    resources = [one for one in given if not isinstance(one, LocalWorkload)]
    workloads = tuple(one for one in given if isinstance(one, LocalWorkload))
    held = BgpResources(
        {"n1": node(1)},
        {"default": configuration(**spec)},
        {one.name: one for one in resources},
        workloads=workloads,
    )
    made = peering("n1", held)
    assert made is not None
    return made


def inside(name: str, **spec: Any) -> BGPPeer:
    spec = {"local_workload_selector": "role == 'router'", "as_number": AsNumber(65100), **spec}
    return BGPPeer(metadata=Metadata(name=name), spec=BGPPeerSpec(**spec))


def test_workloads_that_are_chosen_are_peers_that_connect_to_an_address_of_their_own() -> None:
    router = workload("default/a", "10.65.0.5", "fd65::5", role="router")
    other = workload("default/b", "10.65.0.6", role="none")
    made = chosen(inside("p", filters=("f",), local_as_number=AsNumber(65200)), router, other)
    (session,) = made.sessions.values()
    assert (session.peer, session.local, session.kind) == (ip_address("10.65.0.5"), VIRTUAL, SessionKind.WORKLOAD)
    assert (session.peer_as, session.local_as, session.passive, session.filters) == (65100, 65200, True, ("f",))
    assert made.virtual == (VIRTUAL,)
    assert [problem.subject for problem in made.problems] == ["BGPPeer/p"]  # there is no IPv6 address to peer with
    assert chosen(inside("p", node="n2"), router).sessions == {}
    assert chosen(inside("p", local_workload_selector="role =="), router).problems
    # A link-local IPv6 address cannot be had on the loopback link.
    six = chosen(inside("p"), router, local_workload_peering_ip_v6=ip_address("fe80::179"))
    assert set(six.sessions) == {ip_address("10.65.0.5")}
    six = chosen(inside("p"), router, local_workload_peering_ip_v6=ip_address("fd00::179"))
    assert six.virtual == (VIRTUAL, ip_address("fd00::179"))
    assert six.listen == (IPv4Address(0), IPv6Address(0))


def test_a_workload_that_several_choose_belongs_to_the_first_by_name() -> None:
    router = workload("default/a", "10.65.0.5", role="router")
    made = chosen(inside("b", as_number=AsNumber(2)), inside("a", as_number=AsNumber(1), node="n1"), router)
    assert [one.resource for one in made.sessions.values()] == ["BGPPeer/a"]


@pytest.mark.parametrize(
    ("resource", "subject", "text"),
    [
        pytest.param(configuration("node.n1", as_number=AsNumber(1)), "BGPConfiguration/node.n1", "only", id="node"),
        pytest.param(
            peer(peer_ip="192.0.2.1", as_number=1, filters=("f",)), "BGPPeer/p", "does not exist", id="filter"
        ),
    ],
)
def test_settings_without_effect_are_named(resource: Any, subject: str, text: str) -> None:
    (problem,) = plan(1, node(1), resource).problems
    assert problem.subject == subject
    assert text in problem.text


@pytest.mark.parametrize(
    ("others", "named"),
    [
        pytest.param({"as_number": 65002, "node": "n1"}, True, id="another AS number"),
        pytest.param({"as_number": 65001, "ttl_security": 1, "node": "n1"}, True, id="TTL security"),
        pytest.param({"as_number": 65001, "node": "n1"}, False, id="nothing else"),
    ],
)
def test_a_peer_whose_session_is_anothers_is_named_where_it_says_something_else(
    others: dict[str, Any], named: bool
) -> None:
    asked = [peer("b", peer_ip="192.0.2.1", as_number=65001), peer("a", peer_ip="192.0.2.1", **others)]
    made = plan(1, node(1), NO_MESH, *asked)
    assert made.sessions[ip_address("192.0.2.1")].resource == "BGPPeer/b"
    told = [(each.subject, each.text.split(":")[0]) for each in made.problems]
    assert told == [("BGPPeer/a", "the session with 192.0.2.1 is that of BGPPeer/b")] * named


@pytest.mark.parametrize("impossible", ["b", "a"])
def test_of_two_peers_for_one_address_one_that_cannot_be_had_is_compared_with_nothing(impossible: str) -> None:
    other_family = {impossible: {"reachable_by": ip_address("fd00::1")}}
    asked = [
        peer("b", peer_ip="192.0.2.1", as_number=65001, **other_family.get("b", {})),
        peer("a", peer_ip="192.0.2.1", as_number=65002, node="n1", **other_family.get("a", {})),
    ]
    made = plan(1, node(1), NO_MESH, *asked)
    assert [each.subject for each in made.problems] == [f"BGPPeer/{impossible}"]
    assert [each.resource for each in made.sessions.values()] == ["BGPPeer/b"] * (impossible == "a")


def test_nodes_of_one_address_are_no_second_peer() -> None:
    made = plan(
        1,
        node(1),
        node(2),
        node(3, ipv4_address=IPv4Interface("10.0.0.2/24"), as_number=AsNumber(7)),
        NO_MESH,
        peer(peer_selector="all()"),
    )
    assert made.problems == ()


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
        pytest.param(
            peer(peer_ip="192.0.2.1", as_number=1, reachable_by=ip_address("fd00::1")),
            "of another family",
            id="a gateway of the other family",
        ),
        pytest.param(peer(local_workload_selector="all()"), "asNumber", id="workloads of no AS"),
    ],
)
def test_what_cannot_be_done_is_a_problem_and_stops_nothing_else(resource: BGPPeer, text: str) -> None:
    made = plan(1, node(1), node(2), resource)
    assert set(sessions(made)) == {"10.0.0.2"}
    (problem,) = made.problems
    assert problem.subject == "BGPPeer/p"
    assert text in problem.text


def test_an_unregistered_node_has_no_sessions_yet() -> None:
    assert peering("n1", BgpResources({"n2": node(2)})) is None
    assert peering("n1", BgpResources({"n1": node(1, ipv4_address=None)})) is None
