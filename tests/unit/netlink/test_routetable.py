"""The state machine of the route driver, against a kernel that refuses as the real one does."""

import errno
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fakes.routes import FakeRouteKernel
from weft.netlink.message import NLM_F_CREATE, NLM_F_REPLACE, Message, messages
from weft.netlink.route import (
    BLACKHOLE,
    RTM_DELROUTE,
    Hop,
    IPNetwork,
    Route,
    RouteOwner,
    RouteWriter,
    Target,
    device,
    pack,
    via,
)
from weft.netlink.routetable import FIRST_RETRY_S, LONGEST_RETRY_S, RouteTable

OWNER = RouteOwner(80, 0, 512)
FOREIGN = RouteOwner(4, 0, 512)
NET = IPv4Network("10.65.0.2/32")
OTHER = IPv4Network("10.65.0.64/26")

prefixes = st.sampled_from(
    [NET, OTHER, IPv4Network("10.65.0.64/32"), IPv4Network("0.0.0.0/0"), IPv6Network("fd00::2/128")]
)
targets = st.sampled_from([device(3), device(4), BLACKHOLE, device(5)])
tables = st.dictionaries(prefixes, targets)


def packed(routes: dict[IPNetwork, Target]) -> dict[bytes, tuple[int, Target]]:
    return {pack(prefix): (OWNER.protocol, target) for prefix, target in routes.items()}


@pytest.fixture
def kernel() -> FakeRouteKernel:
    return FakeRouteKernel(OWNER)


@pytest.fixture
def table(kernel: FakeRouteKernel) -> RouteTable:
    return RouteTable(kernel, OWNER)


def notification(route: Route, *, gone: bool = False, flags: int = NLM_F_CREATE | NLM_F_REPLACE) -> Message:
    metric = route.metric
    writer = RouteWriter(RouteOwner(route.protocol, metric, metric, route.table))
    if gone:
        [encoded] = writer.delete([pack(route.destination)])
        [decoded] = messages(encoded)
        return decoded._replace(kind=RTM_DELROUTE)
    [encoded] = writer.replace([(pack(route.destination), route.target)])
    [decoded] = messages(encoded)
    return decoded._replace(flags=flags)


@given(leftover=tables, history=st.lists(tables, max_size=4), final=tables)
@settings(max_examples=100)
def test_only_the_last_desired_state_matters(
    leftover: dict[IPNetwork, Target], history: list[dict[IPNetwork, Target]], final: dict[IPNetwork, Target]
) -> None:
    kernel = FakeRouteKernel(OWNER, packed(leftover))
    table = RouteTable(kernel, OWNER)
    for number, routes in enumerate([*history, final]):
        table.desire_only(routes)
        assert table.apply(float(number)) == []
    assert kernel.table == packed(final)


links = st.sampled_from([3, 4, 5])
steps = st.lists(
    st.one_of(
        st.tuples(st.just("desire"), prefixes, st.none() | targets),
        st.tuples(st.just("link down"), links, st.none()),
        st.tuples(st.just("link up"), links, st.none()),
        st.tuples(st.just("somebody adds"), prefixes, targets),
        st.tuples(st.just("somebody deletes"), prefixes, st.none()),
        st.tuples(st.just("apply"), st.none(), st.none()),
    ),
    max_size=25,
)


@given(steps)
@settings(max_examples=150)
def test_whatever_happened_the_kernel_ends_as_desired_and_others_keep_theirs(
    history: list[tuple[str, object, object]],
) -> None:
    kernel = FakeRouteKernel(OWNER)
    table = RouteTable(kernel, OWNER)
    desired: dict[IPNetwork, Target] = {}
    foreign: dict[IPNetwork, Target] = {}
    now_s = 0.0
    for what, subject, value in history:
        now_s += 1
        if what == "desire":
            assert isinstance(subject, IPv4Network | IPv6Network)
            assert value is None or isinstance(value, Target)
            table.desire({subject: value})
            desired.pop(subject, None)
            if value is not None:
                desired[subject] = value
        elif what == "link down":
            kernel.link_down(subject)  # type: ignore[arg-type]
            for prefix in [prefix for prefix in foreign if pack(prefix) not in kernel.table]:
                del foreign[prefix]
            table.on_link_change(subject)  # type: ignore[arg-type]
        elif what == "link up":
            kernel.missing_links.discard(subject)
            table.on_link_change(subject)  # type: ignore[arg-type]
        elif what == "somebody adds":
            route = Route(subject, value, FOREIGN.protocol, metric_of(subject))  # type: ignore[arg-type]
            kernel.somebody_else_writes(route)
            foreign[route.destination] = route.target
            table.on_notifications([notification(route)])
        elif what == "somebody deletes":
            gone = kernel.table.pop(pack(subject), None)  # type: ignore[arg-type]
            foreign.pop(subject, None)  # type: ignore[call-overload]
            if gone is not None:
                route = Route(subject, gone[1], gone[0], metric_of(subject))  # type: ignore[arg-type]
                table.on_notifications([notification(route, gone=True)])
        else:
            table.apply(now_s)
    for link in (3, 4, 5):
        kernel.missing_links.discard(link)
        table.on_link_change(link)
    for _ in range(3):
        now_s += LONGEST_RETRY_S + 1
        table.apply(now_s)
    expected = {**packed(desired), **{pack(prefix): (FOREIGN.protocol, target) for prefix, target in foreign.items()}}
    assert kernel.table == expected
    assert {failure.prefix for failure in table.failures} == desired.keys() & foreign.keys()


