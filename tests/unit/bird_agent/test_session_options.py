"""What a session is given: passwords, limits, BFD, families, and the other options of a BGPPeer."""

from __future__ import annotations

from ipaddress import IPv6Interface, ip_address
from typing import Any

import pytest

from bird_agent.session_config import Password, SecretKey, SessionKind, Surroundings
from tests.unit.bird_agent.peering_cases import NO_MESH, THREE, configuration, node, only, peer, plan, sessions
from weft.model.base import Metadata
from weft.model.bgp import (
    BGPConfiguration,
    BGPPassword,
    BGPPeer,
    BGPPeerSpec,
    SecretKeySelector,
)
from weft.model.values import AsNumber, Duration


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


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        pytest.param({"keepalive_time": Duration.parse("20s")}, {"hold_time_s": 60}, id="keepalive"),
        pytest.param({"keepalive_time": Duration.parse("100ms")}, {"hold_time_s": 3}, id="shortest keepalive"),
        pytest.param({}, {"hold_time_s": 90, "restart_time_s": 120}, id="times by default"),
        pytest.param({"max_restart_time": Duration.parse("1500ms")}, {"restart_time_s": 2}, id="rounded restart time"),
        pytest.param({"ttl_security": 0}, {"ttl_security_hops": None}, id="no TTL security"),
        pytest.param({"num_allowed_local_as_numbers": 2}, {"allowed_own_as": 2}, id="own AS in paths"),
        pytest.param({"local_as_number": AsNumber(65001)}, {"local_as": 65001, "internal": True}, id="local AS"),
        pytest.param(
            {"reachable_by": ip_address("10.0.0.254")}, {"gateway": ip_address("10.0.0.254")}, id="by way of a gateway"
        ),
        pytest.param({"keep_original_next_hop": True}, {"next_hop_mode": "Keep"}, id="next hop kept"),
        pytest.param(
            {"keep_original_next_hop": True, "as_number": 64512}, {"next_hop_mode": "Auto"}, id="not kept within the AS"
        ),
        pytest.param(
            {"keep_original_next_hop": True, "next_hop_mode": "Self"}, {"next_hop_mode": "Self"}, id="mode before keep"
        ),
        pytest.param({"filters": ("a", "b")}, {"filters": ("a", "b")}, id="filters"),
        pytest.param({"source_address": "UseNodeIP"}, {"local": ip_address("10.0.0.1")}, id="the node's address"),
        pytest.param({"source_address": "None"}, {"local": ip_address("10.9.9.9")}, id="the address the kernel uses"),
    ],
)
def test_what_a_peer_says_of_its_session(spec: dict[str, Any], expected: dict[str, Any]) -> None:
    known = Surroundings(sources={ip_address("192.0.2.1"): ip_address("10.9.9.9")})
    resource = peer(**{"peer_ip": "192.0.2.1", "as_number": 65001, **spec})
    session = only(plan(1, node(1), NO_MESH, resource, surroundings=known))
    assert {name: getattr(session, name) for name in expected} == expected


def test_peers_of_a_selector_have_all_but_what_belongs_to_an_address() -> None:
    resource = peer(
        peer_selector="has(rr)",
        local_as_number=AsNumber(65001),
        num_allowed_local_as_numbers=1,
        ttl_security=1,
        reachable_by=ip_address("10.0.0.254"),
        filters=("f",),
    )
    nodes = [
        node(1, ipv6_address=IPv6Interface("fd00::1/64")),
        node(2, {"rr": ""}, ipv6_address=IPv6Interface("fd00::2/64")),
    ]
    forward = plan(1, *nodes, NO_MESH, resource)
    back = plan(2, *nodes, NO_MESH, resource)
    for made, other, kind in ((forward, "2", SessionKind.GLOBAL), (back, "1", SessionKind.NODE)):
        four, six = (made.sessions[ip_address(f"{prefix}{other}")] for prefix in ("10.0.0.", "fd00::"))
        for session in (four, six):
            assert (session.local_as, session.allowed_own_as, session.ttl_security_hops) == (64512, 0, 1)
            assert (session.filters, session.kind) == (("f",), kind)
        assert (four.gateway, six.gateway) == (ip_address("10.0.0.254"), None)
    assert any("no effect beside peerSelector" in problem.text for problem in forward.problems)


def secret(name: str = "bgp", key: str = "tor", optional: bool | None = None) -> BGPPassword:
    return BGPPassword(secret_key_ref=SecretKeySelector(name=name, key=key, optional=optional))


KNOWN = Surroundings(secrets={SecretKey("bgp", "tor"): Password("s3cret")})


@pytest.mark.parametrize(
    ("password", "surroundings", "expected"),
    [
        pytest.param(secret(), KNOWN, {"192.0.2.1": "s3cret"}, id="known"),
        pytest.param(secret(key="other"), KNOWN, {}, id="no session without its password"),
        pytest.param(secret(key="other", optional=True), KNOWN, {"192.0.2.1": None}, id="optional"),
        pytest.param(BGPPassword(), KNOWN, {"192.0.2.1": None}, id="no reference"),
    ],
)
def test_passwords(password: BGPPassword, surroundings: Surroundings, expected: dict[str, str | None]) -> None:
    resource = peer(peer_ip="192.0.2.1", as_number=1, password=password)
    made = plan(1, node(1), NO_MESH, resource, surroundings=surroundings)
    found = {str(one.peer): one.password and one.password.text for one in made.sessions.values()}
    assert found == expected
    assert any("the secret bgp/other is not there" in problem.text for problem in made.problems) == (not expected)
    reference = password.secret_key_ref
    assert made.needs.secrets == (frozenset() if reference is None else {SecretKey(reference.name, reference.key)})
    assert "s3cret" not in f"{made!r}"


