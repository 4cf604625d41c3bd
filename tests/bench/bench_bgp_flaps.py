"""A peer with 201 routes flaps a hundred times beside one that does not: what it costs a node, and the other's traffic.

Every time the kernel is exactly right before the next one, so no flap is skipped."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from lab import process
from lab.netns import NetNs
from lab.speakers.driver import Speakers
from tests.bench import datastore
from tests.bench.flows import Flow, Losses
from tests.bench.result import Result
from tests.functional.bgp import flaps
from tests.functional.bgp.fabric import AgentNode, Bird, segment, wait_until
from tests.functional.bgp.pair import FIRST, configuration

TIMES, WARM_UP = 100, 5
TARGET = "198.51.100.1"
MAY_GROW_MB = 4.0
SESSION = "connect retry time 1; connect delay time 1; error wait time 1, 2; ipv4 { import all; export none; };"
BIRD = f"""router id {flaps.NODE};
log stderr all;
protocol device {{}}
protocol direct {{ ipv4; }}
protocol kernel {{ scan time 2; merge paths on; ipv4 {{ export where source = RTS_BGP; import none; }}; }}
protocol bgp steady {{ local {flaps.NODE} as 64512; neighbor {flaps.STEADY} as 65001; {SESSION} }}
protocol bgp flapping {{ local {flaps.NODE} as 64512; neighbor {flaps.FLAPPING} as 65002; {SESSION} }}
"""


@dataclass(frozen=True, slots=True)
class Place:
    node: NetNs
    tor: NetNs
    flapping: NetNs

    def routes(self) -> dict[str, set[str]]:
        found = [one for one in self.node.ip_json("route") if one.get("protocol") in ("bgp", "bird")]
        return {one["dst"]: {hop["gateway"] for hop in one.get("nexthops", [one])} for one in found}


@dataclass(frozen=True, slots=True)
class Cost:
    cpu_ms: float
    grown_mb: float
    other: Losses


@contextmanager
def _places() -> Iterator[tuple[Place, Place]]:
    with ExitStack() as stack:
        directory = Path(stack.enter_context(TemporaryDirectory(prefix="weft-bench-")))
        ours, rival = (_place(stack, letter, directory / letter) for letter in "ab")
        store = datastore.start(stack, directory, ours.node)
        store.node("n1", f"{flaps.NODE}/24")
        store.peer("tor", peer_ip=flaps.STEADY, as_number=65001)
        store.peer("flapping", peer_ip=flaps.FLAPPING, as_number=65002)
        agent = AgentNode("n1", ours.node, directory / "a" / "n1", datastore.ENVIRON)
        agent.run_dir.mkdir()
        agent.start()
        Bird(rival.node, directory / "b" / "n1", BIRD).start()
        yield ours, rival


def _place(stack: ExitStack, letter: str, directory: Path) -> Place:
    directory.mkdir()

    def netns(name: str) -> NetNs:
        made = NetNs(f"weft-{os.getpid()}{letter}-{name}").create()
        stack.callback(made.delete)
        stack.callback(lambda: process.stop(process.in_netns(made), grace_s=1))
        return made

    place = Place(netns("node"), netns("tor"), netns("flapping"))
    segment(place.node, place.tor, "up0", f"{flaps.NODE}/24", f"{flaps.STEADY}/24")
    place.tor.ip("address", "add", f"{TARGET}/32", "dev", "lo")
    flaps.wire(place.node, place.flapping)
    Bird(place.tor, directory / "tor", configuration(FIRST)).start()
    return place


def _measure(place: Place) -> Cost:
    with Speakers(place.flapping, [flaps.flapping_script()]) as speakers:
        speakers.connect()
        up = flaps.while_up(FIRST)
        wait_until("all routes are there", lambda: place.routes() == up)
        flaps.flap(speakers, place.routes, FIRST, WARM_UP)
        running = process.in_netns(place.node)
        before = flaps.used(running)
        with Flow(place.node, [place.tor], TARGET, flaps.NODE) as flow:
            flaps.flap(speakers, place.routes, FIRST, TIMES)
        after = flaps.used(running)
        assert speakers.totals().lost == WARM_UP + TIMES
    assert (after.pids, after.descriptors) == (before.pids, before.descriptors), "something ended, or was left open"
    cpu_ms = (after.cpu_s - before.cpu_s) * 1000 / TIMES
    return Cost(cpu_ms, (after.resident_kib - before.resident_kib) / 1024, flow.losses)


def hundred_flaps() -> list[Result]:
    with _places() as (place, rival_place):
        ours, rival = _measure(place), _measure(rival_place)
    row = partial(Result, rival_name="BIRD")
    name = f"a peer flaps {TIMES} times"
    return [
        row(
            name=f"{name}: packets lost of another peer's",
            ours=ours.other.lost,
            rival=rival.other.lost,
            unit="packets",
            goal="none",
            met=ours.other.lost == 0,
        ),
        row(
            name=f"{name}: memory more afterwards",
            ours=ours.grown_mb,
            rival=rival.grown_mb,
            unit="MB",
            goal=f"under {MAY_GROW_MB:g} MB",
            met=ours.grown_mb < MAY_GROW_MB,
        ),
        row(
            name=f"{name}: processor time of one (201 routes away and back)",
            ours=ours.cpu_ms,
            rival=rival.cpu_ms,
            unit="ms",
            goal="reported",
            met=True,
        ),
    ]


BENCHMARKS: dict[str, Callable[[], list[Result]]] = {"bgp-flaps": hundred_flaps}
