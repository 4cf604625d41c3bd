"""Every way in which an UPDATE can be wrong, and the least that it costs (RFC 7606)."""

from __future__ import annotations

import struct
from ipaddress import IPv4Address, ip_address, ip_network

import pytest

from bird_agent.exabgp.events import AsSegment
from bird_agent.reflector.attributes import AttributeSet, AttributeSets, RawAttribute
from bird_agent.reflector.codec import Encoder
from bird_agent.reflector.errors import UpdateMalformed
from bird_agent.reflector.outputs import EndOfRib, Treated, Updates
from bird_agent.reflector.prefixes import IPV4, IPV6, nlri_of
from bird_agent.reflector.updates import Decoded, UpdateDecoder
from tests.unit.bird_agent.reflector.test_round_trip import bodies, negotiated

PREFIX = nlri_of(ip_network("10.65.0.0/16"))
PREFIX6 = nlri_of(ip_network("fd65::/32"))
OPT, TRANS, PARTIAL = 0x80, 0x40, 0x20


def a(flags: int, code: int, value: bytes) -> bytes:
    return bytes((flags, code, len(value))) + value


ORIGIN = a(TRANS, 1, b"\0")
AS_PATH = a(TRANS, 2, b"")
OUTSIDE = a(TRANS, 2, b"\2\1\0\0\xfc\1")
NEXT_HOP = a(TRANS, 3, b"\x0a\0\0\7")
LOCAL_PREF = a(TRANS, 5, b"\0\0\0\x64")
GOOD = ORIGIN + AS_PATH + NEXT_HOP + LOCAL_PREF
REACH6 = a(OPT, 14, b"\0\2\1\x10" + ip_address("fd00::7").packed + b"\0" + PREFIX6)
UNREACH6 = a(OPT, 15, b"\0\2\1" + PREFIX6)


def update(attributes: bytes, announced: bytes = PREFIX, withdrawn: bytes = b"") -> bytes:
    return struct.pack("!H", len(withdrawn)) + withdrawn + struct.pack("!H", len(attributes)) + attributes + announced


def decode(body: bytes, *, asn4: bool = True, internal: bool = True, extended: bool = True) -> list[Decoded]:
    agreed = negotiated(asn4=asn4, peer_as=64512 if internal else 64513, extended=extended)
    return UpdateDecoder(agreed, AttributeSets()).decode(body)


def routes(found: list[Decoded]) -> Updates:
    (one,) = (each for each in found if isinstance(each, Updates))
    return one


def known(found: list[Decoded]) -> AttributeSet:
    attributes = routes(found).attributes
    assert attributes is not None
    return attributes


def problems(found: list[Decoded]) -> str:
    return "; ".join(each.problem for each in found if isinstance(each, Treated))