def metric_of(prefix: object) -> int:
    return OWNER.metric_ipv4 if isinstance(prefix, IPv4Network) else OWNER.metric_ipv6


def test_nothing_is_written_before_the_kernel_has_been_read(kernel: FakeRouteKernel, table: RouteTable) -> None:
    kernel.unreadable = 1
    table.desire({NET: device(3)})
    with pytest.raises(OSError, match="injected"):
        table.apply(10.0)
    assert kernel.writes == []
    assert table.retry_at_s() == 10.0 + FIRST_RETRY_S
    assert table.apply(10.1) == []
    assert kernel.reads == 1
    table.apply(10.0 + FIRST_RETRY_S)
    assert kernel.ours() == {str(NET): device(3)}
    assert table.retry_at_s() is None


def test_a_start_full_of_leftovers_writes_only_what_differs(kernel: FakeRouteKernel, table: RouteTable) -> None:
    kernel.table = packed({NET: device(3), OTHER: BLACKHOLE, IPv4Network("10.65.0.9/32"): device(9)})
    table.desire_only({NET: device(3), OTHER: BLACKHOLE})
    table.apply(0.0)
    [writes] = kernel.writes
    assert (writes.create, writes.replace, writes.delete) == ({}, {}, [pack(IPv4Network("10.65.0.9/32"))])


def test_one_refused_route_does_not_stop_the_others_and_is_tried_again_with_back_off(
    kernel: FakeRouteKernel, table: RouteTable
) -> None:
    kernel.refuse[pack(NET)] = errno.ENOMEM
    table.desire({NET: device(3), OTHER: BLACKHOLE})
    [failure] = table.apply(0.0)
    assert (failure.prefix, failure.errno, failure.attempts) == (NET, errno.ENOMEM, 1)
    assert kernel.ours() == {str(OTHER): BLACKHOLE}
    waits = []
    for _ in range(9):
        due = table.retry_at_s()
        assert due is not None
        assert table.apply(due - 0.01) == []
        [failure] = table.apply(due)
        waits.append(failure.retry_at_s - due)
    assert waits == sorted(waits)
    assert waits[-1] == LONGEST_RETRY_S
    kernel.refuse.clear()
    assert table.apply(failure.retry_at_s) == []
    assert table.failures == []
    assert kernel.ours() == {str(OTHER): BLACKHOLE, str(NET): device(3)}


def test_a_new_wish_for_a_failed_route_is_tried_at_once(kernel: FakeRouteKernel, table: RouteTable) -> None:
    kernel.missing_links.add(3)
    table.desire({NET: device(3)})
    assert table.apply(0.0)
    table.desire({NET: device(4)})
    assert table.apply(0.0) == []
    assert kernel.ours() == {str(NET): device(4)}


def test_somebody_elses_route_is_never_overwritten(kernel: FakeRouteKernel, table: RouteTable) -> None:
    route = Route(NET, device(7), protocol=4)
    kernel.somebody_else_writes(route)
    table.desire({NET: device(3)})
    [failure] = table.apply(0.0)
    assert failure.errno == errno.EEXIST
    reads = [table.apply(failure.retry_at_s) and kernel.reads for _ in range(1)]
    assert kernel.table[pack(NET)] == (4, device(7))
    # It goes: ours takes its place without waiting for the back-off.
    del kernel.table[pack(NET)]
    table.on_notifications([notification(route, gone=True)])
    assert table.apply(failure.retry_at_s) == []
    assert kernel.ours() == {str(NET): device(3)}
    assert reads == [kernel.reads], "a route in the way must not make every retry read the whole table"


def test_a_route_that_somebody_deleted_comes_back(kernel: FakeRouteKernel, table: RouteTable) -> None:
    table.desire({NET: device(3), OTHER: BLACKHOLE})
    table.apply(0.0)
    del kernel.table[pack(NET)]
    table.on_notifications([notification(Route(NET, device(3), OWNER.protocol), gone=True)])
    table.apply(1.0)
    assert kernel.ours() == {str(NET): device(3), str(OTHER): BLACKHOLE}
    assert kernel.reads == 1


