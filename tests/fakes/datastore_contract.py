"""What every datastore must do, as one suite; a test module inherits it and says how to make a store.

Run over the fake and over real etcd, so that the fake cannot drift from what it stands for.
"""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

import pytest

from weft.datastore.base import (
    Changed,
    Create,
    Datastore,
    Delete,
    Event,
    Plan,
    Progress,
    Removed,
    Snapshot,
    Update,
    Write,
)
from weft.model.errors import AlreadyExistsError, CompactedError, ConflictError, LeaseGoneError, NotFoundError

K = "/calico/test/"


async def take(watch: AsyncGenerator[Sequence[Event], None], count: int) -> list[Changed | Removed]:
    """The next `count` events, progress left out."""
    events: list[Changed | Removed] = []
    async with asyncio.timeout(5), aclosing(watch):
        async for batch in watch:
            events.extend(event for event in batch if not isinstance(event, Progress))
            if len(events) >= count:
                break
    return events


class DatastoreContract:
    async def test_a_missing_key_is_none(self, store: Datastore) -> None:
        assert await store.get(K + "a") is None

    async def test_a_created_key_has_the_revision_that_create_returned(self, store: Datastore) -> None:
        revision = await store.create(K + "a", b"1")
        found = await store.get(K + "a")
        assert found is not None
        assert (found.key, found.value, found.revision) == (K + "a", b"1", revision)

    async def test_creating_twice_is_refused(self, store: Datastore) -> None:
        await store.create(K + "a", b"1")
        with pytest.raises(AlreadyExistsError) as refused:
            await store.create(K + "a", b"2")
        assert refused.value.key == K + "a"

    async def test_updating_needs_the_newest_revision(self, store: Datastore) -> None:
        first = await store.create(K + "a", b"1")
        second = await store.update(K + "a", b"2", first)
        assert second > first
        with pytest.raises(ConflictError):
            await store.update(K + "a", b"3", first)

    async def test_updating_a_missing_key_says_that_it_is_gone(self, store: Datastore) -> None:
        with pytest.raises(NotFoundError):
            await store.update(K + "a", b"1", 3)

    async def test_deleting_needs_the_newest_revision_if_one_is_given(self, store: Datastore) -> None:
        first = await store.create(K + "a", b"1")
        await store.update(K + "a", b"2", first)
        with pytest.raises(ConflictError):
            await store.delete(K + "a", first)
        await store.delete(K + "a")
        assert await store.get(K + "a") is None

    @pytest.mark.parametrize("revision", [None, 3], ids=["any revision", "a certain revision"])
    async def test_deleting_a_missing_key_says_that_it_is_gone(self, store: Datastore, revision: int | None) -> None:
        with pytest.raises(NotFoundError):
            await store.delete(K + "a", revision)

    async def test_many_keys_come_back_in_the_order_asked(self, store: Datastore) -> None:
        await store.create(K + "a", b"1")
        await store.create(K + "b", b"2")
        found = await store.get_many([K + "b", K + "none", K + "a"])
        assert [item and item.value for item in found] == [b"2", None, b"1"]
        assert await store.get_many([]) == []

    async def test_a_list_holds_the_prefix_in_key_order_and_nothing_else(self, store: Datastore) -> None:
        for name in ("b/2", "a", "b/1", "b0", "c"):
            await store.create(K + name, name.encode())
        snapshot = await store.list(K + "b/")
        assert [item.key for item in snapshot.items] == [K + "b/1", K + "b/2"]
        assert snapshot.revision >= max(item.revision for item in snapshot.items)

    async def test_the_pieces_of_a_list_make_the_list(self, store: Datastore) -> None:
        for number in range(7):
            await store.create(f"{K}b/{number}", b"1")
        await store.create(K + "c", b"1")
        whole = await store.list(K + "b/")
        pieces = [piece async for piece in store.pieces(K + "b/")]
        assert [item for piece in pieces for item in piece.items] == list(whole.items)
        assert {piece.revision for piece in pieces} == {whole.revision}

    async def test_pieces_of_nothing_tell_the_revision(self, store: Datastore) -> None:
        revision = await store.create(K + "a", b"1")
        assert [piece async for piece in store.pieces(K + "none/")] == [Snapshot((), revision)]

    async def test_pieces_do_not_see_what_is_written_meanwhile(self, store: Datastore) -> None:
        for number in range(7):
            await store.create(f"{K}{number}", b"1")
        whole = await store.list(K)
        async with aclosing(store.pieces(K)) as pieces:
            found = list((await anext(pieces)).items)
            await store.create(K + "z", b"1")
            async for piece in pieces:
                found += piece.items
        assert found == list(whole.items)

    async def test_a_plan_writes_all_its_groups(self, store: Datastore) -> None:
        revision = await store.create(K + "a", b"1")
        plan = Plan(
            ((Update(K + "a", b"2", revision), Create(K + "b", b"1")), (Create(K + "c", b"1"), Delete(K + "b")))
        )
        result = await store.commit(plan)
        assert [item.key for item in (await store.list(K)).items] == [K + "a", K + "c"]
        found = await store.get(K + "c")
        assert found is not None
        assert result.revisions[K + "c"] == found.revision

    @pytest.mark.parametrize(
        "loser",
        [Create(K + "there", b"x"), Update(K + "there", b"x", 1), Update(K + "gone", b"x", 1), Delete(K + "gone", 1)],
        ids=["create of an existing key", "stale update", "update of a missing key", "delete of a missing key"],
    )
    async def test_a_lost_plan_names_the_key_that_lost(self, store: Datastore, loser: Write) -> None:
        await store.create(K + "there", b"1")
        with pytest.raises(ConflictError) as lost:
            await store.commit(Plan.of(Create(K + "new", b"1"), loser))
        assert lost.value.key == loser.key
        there = await store.get(K + "there")
        assert there is not None
        assert there.value == b"1"

    async def test_deleting_whatever_is_there_never_loses_a_plan(self, store: Datastore) -> None:
        await store.commit(Plan.of(Delete(K + "gone"), Create(K + "a", b"1")))
        assert await store.get(K + "a") is not None

    async def test_groups_before_a_lost_one_stay(self, store: Datastore) -> None:
        await store.create(K + "b", b"1")
        with pytest.raises(ConflictError):
            await store.commit(Plan(((Create(K + "a", b"1"),), (Create(K + "b", b"2"),), (Create(K + "c", b"1"),))))
        assert [item.key for item in (await store.list(K)).items] == [K + "a", K + "b"]

    async def test_an_empty_plan_is_nothing(self, store: Datastore) -> None:
        assert (await store.commit(Plan.of())).revisions == {}

    async def test_a_watch_says_first_that_it_stands(self, store: Datastore) -> None:
        revision = await store.create(K + "a", b"1")
        async with asyncio.timeout(5), aclosing(store.watch(K, revision + 1)) as watch:
            assert await anext(watch) == (Progress(revision),)

    async def test_a_watch_from_the_future_says_that_the_store_went_back(self, store: Datastore) -> None:
        revision = await store.create(K + "a", b"1")
        with pytest.raises(CompactedError) as refused:
            await take(store.watch(K, revision + 100), 1)
        assert refused.value.compacted < refused.value.requested - 1

    async def test_a_watch_replays_from_its_revision_and_goes_on(self, store: Datastore) -> None:
        await store.create(K + "old", b"1")
        snapshot = await store.list(K)
        created = await store.create(K + "a", b"1")
        watch = store.watch(K, snapshot.revision + 1)
        assert [event.kv.key for event in await take(watch, 1) if isinstance(event, Changed)] == [K + "a"]
        watch = store.watch(K, created + 1)
        following = asyncio.create_task(take(watch, 3))
        await asyncio.sleep(0.05)
        updated = await store.update(K + "a", b"2", created)
        await store.create("/calico/elsewhere", b"1")
        await store.delete(K + "a")
        await store.create(K + "b", b"1")
        change, removal, creation = await following
        assert isinstance(change, Changed)
        assert (change.kv.value, change.kv.revision) == (b"2", updated)
        assert isinstance(removal, Removed)
        assert removal.key == K + "a"
        assert removal.revision > updated
        assert isinstance(creation, Changed)

    async def test_what_is_bound_to_a_lease_goes_with_it_and_is_seen_to_go(self, store: Datastore) -> None:
        lease, other = await store.grant(60), await store.grant(60)
        assert lease != other
        created = await store.create(K + "a", b"1", lease)
        await store.commit(Plan.of(Create(K + "b", b"1", lease)))
        await store.create(K + "c", b"1", other)
        await store.create(K + "d", b"1")
        found = await store.get(K + "a")
        assert found is not None
        assert found.lease == lease
        following = asyncio.create_task(take(store.watch(K, created), 6))
        await store.revoke(lease)
        assert [item.key for item in (await store.list(K)).items] == [K + "c", K + "d"]
        *_, first, second = await following
        assert {type(first), type(second)} == {Removed}

    async def test_nothing_can_be_bound_to_a_lease_that_has_ended_and_ending_it_again_is_harmless(
        self, store: Datastore
    ) -> None:
        lease = await store.grant(60)
        await store.revoke(lease)
        with pytest.raises(LeaseGoneError):
            await store.create(K + "a", b"1", lease)
        with pytest.raises(LeaseGoneError):
            await store.commit(Plan.of(Create(K + "b", b"1", lease)))
        assert (await store.list(K)).items == ()
        await store.revoke(lease)


class TransactionalContract(DatastoreContract):
    """What a store with transactions does besides."""

    async def test_nothing_of_a_lost_group_is_written(self, store: Datastore) -> None:
        await store.create(K + "b", b"1")
        with pytest.raises(ConflictError):
            await store.commit(Plan.of(Create(K + "a", b"1"), Create(K + "b", b"2")))
        assert await store.get(K + "a") is None

    async def test_a_watch_shows_a_group_as_one_batch(self, store: Datastore) -> None:
        snapshot = await store.list(K)
        await store.commit(Plan.of(*(Create(f"{K}{number:02}", b"1") for number in range(40))))
        async with asyncio.timeout(5):
            async with aclosing(store.watch(K, snapshot.revision + 1)) as watch:
                async for batch in watch:
                    if not isinstance(batch[0], Progress):
                        assert len(batch) == 40
                        break
