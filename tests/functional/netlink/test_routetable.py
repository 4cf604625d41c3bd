"""The route driver on the real kernel: leftovers, link flaps, other people's edits."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from ipaddress import IPv4Address, IPv6Address, ip_network

import pytest

from lab.netns import NetNs
from weft.netlink.route import (
    BLACKHOLE,
    RTNLGRP_IPV4_ROUTE,
    RTNLGRP_IPV6_ROUTE,
    Hop,
    RouteOwner,
    Target,
    device,
    via,
)
from weft.netlink.routetable import LONGEST_RETRY_S, KernelRoutes, RouteTable
from weft.netlink.socket import NETLINK_ROUTE, NetlinkSocket

pytestmark = pytest.mark.root

LOCAL = RouteOwner(80, 0, 512)
LEARNT = RouteOwner(186, 1024, 2048)
NEAR, FAR = IPv4Address("192.0.2.2"), IPv4Address("192.0.2.3")
NEAR6 = IPv6Address("fd00::2")


class Here:
    """A namespace with two uplinks, and both agents' tables in it."""

    def __init__(self, netns: NetNs, stack: ExitStack) -> None:
        self.netns = netns
        self.links = {link["ifname"]: link["ifindex"] for link in netns.ip_json("link")}
        self.monitors: dict[RouteOwner, NetlinkSocket] = {}
        self.tables: dict[RouteOwner, RouteTable] = {}
        self._stack = stack
        for owner in (LOCAL, LEARNT):
            self.start(owner)

    def start(self, owner: RouteOwner) -> RouteTable:
        """(Re)start the agent: it knows nothing."""
        with self.netns.enter():
            socket = self._stack.enter_context(NetlinkSocket())
            monitor = NetlinkSocket(NETLINK_ROUTE, [RTNLGRP_IPV4_ROUTE, RTNLGRP_IPV6_ROUTE])
            self._stack.enter_context(monitor)
        monitor.ignore_ports([socket.port])
        self.monitors[owner] = monitor
        self.tables[owner] = RouteTable(KernelRoutes(socket, owner), owner)
        return self.tables[owner]

    def settle(self, owner: RouteOwner, now_s: float = 0.0) -> None:
        self.tables[owner].on_notifications(self.monitors[owner].receive())
        assert self.tables[owner].apply(now_s) == []

    def shown(self, owner: RouteOwner) -> set[str]:
        words = ["route", "show", "proto", str(owner.protocol)]
        return {route["dst"] for family in ("-4", "-6") for route in self.netns.ip_json(family, *words)}


@pytest.fixture
def here(netns: Callable[[str], NetNs]) -> Iterator[Here]:
    made, other = netns("here"), netns("other")
    for name, number in (("up0", 0), ("up1", 1)):
        made.ip("link", "add", name, "type", "veth", "peer", "name", name, "netns", other.name)
        made.ip("link", "set", name, "up")
        other.ip("link", "set", name, "up")
        made.ip("addr", "add", f"192.0.{2 + number}.1/24", "dev", name)
        made.ip("addr", "add", f"fd0{number}::1/64", "dev", name, "nodad")
    with ExitStack() as stack:
        yield Here(made, stack)


def test_both_owners_keep_their_own_routes_to_the_same_prefix_and_local_wins(here: Here) -> None:
    prefix = ip_network("10.65.0.0/26")
    here.tables[LOCAL].desire({prefix: device(here.links["up0"])})
    here.tables[LEARNT].desire({prefix: via(Hop(IPv4Address("192.0.3.2"), here.links["up1"]))})
    for owner in (LOCAL, LEARNT):
        here.settle(owner)
    assert here.shown(LOCAL) == here.shown(LEARNT) == {"10.65.0.0/26"}
    assert here.netns.ip_json("route", "get", "10.65.0.1")[0]["dev"] == "up0"
    here.tables[LOCAL].desire({prefix: None})
    here.settle(LOCAL)
    assert here.shown(LEARNT) == {"10.65.0.0/26"}


def test_a_restart_changes_only_what_differs_and_packets_never_miss_a_route(here: Here) -> None:
    kept, gone, moved = (ip_network(f"10.{n}.0.0/16") for n in (1, 2, 3))
    kept6 = ip_network("fd10::/64")
    table = here.tables[LEARNT]
    table.desire({kept: via(NEAR), gone: via(NEAR), moved: via(NEAR), kept6: via(NEAR6)})
    here.settle(LEARNT)
    monitor = here.monitors[LEARNT]
    again = here.start(LEARNT)
    again.desire_only({kept: via(NEAR), moved: via(NEAR, FAR), kept6: via(NEAR6)})
    here.settle(LEARNT)
    told = [one.kind for one in monitor.receive()]
    assert len(told) == 2, "one replacement, one deletion"
    assert here.shown(LEARNT) == {"10.1.0.0/16", "10.3.0.0/16", "fd10::/64"}
    assert len(here.netns.ip_json("route", "show", str(moved))[0]["nexthops"]) == 2


