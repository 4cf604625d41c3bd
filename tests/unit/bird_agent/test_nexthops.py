"""How next hops are reached."""

from __future__ import annotations

from ipaddress import IPv4Address, ip_address, ip_interface, ip_network
from typing import Any

import pytest

from bird_agent.bestpath import Path, Peer
from bird_agent.exabgp.events import PathAttributes
from bird_agent.fib import target_of, targets_of
from bird_agent.nexthops import NextHops, Reach, Underlay, underlay
from weft.model.address import IPInterface, IPNetwork
from weft.netlink.route import BLACKHOLE, Hop, Route, device, via

PEER = Peer(ip_address("10.0.0.2"), IPv4Address("10.0.0.2"), 65001, False)
UNDERLAY = underlay(
    [
        Route(ip_network("10.0.0.0/24"), device(2)),
        Route(ip_network("10.1.0.0/24"), device(3)),
        Route(ip_network("192.0.2.0/24"), via(ip_address("10.0.0.254"))),
        Route(ip_network("192.0.2.128/25"), BLACKHOLE),
        Route(ip_network("0.0.0.0/0"), via(Hop(ip_address("10.1.0.254"), 3)), metric=100),
        Route(ip_network("0.0.0.0/0"), via(Hop(ip_address("10.9.9.9"), 3)), metric=200),
        Route(ip_network("203.0.113.0/24"), via(ip_address("10.0.0.66")), protocol=186),
    ],
    {2, 3},
    frozenset({80, 186}),
)


@pytest.mark.parametrize(
    ("next_hop", "expected"),
    [
        pytest.param("10.0.0.7", Reach(0, (Hop(ip_address("10.0.0.7"), 2),)), id="connected"),
        pytest.param("192.0.2.1", Reach(1, (Hop(ip_address("10.0.0.254")),)), id="over a static route"),
        pytest.param("192.0.2.200", None, id="over a blackhole"),
        pytest.param("203.0.113.1", Reach(1, (Hop(ip_address("10.1.0.254"), 3),)), id="over the better default route"),
        pytest.param("fd00::1", None, id="not at all"),
    ],
)
def test_how_a_next_hop_is_reached(next_hop: str, expected: Reach | None) -> None:
    hops = NextHops()
    hops.set_underlay(UNDERLAY)
    assert hops.reach(ip_address(next_hop)) == expected


def test_a_link_that_is_down_reaches_nothing_and_the_change_is_reported() -> None:
    hops = NextHops()
    hops.set_underlay(UNDERLAY)
    near, far = ip_address("10.0.0.7"), ip_address("10.1.0.7")
    assert hops.cost(near) == hops.cost(far) == 0
    down = Underlay(UNDERLAY.connected, {}, frozenset({3}))
    assert hops.set_underlay(down) == {near}
    assert hops.cost(near) is None


def test_a_next_hop_behind_a_learnt_route_is_reached_through_it_one_level_deep() -> None:
    hops, learnt = NextHops(), {}
    hops.set_underlay(Underlay(UNDERLAY.connected, {}, frozenset({2, 3})))
    hops.set_learnt(lambda prefix: learnt.get(prefix, ()))
    loopback, deeper = ip_address("172.16.0.1"), ip_address("172.17.0.1")
    assert hops.cost(loopback) is None
    learnt[ip_network("172.16.0.1/32")] = (ip_address("10.0.0.5"), ip_address("10.1.0.5"))
    learnt[ip_network("172.17.0.0/16")] = (loopback,)
    assert hops.on_learnt_changed([ip_network("172.16.0.1/32")]) == {loopback}
    both = (Hop(ip_address("10.0.0.5"), 2), Hop(ip_address("10.1.0.5"), 3))
    assert hops.reach(loopback) == Reach(1, both, ip_network("172.16.0.1/32"))
    assert hops.cost(deeper) is None
    path = Path(PEER, loopback, PathAttributes())
    assert target_of(ip_network("10.65.1.0/26"), (path,), hops) == via(*both)
    assert target_of(ip_network("172.16.0.1/32"), (path,), hops) is None


def test_how_next_hops_are_reached_does_not_depend_on_who_came_first() -> None:
    neighbour, host = ip_address("10.0.0.7"), ip_network("10.0.0.7/32")
    below = Underlay(UNDERLAY.connected, {}, frozenset({2, 3}))
    expected = Reach(1, (Hop(ip_address("10.1.0.5"), 3),), host)
    asked_first, learnt_first = NextHops(), NextHops()
    for hops in (asked_first, learnt_first):
        hops.set_underlay(below)
    learnt: dict[IPNetwork, Any] = {}
    asked_first.set_learnt(lambda prefix: learnt.get(prefix, ()))
    assert asked_first.cost(neighbour) == 0
    learnt[host] = (ip_address("10.1.0.5"),)
    assert asked_first.on_learnt_changed([host]) == {neighbour}
    learnt_first.set_learnt(lambda prefix: learnt.get(prefix, ()))
    assert asked_first.reach(neighbour) == learnt_first.reach(neighbour) == expected
    del learnt[host]
    assert asked_first.on_learnt_changed([host]) == {neighbour}
    assert asked_first.cost(neighbour) == 0


