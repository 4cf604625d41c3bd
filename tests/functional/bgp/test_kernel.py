"""What the agent follows in the kernel, and what it does not let itself be bothered with."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from ipaddress import ip_address, ip_network

import pytest

from bird_agent.fib import kernel_tables
from bird_agent.kernel import MOST_AT_ONCE, KernelChanges, KernelView
from bird_agent.nexthops import Underlay
from lab.netns import NetNs
from tests.functional.bgp.fabric import segment, wait_until
from weft.netlink.route import Hop, via
from weft.netlink.socket import NetlinkSocket

pytestmark = pytest.mark.root


@pytest.fixture
def pair(netns: Callable[[str], NetNs]) -> tuple[NetNs, NetNs]:
    here, there = netns("here"), netns("there")
    segment(here, there, "up0", "10.1.0.1/24", "10.1.0.2/24")
    return here, there


@pytest.fixture
def view(pair: tuple[NetNs, NetNs]) -> Iterator[KernelView]:
    with pair[0].enter():
        made = KernelView()
    made.read()
    yield made
    made.close()


def received(view: KernelView) -> KernelChanges:
    time.sleep(0.1)
    return view.receive()


def links(below: Underlay) -> set[str]:
    return {str(prefix) for prefix in below.connected}


def test_connected_networks_other_routes_and_workloads_are_told_apart(
    pair: tuple[NetNs, NetNs], view: KernelView
) -> None:
    here = pair[0]
    here.ip("route", "add", "192.0.2.0/24", "via", "10.1.0.2")
    here.ip("route", "add", "10.65.0.5/32", "dev", "lo", "proto", "80")
    here.ip("route", "add", "blackhole", "10.65.0.0/26", "proto", "80")
    here.ip("route", "add", "203.0.113.0/24", "via", "10.1.0.2", "proto", "186", "metric", "1024")
    changes = received(view)
    assert (changes.added, changes.removed, changes.underlay) == ({ip_network("10.65.0.5/32"): "lo"}, set(), True)
    below = view.read().underlay
    up0 = next(iter(below.connected[ip_network("10.1.0.0/24")]))
    assert view.name_of(up0) == "up0"
    assert up0 in below.links_up
    assert dict(below.others) == {ip_network("192.0.2.0/24"): via(Hop(ip_address("10.1.0.2"), up0))}
    here.ip("route", "delete", "10.65.0.5/32", "proto", "80")
    assert received(view).removed == {ip_network("10.65.0.5/32")}


def add_addresses(here: NetNs, count: int) -> None:
    first = int(ip_network("10.65.128.0/32").network_address)
    lines = "".join(f"route add {ip_address(first + number)}/32 dev lo proto 80\n" for number in range(count))
    here.run(["ip", "-batch", "-"], stdin=lines)


def test_many_addresses_come_in_parts_so_that_the_first_are_announced_while_others_are_read(
    pair: tuple[NetNs, NetNs], view: KernelView
) -> None:
    add_addresses(pair[0], 2 * MOST_AT_ONCE + 3)
    parts = [received(view).added for _ in range(4)]
    assert [len(part) for part in parts] == [MOST_AT_ONCE, MOST_AT_ONCE, 3, 0]
    assert len({prefix for part in parts for prefix in part}) == 2 * MOST_AT_ONCE + 3


def test_what_has_to_be_read_as_a_whole_is_asked_for_once(pair: tuple[NetNs, NetNs], view: KernelView) -> None:
    pair[0].ip("route", "add", "192.0.2.0/24", "via", "10.1.0.2")
    add_addresses(pair[0], 2 * MOST_AT_ONCE)
    changes = received(view)
    assert (changes.underlay, len(changes.added)) == (True, 2 * MOST_AT_ONCE)
    assert not received(view)


def test_what_may_stand_where_a_route_of_ours_was_is_told_whatever_its_metric(
    pair: tuple[NetNs, NetNs], view: KernelView
) -> None:
    here = pair[0]
    here.ip("route", "add", "10.65.0.5/32", "dev", "lo", "proto", "80")
    changes = received(view)
    assert changes.own == []  # a local workload's, which is no place of ours
    assert changes, "it is to be announced at once, not when the agent next looks round"
    for protocol, metric in (("186", "1024"), ("186", "77"), ("static", "1024"), ("static", "77")):
        here.ip("route", "replace", "203.0.113.0/24", "via", "10.1.0.2", "proto", protocol, "metric", metric)
        assert len(received(view).own) == 1


def test_routes_with_a_metric_that_is_usual_in_the_other_family_leave_its_routes_alone(
    pair: tuple[NetNs, NetNs],
) -> None:
    here, gateway = pair[0], via(Hop(ip_address("10.1.0.2"), None))
    first, second = ip_network("203.0.113.0/24"), ip_network("198.51.100.0/24")

    def metrics(family: str) -> dict[str, list[int]]:
        found: dict[str, list[int]] = {}
        for one in here.ip_json(family, "route", "show", "proto", "186"):
            found.setdefault(one["dst"], []).append(one["metric"])
        return found

    here.ip("-6", "route", "add", "blackhole", "fd66::/64", "proto", "186", "metric", "2048")
    here.ip("route", "add", str(second), "via", "10.1.0.2", "proto", "186", "metric", "2048")
    here.ip("route", "add", str(second), "via", "10.1.0.2", "proto", "186", "metric", "1024")  # killed in between
    with here.enter(), NetlinkSocket() as requests:
        tables = kernel_tables(requests)
        tables.desire({first: gateway}, {first: 2048})
        assert tables.apply(0) == []
    assert metrics("-4") == {str(first): [2048], str(second): [1024]}
    assert metrics("-6") == {"fd66::/64": [2048]}


def test_a_link_that_loses_its_other_end_is_not_up_any_more(pair: tuple[NetNs, NetNs], view: KernelView) -> None:
    def carries() -> bool:
        view.receive()
        below = view.read().underlay
        return bool(below.connected[ip_network("10.1.0.0/24")] & below.links_up)

    # The kernel tells of a carrier up to a second late.
    wait_until("the link is up", carries)
    pair[1].ip("link", "set", "up0", "down")
    wait_until("the link is down", lambda: not carries())


def test_a_workload_that_is_wired_costs_no_reading_of_the_table(pair: tuple[NetNs, NetNs], view: KernelView) -> None:
    here = pair[0]
    here.ip("link", "add", "cali0123456789a", "type", "veth", "peer", "name", "w0", "netns", pair[1].name)
    here.ip("link", "set", "cali0123456789a", "up")
    pair[1].ip("link", "set", "w0", "up")
    time.sleep(2)  # until its IPv6 link-local address is there
    here.ip("route", "add", "10.65.0.5/32", "dev", "cali0123456789a", "proto", "80")
    changes = received(view)
    assert changes.added == {ip_network("10.65.0.5/32"): "cali0123456789a"}
    assert (changes.underlay, changes.resync, view.behind) == (False, False, False)
