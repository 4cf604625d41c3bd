"""A thousand nodes: from the mesh to reflectors by themselves, a failure domain lost, and back, with what it costs."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

from bird_agent.automatic.publisher import put
from lab.netns import NetNs
from lab.speakers.driver import Speakers
from tests.conftest import EtcdServer
from tests.functional.bgp import thousand
from tests.functional.bgp.fabric import AgentNode
from tests.functional.bgp.pair import nothing_deleted
from tests.functional.bgp.scripted_nodes import ScriptedNodes
from tests.functional.bgp.thousand import REAL, Used, World
from weft.config import EtcdConfig
from weft.datastore.base import Datastore
from weft.datastore.etcd import EtcdDatastore
from weft.model import keys
from weft.model.keys import ReflectorKey, ResourceKey
from weft.model.reflectors import ReflectorSettings

pytestmark = [pytest.mark.root, pytest.mark.soak, pytest.mark.timeout(1200)]

NODES = int(os.environ.get("WEFT_SOAK_NODES", "1000"))
SCRIPTED = NODES - len(REAL)
STEP_S = 0.5
REPORT = Path("bench/thousand-nodes.json")


class Story:
    """The simulation, told phase by phase."""

    def __init__(self, world: World, nodes: ScriptedNodes, speakers: Speakers) -> None:
        self.world, self.nodes, self.speakers = world, nodes, speakers
        self.report: dict[str, dict[str, object]] = {}
        self._before: dict[int, Used] = {}

    async def phase(self, name: str, done: Callable[[], bool], timeout_s: float) -> None:
        began, deadline = time.monotonic(), time.monotonic() + timeout_s
        self.speakers.zero()
        while True:
            self.nodes.step()
            self.world.lead_to_reflectors(self.nodes)
            if done():
                break
            if time.monotonic() > deadline:
                raise AssertionError(f"{name}: not within {timeout_s:.0f} s: {self.state()}")
            await asyncio.sleep(STEP_S)
        totals = self.speakers.totals()
        self.report[name] = {
            "seconds": round(time.monotonic() - began, 1),
            **self.state(),
            "updates heard": totals.updates,
            "prefixes heard": totals.announced,
            "prefixes withdrawn": totals.withdrawn,
            "sessions begun": totals.begun,
            "sessions lost": totals.lost,
            "used by the real nodes": self._used(),
        }
        print(name, json.dumps(self.report[name]), flush=True)

    def _used(self) -> dict[str, str]:
        """In this phase, by program."""
        before, self._before = self._before, self.world.used()
        found = {}
        for program in sorted({one.program for one in self._before.values()} - {""}):
            running = {pid: one for pid, one in self._before.items() if one.program == program}
            cpu = sum(one.cpu_s - (before[pid].cpu_s if pid in before else 0.0) for pid, one in running.items())
            largest = max(one.resident_mb for one in running.values())
            found[program] = f"{cpu:.1f} s of CPU in {len(running)} processes, the largest with {largest:.0f} MB"
        return found

    def state(self) -> dict[str, object]:
        return {
            "mesh sessions": self.nodes.established(mesh=True),
            "imagined mesh sessions": self.nodes.imagined,
            "reflector sessions": self.nodes.established(mesh=False),
            "complete": self.nodes.complete,
            "mode": self.nodes.records.state.mode,
            "replaced": [one.node for one in self.nodes.records.state.replaced],
            "routes": {name: self.world.routes(name) for name in self.world.agents},
        }


def test_a_thousand_nodes_turn_to_reflectors_lose_a_domain_and_turn_back(
    netns: Callable[[str], NetNs], make_node: Callable[[str], AgentNode], etcd: EtcdServer
) -> None:
    with ExitStack() as stack:
        world = thousand.build(stack, netns, make_node)
        scripted = thousand.scripted_places(SCRIPTED)
        speakers = stack.enter_context(Speakers(world.speakers_at, []))
        asyncio.run(_story(EtcdConfig((f"http://{etcd.endpoint}",)), world, scripted, speakers))


async def _story(config: EtcdConfig, world: World, scripted: list[thousand.Place], speakers: Speakers) -> None:
    store = EtcdDatastore(config)
    writers = {place.name for place in scripted[:6]}
    nodes = ScriptedNodes(store, speakers, scripted, REAL, writers)
    story = Story(world, nodes, speakers)
    try:
        await thousand.fill(store, scripted)
        nodes.start()
        await _mesh(story)
        await _to_reflectors(story, store)
        await _reflectors_lost(story)
        await _domain_lost(story, store, scripted)
        await _back(story, store)
    finally:
        await nodes.stop()
        await store.close()
        REPORT.parent.mkdir(exist_ok=True)
        REPORT.write_text(json.dumps(story.report, indent=2) + "\n")


async def _mesh(story: Story) -> None:
    for agent in story.world.agents.values():
        agent.start()
    story.nodes.join_mesh()
    await story.phase("mesh", lambda: _meshed(story, list(story.world.agents)), 400)


def _meshed(story: Story, real: list[str]) -> bool:
    scripted = len(story.nodes.agents)
    if story.nodes.established(mesh=True) < scripted * len(real):
        return False
    return all(story.world.routes(name) >= scripted + len(real) - 1 for name in real)


async def _to_reflectors(story: Story, store: Datastore) -> None:
    with ExitStack() as stack:
        gone = [stack.enter_context(nothing_deleted(agent.netns)) for agent in story.world.agents.values()]
        settings = ReflectorSettings(enabled=True, above_nodes=NODES // 2)
        await put(store, ReflectorKey("settings"), settings)
        await story.phase("to reflectors", lambda: _reflected(story), 400)
    assert [_of_workloads(each) for each in gone] == [[]] * len(REAL), "no route went from any kernel"
    assert all(story.world.routes(name) >= NODES - 1 for name in story.world.agents)


def _reflected(story: Story) -> bool:
    nodes = story.nodes
    if nodes.complete < len(nodes.agents) or nodes.established(mesh=True) or nodes.wanted(mesh=True) or nodes.imagined:
        return False
    return nodes.established(mesh=False) == nodes.wanted(mesh=False) == 2 * len(nodes.agents)


async def _reflectors_lost(story: Story) -> None:
    lost = [place for place in REAL if thousand.domain_of(place) == "a"]
    names, own = [place.name for place in lost], {str(place.block) for place in lost}
    phase = "a domain's reflectors die, its other nodes live"
    with ExitStack() as stack:
        left = [agent for name, agent in story.world.agents.items() if name not in names]
        gone = [stack.enter_context(nothing_deleted(agent.netns)) for agent in left]
        story.world.lose(names)
        await story.phase(phase, lambda: _replaced(story, names), 400)
    routes = [line for each in gone for line in _of_workloads(each) if line.split()[1] not in own]
    assert not routes, "what leads to nodes that live stays in the kernels"
    # Their own blocks and the reflectors' addresses, if it has taken so long that their restart time is over.
    assert story.report[phase]["prefixes withdrawn"] <= 2 * len(lost) * _sessions(story)  # type: ignore[operator]


def _sessions(story: Story) -> int:
    return story.nodes.established(mesh=False)


def _replaced(story: Story, lost: list[str]) -> bool:
    replaced = {one.node for one in story.nodes.records.state.replaced}
    return replaced == set(lost) and _reflected(story)


async def _domain_lost(story: Story, store: Datastore, scripted: list[thousand.Place]) -> None:
    """And its other nodes, too; somebody deletes them from the datastore."""
    lost = {place.name for place in [*REAL, *scripted] if thousand.domain_of(place) == "a"}
    story.nodes.lose(lost)
    await story.phase("the whole domain is lost", lambda: story.nodes.whole, 400)
    left = NODES - len(lost)
    assert all(story.world.routes(name) < left + len(REAL) for name in story.world.agents), "what is gone is gone"
    for name in sorted(lost):
        await store.delete(keys.path(ResourceKey("Node", name)))


async def _back(story: Story, store: Datastore) -> None:
    with ExitStack() as stack:
        gone = [stack.enter_context(nothing_deleted(agent.netns)) for agent in story.world.agents.values()]
        await put(store, ReflectorKey("settings"), ReflectorSettings(enabled=False))
        real = list(story.world.agents)
        await story.phase("back to the mesh", lambda: _meshed(story, real) and _unreflected(story), 400)
    assert [_of_workloads(each) for each in gone] == [[]] * len(gone), "no route went from any kernel"


def _unreflected(story: Story) -> bool:
    return not story.nodes.wanted(mesh=False) and not story.nodes.established(mesh=False)


def _of_workloads(deleted: list[str]) -> list[str]:
    """Without the reflectors' own addresses, which come and go with them."""
    return [line for line in deleted if not line.startswith("Deleted 10.9.0.")]
