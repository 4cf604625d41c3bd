"""Turns of ExaBGP's loop, beside the uncorrected functions that fail (correction B10)."""

from __future__ import annotations

import itertools
import os
import select
import time
from collections import deque
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from exabgp.bgp.fsm import FSM
from exabgp.reactor.loop import Reactor
from exabgp.reactor.peer import ACTION, Peer

from bird_agent.exabgp import turns

UNCORRECTED = pytest.mark.xfail(raises=AssertionError, strict=True, reason="the defect that is corrected")
PEERS, SOCKETS = 100, 1000


def rib(pending: bool = False) -> SimpleNamespace:
    return SimpleNamespace(outgoing=SimpleNamespace(pending=lambda: pending))


def peer(number: int = 0, *, state: int = FSM.ESTABLISHED, **changed: Any) -> SimpleNamespace:
    """An established peer that has been quiet for a while."""
    neighbor = SimpleNamespace(eor=deque(), refresh=deque(), messages=deque(), rib=rib())
    neighbor.__dict__.update((name, value) for name, value in changed.items() if hasattr(neighbor, name))
    made = SimpleNamespace(
        neighbor=Settings(neighbor.__dict__),
        fsm=FSM(SimpleNamespace(), state),
        proto=SimpleNamespace(negotiated=SimpleNamespace(holdtime=90)),
        stopping=lambda: False,
        socket=lambda: SOCKETS + number,
        stats={"receive-update": 0},
        _teardown=None,
        _neighbor=None,
        weft_quiet_turns=turns.QUIET_TURNS,
        weft_due=time.monotonic() + 3600,
    )
    made.__dict__.update((name, value) for name, value in changed.items() if hasattr(made, name))
    return made


class Settings(SimpleNamespace):
    """A neighbour: attributes, and settings by name, all of them off."""

    def __init__(self, attributes: dict[str, Any]) -> None:
        super().__init__(**attributes)

    def __getitem__(self, name: str) -> Any:
        return False


def reactor(peers: list[SimpleNamespace], ready: frozenset[int] = frozenset()) -> SimpleNamespace:
    return SimpleNamespace(_peers={f"p{number}": one for number, one in enumerate(peers)}, weft_ready=ready)


@pytest.mark.parametrize(
    "active_peers",
    [turns.active_peers, pytest.param(Reactor.active_peers, marks=UNCORRECTED)],
    ids=["corrected", "uncorrected"],
)
def test_of_a_hundred_quiet_sessions_only_the_one_that_was_sent_something_gets_a_turn(
    active_peers: Callable[[Any], set[str]],
) -> None:
    quiet = [peer(number) for number in range(PEERS)]
    assert active_peers(reactor(quiet, frozenset({SOCKETS + 7}))) == {"p7"}


@pytest.mark.parametrize(
    "changed",
    [
        pytest.param({"state": FSM.OPENCONFIRM}, id="not established"),
        pytest.param({"weft_due": 0.0}, id="its timers are due"),
        pytest.param({"weft_quiet_turns": 1}, id="was busy just now"),
        pytest.param({"stopping": lambda: True}, id="is taken away"),
        pytest.param({"_teardown": 4}, id="is to end"),
        pytest.param({"_neighbor": object()}, id="its settings changed"),
        pytest.param({"rib": rib(pending=True)}, id="routes to send"),
        pytest.param({"eor": deque("x")}, id="an end-of-RIB to send"),
        pytest.param({"refresh": deque("x")}, id="a refresh to ask for"),
    ],
)
def test_a_session_with_something_to_do_gets_a_turn(changed: dict[str, Any]) -> None:
    assert turns.active_peers(reactor([peer(), peer(1, **changed)])) == {"p1"}


@pytest.mark.parametrize(
    "run", [turns.run_peer, pytest.param(Peer.run, marks=UNCORRECTED)], ids=["corrected", "uncorrected"]
)
def test_one_turn_takes_all_the_updates_that_are_there(run: Callable[[Any], Any]) -> None:
    one = peer()
    one.reactor = SimpleNamespace(processes=SimpleNamespace(broken=lambda neighbor: False))

    def session() -> Iterator[int]:
        for number in range(10):
            one.stats["receive-update"] = number + 1
            yield ACTION.NOW
        while True:
            yield ACTION.LATER

    one.generator = session()
    run(one)
    assert one.stats["receive-update"] == 10


@pytest.mark.parametrize(
    "run", [turns.run_peer, pytest.param(Peer.run, marks=UNCORRECTED)], ids=["corrected", "uncorrected"]
)
def test_the_loop_may_sleep_while_a_peer_owes_its_first_keepalive(run: Callable[[Any], Any]) -> None:
    one = peer(state=FSM.OPENCONFIRM)
    one.reactor = SimpleNamespace(processes=SimpleNamespace(broken=lambda neighbor: False), weft_ready=frozenset())
    one.generator = itertools.repeat(ACTION.NOW)
    assert [run(one) for _ in range(turns.QUIET_TURNS + 2)][-1] == ACTION.LATER
    one.reactor.weft_ready = frozenset([SOCKETS])
    assert run(one) == ACTION.NOW


@pytest.fixture
def waiting() -> SimpleNamespace:
    return SimpleNamespace(
        _poller=select.poll(),
        asynchronous=SimpleNamespace(_async=deque()),
        processes=SimpleNamespace(fds=[]),
        prevented=0,
    )


WAITS = pytest.mark.parametrize(
    "wait_for_io",
    [turns.wait_for_io, pytest.param(Reactor._wait_for_io, marks=UNCORRECTED)],
    ids=["corrected", "uncorrected"],
)


@WAITS
def test_the_loop_does_not_sleep_with_commands_in_hand(
    waiting: SimpleNamespace, wait_for_io: Callable[[Any, int], Iterator[int]]
) -> None:
    slept: list[int] = []
    waiting._poller = SimpleNamespace(poll=lambda milliseconds: slept.append(milliseconds) or [])
    waiting.asynchronous._async.append(("speaker", iter(())))
    assert list(wait_for_io(waiting, 50)) == []
    assert slept == [0]


@WAITS
def test_a_closed_socket_costs_later_waits_nothing(
    waiting: SimpleNamespace, wait_for_io: Callable[[Any, int], Iterator[int]]
) -> None:
    def prevent_spin() -> None:
        waiting.prevented += 1

    waiting._prevent_spin = prevent_spin
    reader, writer = os.pipe()
    waiting._poller.register(reader, select.POLLIN)
    os.close(reader)
    os.close(writer)
    for _ in range(5):
        list(wait_for_io(waiting, 0))
    assert waiting.prevented == 0