def test_a_route_of_our_protocol_that_nobody_desires_is_removed_when_it_appears(
    kernel: FakeRouteKernel, table: RouteTable
) -> None:
    table.apply(0.0)
    stray = Route(NET, device(3), OWNER.protocol)
    kernel.somebody_else_writes(stray)
    table.on_notifications([notification(stray)])
    table.apply(1.0)
    assert kernel.table == {}


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(Route(NET, device(9), OWNER.protocol, metric=7), id="our protocol, another metric"),
        pytest.param(Route(NET, device(9), OWNER.protocol, table=100), id="our protocol, another table"),
        pytest.param(Route(NET, device(9), 4, metric=7), id="another protocol and metric"),
    ],
)
def test_notifications_of_other_routes_change_nothing(kernel: FakeRouteKernel, table: RouteTable, other: Route) -> None:
    table.desire({NET: device(3)})
    table.apply(0.0)
    table.on_notifications([notification(other), notification(other, gone=True)])
    table.apply(1.0)
    assert not kernel.writes[-1].create
    assert not kernel.writes[-1].replace
    assert not kernel.writes[-1].delete


def test_after_a_link_flap_only_its_own_routes_are_looked_up_and_written(
    kernel: FakeRouteKernel, table: RouteTable
) -> None:
    table.desire({NET: device(3), OTHER: device(4)})
    table.apply(0.0)
    kernel.link_down(3)
    table.on_link_change(3)
    assert [failure.errno for failure in table.apply(1.0)] == [errno.ENODEV]
    kernel.missing_links.clear()
    table.on_link_change(3)
    assert table.apply(1.1) == []
    assert kernel.writes[-1].create == {pack(NET): device(3)}
    assert kernel.reads == 1
    assert kernel.ours() == {str(NET): device(3), str(OTHER): device(4)}


GATEWAY = IPv4Address("192.0.2.1")
SECOND = IPv4Address("192.0.2.2")


@pytest.mark.parametrize(
    ("actual", "desired", "same"),
    [
        pytest.param(via(Hop(GATEWAY, 3)), via(GATEWAY), True, id="the kernel found the link"),
        pytest.param(via(Hop(GATEWAY, 3)), via(Hop(GATEWAY, 4)), False, id="another link was asked for"),
        pytest.param(via(Hop(GATEWAY, 3)), via(Hop(GATEWAY, 3, onlink=True)), False, id="onlink was asked for"),
        pytest.param(via(Hop(SECOND, 3), Hop(GATEWAY, 3)), via(GATEWAY, SECOND), True, id="next hops in any order"),
        pytest.param(via(Hop(GATEWAY, 3)), via(GATEWAY, SECOND), False, id="a next hop is missing"),
        pytest.param(via(Hop(GATEWAY, 3, 2)), via(GATEWAY), False, id="another weight"),
        pytest.param(
            via(Hop(GATEWAY, 3), Hop(GATEWAY, 4)), via(Hop(GATEWAY), Hop(GATEWAY, 3)), True, id="the named link first"
        ),
        pytest.param(BLACKHOLE, via(GATEWAY), False, id="a blackhole"),
        pytest.param(via(GATEWAY, source=SECOND), via(GATEWAY), False, id="another source address"),
    ],
)
def test_a_route_is_rewritten_only_if_it_is_not_what_was_asked_for(
    kernel: FakeRouteKernel, table: RouteTable, actual: Target, desired: Target, same: bool
) -> None:
    kernel.table = packed({OTHER: actual})
    table.desire({OTHER: desired})
    table.apply(0.0)
    assert (kernel.writes[-1].replace == {}) == same


@pytest.mark.parametrize(
    ("hops", "complaint"),
    [
        pytest.param((), "needs a next hop", id="none"),
        pytest.param((Hop(),), "neither a gateway nor a link", id="empty hop"),
        pytest.param((Hop(GATEWAY, 3, weight=0),), "weight 0", id="weight too small"),
        pytest.param((Hop(GATEWAY, 3, weight=257),), "weight 257", id="weight too great"),
        pytest.param((Hop(GATEWAY, onlink=True),), "onlink", id="onlink without a link"),
    ],
)
def test_an_impossible_target_cannot_be_built(hops: tuple[Hop, ...], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        via(*hops)


def test_ipv6_gateways_of_ipv4_routes_are_allowed_and_not_the_other_way_round(table: RouteTable) -> None:
    table.desire({NET: via(Hop(IPv6Address("fe80::1"), 3))})
    with pytest.raises(ValueError, match="cannot go through"):
        table.desire({IPv6Network("fd00::/64"): via(GATEWAY)})
    assert table.apply(0.0) == []