WITHDRAW = {
    "ORIGIN 3": a(TRANS, 1, b"\3") + AS_PATH + NEXT_HOP,
    "ORIGIN of two bytes": a(TRANS, 1, b"\0\0") + AS_PATH + NEXT_HOP,
    "ORIGIN of none": a(TRANS, 1, b"") + AS_PATH + NEXT_HOP,
    "ORIGIN optional": a(OPT | TRANS, 1, b"\0") + AS_PATH + NEXT_HOP,
    "AS_PATH cut": ORIGIN + a(TRANS, 2, b"\2\2\0\0\0\1") + NEXT_HOP,
    "AS_PATH with one byte left": ORIGIN + a(TRANS, 2, b"\2\1\0\0\0\1\2") + NEXT_HOP,
    "AS_PATH with an empty segment": ORIGIN + a(TRANS, 2, b"\2\0") + NEXT_HOP,
    "AS_PATH with an unknown segment": ORIGIN + a(TRANS, 2, b"\5\1\0\0\0\1") + NEXT_HOP,
    "AS_PATH with AS 0": ORIGIN + a(TRANS, 2, b"\2\1\0\0\0\0") + NEXT_HOP,
    "AS_PATH not transitive": ORIGIN + a(0, 2, b"") + NEXT_HOP,
    "NEXT_HOP of 16 bytes": ORIGIN + AS_PATH + a(TRANS, 3, b"\0" * 16),
    "NEXT_HOP 0.0.0.0": ORIGIN + AS_PATH + a(TRANS, 3, b"\0" * 4),
    "NEXT_HOP multicast": ORIGIN + AS_PATH + a(TRANS, 3, b"\xe0\0\0\5"),
    "NEXT_HOP loopback": ORIGIN + AS_PATH + a(TRANS, 3, b"\x7f\0\0\1"),
    "MED of three bytes": GOOD + a(OPT, 4, b"\0\0\0"),
    "MED transitive": GOOD + a(OPT | TRANS, 4, b"\0\0\0\1"),
    "LOCAL_PREF of five bytes": ORIGIN + AS_PATH + NEXT_HOP + a(TRANS, 5, b"\0\0\0\0\0"),
    "COMMUNITIES of five bytes": GOOD + a(OPT | TRANS, 8, b"\0\0\0\0\0"),
    "COMMUNITIES of none": GOOD + a(OPT | TRANS, 8, b""),
    "COMMUNITIES well-known": GOOD + a(TRANS, 8, b"\0\0\0\1"),
    "ORIGINATOR_ID of five bytes": GOOD + a(OPT, 9, b"\0\0\0\0\0"),
    "CLUSTER_LIST of five bytes": GOOD + a(OPT, 10, b"\0\0\0\0\0"),
    "CLUSTER_LIST of none": GOOD + a(OPT, 10, b""),
    "EXTENDED COMMUNITIES of seven bytes": GOOD + a(OPT | TRANS, 16, b"\0" * 7),
    "IPv6 EXTENDED COMMUNITIES of eight bytes": GOOD + a(OPT | TRANS, 25, b"\0" * 8),
    "LARGE_COMMUNITIES of eight bytes": GOOD + a(OPT | TRANS, 32, b"\0" * 8),
    "AGGREGATOR well-known": GOOD + a(TRANS, 7, b"\0\0\0\1\x0a\0\0\1"),
    "an unknown well-known attribute": GOOD + a(TRANS, 99, b"x"),
    "no ORIGIN": AS_PATH + NEXT_HOP,
    "no AS_PATH": ORIGIN + NEXT_HOP,
    "no NEXT_HOP": ORIGIN + AS_PATH,
    "no attributes": b"",
    "an attribute longer than the rest": GOOD + b"\x80\x04\x09\0",
    "an attribute without a length": GOOD + b"\x80\x04",
    "an attribute without its extended length": GOOD + b"\x90\x04\0",
    "one malformed, one left out": GOOD + a(OPT, 4, b"\0") + a(OPT | TRANS, 7, b"\0"),
}


@pytest.mark.parametrize("attributes", WITHDRAW.values(), ids=WITHDRAW)
def test_the_routes_count_as_withdrawn(attributes: bytes) -> None:
    found = decode(update(attributes, withdrawn=b"\x08\x0b"))
    assert routes(found) == Updates(IPV4, None, None, (), (b"\x08\x0b", PREFIX))
    assert "treated as withdrawn" in problems(found)


LEFT_OUT = {
    "ATOMIC_AGGREGATE with a value": a(TRANS, 6, b"\0"),
    "AGGREGATOR of six bytes": a(OPT | TRANS, 7, b"\0\1\x0a\0\0\1"),
    "AGGREGATOR with AS 0": a(OPT | TRANS, 7, b"\0\0\0\0\x0a\0\0\1"),
    "AS4_PATH of a four-byte peer": a(OPT | TRANS, 17, b"\2\1\0\0\0\1"),
    "AS4_AGGREGATOR of a four-byte peer": a(OPT | TRANS, 18, b"\0\0\0\1\x0a\0\0\1"),
    "a second ORIGIN": a(TRANS, 1, b"\2"),
    "a second unknown one": a(OPT, 99, b"") + a(OPT, 99, b""),
}


@pytest.mark.parametrize("attribute", LEFT_OUT.values(), ids=LEFT_OUT)
def test_an_attribute_alone_is_left_out(attribute: bytes) -> None:
    found = decode(update(GOOD + attribute))
    assert routes(found).announced == (PREFIX,)
    assert known(found).path.origin == 0
    assert known(found).wire == ORIGIN + AS_PATH + LOCAL_PREF
    assert "left out" in problems(found)


@pytest.mark.parametrize("code", [5, 9, 10])
@pytest.mark.parametrize("value", [b"\0\0\0\1", b"\0\0\0\0\0"], ids=["good", "malformed"])
def test_what_stays_within_an_as_is_left_out_if_it_comes_from_outside(code: int, value: bytes) -> None:
    flags = TRANS if code == 5 else OPT
    found = decode(update(ORIGIN + OUTSIDE + NEXT_HOP + a(flags, code, value)), internal=False)
    assert known(found).wire == ORIGIN + OUTSIDE
    assert "must not send" in problems(found)


