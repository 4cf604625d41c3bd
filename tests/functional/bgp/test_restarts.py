"""Whatever is killed, sessions come back, no route goes, and the kernel is right afterwards."""

from __future__ import annotations

import os
import re
import signal
import time
from pathlib import Path

import pytest

from tests.functional.bgp.fabric import REPOSITORY, wait_until
from tests.functional.bgp.pair import BLOCK, FIRST, Pair, configuration, nothing_deleted

pytestmark = pytest.mark.root


def test_a_killed_agent_leaves_sessions_and_routes_and_its_successor_catches_up(pair: Pair) -> None:
    speaker, connection = pair.node.speaker(), pair.bird.connection()
    with nothing_deleted(pair.node.netns) as deleted:
        pair.node.kill()
        many = {f"100.64.{high}.{low}/32" for high in range(4) for low in range(250)}
        pair.bird.reconfigure(configuration(FIRST | many))
        wait_until("BIRD has sent them", lambda: len(pair.bird.routes("announced")) == len(FIRST | many))
        assert pair.routes() == FIRST
        pair.store.block("n1", "10.65.1.0/26")
        pair.node.start()
        learnt = FIRST | {one.removesuffix("/32") for one in many}
        wait_until("the kernel is right", lambda: pair.routes() == learnt)
        wait_until("the new block is announced", lambda: pair.bird.routes("p0") == {BLOCK, "10.65.1.0/26"})
    assert deleted == []
    assert pair.node.speaker() == speaker
    assert pair.bird.connection() == connection


def test_routes_withdrawn_and_blocks_released_while_the_agent_was_dead_go_when_it_is_back(pair: Pair) -> None:
    pair.node.kill()
    pair.bird.reconfigure(configuration({"203.0.113.0/24"}))
    pair.store.block("n1", "10.65.2.0/26")
    pair.store.release_block("n1", BLOCK)
    pair.node.start()
    wait_until("the withdrawn route goes", lambda: pair.routes() == {"203.0.113.0/24"})
    wait_until("the released block goes", lambda: pair.bird.routes("p0") == {"10.65.2.0/26"})


def test_a_killed_speaker_comes_back_and_no_route_goes_on_either_side(pair: Pair) -> None:
    speaker = pair.node.speaker()
    assert speaker is not None
    with nothing_deleted(pair.node.netns) as deleted:
        os.kill(speaker, signal.SIGKILL)
        seen: list[set[str]] = []

        def back() -> bool:
            seen.append(pair.bird.routes("p0"))
            return pair.bird.established("p0") and pair.node.speaker() not in (None, speaker)

        wait_until("the session is back", back)
        time.sleep(1.5)  # long enough for both ends-of-RIB
        seen.append(pair.bird.routes("p0"))
    assert all(routes == {BLOCK} for routes in seen), seen
    assert deleted == []
    assert pair.routes() == FIRST


def test_a_killed_link_is_replaced_and_nothing_is_missed(pair: Pair) -> None:
    speaker, connection, link = pair.node.speaker(), pair.bird.connection(), pair.node.link_pid()
    with nothing_deleted(pair.node.netns) as deleted:
        os.kill(link, signal.SIGKILL)
        pair.bird.reconfigure(configuration(FIRST | {"192.0.2.0/24"}))
        wait_until("the route that came meanwhile", lambda: pair.routes() == FIRST | {"192.0.2.0/24"})
        assert pair.node.link_pid() != link
    pair.bird.reconfigure(configuration({"192.0.2.0/24"}))
    wait_until("withdrawals still arrive", lambda: pair.routes() == {"192.0.2.0/24"})
    assert deleted == []
    assert (pair.node.speaker(), pair.bird.connection()) == (speaker, connection)


def test_agent_and_speaker_killed_together_keep_the_routes_until_all_is_learnt_again(pair: Pair) -> None:
    speaker = pair.node.speaker()
    assert speaker is not None
    with nothing_deleted(pair.node.netns) as deleted:
        pair.node.kill()
        os.kill(speaker, signal.SIGKILL)
        pair.node.start()
        wait_until("the session is back", lambda: pair.bird.established("p0"))
        wait_until(
            "the agent has learnt", lambda: "everything has been learnt" in pair.node.log().rsplit("kept", 1)[-1]
        )
    assert deleted == []
    assert pair.routes() == FIRST
    assert pair.bird.routes("p0") == {BLOCK}


def test_a_speaker_of_another_version_is_replaced_and_no_route_goes_on_either_side(pair: Pair) -> None:
    speaker = pair.node.speaker()
    assert speaker is not None
    arguments = Path(f"/proc/{speaker}/cmdline").read_bytes().decode().split("\0")[:-1]
    older = arguments[: arguments.index("--api")]
    with nothing_deleted(pair.node.netns) as deleted:
        pair.node.kill()
        os.kill(speaker, signal.SIGKILL)
        wait_until("it is gone", lambda: pair.node.speaker() is None)
        other = pair.node.netns.popen(older, env={**os.environ, "PYTHONPATH": str(REPOSITORY)})
        wait_until("the older one is there", lambda: pair.node.speaker() == other.pid)
        wait_until("and has the session", lambda: pair.bird.established("p0"))
        pair.node.start()
        wait_until("it is replaced", lambda: pair.node.speaker() not in (None, other.pid))
        other.wait()
        wait_until("the session is back", lambda: pair.bird.established("p0"))
        wait_until("routes are told", lambda: pair.bird.routes("p0") == {BLOCK})
    assert deleted == []
    assert pair.routes() == FIRST


