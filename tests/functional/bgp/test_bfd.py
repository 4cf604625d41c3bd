"""BFD beside real BIRD and FRR: a path that dies without a word, and ends that say nothing about the path."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from lab.netns import NetNs, bridge, link
from tests.functional.bgp.fabric import AgentNode, Bird, Frr, Store, bird_configuration, wait_until
from tests.functional.bgp.pair import BLOCK, FIRST, nothing_deleted
from weft import singleton

pytestmark = pytest.mark.root

WATCHED = {"weft/bfd": "100ms x 3"}
BODY = "local 10.1.0.254 as 65001; neighbor 10.1.0.1 as 64512; hold time 240; bfd on;"
BIRD_BFD = (
    'protocol bfd { interface "*" { interval 100 ms; multiplier 3; }; multihop { interval 100 ms; multiplier 3; }; }'
)
FRR_BGP = """hostname tor
router bgp 65001
 bgp router-id 10.1.0.254
 no bgp ebgp-requires-policy
 no bgp network import-check
 neighbor 10.1.0.1 remote-as 64512
 neighbor 10.1.0.1 timers 80 240
 neighbor 10.1.0.1 timers connect 1
 neighbor 10.1.0.1 bfd
 address-family ipv4 unicast
  network 203.0.113.0/24
 exit-address-family
"""
FRR_BFD = """bfd
 peer 10.1.0.1
  detect-multiplier 3
  receive-interval 100
  transmit-interval 100
 exit