def test_a_confederation_is_taken_from_within_and_not_from_outside() -> None:
    attributes = ORIGIN + a(TRANS, 2, b"\3\1\0\0\xfc\1") + NEXT_HOP
    assert known(decode(update(attributes))).path.as_path == (AsSegment("as-confed-sequence", (64513,)),)
    assert routes(decode(update(attributes), internal=False)).withdrawn == (PREFIX,)


RESET = {
    "withdrawn routes beyond the end": (b"\0\x09" + update(GOOD)[2:8], 1),
    "attributes beyond the end": (b"\0\0\0\x09\0", 1),
    "no room for the attributes' length": (b"\0\2\x08\x0a\0", 1),
    "a prefix of 33 bits": (update(GOOD, b"\x21\x0a\0\0\0\0"), 10),
    "a prefix cut": (update(GOOD, b"\x18\x0a\0"), 10),
    "a withdrawn prefix of 33 bits": (update(b"", b"", b"\x21\x0a\0\0\0\0"), 10),
    "an IPv6 prefix of 129 bits": (update(GOOD + a(OPT, 15, b"\0\2\1\x81" + b"\0" * 17), b""), 9),
    "an IPv6 prefix cut": (update(GOOD + REACH6[:2] + bytes((REACH6[2] - 1,)) + REACH6[3:-1], b""), 9),
    "MP_REACH_NLRI twice": (update(GOOD + REACH6 + REACH6, b""), 1),
    "MP_UNREACH_NLRI twice": (update(UNREACH6 + UNREACH6, b""), 1),
    "MP_REACH_NLRI transitive": (update(GOOD + bytes((OPT | TRANS,)) + REACH6[1:], b""), 9),
    "MP_UNREACH_NLRI well-known": (update(bytes((0,)) + UNREACH6[1:], b""), 9),
    "MP_REACH_NLRI of four bytes": (update(GOOD + a(OPT, 14, b"\0\2\1\0"), b""), 9),
    "MP_UNREACH_NLRI of two bytes": (update(a(OPT, 15, b"\0\2"), b""), 9),
    "MP_REACH_NLRI with a next hop beyond its end": (update(GOOD + a(OPT, 14, b"\0\2\1\x20\0\0"), b""), 9),
    "an IPv6 next hop of 4 bytes": (update(GOOD + a(OPT, 14, b"\0\2\1\4\x0a\0\0\1\0" + PREFIX6), b""), 9),
    "malformed, and nothing to withdraw": (update(ORIGIN + a(TRANS, 2, b"\2\0"), b""), 1),
    "malformed, and only withdrawals": (update(a(TRANS, 1, b"\7") + UNREACH6, b"", PREFIX), 1),
    "malformed, and the prefixes behind it": (update(b"\x40\x01\x99\0" + REACH6, b""), 1),
}


@pytest.mark.parametrize(("body", "subcode"), RESET.values(), ids=RESET)
def test_only_what_cannot_be_told_apart_ends_the_session(body: bytes, subcode: int) -> None:
    with pytest.raises(UpdateMalformed) as caught:
        decode(body)
    assert (caught.value.notification.code, caught.value.notification.subcode) == (3, subcode)


def test_an_ipv6_next_hop_for_ipv4_that_was_not_agreed_on_ends_the_session() -> None:
    reach = a(OPT, 14, b"\0\1\1\x10" + ip_address("fd00::7").packed + b"\0" + PREFIX)
    body = update(ORIGIN + AS_PATH + reach, b"")
    assert routes(decode(body)).next_hop == ip_address("fd00::7")
    with pytest.raises(UpdateMalformed):
        decode(body, extended=False)


def test_an_ipv6_route_with_a_malformed_attribute_is_withdrawn_like_any_other() -> None:
    found = decode(update(REACH6 + ORIGIN + AS_PATH + a(OPT, 4, b""), b""))
    assert routes(found) == Updates(IPV6, None, None, (), (PREFIX6,))


@pytest.mark.parametrize(
    ("next_hop", "taken"),
    [
        (ip_address("fd00::7").packed + ip_address("fe80::7").packed, "fd00::7"),
        (ip_address("::").packed + ip_address("fe80::7").packed, "fe80::7"),
        (ip_address("::").packed, None),
        (ip_address("ff02::1").packed, None),
        (ip_address("::1").packed, None),
    ],
    ids=["global and link-local", "link-local alone", "none", "multicast", "loopback"],
)
def test_which_next_hop_of_ipv6_is_taken(next_hop: bytes, taken: str | None) -> None:
    reach = a(OPT, 14, b"\0\2\1" + bytes((len(next_hop),)) + next_hop + b"\0" + PREFIX6)
    found = routes(decode(update(reach + ORIGIN + AS_PATH, b"")))
    assert found.next_hop == (None if taken is None else ip_address(taken))
    assert (found.withdrawn == (PREFIX6,)) is (taken is None)


