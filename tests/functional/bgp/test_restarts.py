"""Whatever is killed, sessions come back, no route goes, and the kernel is right afterwards."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from lab.netns import NetNs
from tests.functional.bgp.fabric import AgentNode, Bird, Store, bird_configuration, segment, wait_until

pytestmark = pytest.mark.root

BODY = "local 10.1.0.254 as 65001; neighbor 10.1.0.1 as 64512; hold time 30;"
BLOCK = "10.65.0.0/26"
FIRST = {"203.0.113.0/24", "198.51.100.0/24"}


def configuration(routes: set[str]) -> str:
    return bird_configuration("10.1.0.254", [BODY], sorted(routes))


@dataclass
class Pair:
    """Our node and a BIRD, with routes both ways."""

    node: AgentNode
    bird: Bird
    store: Store

    def session_since(self) -> str:
        return next(line for line in self.bird.ask("show protocols p0").splitlines() if line.startswith("p0"))

    def routes(self) -> set[str]:
        return set(self.node.routes())


@pytest.fixture
def pair(node: AgentNode, store: Store, netns: Callable[[str], NetNs], tmp_path: Path) -> Pair:
    tor = netns("tor")
    segment(node.netns, tor, "up0", "10.1.0.1/24", "10.1.0.254/24")
    store.node("n1", "10.1.0.1/24")
    store.pool("pool", "10.65.0.0/16")
    store.block("n1", BLOCK)
    store.peer("tor", peer_ip="10.1.0.254", as_number=65001)
    bird = Bird(tor, tmp_path / "bird", configuration(FIRST))
    bird.start()
    node.start()
    made = Pair(node, bird, store)
    wait_until("BIRD has our block", lambda: bird.routes("p0") == {BLOCK})
    wait_until("we have its routes", lambda: made.routes() == FIRST)
    return made


@contextmanager
def nothing_deleted(netns: NetNs) -> Iterator[list[str]]:
    """Every BGP route that goes from the namespace's kernel meanwhile, in the end."""
    deleted: list[str] = []
    watch = netns.popen(["ip", "monitor", "route"], stdout=subprocess.PIPE, text=True)
    time.sleep(0.2)
    try:
        yield deleted
    finally:
        time.sleep(0.2)
        watch.terminate()
        assert watch.stdout is not None
        deleted += [line for line in watch.stdout.read().splitlines() if re.match(r"Deleted .* proto (bgp|186) ", line)]
        watch.wait()
        watch.stdout.close()


def test_a_killed_agent_leaves_sessions_and_routes_and_its_successor_catches_up(pair: Pair) -> None:
    speaker, since = pair.node.speaker(), pair.session_since()
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
    assert pair.session_since() == since


def test_routes_withdrawn_and_blocks_released_while_the_agent_was_dead_go_when_it_is_back(pair: Pair) -> None:
    pair.node.kill()
    pair.bird.reconfigure(configuration({"203.0.113.0/24"}))
    pair.store.block("n1", "10.65.2.0/26")
    pair.store.release_block("n1", BLOCK)
    pair.node.start()
    wait_until("the withdrawn route goes", lambda: pair.routes() == {"203.0.113.0/24"})
    wait_until("the released block goes", lambda: pair.bird.routes("p0") == {"10.65.2.0/26"})


def test_a_killed_speaker_comes_back_at_once_and_no_route_goes_on_either_side(pair: Pair) -> None:
    speaker = pair.node.speaker()
    assert speaker is not None
    with nothing_deleted(pair.node.netns) as deleted:
        os.kill(speaker, signal.SIGKILL)
        began = time.monotonic()
        seen: list[set[str]] = []

        def back() -> bool:
            seen.append(pair.bird.routes("p0"))
            return pair.bird.established("p0") and pair.node.speaker() not in (None, speaker)

        wait_until("the session is back", back)
        took = time.monotonic() - began
        time.sleep(1.5)  # long enough for both ends-of-RIB
        seen.append(pair.bird.routes("p0"))
    assert all(routes == {BLOCK} for routes in seen), seen
    assert deleted == []
    assert pair.routes() == FIRST
    assert took < 8


def test_a_killed_link_is_replaced_and_nothing_is_missed(pair: Pair) -> None:
    speaker, since, link = pair.node.speaker(), pair.session_since(), pair.node.link_pid()
    with nothing_deleted(pair.node.netns) as deleted:
        os.kill(link, signal.SIGKILL)
        pair.bird.reconfigure(configuration(FIRST | {"192.0.2.0/24"}))
        wait_until("the route that came meanwhile", lambda: pair.routes() == FIRST | {"192.0.2.0/24"})
        assert pair.node.link_pid() != link
    pair.bird.reconfigure(configuration({"192.0.2.0/24"}))
    wait_until("withdrawals still arrive", lambda: pair.routes() == {"192.0.2.0/24"})
    assert deleted == []
    assert (pair.node.speaker(), pair.session_since()) == (speaker, since)


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


def test_a_notification_withdraws_at_once_and_a_lost_connection_does_not(pair: Pair) -> None:
    pair.bird.ask("disable p0")
    wait_until("an administrative shutdown withdraws", lambda: pair.routes() == set(), timeout_s=3)
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
    wait_until("the routes go", lambda: pair.routes() == set(), timeout_s=3)
    assert "interface down" in pair.node.log()
    pair.bird.netns.ip("link", "set", "up0", "up")
    wait_until("the routes are back", lambda: pair.routes() == FIRST, timeout_s=25)


def test_a_peer_that_falls_silent_loses_its_routes_with_the_hold_timer(pair: Pair) -> None:
    pair.bird.reconfigure(configuration(FIRST).replace("hold time 30", "hold time 4"))
    wait_until("the session is back", lambda: pair.bird.established("p0") and pair.routes() == FIRST)
    assert pair.bird.process is not None
    pair.bird.process.signal(signal.SIGSTOP)
    began = time.monotonic()
    wait_until("the routes go", lambda: pair.routes() == set())
    assert 2 < time.monotonic() - began < 9
    assert "down: hold timer expired" in pair.node.log()
    pair.bird.process.signal(signal.SIGCONT)
