"""One live world for all tests of a worker; `xdist_group` puts all of them onto one."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from lab import process
from lab.netns import NetNs
from tests.functional.truth.world import World, world


@pytest.fixture(scope="session")
def standing() -> Iterator[World]:
    made: list[NetNs] = []

    def make(name: str) -> NetNs:
        made.append(NetNs(f"weft-{os.getpid()}-t-{name}").create())
        return made[-1]

    try:
        with world(make("node"), make) as one:
            yield one
    finally:
        for netns in made:
            process.stop(process.in_netns(netns), grace_s=1)
            netns.delete()


@pytest.fixture
def live(standing: World) -> Iterator[World]:
    """The world, without policies before and after."""
    yield standing
    standing.apply([])
