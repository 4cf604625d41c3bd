"""One session by hand: its timers, how it ends and what then becomes of routes, and what it says of an OPEN."""

from __future__ import annotations

import struct
from ipaddress import IPv4Address

import pytest
from msgspec.structs import replace

from bird_agent.reflector import exabgp_codec
from bird_agent.reflector.errors import Notification, Stop
from bird_agent.reflector.framing import KEEPALIVE, Message, framed, notification
from bird_agent.reflector.fsm import State
from bird_agent.reflector.negotiation import OpenMessage, Restart
from bird_agent.reflector.outputs import (
    CancelConnect,
    Close,
    Connect,
    EndOfRib,
    Opened,
    RefreshAsked,
    RefreshMark,
    Treated,
    Up,
)
from bird_agent.reflector.prefixes import FAMILIES, IPV4, IPV6
from bird_agent.reflector.session import Session
from tests.unit.bird_agent.reflector.session_outputs import KEEPS_ALL, NO_RESTART, notified, only_down, sent
from tests.unit.bird_agent.reflector.test_any_bytes import PEER_OPEN, accepted
from tests.unit.bird_agent.reflector.wire import session

# Coming up


def test_an_active_session_calls_again_after_a_failed_attempt_and_after_one_without_an_answer() -> None:
    made = session()
    made.on_start(0.0)
    assert made.take() == [Connect()]
    made.on_connect_failed(1.0)
    assert (made.state, made.take()) == (State.ACTIVE, [])
    assert made.deadline == pytest.approx(1.0 + 5.0 * 0.875)
    made.on_tick(6.0)
    assert (made.state, made.take()) == (State.CONNECT, [Connect()])
    made.on_tick(12.0)
    assert (made.state, made.take()) == (State.CONNECT, [Connect()]), "an attempt that hangs is begun anew"


def test_a_passive_session_waits_for_ever() -> None:
    made = session(passive=True)
    made.on_start(0.0)
    assert (made.state, made.deadline, made.take()) == (State.ACTIVE, None, [])


def test_an_open_is_confirmed_and_a_keepalive_brings_it_up() -> None:
    made, out = accepted()
    assert made.state is State.ESTABLISHED
    assert [kind for kind, _ in sent(out)] == [Message.OPEN, Message.KEEPALIVE]
    opened, up = (each for each in out if isinstance(each, Opened | Up))
    assert isinstance(opened, Opened)
    assert isinstance(up, Up)
    assert (up.negotiated.hold_time_s, up.negotiated.families) == (90, frozenset(FAMILIES))
    assert made.established == up.negotiated


def test_a_connection_in_idle_is_refused() -> None:
    made = session()
    made.on_connection(3, True, 0.0)
    assert made.take() == [Close(3)]


def test_a_call_that_was_given_up_and_succeeds_is_closed() -> None:
    made = session()
    made.on_start(0.0)
    made.on_stop(1.0, Stop.SHUTDOWN)
    assert made.take() == [Connect(), CancelConnect()]
    made.on_connection(1, False, 2.0)
    assert made.take() == [Close(1)]


# Timers


def test_keepalives_are_sent_and_silence_is_the_end() -> None:
    made, _ = accepted()
    assert made.deadline == pytest.approx(30 * 0.875)
    made.on_tick(27.0)
    assert sent(made.take()) == [(Message.KEEPALIVE, b"")]
    made.on_data(1, KEEPALIVE, 80.0)
    made.on_tick(169.0)
    assert made.state is State.ESTABLISHED, "a KEEPALIVE begins the hold time anew"
    made.take()
    made.on_tick(170.0)
    out = made.take()
    assert (made.state, notified(out)) == (State.IDLE, (4, 0))
    assert not only_down(out).graceful, "silence is no restart"


def test_a_hold_time_of_zero_runs_no_timers() -> None:
    made, _ = accepted(replace(PEER_OPEN, hold_time_s=0))
    assert (made.state, made.deadline) == (State.ESTABLISHED, None)


def test_an_open_that_does_not_come_is_waited_for_four_minutes() -> None:
    made, _ = accepted(None)
    assert made.deadline == 240.0
    made.on_tick(240.0)
    assert notified(made.take()) == (4, 0)


