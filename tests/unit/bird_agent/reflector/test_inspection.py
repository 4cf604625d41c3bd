"""What the administrator is told of a reflector's peers and paths, and why."""

from __future__ import annotations

from ipaddress import IPv4Network, ip_address

import pytest

from bird_agent.reflector.inspection import ReflectorInspection
from bird_agent.session_config import Problem
from tests.unit.bird_agent.reflector.world import CLUSTER, World, attributes, plan, session
from weft.admin.bgp import PathReport, PathView
from weft.model.errors import NotFoundError

A, B, C = "10.0.0.11", "10.0.0.12", "10.0.0.13"
P, Q = "10.65.0.0/26", "10.65.1.0/26"


@pytest.fixture
def world() -> World:
    made = World(plan(session(A), session(B), session(C, client=False)))
    a, b, _ = made.start()
    made.announce(a, [P], attributes(made.sets, local_preference=200))
    made.announce(b, [P], attributes(made.sets, local_preference=100))
    made.announce(b, [Q], attributes(made.sets, local_preference=100, cluster_list=(CLUSTER,)))
    return made


@pytest.fixture
def inspection(world: World) -> ReflectorInspection:
    return ReflectorInspection(world.reflector, lambda at: at, lambda peer: "", list)


def paths(inspection: ReflectorInspection, view: PathView, peer: str | None = None) -> list[PathReport]:
    found = inspection.paths(view, None if peer is None else ip_address(peer))
    return [one for of_a_prefix in found for one in of_a_prefix]


def test_peers_with_their_roles_and_counts(inspection: ReflectorInspection) -> None:
    assert [
        (str(one.address), one.state, one.role, one.received, one.accepted, one.announced, one.behind)
        for one in inspection.peers()
    ] == [
        (A, "Established", "client", 1, 1, 0, 0),
        (B, "Established", "client", 2, 1, 1, 0),
        (C, "Established", "non-client", 0, 0, 1, 0),
    ]


def test_every_path_says_how_it_fared(inspection: ReflectorInspection) -> None:
    assert [(str(one.prefix), str(one.peer), one.standing, one.reason) for one in paths(inspection, PathView.ALL)] == [
        (P, A, "best", "better local preference"),
        (P, B, "not used", f"local preference 100 against 200 from {A}"),
        (Q, B, "refused", f"cluster list contains our own cluster {CLUSTER}"),
    ]
    assert [str(one.peer) for one in paths(inspection, PathView.BEST)] == [A]
    assert len(paths(inspection, PathView.RECEIVED, B)) == 2


def test_what_a_peer_is_told_and_why_another_is_not(inspection: ReflectorInspection) -> None:
    (told,) = paths(inspection, PathView.ADVERTISED, B)
    assert (str(told.prefix), str(told.originator_id), told.local_preference) == (P, A, 200)
    trace = inspection.trace(IPv4Network("10.65.0.7/32"))
    assert str(trace.prefix) == P
    assert {str(one.peer): one.standing for one in trace.announcements} == {
        A: "not announced",
        B: "announced",
        C: "announced",
    }
    assert trace.announcements[0].reason == "the peer brought the best path itself"
    assert inspection.trace(IPv4Network("192.0.2.1/32")).prefix is None


def test_an_address_that_is_no_peer_is_not_found(inspection: ReflectorInspection) -> None:
    with pytest.raises(NotFoundError):
        inspection.paths(PathView.RECEIVED, ip_address("192.0.2.1"))


def test_what_has_no_effect_is_told_with_the_reason(world: World) -> None:
    problems = [Problem("BGPPeer/tor", "asNumber is needed")]
    made = ReflectorInspection(world.reflector, lambda at: at, lambda peer: "", lambda: problems)
    assert made.not_enforced() == ["BGPPeer/tor: asNumber is needed"]
