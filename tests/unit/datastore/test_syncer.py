"""The syncer over the fake datastore, and its pure mirror."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fakes.datastore import MemoryDatastore
from weft.datastore import syncer as syncer_module
from weft.datastore.base import KeyValue, Snapshot
from weft.datastore.syncer import Deleted, InSync, Mirror, Syncer, SyncEvent, Unreadable, Upserted
from weft.model import keys
from weft.model.errors import CompactedError, DatastoreUnavailableError
from weft.model.keys import ResourceKey

POOLS = keys.prefix("IPPool")
NODES = keys.prefix("Node")


def pool(name: str, cidr: str = "10.65.0.0/16") -> tuple[str, bytes]:
    document = {
        "kind": "IPPool",
        "apiVersion": "projectcalico.org/v3",
        "metadata": {"name": name},
        "spec": {"cidr": cidr},
    }
    return POOLS + name, json.dumps(document).encode()


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(syncer_module, "FIRST_BACK_OFF_S", 0.001)


class Consumer:
    """A sink that keeps what it was told and the state that this amounts to."""

    def __init__(self, store: MemoryDatastore, *prefixes: str) -> None:
        self.syncer = Syncer(store, prefixes or (POOLS,))
        self.batches: list[list[SyncEvent]] = []
        self.state: dict[keys.Key, str] = {}

    def sink(self, batch: Sequence[SyncEvent]) -> None:
        self.batches.append(list(batch))
        for event in batch:
            match event:
                case Upserted(key, value, _):
                    self.state[key] = str(value)
                case Unreadable(key):
                    self.state[key] = "unreadable"
                case Deleted(key):
                    del self.state[key]  # a deletion of what was never told would be an error

    def take(self) -> list[SyncEvent]:
        events = [event for batch in self.batches for event in batch]
        self.batches.clear()
        return events

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        task = asyncio.create_task(self.syncer.run(self.sink))
        await settle()
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def settle() -> None:
    """Long enough for what waits for nothing but its turn."""
    await asyncio.sleep(0.02)


async def eventually(condition: Callable[[], object]) -> None:
    """For what waits for a timer."""
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.005)


def names(events: Sequence[SyncEvent]) -> list[str]:
    return [_name(event) for event in events]


def _name(event: SyncEvent) -> str:
    if isinstance(event, InSync):
        return "in sync"
    assert isinstance(event.key, ResourceKey)
    signs: dict[type, str] = {Upserted: "+", Unreadable: "?", Deleted: "-"}
    return f"{signs[type(event)]}{event.key.name}"


async def test_everything_stored_comes_first_in_pieces_and_then_in_sync() -> None:
    store = MemoryDatastore()
    for name in "abcd":
        store.put(*pool(name))
    store.put(NODES + "n", b'{"kind":"Node","apiVersion":"projectcalico.org/v3","metadata":{"name":"n"},"spec":{}}')
    consumer = Consumer(store, POOLS, NODES)
    async with consumer.running():
        assert [names(batch) for batch in consumer.batches] == [["+a", "+b", "+c"], ["+d"], ["+n"], ["in sync"]]
        assert consumer.syncer.status.connected


async def test_there_is_no_in_sync_until_every_prefix_has_been_read() -> None:
    store = MemoryDatastore()
    store.put(*pool("a"))
    store.fail("list", NODES, times=10_000)
    consumer = Consumer(store, POOLS, NODES)
    async with consumer.running():
        assert names(consumer.take()) == ["+a"]
        assert not consumer.syncer.status.in_sync
        assert consumer.syncer.status.last_error is not None


async def test_changes_are_followed() -> None:
    store = MemoryDatastore()
    consumer = Consumer(store)
    async with consumer.running():
        store.put(*pool("a"))
        await settle()
        store.put(*pool("a", "10.66.0.0/16"))
        store.remove(POOLS + "a")
        await settle()
        assert names(consumer.take()) == ["in sync", "+a", "+a", "-a"]


@pytest.mark.parametrize("compacted", [False, True], ids=["watch resumed", "history compacted"])
async def test_after_a_lost_connection_only_the_difference_is_emitted(compacted: bool) -> None:
    store = MemoryDatastore()
    for name in ("kept", "changed", "removed"):
        store.put(*pool(name))
    consumer = Consumer(store)
    async with consumer.running():
        consumer.take()
        store.disconnect()
        store.put(*pool("changed", "10.70.0.0/16"))
        store.remove(POOLS + "removed")
        store.put(*pool("added"))
        if compacted:
            store.compact()
        await eventually(lambda: not consumer.syncer.status.connected)
        store.reconnect()
        await eventually(lambda: consumer.syncer.status.connected and sum(map(len, consumer.batches)) >= 3)
        assert sorted(names(consumer.take())) == ["+added", "+changed", "-removed"]
        assert consumer.syncer.status.connected


async def test_a_store_restored_from_a_backup_is_read_again_whole() -> None:
    store = MemoryDatastore()
    for number in range(20):
        store.put(*pool(f"p{number}"))
    consumer = Consumer(store)
    async with consumer.running():
        consumer.take()
        store.restore(dict([pool("p1", "10.99.0.0/16"), pool("old")]))
        await eventually(lambda: {key.name for key in consumer.state if isinstance(key, ResourceKey)} == {"p1", "old"})
        assert "10.99.0.0" in consumer.state[ResourceKey("IPPool", "p1")]


async def test_a_value_that_cannot_be_decoded_is_emitted_as_unreadable_and_reported() -> None:
    store = MemoryDatastore()
    store.put(*pool("a"))
    store.put(POOLS + "bad", b"{")
    consumer = Consumer(store)
    async with consumer.running():
        assert names(consumer.take()) == ["+a", "?bad", "in sync"]
        assert list(consumer.syncer.status.undecodable) == [POOLS + "bad"]
        store.put(POOLS + "a", b'{"kind":"IPPool"')
        await settle()
        [(event,)] = consumer.batches
        assert event == Unreadable(ResourceKey("IPPool", "a"), b'{"kind":"IPPool"', event.reason)
        assert "JSON" in event.reason
        consumer.take()
        store.put(*pool("a"))
        store.remove(POOLS + "bad")
        await settle()
        assert names(consumer.take()) == ["+a", "-bad"]
        assert consumer.syncer.status.undecodable == {}


async def test_a_key_that_is_not_of_the_model_is_passed_over() -> None:
    store = MemoryDatastore()
    store.put("/calico/resources/v3/projectcalico.org/ippools/a/b/c", b"{}")
    consumer = Consumer(store)
    async with consumer.running():
        assert names(consumer.take()) == ["in sync"]


async def test_a_sink_that_fails_ends_the_syncer() -> None:
    def sink(_: Sequence[SyncEvent]) -> None:
        raise LookupError("consumer is broken")

    with pytest.raises(LookupError):
        await Syncer(MemoryDatastore(), (POOLS,)).run(sink)


async def test_an_unavailable_store_is_asked_again() -> None:
    store = MemoryDatastore()
    store.fail("list", error=DatastoreUnavailableError("no leader"), times=3)
    consumer = Consumer(store)
    async with consumer.running():
        await eventually(lambda: consumer.batches)
        assert names(consumer.take()) == ["in sync"]


@pytest.mark.parametrize("error", [DatastoreUnavailableError("gone"), CompactedError(1, 2)], ids=["lost", "compacted"])
async def test_a_first_reading_that_is_interrupted_ends_in_what_is_stored_then(error: Exception) -> None:
    store = MemoryDatastore()
    for name in "abcde":
        store.put(*pool(name))
    consumer = Consumer(store)

    def interrupted(batch: Sequence[SyncEvent]) -> None:
        consumer.sink(batch)
        if len(consumer.batches) == 1:
            store.fail("list", error=error)
            store.remove(POOLS + "b")
            store.put(*pool("c", "10.70.0.0/16"))

    running = asyncio.create_task(consumer.syncer.run(interrupted))
    await eventually(lambda: consumer.syncer.status.in_sync)
    assert names(consumer.take()) == ["+a", "+b", "+c", "-b", "+c", "+d", "+e", "in sync"]
    assert "10.70.0.0" in consumer.state[ResourceKey("IPPool", "c")]
    running.cancel()


contents = st.dictionaries(st.sampled_from([POOLS + name for name in "abcde"]), st.integers(1, 4), max_size=5)


@given(st.lists(contents, min_size=1, max_size=6))
def test_whatever_the_history_the_emitted_state_is_the_last_snapshot(history: list[dict[str, int]]) -> None:
    mirror = Mirror()
    state: dict[keys.Key, int] = {}
    for revision, stored in enumerate(history, start=1):
        items = tuple(KeyValue(path, pool(path[-1])[1], number) for path, number in stored.items())
        for event in mirror.on_snapshot(Snapshot(items, revision)):
            if isinstance(event, Upserted):
                assert state.get(event.key) != event.revision, "emitted without a difference"
                state[event.key] = event.revision
            elif isinstance(event, Deleted):
                del state[event.key]
    assert {keys.path(key): revision for key, revision in state.items()} == history[-1]


async def test_a_batch_of_changes_waits_for_its_turn() -> None:
    store, may_go = MemoryDatastore(), asyncio.Event()
    consumer = Consumer(store)

    async def turn() -> None:
        await may_go.wait()

    consumer.syncer = Syncer(store, (POOLS,), turn)
    running = asyncio.ensure_future(consumer.syncer.run(consumer.sink))
    await asyncio.sleep(0.01)
    await store.create(*pool("late"))
    await asyncio.sleep(0.01)
    assert consumer.state == {}
    may_go.set()
    await asyncio.sleep(0.01)
    assert list(consumer.state) == [ResourceKey("IPPool", "late")]
    running.cancel()