def test_failures_in_a_row_make_the_pause_longer_and_a_stable_session_forgets_them() -> None:
    made = session()
    made.on_start(0.0)
    now, pauses = 0.0, []
    for conn in range(1, 8):
        made.on_connection(conn, False, now)
        made.on_data(conn, b"\0" * 19, now)
        assert made.deadline is not None
        assert made.state is State.IDLE
        pauses.append((made.deadline - now) / 0.875)
        now = made.deadline
        made.on_tick(now)
    assert pauses == pytest.approx([1, 2, 4, 8, 16, 30, 30])
    made.on_connection(9, False, now)
    made.on_data(9, exabgp_codec.write_open(PEER_OPEN) + KEEPALIVE, now)
    made.on_closed(9, now + 61)
    assert made.failures == 1


def test_a_peer_that_comes_back_is_taken_at_once_but_one_that_oscillates_is_not() -> None:
    made = session(passive=True)
    made.on_start(0.0)
    states = []
    for conn in range(1, 5):
        made.on_connection(conn, True, 0.0)
        states.append(made.state)
        made.on_data(conn, b"\0" * 19, 0.0)
    assert states == [State.OPEN_SENT, State.OPEN_SENT, State.OPEN_SENT, State.IDLE]


# The end, and what becomes of the routes


def _closed(made: Session) -> None:
    made.on_closed(1, 9.0)


def _said(code: int, subcode: int):  # type: ignore[no-untyped-def]
    return lambda made: made.on_data(1, notification(Notification(code, subcode)), 9.0)


def _stopped(stop: Stop):  # type: ignore[no-untyped-def]
    return lambda made: made.on_stop(9.0, stop, "bye")


def _garbage(made: Session) -> None:
    made.on_data(1, b"\0" * 19, 9.0)


def _bad_update(made: Session) -> None:
    made.on_data(1, framed(Message.UPDATE, b"\0\0\0\0\x21"), 9.0)


ENDS = [
    # what happens, the peer's OPEN, NOTIFICATION sent, routes kept
    ("lost", _closed, PEER_OPEN, None, True),
    ("lost, no restart agreed", _closed, NO_RESTART, None, False),
    ("lost, no family", _closed, replace(PEER_OPEN, restart=Restart(9, {})), None, False),
    ("cease", _said(6, 4), PEER_OPEN, None, False),
    ("cease, RFC 8538", _said(6, 4), KEEPS_ALL, None, True),
    ("hard reset, RFC 8538", _said(6, 9), KEEPS_ALL, None, False),
    ("version refused", _said(2, 1), PEER_OPEN, None, False),
    ("garbage", _garbage, PEER_OPEN, (1, 1), False),
    ("garbage, RFC 8538", _garbage, KEEPS_ALL, (1, 1), True),
    ("bad update", _bad_update, PEER_OPEN, (3, 10), False),
    ("max prefixes", _stopped(Stop.MAX_PREFIXES), PEER_OPEN, (6, 1), False),
    ("shutdown", _stopped(Stop.SHUTDOWN), PEER_OPEN, (6, 2), False),
    ("shutdown, RFC 8538", _stopped(Stop.SHUTDOWN), KEEPS_ALL, (6, 9), False),
    ("deconfigured", _stopped(Stop.DECONFIGURED), PEER_OPEN, (6, 3), False),
    ("reset", _stopped(Stop.RESET), PEER_OPEN, (6, 4), True),
    ("configuration", _stopped(Stop.CONFIGURATION_CHANGE), PEER_OPEN, (6, 6), True),
    ("resources", _stopped(Stop.OUT_OF_RESOURCES), PEER_OPEN, (6, 8), True),
    ("BFD", _stopped(Stop.BFD_DOWN), PEER_OPEN, (6, 10), False),
    ("restart", _stopped(Stop.RESTART), PEER_OPEN, None, True),
]


@pytest.mark.parametrize(("happens", "peer", "told", "kept"), [row[1:] for row in ENDS], ids=[row[0] for row in ENDS])
def test_what_the_peer_is_told_and_whether_its_routes_stay(happens, peer, told, kept) -> None:  # type: ignore[no-untyped-def]
    made, _ = accepted(peer)
    happens(made)
    out = made.take()
    assert made.state is State.IDLE
    assert notified(out) == told
    down = only_down(out)
    assert (down.was_up, down.graceful, down.sent) == (True, kept, told is not None)
    assert down.why


@pytest.mark.parametrize("stop", Stop)
def test_only_some_stops_come_back_by_themselves(stop: Stop) -> None:
    made, _ = accepted()
    made.on_stop(9.0, stop)
    made.take()
    assert (made.deadline is not None) is stop.comes_back
    made.on_connection(2, True, 9.1)
    assert (made.state is State.OPEN_SENT) is stop.comes_back
    made.on_start(20.0)
    assert made.state in (State.ACTIVE, State.OPEN_SENT)


