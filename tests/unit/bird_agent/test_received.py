"""UPDATEs that pass through ExaBGP undivided say what they said before (B11); what is malformed in them (B20)."""

from __future__ import annotations

from ipaddress import ip_network
from types import SimpleNamespace
from typing import Any

import pytest
from exabgp.bgp.message.direction import Direction
from exabgp.bgp.message.notification import Notify
from exabgp.bgp.message.update import Update
from exabgp.bgp.message.update.attribute import Attribute, Attributes
from exabgp.environment import getenv
from exabgp.logger import log
from exabgp.protocol.family import AFI, SAFI
from exabgp.reactor.api.response.json import JSON
from hypothesis import given
from hypothesis import strategies as st

from bird_agent.exabgp import malformed, received
from bird_agent.exabgp.decoder import Decoder
from bird_agent.exabgp.events import EndOfRib, RoutesReceived, SpeakerEvent
from tests.unit.bird_agent import lines

ORIGIN, AS_PATH = b"\x40\x01\x01\x00", b"\x40\x02\x06\x02\x01\x00\x00\xfd\xe9"
NEXT_HOP, MED = b"\x40\x03\x04\x0a\x01\x00\x02", b"\x80\x04\x04\x00\x00\x00\x05"
COMMUNITIES = b"\xc0\x08\x04\xfc\x00\x00\x01"
BAD_ORIGIN, BAD_COMMUNITIES = b"\x40\x01\x00", b"\xc0\x08\x03\xfc\x00\x00"  # RFC 7606: treat as withdrawn
LONG_ORIGIN = b"\x40\x01\x02\x00\x00"
IPV6_REACH = b"\x80\x0e\x1a\x00\x02\x01\x10" + bytes(15) + b"\x01\x00\x20\x20\x01\x0d\xb8"
PLAIN = ORIGIN + AS_PATH + NEXT_HOP
UNCORRECTED = pytest.mark.xfail(raises=AssertionError, strict=True, reason="the defect that is corrected")


class Negotiated(SimpleNamespace):
    """As much of a session as reading an UPDATE asks for."""

    def __init__(self, addpath: bool = False) -> None:
        super().__init__(
            asn4=True, aigp=False, local_as=64512, peer_as=65001, msg_size=4096, neighbor=None, nexthop=[],
            families=[(AFI.ipv6, SAFI.unicast)], cached_attributes=None, cached_wire=b"",
            addpath=SimpleNamespace(receive=lambda afi, safi: addpath),
        )  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def silent_exabgp() -> None:
    getenv().log.enable = False
    log.init(getenv())


def update(announced: bytes = b"", attributes: bytes = b"", withdrawn: bytes = b"") -> bytes:
    return len(withdrawn).to_bytes(2, "big") + withdrawn + len(attributes).to_bytes(2, "big") + attributes + announced


