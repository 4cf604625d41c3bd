"""What is encoded is decoded as it was, for every kind of session."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bird_agent.exabgp.events import AsSegment, PathAttributes
from bird_agent.reflector.as_path import written
from bird_agent.reflector.attributes import (
    AGGREGATOR,
    AS_PATH,
    COMMUNITIES,
    LOCAL_PREF,
    OPTIONAL,
    ORIGIN,
    PARTIAL,
    TRANSITIVE,
    AttributeSet,
    AttributeSets,
    RawAttribute,
)
from bird_agent.reflector.codec import CannotBeTold, Encoder
from bird_agent.reflector.framing import Framer, Message
from bird_agent.reflector.negotiation import Negotiated
from bird_agent.reflector.outputs import EndOfRib, Updates
from bird_agent.reflector.prefixes import FAMILIES, IPV4, IPV6, network_of, nlri_of
from bird_agent.reflector.updates import UpdateDecoder


def negotiated(asn4: bool = True, peer_as: int = 64512, message_size: int = 4096, extended: bool = True) -> Negotiated:
    return Negotiated(
        local_as=64512,
        peer_as=peer_as,
        router_id=IPv4Address("10.0.0.2"),
        hold_time_s=90,
        asn4=asn4,
        families=frozenset(FAMILIES),
        extended_next_hop=frozenset({IPV4} if extended else ()),
        message_size=message_size,
    )


def attribute_set(sets: AttributeSets, segments: tuple[AsSegment, ...] = (), communities: int = 0) -> AttributeSet:
    pairs = tuple((64512, number) for number in range(communities))
    raw = [
        RawAttribute(TRANSITIVE, ORIGIN, b"\0"),
        RawAttribute(TRANSITIVE, AS_PATH, written(segments)),
        RawAttribute(TRANSITIVE, LOCAL_PREF, b"\0\0\0\x64"),
        RawAttribute(OPTIONAL | TRANSITIVE | PARTIAL, 99, b"unknown to us"),
    ]
    if communities:
        value = b"".join(first.to_bytes(2) + second.to_bytes(2) for first, second in pairs)
        raw.append(RawAttribute(OPTIONAL | TRANSITIVE, COMMUNITIES, value))
    path = PathAttributes(origin=0, as_path=segments, local_preference=100, communities=pairs)
    return sets.of(path, raw)


def bodies(messages: list[bytes]) -> list[bytes]:
    framer = Framer()
    framer.longest = 65535
    return [body for each in messages for kind, body in framer.receive_data(each) if kind is Message.UPDATE]


networks4 = st.builds(
    lambda number, bits: ip_network((number & (0xFFFFFFFF << (32 - bits)), bits)),
    st.integers(0, 2**32 - 1),
    st.integers(0, 32),
)
networks6 = st.builds(
    lambda number, bits: ip_network((IPv6Address(number & ((2**128 - 1) << (128 - bits))), bits)),
    st.integers(0, 2**128 - 1),
    st.integers(0, 128),
)
asns = st.integers(1, 2**32 - 1)
segments = st.builds(
    AsSegment, st.sampled_from(["as-sequence", "as-set"]), st.lists(asns, min_size=1, max_size=5).map(tuple)
)


@given(
    prefixes=st.one_of(
        st.lists(networks4, min_size=1, max_size=900, unique=True).map(lambda each: (IPV4, each)),
        st.lists(networks6, min_size=1, max_size=400, unique=True).map(lambda each: (IPV6, each)),
    ),
    next_hop=st.sampled_from(["10.0.0.9", "2001:db8::9"]).map(ip_address),
    path=st.lists(segments, max_size=3).map(tuple),
    asn4=st.booleans(),
    size=st.sampled_from([4096, 65535]),
    communities=st.integers(0, 300),
)
def test_routes_come_out_as_they_went_in(prefixes, next_hop, path, asn4, size, communities) -> None:  # type: ignore[no-untyped-def]
    family, networks = prefixes
    if family == IPV6 and next_hop.version == 4:
        next_hop = ip_address("2001:db8::9")
    sets = AttributeSets()
    agreed = negotiated(asn4=asn4, message_size=size)
    attributes = attribute_set(sets, path, communities)
    messages = Encoder(agreed).encode(family, attributes, next_hop, [nlri_of(each) for each in networks])
    assert max(map(len, messages)) <= size
    decoder = UpdateDecoder(agreed, sets)
    found = [event for body in bodies(messages) for event in decoder.decode(body)]
    assert all(isinstance(each, Updates) and each.withdrawn == () for each in found)
    assert [network_of(family, nlri) for each in found for nlri in each.announced] == networks  # type: ignore[union-attr]
    assert {each.next_hop for each in found} == {next_hop}  # type: ignore[union-attr]
    assert {each.attributes for each in found} == {attributes}  # type: ignore[union-attr]


@pytest.mark.parametrize("family", FAMILIES)
def test_withdrawals_and_the_end_of_rib_are_told_apart(family) -> None:  # type: ignore[no-untyped-def]
    agreed = negotiated()
    prefix = nlri_of(ip_network("10.1.0.0/16" if family == IPV4 else "fd00::/40"))
    encoder, decoder = Encoder(agreed), UpdateDecoder(agreed, AttributeSets())
    (withdrawal,) = bodies(encoder.withdraw(family, [prefix]))
    (end,) = bodies([encoder.end_of_rib(family)])
    assert decoder.decode(withdrawal) == [Updates(family, None, None, (), (prefix,))]
    assert decoder.decode(end) == [EndOfRib(family)]


def test_a_next_hop_of_the_other_family_needs_to_be_agreed_on() -> None:
    encoder = Encoder(negotiated(extended=False))
    attributes = attribute_set(AttributeSets())
    with pytest.raises(CannotBeTold):
        encoder.encode(IPV4, attributes, ip_address("fd00::1"), [b"\0"])
    with pytest.raises(CannotBeTold):
        encoder.encode(IPV6, attributes, ip_address("10.0.0.1"), [b"\0"])


def test_attributes_that_leave_no_room_are_said_to() -> None:
    attributes = attribute_set(AttributeSets(), communities=1020)
    with pytest.raises(CannotBeTold, match="no room"):
        Encoder(negotiated()).encode(IPV4, attributes, ip_address("10.0.0.1"), [b"\0"])


def test_an_aggregator_with_a_large_as_reaches_a_two_byte_peer_and_comes_back() -> None:
    sets = AttributeSets()
    agreed = negotiated(asn4=False)
    segment = (AsSegment("as-sequence", (4200000001, 7)),)
    raw = attribute_set(sets, segment).raw()
    raw.append(RawAttribute(OPTIONAL | TRANSITIVE, AGGREGATOR, (4200000009).to_bytes(4) + b"\x0a\0\0\1"))
    attributes = sets.of(PathAttributes(origin=0, as_path=segment, local_preference=100), raw)
    (body,) = bodies(Encoder(agreed).encode(IPV4, attributes, ip_address("10.0.0.1"), [b"\0"]))
    (event,) = UpdateDecoder(agreed, sets).decode(body)
    assert isinstance(event, Updates)
    assert event.attributes is attributes