def test_the_words_of_a_shutdown_reach_the_log_without_control_characters() -> None:
    made, _ = accepted()
    said = b"gone\nfishing \xff"
    made.on_data(1, notification(Notification(6, 2, bytes((len(said),)) + said)), 1.0)
    why = only_down(made.take()).why
    assert why == 'the peer says: administrative shutdown (6/2): "gone fishing \N{REPLACEMENT CHARACTER}"'


def test_a_long_text_is_cut_at_a_character() -> None:
    made, _ = accepted()
    made.on_stop(1.0, Stop.SHUTDOWN, "ä" * 200)
    ((_, body),) = sent(made.take())
    assert body[2] == len(body) - 3 == 254
    assert body[3:].decode() == "ä" * 127


# OPEN


OPENS: list[tuple[str, OpenMessage, tuple[int, int]]] = [
    ("another AS", replace(PEER_OPEN, asn=64513), (2, 2)),
    ("router id 0", replace(PEER_OPEN, router_id=IPv4Address(0)), (2, 3)),
    ("our router id", replace(PEER_OPEN, router_id=IPv4Address("10.0.0.1")), (2, 3)),
    ("hold time 1", replace(PEER_OPEN, hold_time_s=1), (2, 6)),
    ("hold time 2", replace(PEER_OPEN, hold_time_s=2), (2, 6)),
]


@pytest.mark.parametrize(("message", "told"), [row[1:] for row in OPENS], ids=[row[0] for row in OPENS])
def test_an_open_that_is_not_acceptable_is_told_why(message: OpenMessage, told: tuple[int, int]) -> None:
    made, out = accepted(message)
    assert notified(out) == told
    assert not only_down(out).was_up
    assert made.state is State.IDLE


HEAD = struct.pack("!BHH4s", 4, 64512, 90, b"\x0a\0\0\2")


RAW_OPENS = [
    ("version 3", b"\3" + HEAD[1:] + b"\0", (2, 1), struct.pack("!H", 4)),
    ("unknown parameter", HEAD + b"\2\x07\0", (2, 4), None),
    ("authentication", HEAD + b"\2\1\0", (2, 5), None),
    ("parameters too long", HEAD + b"\x05\2\1\0", (2, 0), None),
    ("parameters too short", HEAD + b"\0\2\0", (2, 0), None),
    ("capability cut", HEAD + b"\4\2\2\1\4", (2, 0), None),
    ("AS 0", HEAD[:1] + b"\0\0" + HEAD[3:] + b"\0", (2, 2), None),
    ("AS 0 in four bytes", HEAD + b"\x08\2\6\x41\4\0\0\0\0", (2, 2), None),
    ("two AS numbers", HEAD[:1] + b"\0\7" + HEAD[3:] + b"\x08\2\6\x41\4\0\0\xfc\0", (2, 2), None),
    ("only VPNs", HEAD + b"\x08\2\6\1\4\0\1\0\x80", (2, 7), b"\1\4\0\1\0\1\1\4\0\2\0\1"),
]


@pytest.mark.parametrize(("body", "told", "data"), [row[1:] for row in RAW_OPENS], ids=[row[0] for row in RAW_OPENS])
def test_an_open_that_is_wrong_is_told_why(body: bytes, told: tuple[int, int], data: bytes | None) -> None:
    made, _ = accepted(None)
    made.on_data(1, framed(Message.OPEN, body), 1.0)
    ((kind, content),) = sent(made.take())
    assert (kind, tuple(content[:2])) == (Message.NOTIFICATION, told)
    assert data is None or content[2:] == data


def test_the_same_open_again_changes_nothing_and_another_one_is_none_of_this_state() -> None:
    made, _ = accepted(confirmed=False)
    made.on_data(1, exabgp_codec.write_open(PEER_OPEN), 1.0)
    assert (made.state, made.take()) == (State.OPEN_CONFIRM, [])
    made.on_data(1, exabgp_codec.write_open(replace(PEER_OPEN, hold_time_s=30)), 1.0)
    assert notified(made.take()) == (5, 2)
    up, _ = accepted()
    up.on_data(1, exabgp_codec.write_open(PEER_OPEN), 1.0)
    assert notified(up.take()) == (5, 3)


def test_an_open_without_capabilities_means_two_byte_numbers_and_ipv4() -> None:
    made, _ = accepted(None)
    made.on_data(1, framed(Message.OPEN, HEAD + b"\0") + KEEPALIVE, 1.0)
    assert made.established is not None
    assert (made.established.asn4, made.established.families) == (False, {IPV4})
    assert (made.established.route_refresh, made.established.message_size) == (False, 4096)