def packed(prefixes: list[tuple[int, int]]) -> bytes:
    return b"".join(bytes((bits,)) + number.to_bytes(4, "big")[: (bits + 7) // 8] for number, bits in prefixes)


def said(data: bytes, *, corrected: bool, addpath: bool = False) -> SpeakerEvent:
    """What the agent hears of an UPDATE; `Notify` is what the peer is told."""
    unpack = received.unpack_message if corrected else Update.unpack_message
    as_json = received.update_as_json if corrected else JSON._update
    message = unpack(data, Direction.IN, Negotiated(addpath))
    content = as_json(JSON("5.0.0"), message)["message"]
    (event,) = Decoder().decode(lines.line("update", f'"direction": "receive", "message": {content}'))
    return event


def is_withdrawn(data: bytes) -> bool:
    found = received.unpack_message(data, Direction.IN, Negotiated())
    return Attribute.CODE.INTERNAL_TREAT_AS_WITHDRAW in found.attributes


prefixes = st.lists(
    st.builds(
        lambda bits, number: (number >> (32 - bits) << (32 - bits), bits), st.integers(0, 32), st.integers(0, 2**32 - 1)
    ),
    max_size=5,
    unique=True,
)


OPTIONAL = (
    MED,
    COMMUNITIES,
    b"\x40\x05\x04\x7f\xff\xfb\xff",  # local preference
    b"\x40\x06\x00",  # atomic aggregate
    b"\xc0\x07\x08\x00\x01\x11\x70\x0a\x01\x00\x09",  # aggregator
    b"\x80\x09\x04\x0a\x00\x00\x09\x80\x0a\x08\x0a\x00\x00\x01\x0a\x00\x00\x02",  # originator, cluster list
    b"\xc0\x10\x08\x00\x02\xfd\xe8\x00\x00\x00\x64",  # extended community
    b"\xc0\x20\x0c\x00\x01\x11\x70\x00\x00\x00\x01\xff\xff\xff\xff",  # large community
    b"\xc0\x63\x03abc\x80\x62\x01x",  # nobody knows these
    BAD_COMMUNITIES,
    IPV6_REACH,
)
some_attributes = st.lists(st.sampled_from(OPTIONAL), unique=True).map(lambda some: PLAIN + b"".join(some))


@given(prefixes, prefixes, some_attributes)
def test_the_agent_hears_the_same_either_way(
    announced: list[tuple[int, int]], withdrawn: list[tuple[int, int]], attributes: bytes
) -> None:
    data = update(packed(announced), attributes if announced else b"", packed(withdrawn))
    assert said(data, corrected=True) == said(data, corrected=False)


@pytest.mark.parametrize("corrected", [True, pytest.param(False, marks=pytest.mark.xfail(strict=True))])
def test_a_prefix_costs_exabgp_no_object(corrected: bool) -> None:
    data = update(packed([(0x0A410000, 24)]), PLAIN)
    unpack = received.unpack_message if corrected else Update.unpack_message
    assert list(unpack(data, Direction.IN, Negotiated()).nlris) == []


@pytest.mark.parametrize(
    "attributes", [BAD_ORIGIN + AS_PATH + NEXT_HOP, PLAIN + BAD_COMMUNITIES], ids=["origin", "communities"]
)
def test_what_is_to_be_treated_as_withdrawn_is_left_to_exabgp(attributes: bytes) -> None:
    found = received.unpack_message(update(packed([(0x0A410000, 24)]), attributes), Direction.IN, Negotiated())
    assert not isinstance(found, received.PackedUpdate)


@pytest.fixture(params=[True, pytest.param(False, marks=UNCORRECTED)], ids=["corrected", "uncorrected"])
def strict(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """With correction B20 or without it."""
    if request.param:
        monkeypatch.setattr(Attributes, "_parse_one", malformed.parse_one)


@pytest.mark.parametrize(
    "attributes",
    [LONG_ORIGIN + AS_PATH + NEXT_HOP, b"\x50\x01\x00\x02\x00\x00" + AS_PATH + NEXT_HOP, PLAIN + b"\x40\x63\x01x"],
    ids=["origin of two octets", "origin, extended length", "unknown well-known"],
)
@pytest.mark.usefixtures("strict")
def test_a_route_with_a_malformed_attribute_is_as_good_as_withdrawn(attributes: bytes) -> None:
    assert is_withdrawn(update(packed([(0x0A410000, 24)]), attributes))


@given(attributes=some_attributes, longer=st.booleans())
def test_of_an_attribute_that_comes_twice_the_first_counts_and_others_pass(attributes: bytes, longer: bool) -> None:
    data = update(packed([(0x0A410000, 24)]), attributes + LONG_ORIGIN * longer)
    before = said(data, corrected=True), is_withdrawn(data)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Attributes, "_parse_one", malformed.parse_one)
        assert (said(data, corrected=True), is_withdrawn(data)) == before


def test_path_identifiers_are_left_to_exabgp() -> None:
    data = update(b"\x00\x00\x00\x01\x18\x0a\x41\x00", PLAIN)
    event = said(data, corrected=True, addpath=True)
    assert isinstance(event, RoutesReceived)
    assert [prefix for prefix, _ in event.announced] == [ip_network("10.65.0.0/24")]


def test_an_end_of_rib_is_one() -> None:
    assert isinstance(said(update(), corrected=True), EndOfRib)


def told(data: bytes, unpack: Any) -> tuple[int, int] | None:
    try:
        unpack(data, Direction.IN, Negotiated())
    except Notify as notify:
        return notify.code, notify.subcode
    return None


@given(st.data())
def test_what_exabgp_ends_a_session_for_ends_it_still(data: st.DataObject) -> None:
    whole = update(packed([(0x0A410000, 24), (0x0A410100, 25)]), PLAIN + COMMUNITIES, packed([(0x0A420000, 16)]))
    cut = data.draw(st.integers(0, len(whole)))
    damaged = whole[:cut] + data.draw(st.binary(max_size=3)) + whole[cut + data.draw(st.integers(0, 3)) :]
    assert told(damaged, received.unpack_message) == told(damaged, Update.unpack_message)
