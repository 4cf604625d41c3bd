"""Routes that are decoded by what is known of others are what they would be alone."""

from __future__ import annotations

import struct

from hypothesis import given
from hypothesis import strategies as st

from weft.netlink import message as nl
from weft.netlink.message import AF_INET, AF_INET6, MalformedMessageError, Message
from weft.netlink.route import RTM_NEWROUTE, Route, decode_route
from weft.netlink.routedecoder import RouteDecoder

RTA_DST, RTA_OIF, RTA_PRIORITY, RTA_TABLE = 1, 4, 6, 15


def notification(family: int, number: int, length: int, protocol: int, link: int, table_first: bool) -> Message:
    width = 32 if family == AF_INET else 128
    address = (number >> (width - length) << (width - length)).to_bytes(width // 8, "big")
    parts = [nl.u32(RTA_TABLE, 254), nl.attribute(RTA_DST, address)] if length else [nl.u32(RTA_TABLE, 254)]
    body = b"".join(parts if table_first else parts[::-1]) + nl.u32(RTA_PRIORITY, 7) + nl.u32(RTA_OIF, link)
    header = struct.pack("=BBBBBBBBI", family, length, 0, 0, 254, protocol, 0, 1, 0)
    return Message(RTM_NEWROUTE, 0, 0, 0, header + body)


notifications = st.one_of(
    st.builds(
        notification, st.just(family), st.integers(0, (1 << width) - 1), st.integers(0, width),
        st.sampled_from([80, 4]), st.integers(1, 2), st.booleans(),
    )
    for family, width in ((AF_INET, 32), (AF_INET6, 128))
)  # fmt: skip


@given(st.lists(notifications))
def test_the_same_as_one_by_one(several: list[Message]) -> None:
    decoder = RouteDecoder()
    assert [decoder.decode(one) for one in several] == [decode_route(one) for one in several]


@given(st.lists(notifications, min_size=1), st.data())
def test_a_damaged_one_is_refused_as_it_would_be_alone(several: list[Message], data: st.DataObject) -> None:
    decoder = RouteDecoder()
    for one in several:
        decoder.decode(one)
    payload = several[0].payload
    cut = data.draw(st.integers(0, len(payload)))
    damaged = several[0]._replace(payload=payload[:cut] + data.draw(st.binary(max_size=2)) + payload[cut:])
    assert outcome(decoder.decode, damaged) == outcome(decode_route, damaged)


def outcome(decode: object, one: Message) -> Route | type | None:
    assert callable(decode)
    try:
        found: Route | None = decode(one)
    except (MalformedMessageError, ValueError, struct.error) as error:
        return type(error)
    return found
