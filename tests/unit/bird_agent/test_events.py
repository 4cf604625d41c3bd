"""ExaBGP's lines as events."""

from __future__ import annotations

from ipaddress import IPv4Address, ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from bird_agent.exabgp.decoder import Decoder
from bird_agent.exabgp.events import (
    AdvertisedReport,
    AsSegment,
    EndOfRib,
    PathAttributes,
    PeerOpen,
    RefreshMark,
    ReloadReport,
    RoutesReceived,
    SessionConnecting,
    SessionDown,
    SessionOpened,
    SessionReport,
    SessionUp,
    SpeakerEvent,
    SyncEnd,
    Unrecognised,
)
from tests.unit.bird_agent import lines

PEER = ip_address("10.1.0.2")
OPEN = PeerOpen(
    64512,
    IPv4Address("10.1.0.2"),
    9,
    True,
    True,
    90,
    {"ipv4 unicast": True, "ipv6 unicast": False},
    frozenset({"ipv4 unicast"}),
    extended_next_hop=True,
)
RICH = (
    '"origin": "egp", "as-path": {"0": {"element": "as-sequence", "value": [65001, 65002]}, "1": {"element": "as-set",'
    ' "value": [7, 8]}}, "med": 20, "originator-id": "1.2.3.4", "cluster-list": [ "5.6.7.8" ], "community": '
    '[ [ 64512, 1 ] ], "large-community": [ [ 64512, 1 , 2 ] ], "aggregator": "65001:1.1.1.1", '
    '"atomic-aggregate": true, "extended-community": [ { "value": 842173290807297, "string": "target:64512:1" } ], '
    '"attribute-0x63-0xC0": "0x0102", "attribute-0x64-0x80": "0x0102"'
)


