"""What explain says is what packets do: random policies of every kind, applied by weftctl to a node with the real
agent, tried with every ordered pair of nine pods, the node and a host outside."""

from __future__ import annotations

import pytest

from tests.functional.truth.policies import Policies
from tests.functional.truth.world import World

pytestmark = [pytest.mark.root, pytest.mark.xdist_group("truth")]
SEEDS = range(1, 13)


@pytest.mark.parametrize("seed", SEEDS)
def test_packets_do_what_explain_says(live: World, seed: int) -> None:
    _agrees(live, seed)
    assert min(live.outcomes) > 50


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(100, 500))
def test_packets_do_what_explain_says_of_many_more(live: World, seed: int) -> None:
    """Some of these worlds allow hardly anything."""
    _agrees(live, seed)


def _agrees(live: World, seed: int) -> None:
    documents = Policies(seed, live.addresses).documents()
    live.apply(documents)
    found = live.disagreements(documents)
    assert found == [], "\n".join([*found[:10], f"{len(found)} in all", live.node.log()[-2000:]])
