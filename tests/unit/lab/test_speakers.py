"""The scripted speakers: what they say and count is what the benches rely on."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

import pytest
from exabgp.bgp.message.open import Open
from exabgp.bgp.message.open.capability import Capability
from exabgp.protocol.family import AFI, SAFI
from hypothesis import given
from hypothesis import strategies as st

from lab.speakers import codec
from lab.speakers.codec import Attributes, Identity, Kind, MalformedError
from lab.speakers.group import Group
from lab.speakers.session import Session, State
from lab.speakers.table import Table
from lab.speakers.wire import Expect, Script
from weft.model.address import IPNetwork

ADDRESS = IPv4Address("10.9.0.1")
ADDRESS6 = IPv6Address("fd09::1")
prefixes = st.builds(
    lambda address, length: IPv4Network((address, length), strict=False),
    st.integers(0, 2**32 - 1),
    st.integers(0, 32),
)
prefixes6 = st.builds(
    lambda address, length: IPv6Network((address, length), strict=False),
    st.integers(0, 2**128 - 1),
    st.integers(0, 128),
)


def net(text: str) -> IPv4Network:
    return IPv4Network(text)


def script(last: int, *routes: str, **more: object) -> Script:
    local = IPv4Address(f"10.9.0.{last}")
    return Script(local=local, peer=IPv4Address("10.9.0.100"), routes=tuple(map(net, routes)), **more)  # type: ignore[arg-type]


def updates(stream: bytes) -> list[codec.Update]:
    pieces, rest = codec.split(stream)
    assert rest == b""
    assert all(piece[2] == Kind.UPDATE for piece in pieces)
    return [codec.read_update(piece[3:]) for piece in pieces]


@given(st.one_of(st.lists(prefixes, max_size=50), st.lists(prefixes6, max_size=400)))
def test_what_is_announced_and_withdrawn_is_read_again(some: list[IPNetwork]) -> None:
    next_hop = ADDRESS6 if some and some[0].version == 6 else ADDRESS
    attributes = Attributes(next_hop=next_hop, as_path=(70000,), communities=((64512, 1),))
    announced = [prefix for update in updates(codec.announce(attributes, some)) for prefix in update.announced]
    withdrawn = [prefix for update in updates(codec.withdraw(some)) for prefix in update.withdrawn]
    assert announced == some
    assert withdrawn == some


def test_thousands_of_prefixes_are_as_many_messages_as_fit() -> None:
    many = list(net("10.0.0.0/8").subnets(new_prefix=24))[:5000]
    stream = codec.announce(Attributes(next_hop=ADDRESS, local_preference=100), many)
    pieces, _ = codec.split(stream)
    assert len(pieces) == 5
    assert max(map(len, pieces)) + 16 <= codec.LARGEST
    assert [prefix for update in updates(stream) for prefix in update.announced] == many


@given(st.lists(prefixes, max_size=8), st.lists(st.integers(1, 40), max_size=60))
def test_a_stream_reads_the_same_however_it_is_cut(some: list[IPv4Network], cuts: list[int]) -> None:
    stream = codec.KEEPALIVE + codec.withdraw(some) + codec.end_of_rib()
    whole, _ = codec.split(stream)
    found, unread, position = [], b"", 0
    for cut in [*cuts, len(stream)]:
        pieces, unread = codec.split(unread + stream[position : position + cut])
        found += pieces
        position += cut
    assert found == whole
    assert unread == b""


@given(st.binary(min_size=19, max_size=80))
def test_bytes_that_are_no_message_are_refused(data: bytes) -> None:
    if not data.startswith(codec.MARKER):
        with pytest.raises(MalformedError):
            codec.split(data)


@given(st.binary(max_size=60))
def test_any_update_is_read_or_refused(body: bytes) -> None:
    try:
        read = codec.read_update(body)
    except MalformedError:
        return
    assert all(prefix.prefixlen <= prefix.max_prefixlen for prefix in read.announced + read.withdrawn)


def test_its_open_says_what_exabgp_understands() -> None:
    identity = Identity(asn=4200000001, router_id=ADDRESS, hold_time_s=9, restart_time_s=120)
    message = codec.open_message(identity)
    read = Open.unpack_message(message[codec.HEADER :])
    assert (read.asn, read.hold_time, str(read.router_id)) == (codec.AS_TRANS, 9, "10.9.0.1")
    assert read.capabilities[Capability.CODE.FOUR_BYTES_ASN] == 4200000001
    assert read.capabilities[Capability.CODE.GRACEFUL_RESTART].restart_time == 120


def converse(left: Session, right: Session, now_s: float = 0.0) -> None:
    """Two sessions talk until neither has anything to say."""
    to_right, to_left = left.on_connected(), right.on_connected()
    while to_right or to_left:
        to_left, to_right = right.on_data(to_right, now_s), left.on_data(to_left, now_s)


def test_two_of_them_come_up_and_hold_each_others_routes() -> None:
    table = Table()
    left = Session(script(1, "10.65.0.0/26", "10.65.0.64/26"), table)
    right = Session(script(2, "10.65.1.0/26"), table)
    converse(left, right)
    assert (left.state, right.state) == (State.ESTABLISHED, State.ESTABLISHED)
    assert table.prefixes(right.held) == [net("10.65.0.0/26"), net("10.65.0.64/26")]
    assert table.prefixes(left.held) == [net("10.65.1.0/26")]
    assert (right.counts.announced, right.counts.end_of_ribs) == (2, 1)
    right.on_data(left.withdraw((net("10.65.0.0/26"),)), 1.0)
    assert table.prefixes(right.held) == [net("10.65.0.64/26")]
    right.on_lost()
    assert (right.held, right.counts.lost) == (0, 1)


def test_a_session_between_ipv6_addresses_carries_ipv6_routes() -> None:
    table = Table()
    near, far = IPv6Address("fd09::1"), IPv6Address("fd09::2")
    routes = tuple(map(IPv6Network, ("fd65::/122", "fd65::40/122")))
    left = Session(Script(local=near, peer=far, routes=routes), table)
    right = Session(Script(local=far, peer=near), table)
    converse(left, right)
    assert table.prefixes(right.held) == list(routes)
    assert (left.counts.end_of_ribs, right.counts.end_of_ribs) == (1, 1)
    right.on_data(left.withdraw(routes[:1]), 1.0)
    assert table.prefixes(right.held) == [routes[1]]


def test_exabgp_reads_in_its_open_that_it_carries_ipv6() -> None:
    message = codec.open_message(Identity(asn=1, router_id=ADDRESS, version=6))
    read = Open.unpack_message(message[codec.HEADER :])
    assert read.capabilities[Capability.CODE.MULTIPROTOCOL] == [(AFI.ipv6, SAFI.unicast)]


def test_keepalives_come_three_times_within_the_shorter_hold_time() -> None:
    table = Table()
    left, right = Session(script(1), table), Session(script(2, hold_time_s=9), table)
    converse(left, right, 100.0)
    assert left.on_tick(102.9) == b""
    assert left.on_tick(103.0) == codec.KEEPALIVE
    assert left.on_tick(104.0) == b""


def test_a_route_refresh_is_answered_with_everything() -> None:
    table = Table()
    left, right = Session(script(1, "10.65.0.0/26"), table), Session(script(2), table)
    converse(left, right)
    answer = left.on_data(codec.message(Kind.ROUTE_REFRESH, b"\0\1\0\1"), 1.0)
    assert [update.announced for update in updates(answer)] == [(net("10.65.0.0/26"),), ()]


@given(st.lists(st.tuples(st.booleans(), st.lists(prefixes, min_size=1, max_size=3))), st.lists(st.integers(1, 90)))
def test_a_session_counts_the_same_what_others_have_heard_before(
    said: list[tuple[bool, list[IPv4Network]]], cuts: list[int]
) -> None:
    table = Table()
    first, second, peer = Session(script(1), table), Session(script(2), table), Session(script(100), table)
    converse(first, peer)
    converse(second, Session(script(100), table))
    attributes = Attributes(next_hop=IPv4Address("255.255.255.255"), communities=((65535, 65535),) * 8)
    stream = b"".join(
        codec.announce(attributes, some) if announced else codec.withdraw(some) for announced, some in said
    )
    stream += codec.end_of_rib() + codec.KEEPALIVE
    first.on_data(stream, 1.0)
    position = 0
    for cut in [*cuts, len(stream)]:
        second.on_data(stream[position : position + cut], 1.0)
        position += cut
    held: set[IPv4Network] = set()
    for announced, some in said:
        held = held | set(some) if announced else held - set(some)
    assert set(table.prefixes(first.held)) == set(table.prefixes(second.held)) == held
    assert first.counts == second.counts
    assert first.counts.updates == len(said) + 2, "and the end-of-RIB of the beginning"


def test_a_message_before_its_time_is_refused() -> None:
    session = Session(script(1), Table())
    session.on_connected()
    with pytest.raises(MalformedError, match="while open sent"):
        session.on_data(codec.KEEPALIVE, 0.0)


def test_a_group_is_complete_when_the_last_has_exactly_what_the_others_announce() -> None:
    group = Group([script(1, "10.65.0.0/26"), script(2, "10.65.1.0/26")])
    peer = Session(script(100), group.table)
    group.want((0, 1), 0.0)
    group.expect(Expect(), 0.0)
    for number, session in enumerate(group.sessions):
        converse(session, peer, 1.0)
        group.judge(number, 1.0)
    assert group.totals(0.0).established_at == 1.0
    assert group.totals(0.0).complete_at is None
    everything = codec.announce(Attributes(next_hop=ADDRESS), map(net, ("10.65.0.0/26", "10.65.1.0/26")))
    for number, session in enumerate(group.sessions):
        session.on_data(everything, 2.0 + number)
        group.judge(number, 2.0 + number)
    assert group.totals(0.0).complete_at == 3.0
    session = group.sessions[0]
    session.on_data(codec.announce(Attributes(next_hop=ADDRESS), [net("10.66.0.0/26")]), 4.0)
    group.judge(0, 4.0)
    assert group.totals(0.0).complete_at is None, "it has one too many"


def test_what_a_session_that_is_not_wanted_announces_is_expected_of_nobody() -> None:
    group = Group([script(1, "10.65.0.0/26"), script(2, "10.65.1.0/26")])
    peer = Session(script(100, "10.65.1.0/26"), group.table)
    group.want((0, 1), 0.0)
    group.expect(Expect(), 0.0)
    converse(group.sessions[0], peer, 1.0)
    group.judge(0, 1.0)
    group.unwant((1,), 2.0)
    assert group.totals(0.0).complete_at is None, "it still holds the route of the one that left"
    group.sessions[0].on_data(codec.withdraw([net("10.65.1.0/26")]), 3.0)
    group.judge(0, 3.0)
    assert group.totals(0.0).complete_at == 3.0
