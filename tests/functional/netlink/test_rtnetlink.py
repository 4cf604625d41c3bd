"""Our messages against the real kernel, looked at with `ip`."""

import errno
import os
from collections.abc import Callable, Iterator
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface, IPv6Network, ip_network

import pytest

from lab.netns import NetNs
from weft.netlink import nexthop, rtnetlink
from weft.netlink.message import AF_INET, AF_INET6
from weft.netlink.nexthop import NextHop
from weft.netlink.route import (
    BLACKHOLE,
    MAIN_TABLE,
    PROHIBIT,
    RTNLGRP_IPV4_ROUTE,
    UNREACHABLE,
    Hop,
    RouteOwner,
    RouteReader,
    RouteWriter,
    Target,
    decode_route,
    device,
    dump_routes,
    pack,
    through_object,
    unpack,
    via,
)
from weft.netlink.rtnetlink import Address, Link, Neighbour, decode_address, decode_link, decode_neighbour
from weft.netlink.socket import NETLINK_ROUTE, NetlinkSocket, ResyncNeededError

pytestmark = pytest.mark.root

OWNER = RouteOwner(186, 1024, 2048)
NEAR, FAR = IPv4Address("192.0.2.2"), IPv4Address("192.0.2.3")
NEAR6, FAR6 = IPv6Address("fd00::2"), IPv6Address("fd00::3")


class Here:
    """A namespace with an uplink `up0`, a socket in it, and the uplink's index."""

    def __init__(self, netns: NetNs, socket: NetlinkSocket, link: int) -> None:
        self.netns, self.socket, self.link = netns, socket, link

    def read(self) -> dict[str, Target]:
        found: dict[bytes, Target] = {}
        for family in (AF_INET, AF_INET6):
            found.update(RouteReader(OWNER).read(self.socket.dump(dump_routes(family, OWNER))))
        return {str(unpack(packed)): target for packed, target in found.items()}

    def links(self) -> dict[str, Link]:
        return {link.name: link for link in map(decode_link, self.socket.dump(rtnetlink.dump_links()))}


