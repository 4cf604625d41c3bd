"""When what the datastore said is written, and when it counts."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from bird_agent.reflector import keeping, recall
from bird_agent.reflector.keeping import Keeping, path_of
from weft.datastore.syncer import InSync, SyncEvent, Upserted
from weft.model.base import Metadata
from weft.model.keys import ResourceKey
from weft.model.node import Node, NodeSpec

RR = recall.Whose("rr", ("etcd:2379",))


def node(name: str) -> Upserted:
    return Upserted(ResourceKey("Node", name), Node(metadata=Metadata(name=name), spec=NodeSpec()), 1)


def kept(path: Path) -> set[str]:
    events = recall.decode(RR, path.read_bytes()).events
    return {event.key.name for event in events if isinstance(event, Upserted) and isinstance(event.key, ResourceKey)}


class SlowDisk:
    """The first write, which the thread makes, takes until it is told to go on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.begun, self.goes_on = threading.Event(), threading.Event()
        write = keeping.write

        def slow(path: Path, data: bytes) -> None:
            if not self.begun.is_set():
                self.begun.set()
                assert self.goes_on.wait(10)
            write(path, data)

        monkeypatch.setattr(keeping, "write", slow)


async def end_in_a_write(made: Keeping, disk: SlowDisk, before_the_end: Callable[[], None]) -> None:
    run = asyncio.create_task(made.run())
    made.on_datastore([node("n1"), InSync()])
    await asyncio.to_thread(disk.begun.wait, 10)
    before_the_end()
    run.cancel()
    await asyncio.gather(run, return_exceptions=True)
    closing = asyncio.create_task(asyncio.to_thread(made.close))
    await asyncio.sleep(0.1)
    disk.goes_on.set()
    await closing
    await asyncio.get_running_loop().shutdown_default_executor()


async def test_an_end_in_the_middle_of_a_slow_write_keeps_what_was_said_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = Keeping(path_of(tmp_path, "rr"), RR, lambda told: True)
    await end_in_a_write(made, SlowDisk(monkeypatch), lambda: made.on_datastore([node("n2")]))
    assert kept(path_of(tmp_path, "rr")) == {"n1", "n2"}


async def test_what_is_forgotten_in_the_middle_of_a_slow_write_is_not_there_in_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = Keeping(path_of(tmp_path, "rr"), RR, lambda told: True)
    await end_in_a_write(made, SlowDisk(monkeypatch), made.forget)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("parts", "recalls"), [(4, False), (0, True)], ids=["it answers slowly", "it is away"])
async def test_what_was_kept_counts_where_the_datastore_says_nothing_and_not_where_it_takes_its_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, parts: int, recalls: bool
) -> None:
    monkeypatch.setattr(keeping, "ANSWER_S", 0.5)
    old = node("old")
    keeping.write(path_of(tmp_path, "rr"), recall.encode(RR, 1, {old.key: old.value}))
    told: list[SyncEvent] = []

    def consume(batch: Sequence[SyncEvent]) -> bool:
        told.extend(batch)
        return False

    made = Keeping(path_of(tmp_path, "rr"), RR, consume)
    run = asyncio.create_task(made.run())
    for number in range(parts):
        await asyncio.sleep(0.2)
        made.on_datastore([node(f"n{number}")])
    if not parts:
        async with asyncio.timeout(10):
            while not told:
                await asyncio.sleep(0.01)
    made.on_datastore([InSync()])
    run.cancel()
    names = {event.key.name for event in told if isinstance(event, Upserted) and isinstance(event.key, ResourceKey)}
    assert ("old" in names) == recalls
    assert {f"n{number}" for number in range(parts)} <= names