@pytest.mark.parametrize(
    ("line", "event"),
    [
        pytest.param(lines.state("connected"), SessionConnecting(PEER, 100.5), id="connecting"),
        pytest.param(lines.state("up"), SessionUp(PEER, 100.5), id="up"),
        pytest.param(
            lines.state("down", "closing connection"),
            SessionDown(PEER, 100.5, "closing connection", None),
            id="connection lost",
        ),
        pytest.param(
            lines.state("down", "notification received (6,2)"),
            SessionDown(PEER, 100.5, "notification received (6,2)", (6, 2)),
            id="notification received",
        ),
        pytest.param(
            lines.state("down", "notification sent (4,0)"),
            SessionDown(PEER, 100.5, "notification sent (4,0)", (4, 0), sent=True),
            id="hold timer",
        ),
        pytest.param(lines.opened(), SessionOpened(PEER, 100.5, OPEN), id="open"),
        pytest.param(
            lines.opened(graceful=lines.GRACEFUL | {"restart-flags": ["forwarding"]}),
            SessionOpened(PEER, 100.5, replace(OPEN, restarting=True)),
            id="open of a speaker that has just been started",
        ),
        pytest.param(lines.end_of_rib(), EndOfRib(PEER, "ipv4 unicast"), id="end-of-RIB"),
        pytest.param(lines.refresh("begin"), RefreshMark(PEER, "ipv4 unicast", True), id="refresh begins"),
        pytest.param(lines.refresh("end"), RefreshMark(PEER, "ipv4 unicast", False), id="refresh ends"),
        pytest.param(
            lines.update({"10.1.0.2": ["10.9.0.0/24"]}, ["10.8.0.0/24"]),
            RoutesReceived(
                PEER,
                PathAttributes(origin=0, local_preference=100),
                ((ip_network("10.9.0.0/24"), PEER),),
                (ip_network("10.8.0.0/24"),),
            ),
            id="announce and withdraw",
        ),
        pytest.param(
            lines.update({"no-nexthop": ["10.9.0.0/24"]}, []),
            RoutesReceived(PEER, PathAttributes(origin=0, local_preference=100), (), (ip_network("10.9.0.0/24"),)),
            id="announced without a next hop",
        ),
        pytest.param(
            lines.packed("10.1.0.2", "180a0900", "180a0800"),
            RoutesReceived(
                PEER,
                PathAttributes(origin=0, local_preference=100),
                ((ip_network("10.9.0.0/24"), PEER),),
                (ip_network("10.8.0.0/24"),),
            ),
            id="prefixes as the UPDATE had them",
        ),
        pytest.param(
            lines.update({"fd00::2": ["fd65::/122"]}, attribute=RICH, family="ipv6 unicast"),
            RoutesReceived(
                PEER,
                PathAttributes(
                    1,
                    (AsSegment("as-sequence", (65001, 65002)), AsSegment("as-set", (7, 8))),
                    None,
                    20,
                    IPv4Address("1.2.3.4"),
                    (IPv4Address("5.6.7.8"),),
                    ((64512, 1),),
                    ((64512, 1, 2),),
                    (842173290807297,),
                    ("atomic-aggregate", "aggregator ( 65001:1.1.1.1 )", "attribute [ 0x63 0xE0 0x0102 ]"),
                ),
                ((ip_network("fd65::/122"), ip_address("fd00::2")),),
                (),
            ),
            id="every attribute",
        ),
        *(
            pytest.param(
                lines.update({hop: ["fd65::/122"]}, attribute="", peer=peer, family="ipv6 unicast"),
                RoutesReceived(
                    ip_address(peer), PathAttributes(), ((ip_network("fd65::/122"), ip_address(expected)),), ()
                ),
                id=f"next hop {hop} from {peer}",
            )
            for hop, peer, expected in (
                ("fe80::2", "fd01::2", "fe80::2%fd01::2"),
                ("fe80::2", "10.1.0.2", "fe80::2%10.1.0.2"),
                ("fd01::3", "fd01::2", "fd01::3"),
            )
        ),
        pytest.param(
            b'{"type": "weft-session", "address": "10.1.0.2", "state": "IDLE", "since": 3.5}',
            SessionReport(PEER, "idle", 3.5, None),
            id="session report",
        ),
        pytest.param(
            b'{"type": "weft-advertised", "address": "10.1.0.2", "family": "x", "prefixes": ["10.0.0.0/26"]}',
            AdvertisedReport(PEER, (ip_network("10.0.0.0/26"),)),
            id="advertised report",
        ),
        pytest.param(b'{"type": "weft-synced", "digest": "ab"}', SyncEnd("ab"), id="sync end"),
        pytest.param(
            b'{"type": "weft-reload", "digest": "ab", "taken": false, "error": "line 3"}',
            ReloadReport("ab", False, "line 3"),
            id="reload",
        ),
    ],
)
def test_a_line_is_one_event(line: bytes, event: SpeakerEvent) -> None:
    assert list(Decoder().decode(line)) == [event]


def test_the_end_of_the_speaker_itself_is_no_event() -> None:
    line = b'{ "exabgp": "5.0.0", "time": 1.5, "type": "notification", "notification": "shutdown" }'
    assert list(Decoder().decode(line)) == []


@pytest.mark.parametrize("subtype", ["request", "unknown"])
def test_a_refresh_that_the_peer_asks_of_us_is_exabgps_own_business(subtype: str) -> None:
    assert list(Decoder().decode(lines.refresh(subtype))) == []


def test_equal_attributes_are_one_object() -> None:
    decoder = Decoder()
    first, second = (
        next(decoder.decode(lines.update({"10.1.0.2": [prefix]}))) for prefix in ("10.1.1.0/24", "10.1.2.0/24")
    )
    assert isinstance(first, RoutesReceived)
    assert isinstance(second, RoutesReceived)
    assert first.attributes is second.attributes


@given(st.binary(max_size=200))
def test_no_line_is_too_odd(line: bytes) -> None:
    assert all(isinstance(event, Unrecognised) for event in Decoder().decode(line))


@given(st.data())
def test_a_damaged_line_is_at_worst_unrecognised(data: st.DataObject) -> None:
    line = lines.update({"10.1.0.2": ["10.9.0.0/24"]}, attribute=RICH)
    cut = data.draw(st.integers(0, len(line)))
    put = data.draw(st.binary(max_size=3))
    list(Decoder().decode(line[:cut] + put + line[cut + data.draw(st.integers(0, 5)) :]))
