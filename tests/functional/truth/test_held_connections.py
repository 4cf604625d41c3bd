"""Connections that are there when policy changes: those that explain would refuse fall silent, all others go on, and
when everything is allowed again all of them do."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from tests.functional.truth.policies import Policies
from tests.functional.truth.probes import UDP, Held, Probe
from tests.functional.truth.world import World

pytestmark = [pytest.mark.root, pytest.mark.xdist_group("truth")]
WITHIN_S = 20


@pytest.fixture
def probes(live: World) -> list[Probe]:
    """Between workloads and the host outside: what a node says to its own is another matter."""
    node = live.addresses["node"]
    return [one for one in live.probes() if one.protocol == UDP and not {one.source, one.destination} & {*node}]


@pytest.fixture
def held(live: World, probes: list[Probe]) -> Iterator[Held]:
    live.apply([])
    live.forget_connections()
    made = Held(live.prober, live.by_address, probes)
    yield made
    made.close()


def follows(held: Held, allowed: set[Probe]) -> set[Probe]:
    """What differs when the connections have followed policy, or have had long enough."""
    end_s = time.monotonic() + WITHIN_S
    while (differing := held.answered(allowed, within_s=2) ^ allowed) and time.monotonic() < end_s:
        pass
    return differing


@pytest.mark.parametrize("seeds", [(1, 2, 3)])
def test_live_connections_do_what_explain_says(
    live: World, held: Held, probes: list[Probe], seeds: tuple[int, ...]
) -> None:
    assert held.answered(set(probes)) == set(probes)
    for seed in seeds:
        live.apply(Policies(seed, live.addresses).documents())
        said = live.explained(probes)
        allowed = {probe for probe, one in zip(probes, said, strict=True) if one["verdict"] == "allow"}
        assert follows(held, allowed) == set(), live.node.log()[-2000:]
    live.apply([])
    assert follows(held, set(probes)) == set()


@pytest.mark.soak
@pytest.mark.parametrize("first", range(600, 720, 6))
def test_live_connections_do_what_explain_says_of_many_more(
    live: World, held: Held, probes: list[Probe], first: int
) -> None:
    test_live_connections_do_what_explain_says(live, held, probes, tuple(range(first, first + 6)))