def test_a_notification_withdraws_at_once_and_a_lost_connection_does_not(pair: Pair) -> None:
    pair.bird.ask("disable p0")
    wait_until("an administrative shutdown withdraws", lambda: pair.routes() == set())
    assert "administrative shutdown" in pair.node.log()
    pair.bird.ask("enable p0")
    wait_until("the routes are back", lambda: pair.routes() == FIRST)
    with nothing_deleted(pair.node.netns) as deleted:
        assert pair.bird.process is not None
        pair.bird.process.signal(signal.SIGKILL)
        wait_until("the loss is noticed", lambda: "connection lost" in pair.node.log())
        time.sleep(0.5)
    assert deleted == []
    assert pair.routes() == FIRST


def test_an_interface_that_goes_down_withdraws_at_once(pair: Pair) -> None:
    pair.bird.netns.ip("link", "set", "up0", "down")
    wait_until("the routes go", lambda: pair.routes() == set())
    assert "interface down" in pair.node.log()
    pair.bird.netns.ip("link", "set", "up0", "up")
    wait_until("the routes are back", lambda: pair.routes() == FIRST)


def test_our_own_interface_switched_off_or_without_its_address_withdraws_at_once(pair: Pair) -> None:
    ours = pair.node.netns
    ours.ip("link", "set", "up0", "down")
    wait_until("the routes go", lambda: "down: interface down" in pair.node.log() and pair.routes() == set(), 20)
    ours.ip("link", "set", "up0", "up")
    wait_until("the routes are back", lambda: pair.routes() == FIRST)
    begun = pair.node.log().count("down: interface down")
    ours.ip("address", "del", "10.1.0.1/24", "dev", "up0")
    wait_until("it goes with the address", lambda: pair.node.log().count("down: interface down") > begun, 20)
    ours.ip("address", "add", "10.1.0.1/24", "dev", "up0")
    wait_until("the routes are back again", lambda: pair.routes() == FIRST)


@pytest.mark.parametrize("ours", [True, False], ids=["our end switched off", "no carrier"])
def test_a_session_whose_interface_went_down_while_no_agent_ran_is_ended_when_one_starts(
    pair: Pair, ours: bool
) -> None:
    pair.node.kill()
    (pair.node if ours else pair.bird).netns.ip("link", "set", "up0", "down")
    assert pair.routes() == (set() if ours else FIRST)  # the kernel takes them along, or does not care
    pair.node.start()
    wait_until("the loss is noticed", lambda: ") down: " in pair.node.log())
    assert "down: interface down" in pair.node.log()  # and not by the hold timer, half a minute later
    wait_until("no route is left", lambda: pair.routes() == set())
    (pair.node if ours else pair.bird).netns.ip("link", "set", "up0", "up")
    wait_until("the routes are back", lambda: pair.routes() == FIRST)


def test_a_session_whose_address_was_removed_while_no_agent_ran_is_ended_when_one_starts(pair: Pair) -> None:
    pair.node.kill()
    pair.node.netns.ip("address", "del", "10.1.0.1/24", "dev", "up0")
    pair.node.start()
    wait_until("the loss is noticed", lambda: ") down: " in pair.node.log())
    assert "down: this node no longer has the address 10.1.0.1" in pair.node.log()


def test_a_neighbour_that_answers_no_arp_is_lost_long_before_its_hold_timer(pair: Pair) -> None:
    for name in ("delay_first_probe_time", "ucast_solicit"):
        pair.node.netns.run(["sysctl", "-qw", f"net.ipv4.neigh.up0.{name}=1"])
    pair.bird.netns.run(["sysctl", "-qw", "net.ipv4.conf.up0.arp_ignore=8"])  # it answers for no address of its own
    pair.bird.netns.ip("neighbour", "replace", "10.1.0.1", "dev", "up0", "lladdr", "02:00:00:00:00:99")
    pair.node.netns.ip("neighbour", "change", "10.1.0.254", "dev", "up0", "nud", "stale")
    pair.store.block("n1", "10.65.1.0/26")  # something to say to the peer
    wait_until("it is lost", lambda: "answers no ARP" in pair.node.log(), 25)
    assert pair.routes() == set()


def test_a_peer_that_falls_silent_loses_its_routes_with_the_hold_timer(pair: Pair) -> None:
    before = pair.node.sessions_begun()
    pair.bird.reconfigure(configuration(FIRST).replace("hold time 30", "hold time 4"))
    # The old session is seen as established for a while yet.
    wait_until(
        "the new session is up", lambda: re.search(r"Hold timer: .*/4\b", pair.bird.ask("show protocols all p0"))
    )
    wait_until("we have its routes", lambda: pair.node.sessions_begun() > before and pair.routes() == FIRST)
    assert pair.bird.process is not None
    pair.bird.process.signal(signal.SIGSTOP)
    wait_until("the routes go", lambda: pair.routes() == set())
    assert "down: hold timer expired" in pair.node.log()
    pair.bird.process.signal(signal.SIGCONT)
