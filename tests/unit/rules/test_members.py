"""The keys of a set, kept up to date change by change, are those of the members it ends with."""

from ipaddress import IPv4Network
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from felix.rules import values as v
from felix.rules.members import is_interval, members_of, merged
from tests.fakes import nft_values


@given(key=st.sampled_from(v.KeyType), data=st.data())
def test_keys_depend_on_the_members_and_not_on_how_they_came(key: v.KeyType, data: st.DataObject) -> None:
    history = data.draw(st.lists(st.frozensets(nft_values.members(key), max_size=8), min_size=1, max_size=5))
    held = members_of(key, history[0])
    keys = held.keys()
    for before, after in pairwise(history):
        change = held.change(after - before, before - after)
        assert change.add.isdisjoint(keys)
        assert change.remove <= keys
        keys = (keys - change.remove) | change.add
        assert keys == held.keys() == members_of(key, after).keys()


@given(key=st.sampled_from([k for k in v.KeyType if is_interval(k)]), data=st.data())
def test_no_two_intervals_overlap(key: v.KeyType, data: st.DataObject) -> None:
    found = members_of(key, data.draw(st.lists(nft_values.members(key), max_size=10))).keys()
    halves = sorted((one[: len(one) // 2], one[len(one) // 2 :]) for one in found)
    assert all(earlier[1] < later[0] for earlier, later in pairwise(halves))


@pytest.mark.parametrize(
    ("present", "added", "removed", "expected"),
    [
        pytest.param(["10.0.0.0/8"], ["10.1.0.0/16"], [], (0, 0), id="inside another: nothing to do"),
        pytest.param(["10.1.0.0/16", "10.2.0.0/16"], ["10.0.0.0/8"], [], (1, 2), id="covers two"),
        pytest.param(["10.0.0.0/8", "10.1.0.0/16"], [], ["10.0.0.0/8"], (1, 1), id="uncovers one"),
        pytest.param(["10.0.0.0/8"], ["10.0.0.0/8"], ["11.0.0.0/8"], (0, 0), id="there already, never there"),
    ],
)
def test_a_prefix_costs_what_it_covers(
    present: list[str], added: list[str], removed: list[str], expected: tuple[int, int]
) -> None:
    held = members_of(v.KeyType.NETWORK_V4, map(IPv4Network, present))
    change = held.change(map(IPv4Network, added), map(IPv4Network, removed))
    assert (len(change.add), len(change.remove)) == expected


def test_intervals_that_touch_become_one() -> None:
    assert merged([(5, 9), (0, 1), (2, 3), (7, 8)]) == [(0, 3), (5, 9)]
