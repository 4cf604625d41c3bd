"""What we encode, read by pyroute2's decoder and by our own."""

from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface, IPv6Network, ip_address
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg
from pyroute2.netlink.rtnl.ndmsg import ndmsg
from pyroute2.netlink.rtnl.rtmsg import rtmsg

from weft.netlink import nexthop, rtnetlink
from weft.netlink.message import MalformedMessageError, Message, messages
from weft.netlink.nexthop import NextHop
from weft.netlink.route import (
    BLACKHOLE,
    PROHIBIT,
    UNREACHABLE,
    Hop,
    IPNetwork,
    RouteOwner,
    RouteReader,
    RouteWriter,
    Target,
    decode_route,
    pack,
    through_object,
    unpack,
    via,
)
from weft.netlink.rtnetlink import Address, Neighbour

SOME = settings(max_examples=60)
ipv4 = st.ip_addresses(v=4).map(lambda address: IPv4Address(address))
ipv6 = st.ip_addresses(v=6).map(lambda address: IPv6Address(address))
indexes = st.integers(1, 2**31 - 1)
macs = st.binary(min_size=6, max_size=6).map(lambda raw: raw.hex(":"))


@st.composite
def networks(draw: st.DrawFn, version: int) -> IPNetwork:
    length = draw(st.integers(0, 32 if version == 4 else 128))
    address = draw(ipv4 if version == 4 else ipv6)
    return (
        IPv4Network((address, length), strict=False) if version == 4 else IPv6Network((address, length), strict=False)
    )


@st.composite
def routes(draw: st.DrawFn) -> tuple[IPNetwork, Target]:
    version = draw(st.sampled_from([4, 6]))
    gateways = st.none() | (ipv4 | ipv6 if version == 4 else ipv6)

    @st.composite
    def hops(draw: st.DrawFn) -> Hop:
        gateway = draw(gateways)
        link = draw(indexes)
        return Hop(gateway, link, draw(st.integers(1, 256)), gateway is not None and draw(st.booleans()))

    listed = draw(st.lists(hops(), min_size=1, max_size=4))
    if len(set(listed)) == 1:
        listed = [listed[0]._replace(weight=1)]
    target = draw(st.sampled_from([BLACKHOLE, UNREACHABLE, PROHIBIT, through_object(0x50001)]) | st.just(via(*listed)))
    return draw(networks(version)), target


def decoded(kind: Any, encoded: bytes) -> Any:
    message = kind(encoded)
    message.decode()
    return message


def only(encoded: bytes) -> Message:
    [message] = messages(encoded)
    return message


owners = st.builds(
    RouteOwner, st.integers(1, 255), st.integers(0, 2**32 - 1), st.integers(1, 2**32 - 1), st.integers(1, 2**31)
)


@given(st.lists(routes(), max_size=5), owners)
@SOME
def test_our_decoder_undoes_the_encoder(wanted: list[tuple[IPNetwork, Target]], owner: RouteOwner) -> None:
    encoded = RouteWriter(owner).replace([(pack(prefix), target) for prefix, target in wanted])
    for (prefix, target), one in zip(wanted, encoded, strict=True):
        route = decode_route(only(one))
        assert route is not None
        assert (route.destination, route.target) == (prefix, target)
        assert owner.owns(route)
    assert RouteReader(owner).read([only(one) for one in encoded]) == {
        pack(prefix): target for prefix, target in wanted
    }


@given(routes(), owners)
@SOME
def test_pyroute2_reads_the_same_route(wanted: tuple[IPNetwork, Target], owner: RouteOwner) -> None:
    prefix, target = wanted
    [encoded] = RouteWriter(owner).add([(pack(prefix), target)])
    message = decoded(rtmsg, encoded)
    metric = owner.metric_ipv4 if prefix.version == 4 else owner.metric_ipv6
    assert message["dst_len"] == prefix.prefixlen
    assert address_of(message.get_attr("RTA_DST")) == (prefix.network_address if prefix.prefixlen else None)
    assert (message["proto"], message["type"]) == (owner.protocol, target.kind)
    assert (message.get_attr("RTA_TABLE") or message["table"]) == owner.table
    assert (message.get_attr("RTA_PRIORITY") or 0) == metric
    if len(target.hops) == 1:
        assert message.get_attr("RTA_OIF") == target.hops[0].link
        assert gateway_of(message) == target.hops[0].gateway
    elif target.hops:
        found = message.get_attr("RTA_MULTIPATH")
        assert [(gateway_of(hop), hop["oif"], hop["hops"] + 1) for hop in found] == [
            (hop.gateway, hop.link, hop.weight) for hop in target.hops
        ]


def address_of(text: str | None) -> IPv4Address | IPv6Address | None:
    return ip_address(text) if text else None  # there are several ways to write one


def gateway_of(message: Any) -> IPv4Address | IPv6Address | None:
    found = message.get_attr("RTA_VIA")
    return address_of(found["addr"] if found else message.get_attr("RTA_GATEWAY"))


@given(networks(4) | networks(6))
@SOME
def test_a_packed_prefix_is_the_prefix(prefix: IPNetwork) -> None:
    assert unpack(pack(prefix)) == prefix


