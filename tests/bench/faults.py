"""What can go wrong in a dual-homed fabric: how it is brought about, how one sees that it happened, how it is mended.

A fault of a process has no counterpart where all is one process: there the rival is BIRD killed and started again."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from bird_agent.exabgp.supervisor import SpeakerPaths, stop_speaker
from lab.netns import NetNs
from tests.bench.dual_homed import ANYCAST, ANYCAST_AT, BirdFabric, Fabric, WeftFabric
from tests.functional.bgp.fabric import wait_until
from weft import singleton

VICTIM, TOR = "node1", "tor1"
DEAD = """table inet dead {
  chain in { type filter hook prerouting priority -400; policy drop; }
  chain out { type filter hook output priority -400; policy drop; }
}
"""

Strike = Callable[[Fabric], Callable[[], None]]
"""Brings the fault about and returns once one sees that it happened; what it returns mends it."""


class Goal(Enum):
    NOTHING_LOST = "none"
    REPAIRED = "under 400 ms"
    REPORTED = "reported"


@dataclass(frozen=True, slots=True)
class Fault:
    """`anycast`: what is measured goes from node3 to one of the two that have the address. `watch_s` is how long the
    packets go on after the fault."""

    name: str
    strike: Strike
    goal: Goal
    watch_s: float
    anycast: bool = False


def _silence(netns: NetNs) -> None:
    netns.run(["nft", "-f", "-"], stdin=DEAD)


def _unsilence(netns: NetNs) -> None:
    netns.run(["nft", "delete", "table", "inet", "dead"])


def _by_the_other_tor(fabric: Fabric, mend: Callable[[], object]) -> Callable[[], None]:
    """Mends once the victim has left the path that is dead."""

    def mended() -> None:
        assert fabric.hops(fabric.nodes[VICTIM], "192.0.2.0/24") == 1, "it still uses the dead path"
        mend()

    return mended


def nothing(fabric: Fabric) -> Callable[[], None]:
    return lambda: None


def interface_down(fabric: Fabric) -> Callable[[], None]:
    node = fabric.nodes[VICTIM]
    node.ip("link", "set", "up1", "down")
    return _by_the_other_tor(fabric, lambda: node.ip("link", "set", "up1", "up"))


def far_end_down(fabric: Fabric) -> Callable[[], None]:
    switch = fabric.switches[TOR]
    switch.ip("link", "set", VICTIM, "down")
    assert fabric.nodes[VICTIM].ip_json("link", "show", "up1")[0]["operstate"] in ("DOWN", "LOWERLAYERDOWN")
    return _by_the_other_tor(fabric, lambda: switch.ip("link", "set", VICTIM, "up"))


def path_silent(fabric: Fabric) -> Callable[[], None]:
    switch = fabric.switches[TOR]
    switch.ip("link", "set", VICTIM, "nomaster")
    assert fabric.nodes[VICTIM].ip_json("link", "show", "up1")[0]["operstate"] == "UP"
    return _by_the_other_tor(fabric, lambda: switch.ip("link", "set", VICTIM, "master", "br0"))


def tor_dies(fabric: Fabric) -> Callable[[], None]:
    router, netns = fabric.routers[TOR], fabric.tors[TOR]
    _silence(netns)
    assert router.process is not None
    router.process.signal(signal.SIGKILL)
    wait_until("it is dead", lambda: not router.process or not router.process.alive())

    def mend() -> None:
        _unsilence(netns)
        router.start()

    return _by_the_other_tor(fabric, mend)


def node_dies(fabric: Fabric) -> Callable[[], None]:
    """The one that the anycast packets of node3 go to: not a word more, its links up."""
    victim = fabric.next_node("node3", ANYCAST)
    assert victim in ANYCAST_AT
    netns, stopped = fabric.nodes[victim], fabric.processes(victim)
    assert stopped
    _silence(netns)
    for one in stopped:
        one.signal(signal.SIGSTOP)

    def mend() -> None:
        assert fabric.next_node("node3", ANYCAST) not in (victim, ""), "the other one has taken over"
        for one in stopped:
            one.signal(signal.SIGCONT)
        _unsilence(netns)

    return mend


def _bird_restarted(fabric: BirdFabric, *, planned: bool) -> Callable[[], None]:
    bird = fabric.birds[VICTIM]
    old = bird.process
    assert old is not None
    if planned:
        bird.ask("graceful restart")
    else:
        old.signal(signal.SIGKILL)
    wait_until("BIRD has ended", lambda: not old.alive())
    fabric.restart(VICTIM)
    return lambda: None


def agent_killed(fabric: Fabric) -> Callable[[], None]:
    """Killed, away for half a second, started again."""
    if isinstance(fabric, BirdFabric):
        return _bird_restarted(fabric, planned=False)
    assert isinstance(fabric, WeftFabric)
    agent = fabric.agents[VICTIM]
    speaker = agent.speaker()
    agent.kill()
    time.sleep(0.5)
    agent.start()

    def mend() -> None:
        wait_until("it took over the speaker", lambda: "took over the running speaker" in agent.log())
        assert agent.speaker() == speaker

    return mend


def agent_upgraded(fabric: Fabric) -> Callable[[], None]:
    """Ended by SIGTERM, and another started at once; BIRD is told to leave for a graceful restart."""
    if isinstance(fabric, BirdFabric):
        return _bird_restarted(fabric, planned=True)
    assert isinstance(fabric, WeftFabric)
    agent = fabric.agents[VICTIM]
    speaker, running = agent.speaker(), agent.agent
    assert running is not None
    running.signal(signal.SIGTERM)
    wait_until("the agent has ended", lambda: not running.alive())
    agent.start()

    def mend() -> None:
        wait_until("it took over the speaker", lambda: "took over the running speaker" in agent.log())
        assert agent.speaker() == speaker

    return mend


def speaker_killed(fabric: Fabric) -> Callable[[], None]:
    if isinstance(fabric, BirdFabric):
        return _bird_restarted(fabric, planned=False)
    return _speaker_replaced(fabric, planned=False)


def speaker_upgraded(fabric: Fabric) -> Callable[[], None]:
    """Ended in its own time, and another started in its place."""
    if isinstance(fabric, BirdFabric):
        return _bird_restarted(fabric, planned=True)
    return _speaker_replaced(fabric, planned=True)


def _speaker_replaced(fabric: Fabric, *, planned: bool) -> Callable[[], None]:
    assert isinstance(fabric, WeftFabric)
    agent = fabric.agents[VICTIM]
    old = agent.speaker()
    assert old is not None
    if planned:
        stop_speaker(SpeakerPaths(agent.run_dir))
    else:
        os.kill(old, signal.SIGKILL)
    return lambda: wait_until("another speaker runs", lambda: agent.speaker() not in (None, old)) and None


def bfd_killed(fabric: Fabric) -> Callable[[], None]:
    if isinstance(fabric, BirdFabric):
        return _bird_restarted(fabric, planned=False)
    assert isinstance(fabric, WeftFabric)
    run_dir = fabric.agents[VICTIM].run_dir
    old = singleton.holder(singleton.lock_path(run_dir, "bfd"))
    assert old is not None
    os.kill(old, signal.SIGKILL)
    return lambda: wait_until("another BFD process runs", lambda: _other_bfd(run_dir, old)) and None


def _other_bfd(run_dir: Path, old: int) -> bool:
    return singleton.holder(singleton.lock_path(run_dir, "bfd")) not in (None, old)


def all_replaced(fabric: Fabric) -> Callable[[], None]:
    """What happens when a node's container is replaced: everything ends in good order, and everything is started."""
    if isinstance(fabric, BirdFabric):
        return _bird_restarted(fabric, planned=True)
    assert isinstance(fabric, WeftFabric)
    agent = fabric.agents[VICTIM]
    old, running = agent.speaker(), agent.agent
    assert running is not None
    running.signal(signal.SIGTERM)
    wait_until("the agent has ended", lambda: not running.alive())
    environ = [
        f"{name}={value}"
        for name, value in {**agent.environ, "NODENAME": VICTIM, "WEFT_RUN_DIR": agent.run_dir}.items()
    ]
    agent.netns.run(["env", *environ, sys.executable, "-m", "bird_agent.daemon", "stop-speaker"])
    assert agent.speaker() is None
    agent.start()
    return lambda: wait_until("another speaker runs", lambda: agent.speaker() not in (None, old)) and None


FAULTS = (
    Fault("nothing (control run)", nothing, Goal.NOTHING_LOST, 3),
    Fault("link down, at the node", interface_down, Goal.REPAIRED, 2.5),
    Fault("link down, at the far end", far_end_down, Goal.REPAIRED, 2.5),
    Fault("path dies without a word", path_silent, Goal.REPAIRED, 2.5),
    Fault("ToR dies without a word", tor_dies, Goal.REPAIRED, 2.5),
    Fault("node dies without a word, anycast goes to the other", node_dies, Goal.REPAIRED, 2.5, anycast=True),
    Fault("agent killed and started again", agent_killed, Goal.NOTHING_LOST, 5),
    Fault("agent upgraded", agent_upgraded, Goal.NOTHING_LOST, 5),
    Fault("speaker killed", speaker_killed, Goal.NOTHING_LOST, 6),
    Fault("speaker upgraded", speaker_upgraded, Goal.NOTHING_LOST, 6),
    Fault("BFD process killed", bfd_killed, Goal.NOTHING_LOST, 3),
    Fault("agent, speaker and BFD replaced at once", all_replaced, Goal.NOTHING_LOST, 8),
)
