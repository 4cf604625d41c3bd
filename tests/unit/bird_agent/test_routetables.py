"""Routes with the metric that their priority says, and how they change it."""

from __future__ import annotations

import errno
from collections.abc import Mapping
from ipaddress import IPv4Address, ip_address, ip_network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bird_agent.bestpath import Path, Peer
from bird_agent.exabgp.events import PathAttributes
from bird_agent.fib import OWNER
from bird_agent.filters import MAX_PRIORITY
from bird_agent.priority import metrics_of, priority_of
from bird_agent.routetables import RouteTables
from tests.fakes.routes import FakeRouteKernel
from weft.model.address import IPNetwork
from weft.netlink.route import Hop, PackedPrefix, RouteOwner, Target, pack, unpack, via
from weft.netlink.routetable import RouteChanges, RouteRefusal, RouteTable

PREFIXES = [ip_network(text) for text in ("10.0.0.0/24", "10.0.1.0/24", "fd00::/64")]
TO = [via(Hop(ip_address("fe80::1"), link)) for link in (2, 3)]


class Kernel:
    """One routing table: a prefix may be there with several metrics, and a `RouteTable` sees those of its owner."""

    def __init__(self) -> None:
        self.views: dict[RouteOwner, FakeRouteKernel] = {}
        self.routes: dict[tuple[IPNetwork, int], Target] = {}

    def make(self, owner: RouteOwner) -> tuple[RouteTable, Mapping[IPNetwork, Target]]:
        view = self.views.setdefault(owner, View(owner, self.routes))
        return RouteTable(view, owner), {unpack(packed): target for packed, target in view.read().items()}

    def view_of(self, metric: int) -> FakeRouteKernel:
        (found,) = (view for owner, view in self.views.items() if owner.metric_ipv4 == metric)
        return found

    def reads(self) -> dict[int, int]:
        """How often the routes of each metric of IPv4 were read."""
        return {owner.metric_ipv4: view.reads for owner, view in self.views.items()}

    def has(self) -> dict[IPNetwork, dict[int, Target]]:
        found: dict[IPNetwork, dict[int, Target]] = {}
        for (prefix, metric), target in self.routes.items():
            found.setdefault(prefix, {})[metric] = target
        return found


class View(FakeRouteKernel):
    """The routes of one owner among all others."""

    def __init__(self, owner: RouteOwner, routes: dict[tuple[IPNetwork, int], Target]) -> None:
        super().__init__(owner)
        self._routes = routes

    def _metric(self, prefix: IPNetwork) -> int:
        return self.owner.metric_ipv4 if prefix.version == 4 else self.owner.metric_ipv6

    def _ours(self) -> dict[PackedPrefix, Target]:
        return {
            pack(prefix): target for (prefix, metric), target in self._routes.items() if metric == self._metric(prefix)
        }

    def apply(self, changes: RouteChanges) -> list[RouteRefusal]:
        self.table = {packed: (self.owner.protocol, target) for packed, target in self._ours().items()}
        refused = super().apply(changes)
        for packed in self._ours().keys() | self.table.keys():
            prefix = unpack(packed)
            self._routes.pop((prefix, self._metric(prefix)), None)
            if packed in self.table:
                self._routes[prefix, self._metric(prefix)] = self.table[packed][1]
        return refused


USUAL = OWNER.metric_ipv4


def test_a_route_that_changes_its_metric_is_there_twice_and_never_not_at_all() -> None:
    kernel = Kernel()
    tables = RouteTables(OWNER, kernel.make)
    first = PREFIXES[0]
    tables.desire({first: TO[0]}, {})
    tables.apply(0)
    tables.desire({first: TO[0]}, {first: 512})
    usual = kernel.view_of(USUAL)
    before = len(usual.writes)
    tables.apply(1)
    assert kernel.has() == {first: {512: TO[0]}}
    assert [list(map(unpack, each.delete)) for each in usual.writes[before:]] == [[], [first]]
    assert kernel.view_of(512).writes[0].create
    tables.desire({first: TO[1]}, {})
    tables.apply(2)
    assert kernel.has() == {first: {USUAL: TO[1]}}
    tables.desire({first: TO[1]}, {first: 700})
    tables.desire({first: None}, {})
    tables.apply(3)
    assert kernel.has() == {}