def test_a_deletion_names_protocol_and_metric_and_no_target() -> None:
    owner = RouteOwner(186, 1024, 2048)
    [encoded] = RouteWriter(owner).delete([pack(IPv6Network("fd00::/64"))])
    message = decoded(rtmsg, encoded)
    assert (message["proto"], message.get_attr("RTA_PRIORITY"), message["type"]) == (186, 2048, 0)


def test_a_veth_is_one_message_with_its_peer_down_in_another_namespace() -> None:
    encoded = rtnetlink.new_veth("cali1", "eth0", 7, mtu=1450, mac="ee:ee:ee:ee:ee:ee", peer_mac="02:00:00:00:00:01")
    message = decoded(ifinfmsg, encoded)
    assert (message["flags"], message.get_attr("IFLA_IFNAME"), message.get_attr("IFLA_MTU")) == (1, "cali1", 1450)
    assert message.get_attr("IFLA_ADDRESS") == "ee:ee:ee:ee:ee:ee"
    peer = message.get_nested("IFLA_LINKINFO", "IFLA_INFO_DATA", "VETH_INFO_PEER")
    assert message.get_nested("IFLA_LINKINFO", "IFLA_INFO_KIND") == "veth"
    assert (peer["flags"], peer.get_attr("IFLA_IFNAME"), peer.get_attr("IFLA_NET_NS_FD")) == (0, "eth0", 7)
    assert (peer.get_attr("IFLA_ADDRESS"), peer.get_attr("IFLA_MTU")) == ("02:00:00:00:00:01", 1450)


@given(indexes, ipv4 | ipv6, st.data())
@SOME
def test_an_address_is_read_alike_by_pyroute2_and_by_us(index: int, ip: IPv4Address | IPv6Address, data: Any) -> None:
    length = data.draw(st.integers(0, ip.max_prefixlen))
    interface = IPv4Interface((ip, length)) if isinstance(ip, IPv4Address) else IPv6Interface((ip, length))
    address = Address(index, interface, rtnetlink.IFA_F_NODAD | rtnetlink.IFA_F_NOPREFIXROUTE)
    encoded = rtnetlink.new_address(address)
    message = decoded(ifaddrmsg, encoded)
    assert (message["index"], message["prefixlen"], address_of(message.get_attr("IFA_LOCAL"))) == (index, length, ip)
    assert rtnetlink.decode_address(only(encoded)) == address


@given(indexes, ipv4 | ipv6, macs)
@SOME
def test_a_neighbour_is_read_alike_by_pyroute2_and_by_us(index: int, ip: IPv4Address | IPv6Address, mac: str) -> None:
    neighbour = Neighbour(index, ip, mac, rtnetlink.NUD_PERMANENT)
    encoded = rtnetlink.set_neighbour(neighbour)
    message = decoded(ndmsg, encoded)
    assert (message["ifindex"], message["state"]) == (index, 0x80)
    assert (address_of(message.get_attr("NDA_DST")), message.get_attr("NDA_LLADDR")) == (ip, mac)
    assert rtnetlink.decode_neighbour(only(encoded)) == neighbour


@pytest.mark.parametrize(
    "hop",
    [
        pytest.param(NextHop(1, 186, link=3, gateway=IPv4Address("192.0.2.1")), id="IPv4 gateway"),
        pytest.param(NextHop(2, 186, link=3, gateway=IPv6Address("fe80::1"), onlink=True), id="IPv6 gateway, onlink"),
        pytest.param(NextHop(3, 186, link=3), id="link only"),
        pytest.param(NextHop(4, 186, members=((1, 1), (2, 256))), id="group"),
        pytest.param(NextHop(5, 186, blackhole=True), id="blackhole"),
    ],
)
def test_our_decoder_undoes_the_encoder_of_nexthop_objects(hop: NextHop) -> None:
    assert nexthop.decode_nexthop(only(nexthop.set_nexthop(hop))) == hop


@pytest.mark.parametrize(
    "build",
    [
        pytest.param(lambda: NextHop(1, 186), id="nothing"),
        pytest.param(lambda: NextHop(1, 186, link=3, blackhole=True), id="link and blackhole"),
        pytest.param(
            lambda: NextHop(1, 186, members=((2, 1),), gateway=IPv4Address("192.0.2.1")), id="group and gateway"
        ),
        pytest.param(lambda: NextHop(1, 186, members=((2, 0),)), id="weight 0"),
        pytest.param(lambda: rtnetlink.pack_mac("ee:ee"), id="short MAC"),
        pytest.param(lambda: rtnetlink.delete_links_of_group(0), id="the group of every other link"),
    ],
)
def test_what_makes_no_sense_is_refused(build: Any) -> None:
    with pytest.raises(ValueError, match=r"."):
        build()


@given(st.binary(max_size=120))
@SOME
def test_garbage_never_makes_a_decoder_crash(payload: bytes) -> None:
    message = Message(24, 0, 1, 0, payload)
    decoders = (
        decode_route,
        rtnetlink.decode_link,
        rtnetlink.decode_address,
        rtnetlink.decode_neighbour,
        nexthop.decode_nexthop,
    )
    for decode in decoders:
        try:
            decode(message)
        except MalformedMessageError:
            pass
