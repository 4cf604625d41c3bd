"""Whatever a peer sends, in whatever pieces: no exception, no endless loop, and the same result for the same bytes."""

from __future__ import annotations

import itertools
import struct
from collections.abc import Callable
from ipaddress import IPv4Address
from typing import TypeVar

from hypothesis import example, given, settings
from hypothesis import strategies as st

from bird_agent.reflector import exabgp_codec
from bird_agent.reflector.attributes import AttributeSets
from bird_agent.reflector.errors import Notification, SessionError
from bird_agent.reflector.framing import KEEPALIVE, Message, framed
from bird_agent.reflector.fsm import State
from bird_agent.reflector.negotiation import FAMILIES, OpenMessage, Restart
from bird_agent.reflector.outputs import Close, Output, Updates
from bird_agent.reflector.prefixes import IPV4, network_of
from bird_agent.reflector.session import Session
from bird_agent.reflector.updates import UpdateDecoder
from tests.unit.bird_agent.reflector.test_round_trip import negotiated
from tests.unit.bird_agent.reflector.wire import session

T = TypeVar("T")

PEER_OPEN = OpenMessage(
    asn=64512,
    router_id=IPv4Address("10.0.0.2"),
    hold_time_s=90,
    asn4=True,
    families=FAMILIES,
    extended_next_hop=(IPV4,),
    route_refresh=True,
    enhanced_refresh=True,
    restart=Restart(120, dict.fromkeys(FAMILIES, True)),
)


def accepted(open_message: OpenMessage | None = PEER_OPEN, confirmed: bool = True) -> tuple[Session, list[Output]]:
    """A session with the peer's connection 1, as far as the arguments say; and what it has said since the start."""
    made = session(passive=True)
    made.on_start(0.0)
    made.on_connection(1, True, 0.0)
    if open_message is not None:
        made.on_data(1, exabgp_codec.write_open(open_message), 0.0)
        if confirmed:
            made.on_data(1, KEEPALIVE, 0.0)
    return made, made.take()


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    places = sorted({0, len(data), *(each % (len(data) + 1) for each in cuts)})
    return [data[begin:end] for begin, end in itertools.pairwise(places)]


attribute = st.builds(
    lambda flags, code, value, lie: bytes((flags & ~0x10, code, (len(value) + lie) % 256)) + value,
    st.sampled_from([0x40, 0x80, 0xC0, 0x00, 0xE0, 0x60]),
    st.one_of(st.sampled_from([1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 14, 15, 16, 17, 18, 25, 32, 99]), st.integers(0, 255)),
    st.one_of(
        st.binary(max_size=24),
        st.sampled_from([b"\0", b"", b"\2\1\0\0\xfc\0", b"\x0a\0\0\1", b"\0\1\1\4\x0a\0\0\1\0\x08\x0a"]),
    ),
    st.sampled_from([0, 0, 0, 0, 1, -1, 200]),
)
update = st.builds(
    lambda withdrawn, attributes, announced: framed(
        Message.UPDATE,
        struct.pack("!H", len(withdrawn))
        + withdrawn
        + struct.pack("!H", sum(map(len, attributes)))
        + b"".join(attributes)
        + announced,
    ),
    st.one_of(st.just(b""), st.binary(max_size=12)),
    st.lists(attribute, max_size=8),
    st.one_of(st.just(b"\x08\x0a"), st.binary(max_size=12)),
)
message = st.one_of(
    update,
    st.builds(framed, st.sampled_from(list(Message)), st.binary(max_size=60)),
    st.just(KEEPALIVE),
    st.binary(max_size=40),
    st.builds(lambda family: exabgp_codec.write_refresh(family, 0), st.sampled_from(FAMILIES)),
)


@settings(max_examples=200, deadline=None)
@given(
    messages=st.lists(message, max_size=8),
    cuts=st.lists(st.integers(0, 600), max_size=10),
    stage=st.sampled_from([None, False, True]),
)
def test_the_pieces_do_not_matter_and_nothing_is_raised(messages, cuts, stage) -> None:  # type: ignore[no-untyped-def]
    data = b"".join(messages)
    results = []
    for parts in ([data], pieces(data, cuts), [bytes((each,)) for each in data]):
        one, _ = accepted(None) if stage is None else accepted(confirmed=stage)
        for part in parts:
            one.on_data(1, part, 1.0)
        out = one.take()
        for each in out:
            if isinstance(each, Updates):
                assert [network_of(each.family, nlri) for nlri in each.announced + each.withdrawn]
                assert (each.attributes is None) == (each.next_hop is None) == (not each.announced)
        results.append((one.state, [_comparable(each) for each in out]))
    assert results[0] == results[1] == results[2]
    closed = [each for each in results[0][1] if isinstance(each, Close)]
    assert bool(closed) == (results[0][0] is State.IDLE)


def outcome(decode: Callable[[], T]) -> T | Notification:
    """What came of it: the only exceptions are those that say what the peer is to be told."""
    try:
        return decode()
    except SessionError as error:
        return error.notification


def _comparable(output: Output) -> object:
    if isinstance(output, Updates) and output.attributes is not None:
        return (output.family, output.attributes.wire, output.next_hop, output.announced, output.withdrawn)
    return output


@settings(max_examples=200, deadline=None)
@given(body=st.binary(min_size=4, max_size=80), asn4=st.booleans(), internal=st.booleans())
@example(body=b"\0\0\0\0", asn4=True, internal=True)
def test_an_update_is_decoded_or_said_to_be_malformed(body, asn4, internal) -> None:  # type: ignore[no-untyped-def]
    decoder = UpdateDecoder(negotiated(asn4=asn4, peer_as=64512 if internal else 64513), AttributeSets())
    first = outcome(lambda: decoder.decode(body))
    assert outcome(lambda: decoder.decode(body)) == first, "what is remembered changes nothing"
    assert isinstance(first, list) or first.code == 3


capability = st.builds(
    lambda code, value, lie: bytes((code, max(0, len(value) + lie))) + value,
    st.one_of(st.sampled_from([1, 2, 5, 6, 64, 65, 69, 70, 73, 75, 128, 131, 185]), st.integers(0, 255)),
    st.binary(max_size=12),
    st.sampled_from([0, 0, 0, 1, -1]),
)
parameter = st.builds(
    lambda kind, content, lie: bytes((kind, max(0, len(content) + lie))) + content,
    st.sampled_from([2, 2, 2, 2, 1, 3]),
    st.lists(capability, max_size=4).map(b"".join),
    st.sampled_from([0, 0, 0, 1, -1]),
)


@settings(max_examples=400, deadline=None)
@given(
    head=st.binary(min_size=8, max_size=8),
    version=st.sampled_from([4, 4, 4, 3]),
    content=st.one_of(st.lists(parameter, max_size=4).map(b"".join), st.binary(max_size=40)),
    extended=st.booleans(),
    lie=st.sampled_from([0, 0, 0, 1]),
)
def test_an_open_is_read_or_refused(head, version, content, extended, lie) -> None:  # type: ignore[no-untyped-def]
    size = len(content) + lie
    lengths = struct.pack("!BBH", 255, 255, size) if extended else bytes((size % 256,))
    read = outcome(lambda: exabgp_codec.read_open(bytes((version,)) + head + lengths + content))
    assert read.code == 2 if isinstance(read, Notification) else 0 < read.asn < 2**32