exit
"""


class Switched:
    """A node and a router on a switch that can cut the path between them while both links stay up."""

    def __init__(self, node: AgentNode, store: Store, netns: Callable[[str], NetNs], router_as: int = 65001) -> None:
        self.node, self.store = node, store
        self.switch, self.tor = netns("switch"), netns("tor")
        bridge(self.switch, "br0")
        for number, (end, address) in enumerate(((node.netns, "10.1.0.1/24"), (self.tor, "10.1.0.254/24"))):
            link(end, "up0", self.switch, f"port{number}")
            self.switch.ip("link", "set", f"port{number}", "master", "br0")
            end.ip("address", "add", address, "dev", "up0")
        store.node("n1", "10.1.0.1/24")
        store.block("n1", BLOCK)
        self.watch(WATCHED, router_as)

    def watch(self, annotations: dict[str, str], router_as: int = 65001) -> None:
        self.store.peer("tor", annotations, peer_ip="10.1.0.254", as_number=router_as)

    def cut(self) -> None:
        self.switch.ip("link", "set", "port1", "nomaster")

    def mend(self) -> None:
        self.switch.ip("link", "set", "port1", "master", "br0")

    def strike(self, number: signal.Signals) -> None:
        strike(self.node, number)

    def bfd_process(self) -> int | None:
        return bfd_process(self.node)


def strike(node: AgentNode, number: signal.Signals) -> None:
    """Give the BFD process a signal that another goes on for it after."""
    before = wait_until("a BFD process", lambda: bfd_process(node))
    time.sleep(1)  # its standby is there, and the last strike would have shown
    os.kill(before, number)
    wait_until("another goes on", lambda: bfd_process(node) not in (None, before))
    time.sleep(1)


def bfd_process(node: AgentNode) -> int | None:
    return singleton.holder(singleton.lock_path(node.run_dir, "bfd"))


def is_urgent(pid: int | None) -> bool:
    return pid is not None and bool(os.sched_getscheduler(pid) & os.SCHED_RR)


@pytest.fixture
def switched(node: AgentNode, store: Store, netns: Callable[[str], NetNs]) -> Switched:
    return Switched(node, store, netns)


def bfd_up(bird: Bird) -> bool:
    return " Up " in bird.ask("show bfd sessions")


def up_since(bird: Bird) -> dict[tuple[str, str], float]:
    """By peer and interface, the second of the day since when BIRD's session with it is up, for `pytest.approx`: BIRD
    counts it back from now each time, so that it may differ by a millisecond."""
    found = re.findall(r"^(\S+)\s+(\S+)\s+Up\s+(\d+):(\d+):([\d.]+)", bird.ask("show bfd sessions"), re.MULTILINE)
    assert found
    return {
        (peer, link): int(hour) * 3600 + int(minute) * 60 + float(second) for peer, link, hour, minute, second in found
    }


def watching_bird(switched: Switched, directory: Path) -> Bird:
    """Its routes are learnt, and BFD is up."""
    node = switched.node
    bird = Bird(
        switched.tor, directory / "bird", bird_configuration("10.1.0.254", [BODY], sorted(FIRST), extra=BIRD_BFD)
    )
    bird.start()
    node.start()
    wait_until("we have its routes", lambda: set(node.routes()) == FIRST)
    wait_until("BFD is up on both sides", lambda: bfd_up(bird))
    return bird


def test_bird_a_dead_path_withdraws_at_once_and_a_restarted_agent_is_no_dead_path(
    switched: Switched, tmp_path: Path
) -> None:
    node, bird = switched.node, watching_bird(switched, tmp_path)
    switched.cut()
    wait_until("the routes are gone", lambda: node.routes() == {})
    wait_until("BIRD has dropped ours", lambda: bird.routes("p0") == set())
    assert "down: BFD: the path is dead" in node.log()
    switched.mend()
    wait_until("we have its routes again", lambda: set(node.routes()) == FIRST)
    wait_until("BFD is up again", lambda: bfd_up(bird))
    wait_until("BIRD has our block", lambda: bird.routes("p0") == {BLOCK})
    connection, process = bird.connection(), switched.bfd_process()
    with nothing_deleted(node.netns) as deleted:
        node.kill()
        node.start()
        wait_until("the agent is back", lambda: "took over the running speaker" in node.log())
        assert switched.bfd_process() == process
    assert deleted == []
    assert bird.connection() == connection
    node.kill()
    os.kill(process, signal.SIGTERM)
    wait_until("nobody goes on where no agent is", lambda: switched.bfd_process() is None)
    wait_until("BIRD has heard that it was closed", lambda: not bfd_up(bird))


def test_bird_hears_neither_of_a_killed_nor_of_a_replaced_nor_of_an_ended_bfd_process(
    switched: Switched, tmp_path: Path
) -> None:
    node, bird = switched.node, watching_bird(switched, tmp_path)
    connection = bird.connection()
    sessions = up_since(bird)
    with nothing_deleted(node.netns) as deleted:
        for number in (signal.SIGKILL, signal.SIGHUP, signal.SIGTERM, signal.SIGKILL, signal.SIGTERM):
            switched.strike(number)
            assert is_urgent(switched.bfd_process()), "a busy machine may be late for everything else"
    assert deleted == []
    assert bird.connection() == connection
    assert up_since(bird) == pytest.approx(sessions, abs=0.01)
    switched.cut()
    wait_until("the routes are gone", lambda: node.routes() == {})
    assert "down: BFD: the path is dead" in node.log()


def test_bird_keeps_our_routes_over_the_end_of_a_container_where_bfd_is_graceful(
    switched: Switched, tmp_path: Path
) -> None:
    node, body = switched.node, BODY.replace("bfd on", "bfd graceful")
    node.environ = {**node.environ, "WEFT_SPEAKER_LIFETIME": "agent"}  # as weft-node has it
    bird = Bird(
        switched.tor, tmp_path / "bird", bird_configuration("10.1.0.254", [body], sorted(FIRST), extra=BIRD_BFD)
    )
    bird.start()
    node.start()
    wait_until("BIRD has our block", lambda: bird.routes("p0") == {BLOCK})
    wait_until("BFD is up on both sides", lambda: bfd_up(bird))
    assert node.agent is not None
    node.agent.signal(signal.SIGTERM)
    wait_until("all has ended", lambda: switched.bfd_process() is None and node.speaker() is None)
    wait_until("BIRD has heard that BFD was closed", lambda: not bfd_up(bird))
    assert bird.routes("p0") == {BLOCK}
    node.start()
    wait_until("the session is back", lambda: bird.established("p0"))
    wait_until("BFD is up again", lambda: bfd_up(bird))
    assert bird.routes("p0") == {BLOCK}


def test_frr_hears_neither_of_a_killed_nor_of_a_replaced_bfd_process(switched: Switched, frr_directory: Path) -> None:
    frr = Frr(switched.tor, frr_directory / "frr", FRR_BGP, FRR_BFD)
    frr.start()
    switched.node.start()
    wait_until("we have its route", lambda: set(switched.node.routes()) == {"203.0.113.0/24"})
    wait_until("BFD is up on both sides", lambda: frr_bfd(frr, "status") == "up")
    discriminator, sessions = frr_bfd(frr, "remote-id"), sessions_begun(frr)
    for number in (signal.SIGKILL, signal.SIGHUP, signal.SIGKILL):
        switched.strike(number)
    assert frr_bfd(frr, "status") == "up"
    assert frr_bfd(frr, "remote-id") == discriminator
    assert sessions_begun(frr) == sessions
    assert BLOCK in frr.routes()


def sessions_begun(frr: Frr) -> object:
    return frr.ask("show bgp neighbors json")["10.1.0.1"]["connectionsEstablished"]


def frr_bfd(frr: Frr, name: str) -> object:
    return next(iter(frr.ask("show bfd peers json") or []), {}).get(name)


def test_bird_beyond_one_hop(node: AgentNode, store: Store, netns: Callable[[str], NetNs], tmp_path: Path) -> None:
    switched = Switched(node, store, netns, 64512)
    switched.watch({"weft/bfd": "100ms x 3 multihop"}, 64512)
    body = "local 10.1.0.254 as 64512; neighbor 10.1.0.1 as 64512; multihop; hold time 240; bfd on;"
    text = bird_configuration("10.1.0.254", [body], sorted(FIRST), extra=BIRD_BFD)
    bird = Bird(switched.tor, tmp_path / "bird", text)
    bird.start()
    node.start()
    wait_until("we have its routes", lambda: set(node.routes()) == FIRST)
    wait_until("BFD is up on both sides", lambda: bfd_up(bird))
    process = switched.bfd_process()
    assert process is not None
    switched.cut()
    wait_until("the routes are gone", lambda: node.routes() == {})
    assert "down: BFD: " in node.log()


def test_frr_a_dead_path_withdraws_at_once(switched: Switched, frr_directory: Path) -> None:
    frr = Frr(switched.tor, frr_directory / "frr", FRR_BGP, FRR_BFD)
    frr.start()
    switched.node.start()
    wait_until("we have its route", lambda: set(switched.node.routes()) == {"203.0.113.0/24"})

    def up() -> bool:
        return [one.get("status") for one in frr.ask("show bfd peers json") or []] == ["up"]

    wait_until("BFD is up on both sides", up)
    switched.cut()
    wait_until("the route is gone", lambda: switched.node.routes() == {})
    wait_until("FRR has dropped ours", lambda: BLOCK not in frr.routes())
    assert "down: BFD: the path is dead" in switched.node.log()
    switched.mend()
    wait_until("all is back", lambda: set(switched.node.routes()) == {"203.0.113.0/24"} and BLOCK in frr.routes())
    wait_until("BFD is up again", up)
    switched.watch({})
    wait_until("nothing is watched any more", lambda: switched.bfd_process() is None)
    wait_until("FRR knows that it was closed by will", lambda: remote_diagnostic(frr) == "administratively down")


def remote_diagnostic(frr: Frr) -> str:
    return str(next(iter(frr.ask("show bfd peers json")), {}).get("remote-diagnostic"))
