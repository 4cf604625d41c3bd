"""Two connections with one peer: which of them goes on."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from bird_agent.reflector import exabgp_codec
from bird_agent.reflector.errors import Notification
from bird_agent.reflector.framing import KEEPALIVE, Message, framed, notification
from bird_agent.reflector.fsm import State
from bird_agent.reflector.outputs import (
    CancelConnect,
    Close,
    Connect,
    Down,
    Output,
    Up,
    Write,
)
from bird_agent.reflector.session import Session
from tests.unit.bird_agent.reflector.session_outputs import only_down
from tests.unit.bird_agent.reflector.test_any_bytes import PEER_OPEN, accepted
from tests.unit.bird_agent.reflector.wire import session


def test_a_restarted_peer_replaces_its_old_session_when_it_confirms_the_new_one() -> None:
    made, _ = accepted()
    made.on_connection(2, True, 5.0)
    made.on_data(2, exabgp_codec.write_open(replace(PEER_OPEN, hold_time_s=30)), 5.1)
    assert not any(isinstance(each, Down | Close) for each in made.take()), "an OPEN alone costs nothing"
    made.on_data(2, KEEPALIVE, 5.2)
    out = made.take()
    assert [type(each) for each in out] == [Close, Down, Up]
    assert out[0] == Close(1)
    assert only_down(out).graceful
    assert made.established is not None
    assert made.established.hold_time_s == 30
    made.on_data(1, framed(Message.UPDATE, b"\0\0\0\0"), 5.3)
    assert made.take() == [], "what was still under way on the old one is not taken for the new"


def test_a_second_connection_that_says_nothing_leaves_the_first_alone() -> None:
    made, _ = accepted()
    made.on_connection(2, True, 5.0)
    made.on_closed(2, 6.0)
    assert not any(isinstance(each, Close) or (isinstance(each, Down) and each.was_up) for each in made.take())
    assert made.state is State.ESTABLISHED


def both_connected(router_id: str) -> Session:
    """Ours is connection 1, the peer's (10.0.0.2) is 2; neither has said anything yet."""
    made = session(router_id=router_id)
    made.on_start(0.0)
    made.on_connection(1, False, 0.0)
    made.on_connection(2, True, 0.0)
    made.take()
    return made


def closed_by_us(out: list[Output]) -> list[int]:
    for each in out:
        if isinstance(each, Write) and each.data[18] == Message.NOTIFICATION:
            assert tuple(each.data[19:21]) == (6, 7)
    return [each.conn for each in out if isinstance(each, Close)]


@pytest.mark.parametrize("first", [1, 2])
def test_with_the_higher_router_id_ours_stays_and_the_first_open_decides(first: int) -> None:
    made = both_connected("10.0.0.3")
    made.on_data(first, exabgp_codec.write_open(PEER_OPEN), 1.0)
    assert closed_by_us(made.take()) == [2]
    made.on_data(1, exabgp_codec.write_open(PEER_OPEN) * (first == 2) + KEEPALIVE, 2.0)
    assert (made.state, made.failures) == (State.ESTABLISHED, 0)


@pytest.mark.parametrize("first", [1, 2])
def test_with_the_lower_one_the_peers_stays_and_an_open_on_each_decides(first: int) -> None:
    made = both_connected("10.0.0.1")
    made.on_data(first, exabgp_codec.write_open(PEER_OPEN), 1.0)
    assert closed_by_us(made.take()) == []
    made.on_data(3 - first, exabgp_codec.write_open(PEER_OPEN), 2.0)
    assert closed_by_us(made.take()) == [1]
    made.on_data(2, KEEPALIVE, 3.0)
    assert (made.state, made.failures) == (State.ESTABLISHED, 0)


def test_a_peer_with_the_higher_router_id_may_confirm_ours_and_closes_its_own() -> None:
    made = both_connected("10.0.0.1")
    made.on_data(1, exabgp_codec.write_open(PEER_OPEN) + KEEPALIVE, 1.0)
    assert made.state is State.ESTABLISHED
    assert closed_by_us(made.take()) == [], "it may have sent an OPEN there, and then keeps that"
    made.on_closed(2, 2.0)
    assert made.state is State.ESTABLISHED


def test_a_connection_that_the_peer_closes_for_another_is_no_failure() -> None:
    made, _ = accepted(confirmed=False)
    made.on_data(1, notification(Notification(6, 7)), 1.0)
    assert (made.state, made.failures) == (State.IDLE, 0)
    made.on_connection(2, True, 1.0)
    assert made.state is State.OPEN_SENT


def test_a_call_of_ours_that_is_answered_late_is_closed_without_a_word() -> None:
    made = session()
    made.on_start(0.0)
    made.on_connection(2, True, 0.0)
    made.on_data(2, exabgp_codec.write_open(PEER_OPEN), 1.0)
    assert CancelConnect() in made.take()
    made.on_connection(1, False, 1.1)
    assert made.take() == [Close(1)]


def test_the_peers_open_on_another_connection_leaves_one_of_ours_that_is_up_alone() -> None:
    made = session(router_id="10.0.0.1")
    made.on_start(0.0)
    made.on_connection(1, False, 0.0)
    made.on_data(1, exabgp_codec.write_open(PEER_OPEN) + KEEPALIVE, 0.0)
    made.on_connection(2, True, 5.0)
    made.on_data(2, exabgp_codec.write_open(PEER_OPEN), 5.1)
    assert not any(isinstance(each, Close | Down) for each in made.take()[4:])
    assert made.state is State.ESTABLISHED


def test_a_peer_that_connects_twice_has_given_up_the_first() -> None:
    made = session(passive=True)
    made.on_start(0.0)
    made.on_connection(1, True, 0.0)
    made.on_connection(2, True, 1.0)
    out = made.take()
    assert Close(1) in out
    assert Close(2) not in out
    assert (made.state, made.failures) == (State.OPEN_SENT, 0)


def test_a_passive_session_does_not_call_after_a_failure_either() -> None:
    made, _ = accepted()
    made.on_closed(1, 10.0)
    assert made.deadline is not None
    made.on_tick(made.deadline)
    assert (made.state, made.deadline) == (State.ACTIVE, None)
    made.on_connection(2, True, 20.0)
    made.on_closed(2, 21.0)
    assert (made.state, made.deadline) == (State.ACTIVE, None)
    assert not any(isinstance(each, Connect) for each in made.take())