def test_four_byte_numbers_and_extended_parameters_are_read() -> None:
    capability = b"\x41\4" + struct.pack("!I", 4200000000)
    extended = struct.pack("!BBHBH", 255, 255, 9, 2, 6) + capability
    read = exabgp_codec.read_open(HEAD[:1] + struct.pack("!H", 23456) + HEAD[3:] + extended)
    assert (read.asn, read.two_byte_asn, read.asn4) == (4200000000, 23456, True)


@pytest.mark.parametrize("restarting", [False, True])
def test_our_open_comes_back_as_it_was(restarting: bool) -> None:
    made = session()
    made.restarting = restarting
    made.on_start(0.0)
    made.on_connection(1, False, 0.0)
    ((_, body),) = sent(made.take())
    read = exabgp_codec.read_open(body)
    assert (read.asn, read.router_id, read.families) == (64512, IPv4Address("10.0.0.1"), FAMILIES)
    assert (read.asn4, read.route_refresh, read.enhanced_refresh, read.extended_message) == (True,) * 4
    assert read.extended_next_hop == (IPV4,)
    assert read.restart == Restart(120, dict.fromkeys(FAMILIES, True), restarting=restarting, notification=True)


# ROUTE-REFRESH and end-of-RIB


def test_refreshes_are_told_by_family_and_kind() -> None:
    made, _ = accepted()
    for family, subtype in ((IPV4, 0), (IPV6, 0), (IPV4, 1), (IPV4, 2), (IPV4, 9)):
        made.on_data(1, exabgp_codec.write_refresh(family, subtype), 1.0)
    made.on_data(1, framed(Message.REFRESH, b"\0\1\0\x80"), 1.0)
    assert made.take() == [
        RefreshAsked(IPV4),
        RefreshAsked(IPV6),
        RefreshMark(IPV4, begins=True),
        RefreshMark(IPV4, begins=False),
    ]


@pytest.mark.parametrize(("enhanced", "told"), [(True, (7, 1)), (False, None)])
def test_a_refresh_of_the_wrong_length_ends_the_session_only_where_that_was_agreed(enhanced, told) -> None:  # type: ignore[no-untyped-def]
    made, _ = accepted(replace(PEER_OPEN, enhanced_refresh=enhanced))
    made.on_data(1, framed(Message.REFRESH, b"\0\1\0"), 1.0)
    out = made.take()
    assert notified(out) == told
    assert any(isinstance(each, Treated) for each in out) is (told is None)


def test_extended_messages_are_taken_where_they_were_agreed_on() -> None:
    big = framed(Message.UPDATE, b"\0\0\0\0" + b"\x08\x0a" * 3000)
    made, _ = accepted()
    made.on_data(1, big, 1.0)
    assert notified(made.take()) == (1, 2)
    made, _ = accepted(replace(PEER_OPEN, extended_message=True))
    made.on_data(1, big + framed(Message.UPDATE, b"\0\0\0\0"), 1.0)
    assert made.state is State.ESTABLISHED
    assert EndOfRib(IPV4) in made.take()


HEADERS = [
    ("marker", b"\0" * 16 + b"\0\x13\4", (1, 1), b""),
    ("type", b"\xff" * 16 + b"\0\x13\x09", (1, 3), b"\x09"),
    ("too short", b"\xff" * 16 + b"\0\x12\4", (1, 2), b"\0\x12"),
    ("too long", b"\xff" * 16 + b"\x10\1\2", (1, 2), b"\x10\1"),
    ("KEEPALIVE with a body", b"\xff" * 16 + b"\0\x14\4\0", (1, 2), b"\0\x14"),
    ("short OPEN", b"\xff" * 16 + b"\0\x1c\1" + b"\0" * 9, (1, 2), b"\0\x1c"),
]


@pytest.mark.parametrize(("data", "told", "said"), [row[1:] for row in HEADERS], ids=[row[0] for row in HEADERS])
def test_a_broken_header_ends_the_session(data: bytes, told: tuple[int, int], said: bytes) -> None:
    made, _ = accepted()
    made.on_data(1, data, 1.0)
    ((_, body),) = sent(made.take())
    assert (tuple(body[:2]), body[2:]) == (told, said)


def test_a_hard_reset_within_hard_resets_is_read_to_its_first() -> None:
    assert str(Notification(6, 9, bytes((6, 9)) * 1500)) == "hard reset: hard reset (6/9)"
    assert str(Notification(6, 9, bytes((6, 2, 3)) + b"bye")) == 'hard reset: administrative shutdown (6/2): "bye"'
