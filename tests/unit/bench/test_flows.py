"""How packets that did not arrive become an outage."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tests.bench.flows import STAYS_IN_RUN, Losses, losses


def test_what_arrives_at_either_place_has_arrived() -> None:
    assert losses(100, [[(0, 40)], [(40, 100)]]) == Losses(100, 0, 0)
    assert losses(100, [[(0, 30)], [(40, 100)]]) == Losses(100, 10, 10)
    assert losses(100, [[(0, 60)], [(40, 100)]]) == Losses(100, 0, 0)


def test_the_longest_run_is_the_outage_and_a_flutter_does_not_end_it() -> None:
    flutter = 200 + STAYS_IN_RUN
    assert losses(1000, [[(0, 100), (200, flutter), (300, 1000)]]) == Losses(1000, 200 - STAYS_IN_RUN, 200)
    assert losses(1000, [[(0, 100), (200, flutter + 1), (300, 1000)]]).longest_run == 100
    assert losses(1000, [[(0, 100)]]).outage_ms == 180


def test_nothing_arrived_nothing_sent() -> None:
    assert losses(50, [[]]) == Losses(50, 50, 50)
    assert losses(0, [[]]) == Losses(0, 0, 0)


@given(st.sets(st.integers(0, 199)), st.integers(1, 3))
def test_every_number_is_lost_or_has_arrived(arrived: set[int], places: int) -> None:
    spread = [[(one, one + 1) for one in sorted(arrived) if one % places == place] for place in range(places)]
    found = losses(200, spread)
    assert found.lost == 200 - len(arrived)
    assert found.longest_run <= 200
    assert (found.longest_run == 0) == (found.lost == 0)
