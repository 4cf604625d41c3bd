"""Entries of the connection table: what is read from them, and what asks for and changes them."""

from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fakes.conntrack_entries import as_dumped, directions, pack
from weft.netlink import conntrack as ct
from weft.netlink.conntrack import Chunk, Seen, Tuple, read_chunk
from weft.netlink.message import (
    AF_INET,
    NLM_F_DUMP_INTR,
    NLMSG_DONE,
    S32,
    MalformedMessageError,
    attributes,
    message,
    messages,
)

ports = st.integers(0, 65535)
octets = st.integers(0, 255)


@st.composite
def connections(draw: st.DrawFn) -> tuple[Tuple, Tuple]:
    """Both directions, of any protocol, as they could be."""
    addresses = st.binary(min_size=4, max_size=4) if draw(st.booleans()) else st.binary(min_size=16, max_size=16)
    family_icmp = {4: ct.ICMP, 16: ct.ICMPV6}
    ends = [draw(addresses) for _ in range(4)]
    protocol = draw(st.sampled_from([6, 17, 33, 132, 136, 4, 47, 1, 58, 255]))
    zone = draw(st.none() | ports)
    if protocol in (1, 58):
        protocol = family_icmp[len(ends[0])]
        number = draw(ports)
        shared = [(number, draw(octets), draw(octets)), (number, draw(octets), draw(octets))]
        return (
            Tuple(ends[0], ends[1], protocol, icmp=shared[0], zone=zone),
            Tuple(ends[2], ends[3], protocol, icmp=shared[1]),
        )
    numbered = [None, None] if protocol in (4, 47, 255) else [(draw(ports), draw(ports)) for _ in range(2)]
    return Tuple(ends[0], ends[1], protocol, numbered[0], zone=zone), Tuple(ends[2], ends[3], protocol, numbered[1])


def everything(source: bytes, destination: bytes) -> bool:
    return True


@given(
    made=st.lists(
        st.tuples(connections(), st.integers(0, 2**32 - 1), st.none() | ports, st.none() | connections()), max_size=5
    )
)
def test_what_was_written_is_what_is_read(
    made: list[tuple[tuple[Tuple, Tuple], int, int | None, tuple[Tuple, Tuple] | None]],
) -> None:
    data = b"".join(
        as_dumped(*pair, mark=mark, zone=zone, master=master[0] if master and _same(master, pair) else None)
        for pair, mark, zone, master in made
    )
    chunk = read_chunk(data, 1, everything)
    assert not chunk.finished
    assert not chunk.interrupted
    for found, (pair, mark, zone, master) in zip(chunk.sightings, made, strict=True):
        original, reply = pair
        assert found.seen == ct.seen(original, reply)
        assert (found.seen.source, found.seen.destination) == (original.source, reply.source)
        assert found.mark == mark
        assert found.master == (master[0] if master and _same(master, pair) else None)
        named = attributes(found.name)
        assert named.keys() == ({ct.TUPLE_ORIGINAL} if zone is None else {ct.TUPLE_ORIGINAL, ct.ZONE})
        assert ct.encode_tuple(ct.TUPLE_ORIGINAL, original).startswith(found.name[:8])


def _same(one: tuple[Tuple, Tuple], other: tuple[Tuple, Tuple]) -> bool:
    return one[0].family == other[0].family


@given(made=st.lists(connections(), min_size=1, max_size=6), chosen=st.integers(0, 5))
def test_entries_that_are_not_wanted_are_left_out(made: list[tuple[Tuple, Tuple]], chosen: int) -> None:
    wanted = made[chosen % len(made)]

    def wants(source: bytes, destination: bytes) -> bool:
        return (source, destination) == (wanted[0].source, wanted[1].source)

    found = read_chunk(b"".join(as_dumped(*pair) for pair in made), 1, wants).sightings
    assert [one.seen for one in found] == [ct.seen(*pair) for pair in made if wants(pair[0].source, pair[1].source)]