def test_the_next_agent_knows_routes_of_every_metric_as_its_own() -> None:
    kernel = Kernel()
    tables = RouteTables(OWNER, kernel.make)
    tables.desire({PREFIXES[0]: TO[0], PREFIXES[1]: TO[0]}, {PREFIXES[0]: 512})
    tables.apply(0)
    tables = RouteTables(OWNER, kernel.make, [(4, 512)])
    assert dict(tables.left_over) == {PREFIXES[0]: TO[0], PREFIXES[1]: TO[0]}
    tables.apply(0)
    assert kernel.has() == {PREFIXES[0]: {512: TO[0]}, PREFIXES[1]: {USUAL: TO[0]}}
    tables.desire({PREFIXES[0]: TO[1]}, {})
    tables.desire(dict.fromkeys([PREFIXES[1]]), {})
    tables.apply(1)
    assert kernel.has() == {PREFIXES[0]: {USUAL: TO[1]}}


def test_a_priority_that_is_the_usual_metric_needs_no_table_of_its_own() -> None:
    kernel = Kernel()
    tables = RouteTables(OWNER, kernel.make)
    tables.desire({PREFIXES[0]: TO[0]}, {PREFIXES[0]: USUAL})
    tables.apply(0)
    assert set(kernel.views) == {OWNER}
    assert tables.actual() == {PREFIXES[0]: TO[0]}


def test_the_table_of_a_metric_goes_with_its_last_route_and_costs_nothing_any_more() -> None:
    kernel, first = Kernel(), PREFIXES[0]
    tables = RouteTables(OWNER, kernel.make)
    for metric in range(500, 520):
        tables.desire({first: TO[0]}, {first: metric})
        tables.apply(0)
    reads = kernel.reads()
    tables.resync()
    tables.apply(1)
    assert {metric for metric, count in kernel.reads().items() if count > reads[metric]} == {USUAL, 519}
    tables.desire({first: None}, {})
    tables.apply(2)
    tables.desire({first: TO[1]}, {first: 519})  # as if it had never been
    tables.apply(3)
    assert kernel.has() == {first: {519: TO[1]}}


def test_the_table_of_a_route_that_the_kernel_will_not_give_up_stays_until_it_does() -> None:
    kernel, first = Kernel(), PREFIXES[0]
    tables = RouteTables(OWNER, kernel.make)
    tables.desire({first: TO[0]}, {first: 512})
    tables.apply(0)
    kernel.view_of(512).refuse[pack(first)] = errno.EBUSY
    tables.desire({first: TO[0]}, {})
    tables.apply(1)
    assert [failure.prefix for failure in tables.failures] == [first]
    kernel.view_of(512).refuse.clear()
    tables.apply(60)
    assert tables.failures == []
    assert kernel.has() == {first: {USUAL: TO[0]}}


def usual(prefix: IPNetwork) -> int:
    return OWNER.metric_ipv4 if prefix.version == 4 else OWNER.metric_ipv6


def test_a_metric_that_is_usual_in_the_other_family_takes_none_of_its_routes() -> None:
    kernel = Kernel()
    tables = RouteTables(OWNER, kernel.make)
    first, sixth = PREFIXES[0], PREFIXES[2]
    tables.desire({first: TO[0], sixth: TO[0]}, {})
    tables.apply(0)
    tables.desire({first: TO[0]}, {first: OWNER.metric_ipv6})
    tables.apply(1)
    assert kernel.has() == {first: {OWNER.metric_ipv6: TO[0]}, sixth: {OWNER.metric_ipv6: TO[0]}}


