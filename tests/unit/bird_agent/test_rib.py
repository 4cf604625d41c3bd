"""Best paths and the RIB."""

from __future__ import annotations

from ipaddress import IPv4Address, ip_address, ip_network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from bird_agent.bestpath import Local, Path, Peer, Rank, as_path_length, explain, select, unusable
from bird_agent.exabgp.events import AsSegment, PathAttributes
from bird_agent.rib import Rib

LOCAL = Local(64512, IPv4Address("10.0.0.1"), IPv4Address("9.9.9.9"))


def sequence(*numbers: int) -> tuple[AsSegment, ...]:
    return (AsSegment("as-sequence", numbers),)


def path(number: int, internal: bool = False, router_id: str | None = None, **attributes: Any) -> Path:
    """A path from peer 10.0.1.`number` that is equal to any other but for what is said."""
    address = ip_address(f"10.0.1.{number}")
    peer = Peer(address, IPv4Address(router_id or str(address)), 64512 if internal else 65000, internal)
    defaults: dict[str, Any] = {"origin": 0, "as_path": () if internal else sequence(65000)}
    return Path(peer, address, PathAttributes(**{**defaults, **attributes}))


@pytest.mark.parametrize(
    ("winner", "loser"),
    [
        pytest.param(
            path(2, True, local_preference=200, as_path=sequence(1, 2, 3)),
            path(1, True, local_preference=100),
            id="local preference before AS path",
        ),
        pytest.param(path(2, True, local_preference=200), path(1, True), id="absent local preference is 100"),
        pytest.param(path(2, as_path=sequence(1), origin=2), path(1, as_path=sequence(1, 2)), id="AS path length"),
        pytest.param(
            path(2, as_path=(AsSegment("as-set", (1, 2, 3)),), origin=0),
            path(1, as_path=sequence(1, 2), origin=0),
            id="an AS set counts once",
        ),
        pytest.param(path(2, origin=0), path(1, origin=1), id="origin"),
        pytest.param(path(2, med=5), path(1, med=6), id="MED of one neighbouring AS"),
        pytest.param(path(2), path(1, med=1), id="absent MED is 0"),
        pytest.param(path(2, as_path=sequence(65000)), path(1, True, as_path=sequence(65000)), id="eBGP over iBGP"),
    ],
)
def test_the_better_path_wins_alone_in_either_order(winner: Path, loser: Path) -> None:
    assert select([winner, loser], [0, 0]) == (winner,)
    assert select([loser, winner], [0, 0]) == (winner,)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        pytest.param(path(2, router_id="1.0.0.1"), path(1, router_id="1.0.0.2"), id="router id"),
        pytest.param(
            path(2, True, originator_id=IPv4Address("1.0.0.1")), path(1, True), id="originator id in its place"
        ),
        pytest.param(
            path(2, True, "1.0.0.1"),
            path(1, True, "1.0.0.1", cluster_list=(IPv4Address("8.8.8.8"),)),
            id="cluster list",
        ),
        pytest.param(path(1, router_id="1.0.0.1"), path(2, router_id="1.0.0.1"), id="peer address"),
        pytest.param(path(1, med=9, as_path=sequence(1)), path(2, med=1, as_path=sequence(2)), id="MED across ASes"),
    ],
)
def test_the_last_tie_breaks_order_equal_paths_that_are_used_together(first: Path, second: Path) -> None:
    assert select([second, first], [0, 0]) == (first, second)


def test_the_cost_of_the_next_hop_decides_and_an_unreachable_one_is_out() -> None:
    near, far, away = path(3), path(1), path(2)
    assert select([far, near, away], [5, 1, None]) == (near,)
    assert select([away], [None]) == ()


def test_at_most_sixteen_paths_are_used_together() -> None:
    paths = [path(number) for number in range(1, 31)]
    assert select(paths, [0] * 30) == tuple(paths[:16])


@pytest.mark.parametrize(
    ("winner", "loser", "why"),
    [
        pytest.param(
            path(2, True, local_preference=200),
            path(1, True),
            "local preference 100 against 200 from 10.0.1.2",
            id="local preference",
        ),
        pytest.param(
            path(2), path(1, as_path=sequence(65000, 1)), "AS path length 2 against 1 from 10.0.1.2", id="AS path"
        ),
        pytest.param(path(2), path(1, origin=2), "origin incomplete against IGP from 10.0.1.2", id="origin"),
        pytest.param(path(2), path(1, med=7), "MED 7 against 0 from 10.0.1.2", id="MED"),
        pytest.param(
            path(2),
            path(1, True, as_path=sequence(65000)),
            "kind of session iBGP against eBGP from 10.0.1.2",
            id="kind of session",
        ),
    ],
)
def test_why_a_path_is_not_used(winner: Path, loser: Path, why: str) -> None:
    best, other = explain([loser, winner], [0, 0])
    assert (best.path, best.rank, other.path, other.rank) == (winner, Rank.BEST, loser, Rank.LOST)
    assert other.reason == why
    assert best.reason == f"better {why.split(' against ')[0].rsplit(' ', 1)[0]}"