def test_families_that_were_not_agreed_on_are_ignored() -> None:
    vpn = a(OPT, 14, b"\0\1\x80\x0c" + b"\0" * 12 + b"\0" + b"\x08\x0a")
    found = decode(update(vpn + GOOD + a(OPT, 15, b"\0\1\x85"), b""))
    assert [type(each) for each in found] == [Treated, Treated]
    assert "AFI 1 SAFI 128" in problems(found)
    assert "AFI 1 SAFI 133" in problems(found)


def test_one_update_may_say_everything_at_once() -> None:
    found = decode(update(GOOD + UNREACH6 + REACH6, withdrawn=b"\x08\x0b"))
    first, second, third = found
    assert isinstance(first, Updates)
    assert (first.family, first.announced, first.withdrawn) == (IPV4, (PREFIX,), (b"\x08\x0b",))
    assert second == Updates(IPV6, None, None, (), (PREFIX6,))
    assert isinstance(third, Updates)
    assert (third.family, third.announced, third.attributes) == (IPV6, (PREFIX6,), first.attributes)


def test_an_empty_multiprotocol_withdrawal_beside_something_else_is_no_end_of_rib() -> None:
    empty = a(OPT, 15, b"\0\2\1")
    assert decode(update(empty, b"")) == [EndOfRib(IPV6)]
    assert decode(update(empty, b"", withdrawn=PREFIX)) == [Updates(IPV4, None, None, (), (PREFIX,))]


def test_host_bits_do_not_make_another_prefix() -> None:
    assert routes(decode(update(GOOD, b"\x0c\x0a\xff"))).announced == (nlri_of(ip_network("10.240.0.0/12")),)


# What is passed on


def test_unknown_attributes_are_passed_on_as_partial_if_they_are_transitive() -> None:
    found = decode(update(GOOD + a(OPT | TRANS, 99, b"kept") + a(OPT, 98, b"dropped")))
    assert known(found).raw()[-1] == RawAttribute(OPT | TRANS | PARTIAL, 99, b"kept")
    assert 98 not in [each.code for each in known(found).raw()]
    assert problems(found) == ""


def test_equal_attributes_are_one_object_however_they_were_written() -> None:
    sets = AttributeSets()
    decoder = UpdateDecoder(negotiated(), sets)
    extended = b"\x50\x05\0\x04\0\0\0\x64"  # LOCAL_PREF with a length of two bytes
    other_order = LOCAL_PREF + NEXT_HOP + AS_PATH + ORIGIN
    found = [
        known(decoder.decode(update(each))) for each in (GOOD, ORIGIN + AS_PATH + NEXT_HOP + extended, other_order)
    ]
    assert found[0] is found[1] is found[2]
    assert len(sets) == 1


def test_the_partial_bit_of_a_known_attribute_stays() -> None:
    found = known(decode(update(GOOD + a(OPT | TRANS | PARTIAL, 8, b"\0\1\0\2"))))
    assert found.raw()[-1] == RawAttribute(OPT | TRANS | PARTIAL, 8, b"\0\1\0\2")
    assert found.path.communities == ((1, 2),)


# Two-byte peers (RFC 6793)

TWO_BYTE_PATH = a(TRANS, 2, b"\2\3\0\7\x5b\xa0\0\x08")  # 7 23456 8
AS4_PATH = a(OPT | TRANS, 17, b"\2\2" + struct.pack("!II", 4200000001, 8))
AGGREGATOR = a(OPT | TRANS, 7, b"\x5b\xa0\x0a\0\0\1")
TRUE_AGGREGATOR = a(OPT | TRANS, 18, struct.pack("!I", 4200000009) + b"\x0a\0\0\1")