def test_many_prefixes_lead_where_each_of_them_would() -> None:
    hops, learnt = NextHops(), {ip_network("172.16.0.0/16"): (ip_address("10.0.0.5"),)}
    hops.set_underlay(Underlay(UNDERLAY.connected, {}, frozenset({2, 3})))
    hops.set_learnt(lambda prefix: learnt.get(prefix, ()))
    near, behind, nowhere = (
        Path(PEER, ip_address(hop), PathAttributes()) for hop in ("10.0.0.5", "172.16.0.1", "192.0.2.1")
    )
    bests = [(near,), (behind,), (near, behind), (nowhere,), ()]
    prefixes = [
        ip_network(text) for text in ("10.65.0.0/26", "10.65.0.64/26", "172.16.0.0/16", "10.0.0.5/32", "10.65.9.9/32")
    ]
    for several in (prefixes, prefixes[::-1]):
        for best in bests:
            every = dict.fromkeys(several, best)
            assert targets_of(every, hops) == {prefix: target_of(prefix, best, hops) for prefix in several}
    mixed = dict(zip(prefixes, bests, strict=True))
    assert targets_of(mixed, hops) == {prefix: target_of(prefix, best, hops) for prefix, best in mixed.items()}


def test_a_gateway_has_no_route_through_itself() -> None:
    hops, gateway = NextHops(), ip_address("10.0.0.2")
    hops.set_underlay(UNDERLAY)
    path = Path(PEER, gateway, PathAttributes())
    assert target_of(ip_network("10.0.0.2/32"), (path,), hops) is None
    assert target_of(ip_network("10.0.0.2/31"), (path,), hops) == via(Hop(gateway, 2))


LINK_LOCAL = ip_address("fe80::2")
BOTH = {ip_network("10.0.0.0/24"): frozenset({2}), ip_network("fd01::/64"): frozenset({3})}


@pytest.mark.parametrize(
    ("peer", "expected"),
    [
        pytest.param("fd01::2", Reach(0, (Hop(LINK_LOCAL, 3),)), id="IPv6 peer"),
        pytest.param("10.0.0.2", Reach(0, (Hop(LINK_LOCAL, 2),)), id="IPv6 routes from an IPv4 peer"),
        pytest.param("fd02::2", None, id="a peer that is not on a link of ours"),
    ],
)
def test_a_link_local_next_hop_is_on_the_link_that_leads_to_the_peer(peer: str, expected: Reach | None) -> None:
    hops, next_hop = NextHops(), ip_address(f"fe80::2%{peer}")
    others = {ip_network("fd02::/64"): via(ip_address("fd01::254"))}
    hops.set_underlay(Underlay(BOTH, others, frozenset({2, 3})))
    assert hops.reach(next_hop) == expected


def test_equal_link_local_next_hops_of_two_peers_are_two() -> None:
    hops = NextHops()
    hops.set_underlay(Underlay(BOTH, {}, frozenset({2, 3})))
    paths = tuple(Path(PEER, ip_address(f"fe80::2%{peer}"), PathAttributes()) for peer in ("fd01::2", "10.0.0.2"))
    assert target_of(ip_network("fd65::/122"), paths, hops) == via(Hop(LINK_LOCAL, 2), Hop(LINK_LOCAL, 3))


@pytest.mark.parametrize(
    "without",
    [
        pytest.param(Underlay(BOTH, {}, frozenset({2})), id="link down"),
        pytest.param(Underlay({ip_network("10.0.0.0/24"): frozenset({2})}, {}, frozenset({2})), id="link gone"),
    ],
)
def test_a_link_local_next_hop_goes_with_its_link_and_comes_back_with_it(without: Underlay) -> None:
    hops, next_hop, other = NextHops(), ip_address("fe80::2%fd01::2"), ip_address("fe80::2%10.0.0.2")
    with_both = Underlay(BOTH, {}, frozenset({2, 3}))
    hops.set_underlay(with_both)
    assert hops.cost(next_hop) == hops.cost(other) == 0
    assert hops.set_underlay(without) == {next_hop}
    assert hops.cost(next_hop) is None
    assert hops.set_underlay(with_both) == {next_hop}
    assert hops.reach(next_hop) == Reach(0, (Hop(LINK_LOCAL, 3),))


def on(*addresses: tuple[str, int]) -> dict[IPInterface, frozenset[int]]:
    return {ip_interface(address): frozenset({link}) for address, link in addresses}


@pytest.mark.parametrize(
    ("addresses", "why"),
    [
        pytest.param({}, None, id="addresses are not known"),
        pytest.param(on(("10.0.0.1/24", 2)), None, id="link up"),
        pytest.param(on(("10.0.0.1/24", 3)), "interface down", id="link down"),
        pytest.param(on(("10.0.0.1/24", 3), ("10.0.0.7/24", 2)), None, id="another link to the same network is up"),
        pytest.param(on(("10.0.0.1/32", 3)), None, id="the peer is beyond a hop"),
        pytest.param(on(("10.0.0.7/24", 2)), "this node no longer has the address 10.0.0.1", id="address removed"),
    ],
)
def test_a_peer_is_cut_off_when_no_link_around_it_is_up_or_our_address_is_gone(
    addresses: dict[IPInterface, frozenset[int]], why: str | None
) -> None:
    below = Underlay(links_up=frozenset({2}), addresses=addresses)
    assert below.cut_off(ip_address("10.0.0.1"), ip_address("10.0.0.2")) == why