def test_of_two_routes_that_a_dead_agent_left_the_one_that_counts_stays_until_all_is_learnt() -> None:
    kernel, first = Kernel(), PREFIXES[0]
    kernel.routes.update({(first, 512): TO[0], (first, USUAL): TO[1], (first, 2048): TO[1]})
    tables = RouteTables(OWNER, kernel.make, [(4, 2048), (4, 512)])
    assert tables.left_over == {first: TO[0]}
    tables.apply(0)
    assert kernel.has() == {first: {512: TO[0]}}
    tables.desire({first: TO[1]}, {first: 2048})
    tables.apply(1)
    assert kernel.has() == {first: {2048: TO[1]}}


changes = st.lists(
    st.tuples(
        st.sampled_from(PREFIXES),
        st.sampled_from([*TO, None]),
        st.sampled_from([None, 512, OWNER.metric_ipv4, OWNER.metric_ipv6]),
        st.booleans(),
    ),
    max_size=30,
)


left_over = st.dictionaries(
    st.tuples(st.sampled_from(PREFIXES), st.sampled_from([512, 1024, 2048])), st.sampled_from(TO)
)


@given(left_over, changes)
def test_whatever_was_there_and_wanted_before_the_kernel_has_what_is_wanted_last(
    left: dict[tuple[IPNetwork, int], Target], history: list[tuple[IPNetwork, Target | None, int | None, bool]]
) -> None:
    kernel = Kernel()
    kernel.routes.update(left)
    others = {(prefix.version, metric) for prefix, metric in left if metric != usual(prefix)}
    tables = RouteTables(OWNER, kernel.make, others)
    assert tables.left_over.keys() == {prefix for prefix, _ in left}
    wanted: dict[IPNetwork, tuple[int, Target]] = {}
    for prefix, target, metric, applies in history:
        tables.desire({prefix: target}, {} if metric is None else {prefix: metric})
        wanted.pop(prefix, None)
        if target is not None:
            wanted[prefix] = usual(prefix) if metric is None else metric, target
        if applies:
            tables.apply(0)
    tables.desire(dict.fromkeys(tables.left_over.keys() - {prefix for prefix, *_ in history}), {})
    tables.apply(1)
    assert kernel.has() == {prefix: {metric: target} for prefix, (metric, target) in wanted.items()}
    assert tables.actual() == {prefix: target for prefix, (_, target) in wanted.items()}


def path(internal: bool = True, preference: int | None = None, said: int | None = None) -> Path:
    peer = Peer(ip_address("10.0.0.2"), IPv4Address("10.0.0.2"), 64512, internal)
    return Path(peer, peer.address, PathAttributes(local_preference=said), preference)


@pytest.mark.parametrize(
    ("best", "expected"),
    [
        pytest.param((), None, id="no path"),
        pytest.param((path(said=100),), None, id="a local preference that is no priority"),
        pytest.param((path(),), None, id="none said"),
        pytest.param((path(said=MAX_PRIORITY - 1024),), 1024, id="the normal one"),
        pytest.param((path(said=MAX_PRIORITY - 512),), 512, id="a raised one of a peer of our AS"),
        pytest.param((path(False, said=MAX_PRIORITY - 512),), None, id="not of another AS"),
        pytest.param((path(False, MAX_PRIORITY - 50),), 50, id="set by an import filter"),
        pytest.param((path(said=MAX_PRIORITY),), None, id="zero"),
    ],
)
def test_a_priority_is_what_a_filter_or_a_peer_of_our_as_says(best: Any, expected: int | None) -> None:
    assert priority_of(best) == expected


def test_only_what_is_not_of_the_normal_priority_has_a_metric_of_its_own() -> None:
    best = {
        PREFIXES[0]: (path(said=MAX_PRIORITY - 512),),
        PREFIXES[1]: (path(said=MAX_PRIORITY - 1024),),
        PREFIXES[2]: (path(said=MAX_PRIORITY - 1024),),
    }
    routes: dict[IPNetwork, Target | None] = dict.fromkeys(PREFIXES, TO[0])
    assert metrics_of(routes, best, (1024, 1024)) == {PREFIXES[0]: 512}
    assert metrics_of(routes, best, (512, 1000)) == {PREFIXES[1]: 1024, PREFIXES[2]: 1024}
    assert metrics_of(dict.fromkeys(PREFIXES), best, (1024, 1024)) == {}