@given(data=st.binary(max_size=400))
def test_arbitrary_bytes_are_refused_as_malformed_or_read(data: bytes) -> None:
    try:
        chunk = read_chunk(data, 1, everything)
    except MalformedMessageError:
        return
    assert isinstance(chunk, Chunk)


@given(pair=connections(), places=st.lists(st.tuples(st.integers(16, 250), octets), min_size=1, max_size=8), cut=octets)
def test_a_spoilt_entry_is_refused_as_malformed_or_read(
    pair: tuple[Tuple, Tuple], places: list[tuple[int, int]], cut: int
) -> None:
    whole = bytearray(as_dumped(*pair, mark=7))
    for place, value in places:
        whole[place % len(whole)] = value
    body = bytes(whole[16 : max(len(whole) - cut, 16)])
    for kind in (ct.CT_NEW, NLMSG_DONE):
        try:
            read_chunk(message(kind, 2, body, 1), 1, everything)
        except MalformedMessageError:
            pass


def test_policy_sees_the_translated_destination_and_the_source_before_masquerading() -> None:
    pair = directions("10.0.0.1", 4000, "198.51.100.1", 80, dnat=("10.0.0.2", 8080), masqueraded=("192.0.2.1", 61000))
    [found] = read_chunk(as_dumped(*pair), 1, everything).sightings
    assert found.seen == Seen(pack("10.0.0.1"), pack("10.0.0.2"), 17, 4000, 8080)


def test_an_icmp_connection_is_seen_with_its_type_and_code() -> None:
    ends = ip_address("fd00::1").packed, ip_address("fd00::2").packed
    pair = Tuple(*ends, 58, icmp=(7, 128, 3)), Tuple(ends[1], ends[0], 58, icmp=(7, 129, 0))
    [found] = read_chunk(as_dumped(*pair), 1, everything).sightings
    assert found.seen == Seen(*ends, 58, 128, 3)


def test_the_end_of_a_dump_says_what_became_of_it() -> None:
    entry = as_dumped(*directions("10.0.0.1", 1, "10.0.0.2", 2), flags=NLM_F_DUMP_INTR)
    done = message(NLMSG_DONE, 2, S32.pack(0), 1)
    chunk = read_chunk(entry + done, 1, everything)
    assert (len(chunk.sightings), chunk.finished, chunk.interrupted, chunk.errno) == (1, True, True, 0)
    assert read_chunk(message(NLMSG_DONE, 2, S32.pack(-105), 1), 1, everything).errno == 105


def test_answers_to_somebody_elses_dump_are_passed_over() -> None:
    entry = as_dumped(*directions("10.0.0.1", 1, "10.0.0.2", 2), sequence=8)
    assert read_chunk(entry, 9, everything).sightings == []


def test_a_mark_is_set_through_its_mask_on_the_entry_that_was_seen() -> None:
    pair = directions("10.0.0.1", 1, "10.0.0.2", 2)
    [found] = read_chunk(as_dumped(*pair, zone=5), 1, everything).sightings
    [request] = messages(ct.set_mark(found, 0xFFFF_FFFF, 0x4000_0000))
    assert request.kind == ct.CT_NEW
    assert request.payload[0] == AF_INET
    parts = attributes(request.payload, 4)
    assert parts[ct.MARK] == parts[ct.MARK_MASK] == bytes.fromhex("40000000")
    assert parts[ct.ZONE] == bytes.fromhex("0005")
    assert ct.TUPLE_ORIGINAL in parts


@pytest.mark.parametrize("request_", [ct.dump(AF_INET, reply_source=pack("10.0.0.2")), ct.dump(AF_INET)])
def test_an_answer_without_directions_is_malformed(request_: bytes) -> None:
    [asked] = messages(request_)
    with pytest.raises(MalformedMessageError):
        read_chunk(message(ct.CT_NEW, 2, asked.payload, 1), 1, everything)