def test_why_paths_are_used_together_or_cannot_be() -> None:
    found = explain([path(3), path(1), path(2)], [0, 0, None])
    assert [(one.path, one.rank) for one in found] == [
        (path(1), Rank.BEST),
        (path(3), Rank.USED),
        (path(2), Rank.UNREACHABLE),
    ]
    assert [one.reason for one in found] == [
        "first of 2 equally good ones by router id",
        "as good as the best",
        "next hop 10.0.1.2 cannot be reached",
    ]
    many = explain([path(number) for number in range(1, 31)], [0] * 30)
    assert [one.rank for one in many] == [Rank.BEST, *[Rank.USED] * 15, *[Rank.LOST] * 14]
    (alone,) = explain([path(1)], [0])
    assert (alone.rank, alone.reason) == (Rank.BEST, "the only path that can be used")


VARIANTS = st.builds(
    lambda internal, preference, length, origin, med, cost: (
        {"internal": internal, "local_preference": preference, "origin": origin, "med": med},
        length,
        cost,
    ),
    st.booleans(),
    st.sampled_from([None, 50, 200]),
    st.integers(1, 2),
    st.integers(0, 2),
    st.sampled_from([None, 0, 5]),
    st.sampled_from([None, 0, 1]),
)


@given(st.lists(VARIANTS, max_size=8))
def test_what_is_explained_is_what_is_selected(variants: list[Any]) -> None:
    paths = [
        path(number, as_path=sequence(*([65000 + number % 2] * length)), **attributes)
        for number, (attributes, length, _) in enumerate(variants, 1)
    ]
    cost = [one[2] for one in variants]
    found = explain(paths, cost)
    assert len(found) == len(paths)
    assert {one.path.peer.address for one in found} == {one.peer.address for one in paths}
    assert tuple(one.path for one in found if one.rank in (Rank.BEST, Rank.USED)) == select(paths, cost)
    assert all(one.reason for one in found)


@pytest.mark.parametrize(
    ("attributes", "why"),
    [
        pytest.param({"as_path": sequence(65000, 64512)}, "our own AS", id="AS loop"),
        pytest.param({"as_path": (AsSegment("as-set", (64512,)),)}, "our own AS", id="AS loop in a set"),
        pytest.param({"as_path": ()}, "without any AS number", id="no AS path from another AS"),
        pytest.param({"origin": 3}, "malformed", id="no such ORIGIN"),
        pytest.param({"originator_id": IPv4Address("10.0.0.1")}, "originator", id="our own route reflected"),
        pytest.param({"cluster_list": (IPv4Address("9.9.9.9"),)}, "our own cluster", id="cluster loop"),
    ],
)
def test_a_path_that_has_passed_us_is_not_considered(attributes: dict[str, Any], why: str) -> None:
    assert why in (unusable(path(1, **attributes), LOCAL) or "")
    assert unusable(path(1), LOCAL) is None


def test_confederation_segments_do_not_count() -> None:
    assert as_path_length((AsSegment("as-confed-sequence", (1, 2)), *sequence(3, 4))) == 2


P1, P2, P3 = (ip_network(f"10.9.{number}.0/24") for number in (1, 2, 3))
PREFIXES = [P1, P2, P3, ip_network("fd65::/122")]


def accept_all(path: Path, prefix: Any) -> Path | str:
    return path


def rib(accept: Any = accept_all) -> Rib:
    return Rib(LOCAL, accept, lambda _: 0)


def tell(table: Rib, one: Path, *prefixes: Any) -> None:
    table.set_peer(one.peer)
    table.update(one.peer.address, one.attributes, [(prefix, one.next_hop) for prefix in prefixes], [])


def test_only_what_changed_is_reported() -> None:
    table = rib()
    tell(table, path(1), P1, P2)
    assert table.take_changes() == {P1: (path(1),), P2: (path(1),)}
    tell(table, path(2, as_path=sequence(1, 2)), P1)
    assert table.take_changes() == {}
    table.update(path(1).peer.address, PathAttributes(), [], [P1])
    assert table.take_changes() == {P1: (path(2, as_path=sequence(1, 2)),)}
    assert table.take_changes() == {}


def test_stale_routes_stay_until_they_are_heard_again_or_dropped() -> None:
    table = rib()
    tell(table, path(1), P1, P2, P3)
    table.take_changes()
    address = path(1).peer.address
    table.mark_stale(address, "ipv4 unicast")
    tell(table, path(1), P1)
    table.update(address, PathAttributes(), [], [P2])
    assert table.take_changes() == {P2: ()}
    assert table.drop_stale(address) == 1
    assert table.take_changes() == {P3: ()}
    assert set(table.best) == {P1}


def test_a_route_that_the_policy_refused_comes_back_when_the_policy_changes() -> None:
    def refuse(path: Path, prefix: Any) -> Path | str:
        return "no" if prefix == P1 else path

    table = rib(refuse)
    tell(table, path(1), P1, P2)
    assert set(table.take_changes()) == {P2}
    assert [adj.rejected for adj in table.peers()] == [{P1: "no"}]
    table.set_import(accept_all, [P1])
    assert set(table.take_changes()) == {P1}
    table.set_import(refuse, [P1])
    assert table.take_changes() == {P1: ()}


