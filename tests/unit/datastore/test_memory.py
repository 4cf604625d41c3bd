"""The fake datastore keeps the port's contract and injects the faults it promises."""

import asyncio

import pytest

from tests.fakes.datastore import CrashedError, MemoryDatastore
from tests.fakes.datastore_contract import DatastoreContract, K, TransactionalContract, take
from weft.datastore.base import Create, Plan, Update
from weft.model.errors import CompactedError, ConflictError, DatastoreUnavailableError, NotFoundError


class TestTransactionalMemory(TransactionalContract):
    @pytest.fixture
    def store(self) -> MemoryDatastore:
        return MemoryDatastore()


class TestOrderedMemory(DatastoreContract):
    @pytest.fixture
    def store(self) -> MemoryDatastore:
        return MemoryDatastore(transactional=False)


PLAN = Plan.of(Create(K + "a", b"1"), Create(K + "b", b"1"), Create(K + "c", b"1"))


@pytest.mark.parametrize(("transactional", "left"), [(True, []), (False, [K + "a"])], ids=["transaction", "in order"])
async def test_a_crash_leaves_what_a_real_one_would(transactional: bool, left: list[str]) -> None:
    store = MemoryDatastore(transactional=transactional)
    store.crash_before_write(2)
    with pytest.raises(CrashedError):
        await store.commit(PLAN)
    assert list(store.items()) == left


@pytest.mark.parametrize(("transactional", "left"), [(True, [K + "b"]), (False, [K + "a", K + "b"])])
async def test_a_lost_race_leaves_what_a_real_one_would(transactional: bool, left: list[str]) -> None:
    store = MemoryDatastore(transactional=transactional)
    store.lose_race(K + "b", b"theirs")
    with pytest.raises(ConflictError) as lost:
        await store.commit(PLAN)
    assert lost.value.key == K + "b"
    assert list(store.items()) == left


async def test_a_key_deleted_by_somebody_else_is_gone() -> None:
    store = MemoryDatastore()
    revision = store.put(K + "a", b"1")
    store.lose_race(K + "a", None)
    with pytest.raises(NotFoundError):
        await store.update(K + "a", b"2", revision)


async def test_injected_failures_hit_their_operation_and_key_only() -> None:
    store = MemoryDatastore()
    store.fail("get", K + "a")
    await store.get(K + "b")
    await store.create(K + "a", b"1")
    with pytest.raises(DatastoreUnavailableError):
        await store.get(K + "a")
    assert await store.get(K + "a") is not None


async def test_a_watch_from_before_a_compaction_is_refused() -> None:
    store = MemoryDatastore()
    store.put(K + "a", b"1")
    store.put(K + "a", b"2")
    store.compact()
    with pytest.raises(CompactedError):
        await take(store.watch(K, 2), 1)


async def test_a_disconnect_ends_watches_and_calls() -> None:
    store = MemoryDatastore()
    watching = asyncio.create_task(take(store.watch(K, 2), 1))
    await asyncio.sleep(0)
    store.disconnect()
    with pytest.raises(DatastoreUnavailableError):
        await watching
    with pytest.raises(DatastoreUnavailableError):
        await store.list(K)
    store.reconnect()
    await store.list(K)


@pytest.mark.parametrize(
    "group",
    [(), (Create(K, b""), Update(K, b"", 1)), tuple(Create(f"{K}{n}", b"") for n in range(100))],
    ids=["empty", "same key twice", "too large"],
)
def test_a_plan_that_etcd_would_refuse_cannot_be_built(group: tuple[Create, ...]) -> None:
    with pytest.raises(ValueError, match="group"):
        Plan((group,))


def test_a_plan_is_cut_into_groups_in_order() -> None:
    writes = [Create(f"{K}{number}", b"") for number in range(250)]
    plan = Plan.chunked(writes)
    assert [len(group) for group in plan.groups] == [99, 99, 52]
    assert list(plan.writes()) == writes
    assert len(plan.ungrouped().groups) == 250
