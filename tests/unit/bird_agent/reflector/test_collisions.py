"""Two sessions, both calling: one connection stays, whatever overtakes what."""

from __future__ import annotations

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


@settings(max_examples=200, deadline=None)
@given(data=st.data(), ids=st.sampled_from(ROUTER_IDS))
def test_exactly_one_connection_stays(data, ids) -> None:  # type: ignore[no-untyped-def]
    wire = Wire(session(0, ids[0]), session(1, ids[1]))
    wire.begin()
    run(wire, lambda count: data.draw(st.integers(0, count - 1)))
    assert_one_connection(wire)
    for side in (0, 1):
        assert wire.ups(side) == 1, "no session that was up is given up for another"
        assert wire.ends[side].failures == 0, "to lose a collision is no failure"


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
