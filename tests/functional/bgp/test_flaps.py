"""A peer that flaps leaves nothing behind and disturbs nobody."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from lab import process
from lab.netns import NetNs
from lab.speakers.driver import Speakers
from tests.functional.bgp import flaps
from tests.functional.bgp.fabric import wait_until
from tests.functional.bgp.pair import FIRST, Pair, nothing_deleted

pytestmark = pytest.mark.root

MAY_GROW_KIB = 4096


@pytest.fixture
def flapping(pair: Pair, netns: Callable[[str], NetNs]) -> Iterator[Speakers]:
    place = netns("flapping")
    flaps.wire(pair.node.netns, place)
    pair.store.peer("flapping", peer_ip=flaps.FLAPPING, as_number=65002)
    with Speakers(place, [flaps.flapping_script()]) as speakers:
        speakers.connect()
        wait_until("all routes are there", lambda: pair.node.routes() == flaps.while_up(FIRST))
        yield speakers


def flap_and_look(pair: Pair, speakers: Speakers, times: int) -> None:
    running = process.in_netns(pair.node.netns)
    before, connection = flaps.used(running), pair.bird.connection()
    with nothing_deleted(pair.node.netns) as deleted:
        flaps.flap(speakers, pair.node.routes, FIRST, times)
    after = flaps.used(running)
    assert after.pids == before.pids, "nothing had to be started again"
    assert after.descriptors == before.descriptors
    assert after.resident_kib <= before.resident_kib + MAY_GROW_KIB
    assert [line for line in deleted if not line.startswith("Deleted 100.64.")] == [], "the steady peer's stayed"
    assert pair.bird.connection() == connection
    assert (speakers.totals().begun, speakers.totals().lost) == (times + 1, times)
    assert pair.node.log().count(f"{flaps.FLAPPING}") > times, "every one of them is in the log"


def test_five_flaps_leave_nothing_behind(pair: Pair, flapping: Speakers) -> None:
    flap_and_look(pair, flapping, 5)


@pytest.mark.soak
@pytest.mark.timeout(600)
def test_a_hundred_flaps_leave_nothing_behind(pair: Pair, flapping: Speakers) -> None:
    flap_and_look(pair, flapping, 100)