@pytest.fixture
def here(netns: Callable[[str], NetNs]) -> Iterator[Here]:
    made, other = netns("here"), netns("other")
    made.ip("link", "add", "up0", "type", "veth", "peer", "name", "up0", "netns", other.name)
    made.ip("addr", "add", "192.0.2.1/24", "dev", "up0")
    made.ip("addr", "add", "fd00::1/64", "dev", "up0", "nodad")
    made.ip("link", "set", "up0", "up")
    other.ip("link", "set", "up0", "up")
    fd = os.open(made.path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        with NetlinkSocket(netns_fd=fd) as socket:
            yield Here(made, socket, made.ip_json("link", "show", "dev", "up0")[0]["ifindex"])
    finally:
        os.close(fd)


@pytest.mark.parametrize(
    ("prefix", "target", "shown"),
    [
        pytest.param("10.1.0.0/16", via(NEAR), "10.1.0.0/16 via 192.0.2.2 dev up0", id="gateway"),
        pytest.param("10.1.2.3/32", Target((Hop(link=-1),)), "10.1.2.3 dev up0", id="link"),
        pytest.param("0.0.0.0/0", via(NEAR), "default via 192.0.2.2 dev up0", id="default"),
        pytest.param("10.1.0.0/26", BLACKHOLE, "blackhole 10.1.0.0/26", id="blackhole"),
        pytest.param("10.1.0.0/26", UNREACHABLE, "unreachable 10.1.0.0/26", id="unreachable"),
        pytest.param("10.1.0.0/26", PROHIBIT, "prohibit 10.1.0.0/26", id="prohibit"),
        pytest.param(
            "10.1.0.0/16",
            via(Hop(NEAR, weight=1), Hop(FAR, weight=3)),
            "nexthop via 192.0.2.3 dev up0 weight 3",
            id="multipath",
        ),
        pytest.param(
            "10.1.0.0/16",
            Target((Hop(IPv4Address("198.51.100.1"), -1, onlink=True),)),
            "via 198.51.100.1 dev up0 metric 1024 onlink",
            id="onlink",
        ),
        pytest.param("10.1.0.0/16", via(NEAR6), "10.1.0.0/16 via inet6 fd00::2 dev up0", id="IPv4 through IPv6"),
        pytest.param("10.1.0.0/16", via(NEAR, source=IPv4Address("192.0.2.1")), "src 192.0.2.1", id="source"),
        pytest.param("fd01::/64", via(NEAR6), "fd01::/64 via fd00::2 dev up0", id="IPv6 gateway"),
        pytest.param("fd01::5/128", Target((Hop(link=-1),)), "fd01::5 dev up0", id="IPv6 link"),
        pytest.param("::/0", via(NEAR6), "default via fd00::2 dev up0", id="IPv6 default"),
        pytest.param("fd01::/122", BLACKHOLE, "blackhole fd01::/122", id="IPv6 blackhole"),
        pytest.param("fd01::/64", via(NEAR6, FAR6), "nexthop via fd00::3 dev up0 weight 1", id="IPv6 multipath"),
    ],
)
def test_a_route_is_what_ip_shows_and_what_we_read_back(here: Here, prefix: str, target: Target, shown: str) -> None:
    target = target._replace(hops=tuple(h._replace(link=here.link) if h.link == -1 else h for h in target.hops))
    packed, writer = pack(ip_network(prefix)), RouteWriter(OWNER)
    assert here.socket.request(writer.add([(packed, target)])) == []
    text = here.netns.ip("-4" if "." in prefix else "-6", "route", "show", "proto", "bgp")
    assert shown in " ".join(text.split())
    resolved = tuple(hop._replace(link=here.link) for hop in target.hops)
    assert here.read() == {prefix: target._replace(hops=resolved)}
    # Nobody's route is overwritten by an add.
    assert [one.errno for one in here.socket.request(writer.add([(packed, BLACKHOLE)]))] == [errno.EEXIST]
    assert here.socket.request(writer.replace([(packed, BLACKHOLE)])) == []
    assert here.read() == {prefix: BLACKHOLE}
    assert here.socket.request(writer.delete([packed])) == []
    assert here.read() == {}


def test_a_deletion_leaves_routes_of_other_protocols_and_metrics(here: Here) -> None:
    for words in (
        ["10.1.0.0/16", "via", "192.0.2.2", "proto", "static", "metric", "1024"],
        ["10.2.0.0/16", "via", "192.0.2.2", "proto", "bgp", "metric", "7"],
        ["10.3.0.0/16", "via", "192.0.2.2", "proto", "bgp", "metric", "1024", "table", "99"],
    ):
        here.netns.ip("route", "add", *words)
    before = here.netns.ip("route", "show", "table", "all")
    deletions = RouteWriter(OWNER).delete([pack(ip_network(f"10.{n}.0.0/16")) for n in (1, 2, 3)])
    assert [one.errno for one in here.socket.request(deletions)] == [errno.ESRCH] * 3
    assert here.netns.ip("route", "show", "table", "all") == before
    assert here.read() == {}


def test_a_large_batch_tells_exactly_which_routes_failed(here: Here) -> None:
    good, bad = via(NEAR), via(IPv4Address("203.0.113.1"))
    routes = [(pack(IPv4Network((0x0A000000 + (n << 8), 24))), bad if n in (3, 250, 499) else good) for n in range(500)]
    failures = here.socket.request(RouteWriter(OWNER).add(routes))
    assert [(one.index, one.errno) for one in failures] == [(n, errno.ENETUNREACH) for n in (3, 250, 499)]
    assert "gateway" in failures[0].text
    assert len(here.read()) == 497


def test_a_dump_of_one_link_holds_only_its_routes(here: Here) -> None:
    here.netns.ip("link", "add", "other0", "type", "bridge")
    here.netns.ip("link", "set", "other0", "up")
    [other] = [link.index for name, link in here.links().items() if name == "other0"]
    prefixes = [pack(ip_network("10.1.0.0/32")), pack(ip_network("10.2.0.0/32"))]
    here.socket.request(RouteWriter(OWNER).add([(prefixes[0], device(here.link)), (prefixes[1], device(other))]))
    found = RouteReader(OWNER).read(here.socket.dump(dump_routes(AF_INET, OWNER, other)))
    assert found == {prefixes[1]: device(other)}
    with pytest.raises(OSError, match="No such device") as refused:
        here.socket.dump(dump_routes(AF_INET, OWNER, 4711))
    assert refused.value.errno == errno.ENODEV


def test_one_replaced_nexthop_object_moves_every_route_that_names_it(here: Here) -> None:
    first = NextHop(0x77000001, 186, link=here.link, gateway=NEAR)
    group = NextHop(0x77000002, 186, members=((first.id, 3),))
    assert here.socket.request([nexthop.set_nexthop(first), nexthop.set_nexthop(group)]) == []
    routes = [(pack(ip_network(f"10.{n}.0.0/16")), through_object(group.id)) for n in range(1, 4)]
    assert here.socket.request(RouteWriter(OWNER).add(routes)) == []
    assert here.read() == {str(unpack(packed)): target for packed, target in routes}
    moved = NextHop(first.id, 186, link=here.link, gateway=FAR)
    assert here.socket.request([nexthop.set_nexthop(moved)]) == []
    assert here.netns.ip("route", "get", "10.2.0.1").split()[2] == str(FAR)
    found = [nexthop.decode_nexthop(answer) for answer in here.socket.dump(nexthop.dump_nexthops())]
    assert found == [moved, group]
    assert here.socket.request([nexthop.delete_nexthop(group.id)]) == []
    assert here.read() == {}


def test_links_are_read_as_ip_shows_them(here: Here, netns: Callable[[str], NetNs]) -> None:
    workload = netns("w")
    fd = os.open(workload.path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        pair = rtnetlink.new_veth("cali1", "eth0", fd, mtu=1400, mac="ee:ee:ee:ee:ee:ee")
        assert here.socket.request([pair]) == []
    finally:
        os.close(fd)
    made = here.links()["cali1"]
    changes = [rtnetlink.set_link(made.index, mtu=1300, group=77), rtnetlink.set_link(made.index, up=False)]
    renamed = rtnetlink.set_link(made.index, name="cali2", mac="ee:ee:ee:ee:ee:01")
    assert here.socket.request([*changes, renamed]) == []
    for shown in here.netns.ip_json("-d", "link", "show"):
        link = here.links()[shown["ifname"]]
        assert link.index == shown["ifindex"]
        assert link.up == ("UP" in shown["flags"])
        assert (link.mtu, link.mac) == (shown["mtu"], shown["address"])
        assert link.kind == shown.get("linkinfo", {}).get("info_kind", "")
        assert link.peer == shown.get("link_index")
    assert here.links()["cali2"].group == 77
    assert here.socket.request([rtnetlink.delete_links_of_group(77)]) == []
    assert "cali2" not in here.links()
    assert [one.errno for one in here.socket.request([rtnetlink.delete_link(made.index)])] == [errno.ENODEV]


def test_addresses_and_neighbours_are_read_as_they_were_written(here: Here) -> None:
    addresses = [
        Address(here.link, IPv4Interface("10.9.0.1/32"), 0),
        Address(here.link, IPv6Interface("fd09::1/128"), rtnetlink.IFA_F_NODAD),
    ]
    assert here.socket.request([rtnetlink.new_address(address) for address in addresses]) == []
    read = [decode_address(answer) for answer in here.socket.dump(rtnetlink.dump_addresses(here.link))]
    assert {one.interface for one in addresses} <= {one.interface for one in read if one}
    assert here.socket.request([rtnetlink.delete_address(address) for address in addresses]) == []
    assert "10.9.0.1" not in here.netns.ip("addr")
    neighbour = Neighbour(here.link, NEAR, "ee:ee:ee:ee:ee:ee", rtnetlink.NUD_PERMANENT)
    assert here.socket.request([rtnetlink.set_neighbour(neighbour)]) == []
    assert neighbour in [decode_neighbour(answer) for answer in here.socket.dump(rtnetlink.dump_neighbours())]
    assert here.socket.request([rtnetlink.delete_neighbour(neighbour)]) == []


def test_interface_settings_are_those_of_proc(here: Here) -> None:
    batch = [rtnetlink.set_ipv4(here.link, forwarding=1, proxy_arp=1, rp_filter=2, route_localnet=1)]
    batch += [rtnetlink.set_proxy_delay(here.link, family, 0) for family in (AF_INET, AF_INET6)]
    assert here.socket.request(batch) == []
    names = {"forwarding": "1", "proxy_arp": "1", "rp_filter": "2", "route_localnet": "1"}
    for name, value in names.items():
        assert here.netns.run(["cat", f"/proc/sys/net/ipv4/conf/up0/{name}"]).strip() == value
    for family in ("ipv4", "ipv6"):
        assert here.netns.run(["cat", f"/proc/sys/net/{family}/neigh/up0/proxy_delay"]).strip() == "0"


def test_a_monitor_hears_others_and_not_ourselves(here: Here) -> None:
    fd = os.open(here.netns.path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        monitor = NetlinkSocket(NETLINK_ROUTE, [RTNLGRP_IPV4_ROUTE], fd)
    finally:
        os.close(fd)
    with monitor:
        monitor.ignore_ports([here.socket.port])
        here.socket.request(RouteWriter(OWNER).add([(pack(ip_network("10.1.0.0/16")), via(NEAR))]))
        assert monitor.receive() == []
        here.netns.ip("route", "del", "10.1.0.0/16", "proto", "bgp", "metric", "1024")
        [told] = [decode_route(one) for one in monitor.receive()]
        assert told is not None
        assert (str(told.destination), told.protocol, told.metric, told.table) == ("10.1.0.0/16", 186, 1024, MAIN_TABLE)


def test_lost_notifications_are_said_to_be_lost_once(here: Here) -> None:
    fd = os.open(here.netns.path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        monitor = NetlinkSocket(NETLINK_ROUTE, [RTNLGRP_IPV4_ROUTE], fd, buffer_bytes=4096)
    finally:
        os.close(fd)
    with monitor:
        prefixes = [pack(IPv4Network((0x0A000000 + (n << 8), 24))) for n in range(500)]
        here.socket.request(RouteWriter(OWNER).add([(packed, via(NEAR)) for packed in prefixes]))
        with pytest.raises(ResyncNeededError):
            monitor.receive()
        assert monitor.receive() == []
        here.socket.request(RouteWriter(OWNER).delete(prefixes[:1]))
        assert len(monitor.receive()) == 1


def test_the_thread_is_home_again_after_a_visit(netns: Callable[[str], NetNs]) -> None:
    there = netns("there")
    home = os.readlink("/proc/thread-self/ns/net")
    fd = os.open(there.path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        with NetlinkSocket(netns_fd=fd) as socket:
            assert [decode_link(one).name for one in socket.dump(rtnetlink.dump_links())] == ["lo"]
    finally:
        os.close(fd)
    assert os.readlink("/proc/thread-self/ns/net") == home
    with open("/dev/null", "rb") as nothing, pytest.raises(OSError, match="cannot enter"):
        NetlinkSocket(netns_fd=nothing.fileno())


def test_an_ipv6_network_is_told_apart_from_an_ipv4_one_of_the_same_bytes(here: Here) -> None:
    both = [(pack(IPv6Network("a00::/8")), via(NEAR6)), (pack(IPv4Network("10.0.0.0/8")), via(NEAR))]
    assert here.socket.request(RouteWriter(OWNER).add(both)) == []
    assert set(here.read()) == {"a00::/8", "10.0.0.0/8"}