MERGED = {
    "AS4_PATH": (TWO_BYTE_PATH + AS4_PATH, (7, 4200000001, 8), None),
    "AS4_PATH longer than AS_PATH": (a(TRANS, 2, b"\2\1\x5b\xa0") + AS4_PATH, (23456,), None),
    "AS4_PATH malformed": (TWO_BYTE_PATH + a(OPT | TRANS, 17, b"\2\2\0"), (7, 23456, 8), None),
    "AS4_PATH of confederations alone": (TWO_BYTE_PATH + a(OPT | TRANS, 17, b"\3\1\0\0\0\1"), (7, 23456, 8), None),
    "AS4_AGGREGATOR": (TWO_BYTE_PATH + AS4_PATH + AGGREGATOR + TRUE_AGGREGATOR, (7, 4200000001, 8), 4200000009),
    "AGGREGATOR alone": (TWO_BYTE_PATH + AGGREGATOR, (7, 23456, 8), 23456),
    "AGGREGATOR is a real one": (
        TWO_BYTE_PATH + AS4_PATH + a(OPT | TRANS, 7, b"\0\x09\x0a\0\0\1") + TRUE_AGGREGATOR,
        (7, 23456, 8),
        9,
    ),
}


@pytest.mark.parametrize(("attributes", "path", "aggregator"), MERGED.values(), ids=MERGED)
def test_the_true_path_of_a_two_byte_peer_is_put_together(attributes, path, aggregator) -> None:  # type: ignore[no-untyped-def]
    found = known(decode(update(ORIGIN + NEXT_HOP + attributes), asn4=False, internal=False))
    assert found.path.as_path == (AsSegment("as-sequence", path),)
    codes = {each.code: each.value for each in found.raw()}
    assert codes[2] == bytes((2, len(path))) + struct.pack(f"!{len(path)}I", *path)
    assert not {17, 18} & set(codes)
    assert codes.get(7) == (None if aggregator is None else struct.pack("!I", aggregator) + b"\x0a\0\0\1")


# What changes on the way out


def test_reflection_names_the_originator_once_and_each_cluster() -> None:
    sets = AttributeSets()
    first = known(UpdateDecoder(negotiated(), sets).decode(update(GOOD)))
    one = sets.reflected(first, IPv4Address("10.0.0.2"), IPv4Address("1.1.1.1"))
    two = sets.reflected(one, IPv4Address("10.0.0.3"), IPv4Address("2.2.2.2"))
    assert two.path.originator_id == IPv4Address("10.0.0.2")
    assert two.path.cluster_list == (IPv4Address("2.2.2.2"), IPv4Address("1.1.1.1"))
    assert two.wire.endswith(a(OPT, 9, b"\x0a\0\0\2") + a(OPT, 10, b"\2\2\2\2\1\1\1\1"))
    assert sets.reflected(first, IPv4Address("10.0.0.2"), IPv4Address("1.1.1.1")) is one


def test_what_is_told_outside_has_our_as_and_nothing_of_the_inside() -> None:
    sets = AttributeSets()
    inside = a(OPT, 4, b"\0\0\0\1") + a(OPT, 9, b"\0\0\0\1") + a(OPT, 10, b"\0\0\0\1") + a(OPT | TRANS, 8, b"\0\1\0\2")
    read = known(UpdateDecoder(negotiated(), sets).decode(update(GOOD + inside)))
    told = sets.exported(read, 64512)
    assert told.wire == ORIGIN + a(TRANS, 2, b"\2\1\0\0\xfc\0") + a(OPT | TRANS, 8, b"\0\1\0\2")
    agreed = negotiated(peer_as=64513)
    (body,) = bodies(Encoder(agreed).encode(IPV4, told, ip_address("10.0.0.1"), [PREFIX]))
    back = known(UpdateDecoder(agreed, sets).decode(body))
    assert back is told
    assert back.path == told.path


def test_what_came_from_outside_is_told_inside_with_a_preference() -> None:
    sets = AttributeSets()
    read = known(UpdateDecoder(negotiated(peer_as=64513), sets).decode(update(ORIGIN + OUTSIDE + NEXT_HOP)))
    told = sets.imported(read, 200)
    assert told.path.local_preference == 200
    assert told.wire == ORIGIN + OUTSIDE + a(TRANS, 5, b"\0\0\0\xc8")


@pytest.mark.parametrize("length", [254, 255, 256])
def test_a_segment_that_is_full_gets_another_before_it(length: int) -> None:
    sets = AttributeSets()
    numbers = tuple(range(1, length + 1))
    parts = [numbers[:255], numbers[255:]]
    value = b"".join(bytes((2, len(each))) + struct.pack(f"!{len(each)}I", *each) for each in parts if each)
    path = bytes((TRANS | 0x10, 2)) + struct.pack("!H", len(value)) + value
    told = sets.exported(known(UpdateDecoder(negotiated(), sets).decode(update(ORIGIN + path + NEXT_HOP))), 64512)
    assert [number for each in told.path.as_path for number in each.numbers] == [64512, *numbers]
    assert all(len(each.numbers) <= 255 for each in told.path.as_path)