def test_next_hops_that_are_reached_otherwise_are_compared_again() -> None:
    costs: dict[Any, int | None] = {path(1).next_hop: 0, path(2).next_hop: 0}
    table = Rib(LOCAL, accept_all, costs.__getitem__)
    tell(table, path(1), P1, P2)
    tell(table, path(2), P1)
    table.take_changes()
    costs[path(1).next_hop] = None
    table.reconsider_through([path(1).next_hop])
    assert table.take_changes() == {P1: (path(2),), P2: ()}


DEAD = path(9).next_hop


def test_of_a_silent_peer_stay_the_routes_that_nobody_else_brings_and_that_lead_to_the_living() -> None:
    table = rib()
    tell(table, path(1), P1, P2)
    table.update(path(1).peer.address, path(1).attributes, [(P3, DEAD)], [])
    tell(table, path(2), P2)
    table.take_changes()
    assert table.fall_silent(path(1).peer.address, frozenset([DEAD])) == 2
    assert table.take_changes() == {P2: (path(2),), P3: ()}
    tell(table, path(2, as_path=sequence(1, 2, 3)), P1)  # a worse one that lives
    assert table.take_changes() == {P1: (path(2, as_path=sequence(1, 2, 3)),)}
    table.update(path(2).peer.address, PathAttributes(), [], [P1])
    assert table.take_changes() == {P1: ()}


def test_what_leads_to_the_node_of_one_silent_peer_is_kept_of_no_other() -> None:
    one, other = path(1), path(2)
    for silent in ((one, other), (other, one)):
        table = rib()
        for each in (one, other):
            table.set_peer(each.peer)
            table.update(each.peer.address, each.attributes, [(P1, DEAD), (P2, path(3).next_hop)], [])
        for each in silent:
            table.fall_silent(each.peer.address, frozenset([DEAD] if each is one else []))
        assert set(table.take_changes()) == {P2}


def test_a_peer_that_is_heard_again_has_its_say_as_every_other() -> None:
    table = rib()
    tell(table, path(1), P1)
    table.fall_silent(path(1).peer.address, frozenset())
    table.end_silence(path(1).peer.address)
    tell(table, path(2), P1)
    assert table.take_changes() == {P1: (path(1), path(2))}


def test_what_a_peer_that_is_back_announces_as_before_takes_the_place_of_what_is_kept_of_another() -> None:
    one, other = path(1), path(2)

    def refuse_the_other(path: Path, prefix: Any) -> Path | str:
        return "no" if path.peer == other.peer else path

    table = rib(refuse_the_other)
    for each in (one, other):
        tell(table, each, P1)
        table.mark_stale(each.peer.address, "ipv4 unicast")
    for each in (one, other):
        table.fall_silent(each.peer.address, frozenset())
    table.set_import(accept_all, [P1])  # so that both have kept it
    table.end_silence(one.peer.address)
    tell(table, one, P1)
    assert table.candidates(P1) == [one]
    table.update(one.peer.address, PathAttributes(), [], [P1])
    table.take_changes()
    assert P1 not in table.best


PEERS = [path(1), path(2, True), path(3, med=4)]
peers = st.sampled_from(PEERS)
prefixes = st.sampled_from(PREFIXES)
operations = st.one_of(
    st.tuples(st.just("announce"), peers, prefixes, st.integers(0, 2)),
    st.tuples(st.just("withdraw"), peers, prefixes, st.just(0)),
    st.tuples(st.just("drop"), peers, prefixes, st.just(0)),
    st.tuples(st.just("restart"), peers, prefixes, st.just(0)),
    st.tuples(st.just("take"), peers, prefixes, st.just(0)),
)


@given(st.lists(operations, max_size=40))
def test_only_the_last_state_matters(history: list[tuple[str, Path, Any, int]]) -> None:
    table, state, seen = rib(), {}, {}
    for name, one, prefix, med in history:
        table.set_peer(one.peer)
        address = one.peer.address
        if name == "announce":
            attributes = replace(one.attributes, med=med)
            table.update(address, attributes, [(prefix, one.next_hop)], [])
            state[address, prefix] = Path(one.peer, one.next_hop, attributes)
        elif name == "withdraw":
            table.update(address, PathAttributes(), [], [prefix])
            state.pop((address, prefix), None)
        elif name == "drop":
            table.drop(address)
            state = {key: value for key, value in state.items() if key[0] != address}
        elif name == "restart":
            table.mark_stale(address, "ipv4 unicast")
            table.drop_stale(address)
            state = {key: v for key, v in state.items() if key[0] != address or key[1].version == 6}
        else:
            seen.update(table.take_changes())
    seen.update(table.take_changes())
    fresh = rib()
    for (_, prefix), known in sorted(state.items(), key=str):
        tell(fresh, known, prefix)
    fresh.take_changes()
    assert dict(table.best) == dict(fresh.best)
    assert {prefix: best for prefix, best in seen.items() if best} == dict(fresh.best)