def test_nothing_stands_in_for_a_session_whose_password_is_missing() -> None:
    made = plan(1, *THREE, peer(peer_ip="10.0.0.2", as_number=64512, password=secret()))
    assert set(sessions(made)) == {"10.0.0.3"}


@pytest.mark.parametrize(
    ("default", "own", "expected"),
    [
        pytest.param({}, {}, (4,), id="the family of its addresses"),
        pytest.param({"weft/address-families": "IPv4,IPv6"}, {}, (4, 6), id="both, of all sessions"),
        pytest.param({}, {"weft/address-families": " ipv6 "}, (4, 6), id="another, of the peer"),
        pytest.param({}, {"weft/address-families": "ipx"}, (4,), id="none that there is"),
    ],
)
def test_an_annotation_has_a_session_carry_both_families(
    default: dict[str, str], own: dict[str, str], expected: tuple[int, ...]
) -> None:
    base = BGPConfiguration(metadata=Metadata(name="default", annotations=default), spec=NO_MESH.spec)
    resource = BGPPeer(
        metadata=Metadata(name="p", annotations=own), spec=BGPPeerSpec(peer_ip="192.0.2.1", as_number=AsNumber(1))
    )
    made = plan(1, node(1), base, resource)
    assert only(made).versions == expected
    assert len(made.problems) == ("ipx" in own.values())


def test_the_mesh_has_a_password_of_its_own() -> None:
    resources = [*THREE, configuration(node_mesh_password=secret(), node_mesh_max_restart_time=Duration.parse("30s"))]
    assert sessions(plan(1, *resources)) == {}
    made = plan(1, *resources, surroundings=KNOWN)
    assert {(one.password, one.restart_time_s) for one in made.sessions.values()} == {(Password("s3cret"), 30)}


@pytest.mark.parametrize(
    ("default", "own", "expected"),
    [
        pytest.param({}, {}, None, id="no limit"),
        pytest.param({"weft/max-prefixes": "1000"}, {}, 1000, id="of all sessions"),
        pytest.param({"weft/max-prefixes": "1000"}, {"weft/max-prefixes": "10"}, 10, id="of the peer"),
        pytest.param({}, {"weft/max-prefixes": "many"}, None, id="not a number"),
    ],
)
def test_how_many_prefixes_a_peer_may_announce(
    default: dict[str, str], own: dict[str, str], expected: int | None
) -> None:
    base = BGPConfiguration(metadata=Metadata(name="default", annotations=default), spec=NO_MESH.spec)
    resource = BGPPeer(
        metadata=Metadata(name="p", annotations=own), spec=BGPPeerSpec(peer_ip="192.0.2.1", as_number=AsNumber(1))
    )
    made = plan(1, node(1), base, resource)
    assert only(made).max_prefixes == expected
    assert [problem.subject for problem in made.problems] == (["BGPPeer/p"] if "many" in own.values() else [])


WATCHED = "100ms x 3 with keyed-sha1 key 2 from bgp/tor"


@pytest.mark.parametrize(
    ("default", "own", "numbers", "problems"),
    [
        pytest.param({"weft/bfd": WATCHED}, {}, [2], [], id="of all sessions"),
        pytest.param(
            {},
            {"weft/bfd": f"{WATCHED}, key 1 from bgp/old"},
            [2],
            [("annotation weft/bfd", "the secret bgp/old is not there: BFD goes on without key 1")],
            id="a second key that is missing",
        ),
        pytest.param(
            {},
            {"weft/bfd": "100ms x 3 with keyed-sha1 key 1 from bgp/old"},
            None,
            [("BGPPeer/p", "annotation weft/bfd: the secret bgp/old is not there: no BFD without key 1")],
            id="a key that is missing",
        ),
    ],
)
def test_bfd_is_authenticated_or_is_not(
    default: dict[str, str], own: dict[str, str], numbers: list[int] | None, problems: list[tuple[str, str]]
) -> None:
    base = BGPConfiguration(metadata=Metadata(name="default", annotations=default), spec=NO_MESH.spec)
    resource = BGPPeer(
        metadata=Metadata(name="p", annotations=own), spec=BGPPeerSpec(peer_ip="192.0.2.1", as_number=AsNumber(1))
    )
    made = plan(1, node(1), base, resource, surroundings=KNOWN)
    watch = only(made).bfd
    found = None if watch is None or watch.authentication is None else watch.authentication
    assert (None if found is None else [key.number for key in found.keys]) == numbers
    assert [(problem.subject, problem.text) for problem in made.problems] == problems
    assert made.needs.secrets >= {SecretKey("bgp", "old") if own else SecretKey("bgp", "tor")}
    assert "s3cret" not in repr(made)
