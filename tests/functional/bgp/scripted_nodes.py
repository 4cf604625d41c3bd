"""Nodes of a large fabric of which only their BGP sessions are real: scripted speakers that decide as real agents do.

Each has the agent's own decisions about automatic reflectors (bird_agent.automatic) and writes what a node writes. Its
sessions are those with real nodes and real reflectors; those that two scripted nodes have with each other are imagined:
where both want one, it is there, and has told all."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Iterable, Sequence, Set
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network

from bird_agent.automatic.client import Automatic
from bird_agent.automatic.publisher import Publisher, put
from bird_agent.automatic.sight import SETTLE_S, Group
from bird_agent.automatic.view import RecordsView
from bird_agent.session_config import SessionKind
from lab.speakers.driver import Speakers
from lab.speakers.wire import How, Script, SessionTotals
from weft.config import AgentConfig
from weft.datastore.base import Datastore
from weft.datastore.syncer import Deleted, Syncer, SyncEvent, Upserted
from weft.model import keys
from weft.model.keys import ReflectorKey, ResourceKey
from weft.model.node import Node
from weft.model.reflectors import AttachmentRecord, ReflectorRecord
from weft.reflectors.plan import Fabric, Plan, plan

WATCHED = [keys.prefix("Node"), keys.REFLECTORS]


@dataclass(frozen=True, slots=True)
class Place:
    """A node: its name, its address, the block that it announces."""

    name: str
    address: IPv4Address
    block: IPv4Network


class ScriptedAgent(Automatic):
    """The plan is a function of what all know alike, so a thousand of them work it out once."""

    def __init__(self, name: str, records: RecordsView, shared_plan: Callable[[], Plan]) -> None:
        super().__init__(name)
        self.records = records
        self._shared_plan = shared_plan

    @property
    def plan(self) -> Plan:
        return self._shared_plan()


class ScriptedNodes:
    """`real` are the nodes that scripted ones have mesh sessions with. `writers` take part in what nodes write together
    (the state); the others say only what concerns themselves."""

    def __init__(
        self, store: Datastore, speakers: Speakers, scripted: Sequence[Place], real: Sequence[Place], writers: Set[str]
    ) -> None:
        self._store, self._speakers, self._writers = store, speakers, writers
        self._places = {place.name: place for place in scripted}
        self._real = {place.name: place for place in real}
        self._blocks = {place.name: frozenset([place.block]) for place in [*scripted, *real]}
        self._everything: frozenset[IPv4Network] = frozenset().union(*self._blocks.values())
        self._nodes: dict[str, Node] = {}
        self._fabric = Fabric({})
        self._plan: Plan | None = None
        self.records = RecordsView()
        self.agents = {name: ScriptedAgent(name, self.records, self._shared_plan) for name in self._places}
        self._numbers: dict[tuple[str, str, IPv4Address], int] = {}
        self._of: dict[str, list[tuple[str, str, IPv4Address]]] = {name: [] for name in self._places}
        self._wanted: set[int] = set()
        self._rows: list[SessionTotals] = []
        self._since: dict[int, float] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._changed = False
        self._said: dict[str, AttachmentRecord] = {}

    def start(self) -> None:
        works = {"": Syncer(self._store, WATCHED).run(self._on_datastore), "all": self._publish()}
        for name in self._writers:  # they are never chosen, so nothing is started below the run directory
            config = AgentConfig.from_environ({"NODENAME": name, "WEFT_RUN_DIR": os.devnull})
            works[name] = Publisher(self._store, config, self.agents[name]).run()
        self._tasks = {name: asyncio.ensure_future(work) for name, work in works.items()}

    async def stop(self) -> None:
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    def join_mesh(self) -> None:
        """Every scripted node has a session with every real one."""
        pairs = [(name, other, place.address) for name in self._places for other, place in self._real.items()]
        self._connect(pairs)

    def lose(self, names: Set[str]) -> None:
        """These scripted nodes are gone, without a word of BGP; those among `names` that are real are nobody's peer."""
        gone = [number for (name, _, _), number in self._numbers.items() if name in names and number in self._wanted]
        self._wanted.difference_update(gone)
        self._speakers.lose(tuple(gone), How.RESET)
        for name in names:
            self._places.pop(name, None)
            self._everything -= self._blocks.get(name, frozenset())
            self._real.pop(name, None)
            self.agents.pop(name, None)
            if name in self._tasks:
                self._tasks.pop(name).cancel()

    @property
    def whole(self) -> bool:
        """Every reflector session has what all that are left announce, and nothing else."""
        everything = len(self._places) - 1 + len(self._real) + sum(len(one.addresses) for one in self._serving())
        return all(
            everything <= self._rows[number].held <= everything + 1  # with or without what is its own
            for (_, other, address), number in self._numbers.items()
            if number in self._wanted and not self._is_mesh(other, address)
        )

    def _serving(self) -> list[ReflectorRecord]:
        return [record for name, record in self.records.serving.items() if name in self._real]

    def step(self) -> None:
        """Look at the sessions, decide, and have the sessions that were decided for."""
        for task in self._tasks.values():
            if task.done():
                task.result()
        now = time.monotonic()
        self._look(now)
        if self._changed:
            self._changed, self._plan = False, None
            self._fabric = Fabric(dict(self._nodes))
            for agent in self.agents.values():
                agent.on_fabric(self._fabric)
        connect: list[tuple[str, str, IPv4Address]] = []
        end: list[int] = []
        for name, agent in self.agents.items():
            if agent.due(now) and agent.decide(lambda kind, name=name: self._group(name, kind, now), now):  # type: ignore[misc]
                self._follow(name, agent, connect, end)
        if connect:
            self._connect(connect)
        if end:
            self._wanted.difference_update(end)
            self._speakers.lose(tuple(end), How.CEASE)

    @property
    def complete(self) -> int:
        """How many have said, in this epoch, that reflectors are enough for them."""
        epoch = self.records.state.epoch
        found = (self.records.attached.get(name) for name in self._places)
        return sum(one is not None and one.epoch == epoch and one.complete for one in found)

    @property
    def imagined(self) -> int:
        """Sessions that two scripted nodes have with each other."""
        return sum(len(self._imagined(name)) for name in self.agents) // 2

    def established(self, mesh: bool) -> int:
        numbers = {
            number for (_, other, address), number in self._numbers.items() if self._is_mesh(other, address) == mesh
        }
        return sum(row.number in numbers and row.state == "established" for row in self._rows)

    def wanted(self, mesh: bool) -> int:
        return sum(
            number in self._wanted and self._is_mesh(other, address) == mesh
            for (_, other, address), number in self._numbers.items()
        )

    def _shared_plan(self) -> Plan:
        if self._plan is None:
            self._plan = plan(self._fabric, self.records.settings, self.records.state)
        return self._plan

    async def _publish(self) -> None:
        """What each node says of itself, as soon as it says something else."""
        while True:
            await asyncio.sleep(0.25)
            for name, agent in list(self.agents.items()):
                record = agent.record
                if name not in self._writers and record is not None and record != self._said.get(name):
                    await put(self._store, ReflectorKey("attached", name), record)
                    self._said[name] = record

    def _is_mesh(self, other: str, address: IPv4Address) -> bool:
        return other in self._real and self._real[other].address == address

    def _on_datastore(self, batch: Sequence[SyncEvent]) -> None:
        for event in batch:
            match event:
                case Upserted(ReflectorKey() as key, value, revision):
                    self.records.put(key, value, revision)
                    self._changed = True
                case Deleted(ReflectorKey() as key):
                    self.records.remove(key)
                    self._changed = True
                case Upserted(ResourceKey() as key, Node() as node):
                    self._nodes[key.name] = node
                    self._changed = True
                case Deleted(ResourceKey() as key):
                    self._nodes.pop(key.name, None)
                    self._changed = True

    def _look(self, now: float) -> None:
        self._rows = self._speakers.each()
        touched: set[str] = set()
        for (name, _, _), number in self._numbers.items():
            row = self._rows[number]
            up = row.state == "established" and row.end_of_ribs >= row.begun
            if up != (number in self._since):
                touched.add(name)
            if not up:
                self._since.pop(number, None)
            else:
                self._since.setdefault(number, now)
        for name in touched & self.agents.keys():
            self.agents[name].on_session()

    def _group(self, name: str, kind: SessionKind, now: float) -> Group:
        if kind is SessionKind.MESH:
            found = {other: self._number(name, other, place.address) for other, place in self._real.items()}
        else:
            reflectors = self.agents[name].sessions.reflectors
            found = {other: self._number(name, other, addresses[0]) for other, addresses in reflectors.items()}
        numbers = {other: number for other, number in found.items() if number in self._wanted}
        established = {other for other, number in numbers.items() if self._rows[number].state == "established"}
        settled = {other for other, number in numbers.items() if now - self._since.get(number, now) >= SETTLE_S}
        learnt = {other: self._learnt(other, kind, number) for other, number in numbers.items()}
        if kind is not SessionKind.MESH:
            return Group(frozenset(numbers), frozenset(established), frozenset(settled), learnt)
        imagined = self._imagined(name)
        blocks = {other: self._blocks[other] for other in imagined}
        return Group(imagined | numbers.keys(), imagined | established, imagined | settled, blocks | learnt)

    def _imagined(self, name: str) -> frozenset[str]:
        """The scripted nodes that it would have a session with: where both want it, it is there and has told all."""
        wished = self.agents.keys() - {name} - self.agents[name].sessions.without_mesh
        return frozenset(other for other in wished if name not in self.agents[other].sessions.without_mesh)

    def _learnt(self, other: str, kind: SessionKind, number: int) -> frozenset[IPv4Network]:
        """Of a reflector's thousand routes only how many they are is asked: all, or none that matter."""
        held = self._rows[number].held
        if kind is SessionKind.MESH:
            return frozenset([self._real[other].block]) if held else frozenset()
        return self._everything if held >= len(self._places) - 1 + len(self._real) else frozenset()

    def _number(self, name: str, other: str, address: object) -> int | None:
        return self._numbers.get((name, other, IPv4Address(str(address))))

    def _follow(self, name: str, agent: Automatic, connect: list[tuple[str, str, IPv4Address]], end: list[int]) -> None:
        wished = {
            (name, other, IPv4Address(str(addresses[0]))) for other, addresses in agent.sessions.reflectors.items()
        }
        wished |= {
            (name, other, place.address)
            for other, place in self._real.items()
            if other not in agent.sessions.without_mesh
        }
        there = {key for key in self._of[name] if self._numbers[key] in self._wanted}
        connect.extend(sorted(wished - there))
        end.extend(self._numbers[key] for key in there - wished)

    def _connect(self, pairs: Iterable[tuple[str, str, IPv4Address]]) -> None:
        new = [pair for pair in pairs if pair not in self._numbers]
        scripts = []
        for name, other, address in new:
            place = self._places[name]
            self._numbers[name, other, address] = len(self._numbers)
            self._of[name].append((name, other, address))
            scripts.append(Script(local=place.address, peer=address, routes=(place.block,), hold_time_s=90))
        if scripts:
            self._speakers.add(scripts)
        numbers = [self._numbers[pair] for pair in pairs]
        self._wanted.update(numbers)
        self._speakers.connect(tuple(numbers))