def test_routes_of_a_link_come_back_after_it_was_down(here: Here) -> None:
    link = here.links["up0"]
    routes = {
        ip_network("10.65.0.2/32"): device(link),
        ip_network("fd65::2/128"): device(link),
        ip_network("10.65.0.0/26"): BLACKHOLE,
    }
    table = here.tables[LOCAL]
    table.desire(routes)
    here.settle(LOCAL)
    before = here.shown(LOCAL)
    here.netns.ip("link", "set", "up0", "down")
    assert "10.65.0.2" not in here.shown(LOCAL)
    here.netns.ip("link", "set", "up0", "up")
    here.netns.ip("addr", "add", "fd00::1/64", "dev", "up0", "nodad")
    table.on_link_change(link)
    here.settle(LOCAL)
    assert here.shown(LOCAL) == before


def test_routes_through_gateways_come_back_after_the_uplink_was_down(here: Here) -> None:
    table = here.tables[LEARNT]
    prefixes = [ip_network(f"10.{n}.0.0/16") for n in range(50)]
    table.desire(dict.fromkeys(prefixes, via(NEAR)))
    here.settle(LEARNT)
    here.netns.ip("link", "set", "up0", "down")
    assert here.shown(LEARNT) == set()
    table.resync()
    assert len(table.apply(1.0)) == 50
    here.netns.ip("link", "set", "up0", "up")
    table.resync()
    here.settle(LEARNT, 1.1)
    assert here.shown(LEARNT) == {str(prefix) for prefix in prefixes}


def test_what_others_do_to_our_routes_is_undone_and_theirs_stay(here: Here) -> None:
    table = here.tables[LOCAL]
    link = here.links["up0"]
    routes = {ip_network(f"10.65.0.{n}/32"): device(link) for n in (2, 3, 4)}
    table.desire({**routes, ip_network("fd65::2/128"): device(link)})
    here.settle(LOCAL)
    ip = here.netns.ip
    ip("route", "del", "10.65.0.2/32")
    ip("-6", "route", "del", "fd65::2/128")
    ip("route", "replace", "10.65.0.3/32", "dev", "up1", "proto", "80")
    ip("route", "add", "10.65.0.9/32", "dev", "up1", "proto", "80")
    ip("route", "add", "10.65.0.8/32", "dev", "up1", "proto", "static")
    here.settle(LOCAL)
    assert here.shown(LOCAL) == {"10.65.0.2", "10.65.0.3", "10.65.0.4", "fd65::2"}
    assert here.netns.ip_json("route", "show", "10.65.0.3")[0]["dev"] == "up0"
    assert here.netns.ip_json("route", "show", "proto", "static")[0]["dst"] == "10.65.0.8"
    # Somebody's replace pushed ours out. We do not fight, but take the place as soon as it is free.
    ip("route", "replace", "10.65.0.4/32", "dev", "up1", "proto", "static")
    table.on_notifications(here.monitors[LOCAL].receive())
    [failure] = table.apply(1.0)
    assert str(failure.prefix) == "10.65.0.4/32"
    assert table.apply(1.0 + LONGEST_RETRY_S)
    assert here.netns.ip_json("route", "show", "10.65.0.4")[0]["protocol"] == "static"
    ip("route", "del", "10.65.0.4/32", "proto", "static")
    here.settle(LOCAL, 1.0 + LONGEST_RETRY_S)
    assert "10.65.0.4" in here.shown(LOCAL)


def test_changes_between_every_kind_of_target_are_replacements(here: Here) -> None:
    table = here.tables[LEARNT]
    first, second = here.links["up0"], here.links["up1"]
    prefixes: dict[str, list[Target]] = {
        "10.1.0.0/16": [via(NEAR), via(NEAR, FAR), BLACKHOLE, device(second), via(Hop(NEAR6, first)), via(NEAR, FAR)],
        "fd10::/64": [
            via(NEAR6),
            via(NEAR6, Hop(IPv6Address("fd01::2"), second)),
            BLACKHOLE,
            device(second),
            via(NEAR6),
            BLACKHOLE,
            via(NEAR6, Hop(IPv6Address("fd01::2"), second)),
        ],
    }
    for text, targets in prefixes.items():
        prefix = ip_network(text)
        for target in targets:
            table.desire({prefix: target})
            here.settle(LEARNT)
            table.resync()
            here.settle(LEARNT)
            assert table.actual()[prefix] == target, "read back, and found to be what was asked for"
            assert here.shown(LEARNT) == {text}
        table.desire({prefix: None})
        here.settle(LEARNT)


def test_a_link_that_only_changed_costs_no_write(here: Here) -> None:
    link = here.links["up0"]
    table = here.tables[LOCAL]
    host, host6, block = ip_network("10.65.0.2/32"), ip_network("fd65::2/128"), ip_network("10.66.0.0/26")
    table.desire({host: device(link), host6: device(link), block: device(link)})
    here.settle(LOCAL)
    watcher = here.monitors[LEARNT]
    watcher.receive()
    table.on_link_change(link)
    here.settle(LOCAL)
    assert watcher.receive() == []
    # A longer prefix hides the block's route from a look-up: that costs a reading, and no route.
    here.netns.ip("route", "add", "10.66.0.0/32", "dev", "up1", "proto", "static")
    table.on_link_change(link)
    table.apply(0.0)
    here.settle(LOCAL, LONGEST_RETRY_S)
    assert here.shown(LOCAL) == {"10.65.0.2", "fd65::2", "10.66.0.0/26"}
    assert table.failures == []
