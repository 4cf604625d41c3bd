"""Two sessions, both calling: one connection stays, whatever overtakes what."""

from __future__ import annotations

from copy import deepcopy

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bird_agent.reflector.fsm import State
from tests.unit.bird_agent.reflector.wire import Wire, session

ROUTER_IDS = [("10.0.0.1", "10.0.0.2"), ("10.0.0.2", "10.0.0.1")]


def run(wire: Wire, choose, steps: int = 400) -> None:  # type: ignore[no-untyped-def]
    """Let things happen until both are up and nothing is under way."""
    for _ in range(steps):
        if wire.settled():
            return
        possible = wire.possible()
        if possible:
            possible[choose(len(possible))]()
        else:
            wire.wait()
    raise AssertionError(f"not settled: {[each.state for each in wire.ends]}, {wire.told}")


def assert_one_connection(wire: Wire) -> None:
    assert [each.state for each in wire.ends] == [State.ESTABLISHED, State.ESTABLISHED]
    assert len(wire.alive()) == 1


def fingerprint(wire: Wire) -> object:
    """All that decides what can happen from here on; no timer expires meanwhile."""
    ends = [
        (
            [(leg.state.value, leg.conn, leg.incoming) for leg in end._legs],
            end._dialing,
            end.failures,
            end.deadline is None,
            wire.dialing[side],
            wire.ups(side),
        )
        for side, end in enumerate(wire.ends)
    ]
    return repr((ends, [(each.dialer, each.known, each.gone, each.waiting) for each in wire.connections]))


@pytest.mark.parametrize("ids", ROUTER_IDS)
def test_every_order_of_events_ends_with_one_connection_that_was_up_once(ids: tuple[str, str]) -> None:
    wire = Wire(session(0, ids[0]), session(1, ids[1]))
    wire.begin()
    seen, ends, pending = set(), 0, [wire]
    while pending:
        wire = pending.pop()
        if (mark := fingerprint(wire)) in seen:
            continue
        seen.add(mark)
        for position in range(len(wire.possible())):
            following = deepcopy(wire)
            following.possible()[position]()
            pending.append(following)
        if not wire.possible():
            ends += 1
            assert_one_connection(wire)
            assert [wire.ups(side) for side in (0, 1)] == [1, 1], "no session that was up is given up for another"
            assert [each.failures for each in wire.ends] == [0, 0], "to lose a collision is no failure"
    assert ends > 10


@settings(max_examples=200, deadline=None)
@given(data=st.data(), ids=st.sampled_from(ROUTER_IDS), lost=st.integers(0, 12))
def test_a_lost_connection_is_made_anew(data, ids, lost) -> None:  # type: ignore[no-untyped-def]
    wire = Wire(session(0, ids[0]), session(1, ids[1]))
    wire.begin()
    choose = lambda count: data.draw(st.integers(0, count - 1))  # noqa: E731
    for _ in range(lost):
        if possible := wire.possible():
            possible[choose(len(possible))]()
    for each in wire.alive():
        wire.lose(each)
    run(wire, choose)
    assert_one_connection(wire)


@pytest.mark.parametrize("ids", ROUTER_IDS)
@pytest.mark.parametrize("passive", [0, 1])
def test_a_passive_end_is_called_by_the_other(ids, passive) -> None:  # type: ignore[no-untyped-def]
    wire = Wire(session(0, ids[0], passive=passive == 0), session(1, ids[1], passive=passive == 1))
    wire.begin()
    run(wire, lambda count: 0)
    assert_one_connection(wire)
    assert [each.dialer for each in wire.alive()] == [1 - passive]
