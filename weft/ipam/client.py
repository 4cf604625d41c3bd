"""IPAM on a datastore: asks the allocator, reads for it, commits what it decides, and tries again when a race is lost.

It remembers this node's own blocks and affinities and the handles it wrote, with their revisions, so
that a warm assignment is one commit and no read. What it remembers is a guess: every write compares
revisions, and a write that loses makes it forget everything and read again."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Collection, Coroutine, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from functools import partial
from typing import Any, TypeAlias, TypeGuard, TypeVar

from weft.datastore.base import MAX_GROUP, Datastore, KeyValue, Plan, Write
from weft.ipam.allocator import AssignRequest, assign
from weft.ipam.context import ContextSource
from weft.ipam.plan import Answer, Ask, Change, Deciding, Decision, Fetch, Stored
from weft.ipam.pools import IPAMContext, contains, pool_of, selects_node
from weft.ipam.release import (
    block_in,
    blocks_in,
    listed_blocks,
    release_addresses,
    release_affinity,
    release_by_handle,
)
from weft.model import codec, keys
from weft.model.address import IPAddress, IPNetwork
from weft.model.errors import ConflictError, ValidationError
from weft.model.ipam import AffinityValue, BlockValue, HandleValue
from weft.model.keys import AffinityKey, BlockKey, HandleKey, Key, Owner

ATTEMPTS = 50
"""Lost races before giving up; the loser of each knows that somebody else won."""

T = TypeVar("T")
Addresses: TypeAlias = tuple[IPAddress, ...]
Decider: TypeAlias = Callable[[IPAMContext], Deciding]


class IPAMClient:
    """IPAM for one node. One call decides and commits at a time; others wait their turn."""

    def __init__(
        self,
        store: Datastore,
        node: str,
        source: ContextSource,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._store = store
        self._owner = Owner("host", node)
        self._source = source
        self._now = now
        self._pause = pause
        self._turn = asyncio.Lock()
        self._memory = _Memory(self._owner)

    async def assign(
        self,
        request: AssignRequest,
        after: Callable[[Addresses], Sequence[Write]] = lambda addresses: (),
        overlap: Callable[[Addresses, AsyncExitStack], Awaitable[None]] | None = None,
    ) -> Addresses:
        """Addresses for the request, committed together with the caller's own writes, which come last.

        `overlap` runs while the commit is under way and registers what undoes it; when the commit loses,
        that is undone before the next try. When `overlap` itself fails, its error comes out once the
        commit has ended, which may have succeeded: release the handle then.

        ConflictError: one of the caller's own writes lost. NoFreeAddressError, AddressInUseError."""

        def decide(context: IPAMContext) -> Deciding:
            return assign(request, context, self._now())

        async with self._turn:
            handle = HandleKey(request.holder.handle_id)
            self._memory.bet_on_absence(handle)
            try:
                decision = await self._settle(decide, after=after, overlap=overlap)
            finally:
                self._memory.end_bet(handle)
        return decision.addresses

    async def release_by_handle(
        self, handle_id: str, keep: Collection[IPAddress] = (), before: Sequence[Write] = ()
    ) -> Addresses:
        """Free what the handle holds except `keep`, after the caller's own writes; the addresses freed.

        Idempotent. ConflictError: one of the caller's own writes lost, nothing was released."""
        async with self._turn:
            decision = await self._settle(lambda _: release_by_handle(handle_id, keep), before=before)
            await self._give_up_deselected(decision)
        return decision.addresses

    async def release_addresses(self, addresses: Iterable[IPAddress], handle_id: str | None = None) -> Addresses:
        """Free those of the addresses that are held (by the handle, if given); the addresses freed."""
        wanted = tuple(addresses)
        async with self._turn:
            decision = await self._settle(lambda context: release_addresses(wanted, context, handle_id))
            await self._give_up_deselected(decision)
        return decision.addresses

    async def release_affinity(self, cidr: IPNetwork, owner: Owner | None = None, must_be_empty: bool = False) -> None:
        """Give up a block: of this node, or of another owner. Idempotent."""
        async with self._turn:
            await self._settle(lambda _: release_affinity(owner or self._owner, cidr, must_be_empty))

    async def release_node(self, name: str) -> None:
        """Give up all blocks of a node that is gone; addresses in use stay held by their handles."""
        owner = Owner("host", name)
        affinities = await self._store.list(keys.affinity_prefix(owner))
        cidrs = {key.cidr for item in affinities.items if isinstance(key := keys.parse(item.key), AffinityKey)}
        for version in (4, 6):
            # A node that died between the two phases of a claim left a block without an affinity.
            every = blocks_in(await self._scan(keys.block_prefix(version)))
            cidrs |= {cidr for cidr, stored in every.items() if (block := block_in(stored)) and block.belongs_to(owner)}
        for cidr in cidrs:
            await self.release_affinity(cidr, owner)

    async def addresses_of(self, handle_id: str) -> Addresses:
        """What the handle holds now, read from the datastore."""
        key = HandleKey(handle_id)
        handle = (await self._fetch((key,)))[key]
        if handle is None or not isinstance(handle.value, HandleValue):
            return ()
        blocks = await self._fetch(listed_blocks(handle.value))
        return tuple(
            address for stored in blocks.values() if (block := block_in(stored)) for address in block.held_by(handle_id)
        )

    async def handles(self, prefix: str) -> list[str]:
        """The ids of the handles that begin so."""
        found = await self._store.list(keys.HANDLES + prefix)
        return [key.handle_id for item in found.items if isinstance(key := keys.parse(item.key), HandleKey)]

    async def holder(self, handle_id: str) -> Mapping[str, str] | None:
        """What is noted about the holder of the handle's first address; None if it holds none."""
        addresses = await self.addresses_of(handle_id)
        if not addresses:
            return None
        found = await self._scan(keys.block_prefix(addresses[0].version))
        for stored in blocks_in(found).values():
            block = block_in(stored)
            if block is not None and contains(block.cidr, addresses[0]):
                attribute = block.holder(addresses[0])
                return attribute.secondary if attribute else None
        return None

    def forget(self) -> None:
        """Drop what is remembered, for instance because the datastore was restored."""
        self._memory.clear()

    async def _settle(
        self,
        decider: Decider,
        before: Sequence[Write] = (),
        after: Callable[[Addresses], Sequence[Write]] = lambda addresses: (),
        overlap: Callable[[Addresses, AsyncExitStack], Awaitable[None]] | None = None,
    ) -> Decision:
        """Decide and commit until it holds."""
        lost = 0
        while True:
            decision = await self._decide(decider)
            own = () if not decision.final else tuple(after(decision.addresses))
            writes = (
                [*before, *(change.write() for change in decision.changes), *own]
                if decision.final
                else [change.write() for change in decision.changes]
            )
            try:
                if decision.final and overlap is not None:
                    await self._commit_with(decision, writes, overlap)
                else:
                    await self._commit(decision, writes)
            except ConflictError as conflict:
                lost += 1
                foreign = {write.key for write in (*before, *own)}
                if conflict.key in foreign or lost == ATTEMPTS:
                    raise
                # Whoever won needs a moment; the more losers, the longer they spread out.
                await self._pause(random.uniform(0, 0.001 * (lost - 1)))  # noqa: S311
                continue
            if decision.final:
                return decision

    async def _decide(self, decider: Decider) -> Decision:
        deciding = decider(await self._source.context())
        try:
            ask = next(deciding)
            while True:
                ask = deciding.send(await self._answer(ask))
        except StopIteration as done:
            decision: Decision = done.value
            return decision

    async def _commit(self, decision: Decision, writes: Sequence[Write]) -> None:
        """Commit and remember. Any failure forgets everything: what was read may be old, or half of it written."""
        if not writes:
            return
        try:
            result = await self._store.commit(Plan.chunked(writes))
        except BaseException:
            self._memory.clear()
            raise
        for change in decision.changes:
            stored = None
            if change.value is not None:
                raw = change.unknown_fields()
                stored = Stored(change.value, raw, result.revisions[keys.path(change.key)])
            self._memory.wrote(change, stored)

    async def _commit_with(
        self,
        decision: Decision,
        writes: Sequence[Write],
        overlap: Callable[[Addresses, AsyncExitStack], Awaitable[None]],
    ) -> None:
        commit = await launched(self._commit(decision, writes))
        async with AsyncExitStack() as undo:
            try:
                await overlap(decision.addresses, undo)
            except BaseException:
                await asyncio.wait([commit])
                commit.exception()
                raise
            await commit
            undo.pop_all()

    async def _give_up_deselected(self, decision: Decision) -> None:
        """A block that a release left empty goes if its pool no longer selects the node."""
        emptied = [change.value for change in decision.changes if self._is_own_and_empty(change.value)]
        context = await self._source.context() if emptied else None
        for block in emptied:
            cidr = block.cidr
            pool = pool_of(context.pools, cidr.network_address) if context else None
            if context and pool and not selects_node(pool, context):
                await self._settle(partial(_release_if_empty, self._owner, cidr))

    def _is_own_and_empty(self, value: object) -> TypeGuard[BlockValue]:
        return (
            isinstance(value, BlockValue)
            and value.owner == self._owner
            and len(value.unallocated) == value.cidr.num_addresses
        )

    async def _answer(self, ask: Ask) -> Answer:
        known = self._memory.recall(ask)
        if known is not None:
            return known
        if isinstance(ask, Fetch):
            found = await self._fetch(ask.keys)
        else:
            found = await self._scan(ask.prefix)
        self._memory.read(ask, found)
        return found

    async def _scan(self, prefix: str) -> dict[Key, Stored | None]:
        items = (await self._store.list(prefix)).items
        return {key: _stored(key, item) for item in items if (key := keys.parse(item.key)) is not None}

    async def _fetch(self, wanted: Sequence[Key]) -> dict[Key, Stored | None]:
        found: dict[Key, Stored | None] = {}
        for start in range(0, len(wanted), MAX_GROUP - 1):
            part = wanted[start : start + MAX_GROUP - 1]
            items = await self._store.get_many([keys.path(key) for key in part])
            found.update((key, _stored(key, item) if item else None) for key, item in zip(part, items, strict=True))
        return found


_TURNS_TO_SEND = 3
"""Turns of the event loop until a gRPC call that was started is on the wire (measured: 2)."""


async def launched(call: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
    """Start a call to the datastore and come back once it is under way, so that the caller can use the wait."""
    task = asyncio.ensure_future(call)
    for _ in range(_TURNS_TO_SEND):
        await asyncio.sleep(0)
    return task


class _Memory:
    """What is believed to be stored: own affinities and blocks, and handles."""

    def __init__(self, owner: Owner) -> None:
        self._owner = owner
        self._values: dict[Key, Stored | None] = {}
        self._scans: dict[str, dict[Key, Stored | None]] = {}

    def clear(self) -> None:
        self._values.clear()
        self._scans.clear()

    def bet_on_absence(self, handle: HandleKey) -> None:
        """Take a handle that nobody here wrote for absent; a lost bet is a lost race."""
        self._values.setdefault(handle, None)

    def end_bet(self, handle: HandleKey) -> None:
        """From now on its absence is nothing that is known."""
        if self._values.get(handle) is None:
            self._values.pop(handle, None)

    def recall(self, ask: Ask) -> Answer | None:
        """The answer, if all of it is known."""
        if not isinstance(ask, Fetch):
            return self._scans.get(ask.prefix)
        if all(key in self._values for key in ask.keys):
            return {key: self._values[key] for key in ask.keys}
        return None

    def read(self, ask: Ask, found: Mapping[Key, Stored | None]) -> None:
        """Keep what is this node's."""
        if not isinstance(ask, Fetch):
            if ask.prefix.startswith(keys.affinity_prefix(self._owner)):
                self._scans[ask.prefix] = dict(found)
            return
        for key, stored in found.items():
            if isinstance(key, BlockKey) and self._is_own(stored):
                self._values[key] = stored

    def wrote(self, change: Change, stored: Stored | None) -> None:
        """A change was committed."""
        key = change.key
        match key:
            case HandleKey():
                self._put(key, stored)
            case BlockKey():
                self._put(key, stored if self._is_own(stored) else None)
            case AffinityKey(owner, cidr) if owner == self._owner:
                scan = self._scans.get(keys.affinity_prefix(owner, cidr.version))
                if scan is not None and stored is None:
                    scan.pop(key, None)
                elif scan is not None:
                    scan[key] = stored

    def _put(self, key: Key, stored: Stored | None) -> None:
        if stored is None:
            self._values.pop(key, None)
        else:
            self._values[key] = stored

    def _is_own(self, stored: Stored | None) -> bool:
        block = block_in(stored)
        return block is not None and block.belongs_to(self._owner)


def _stored(key: Key, item: KeyValue) -> Stored:
    try:
        value = codec.decode_stored(key, item.value)
    except ValidationError:
        return Stored(None, item.value, item.revision)
    if not isinstance(value, (BlockValue, AffinityValue, HandleValue)):
        return Stored(None, item.value, item.revision)
    return Stored(value, item.value, item.revision)


def _release_if_empty(owner: Owner, cidr: IPNetwork, context: IPAMContext) -> Deciding:
    return release_affinity(owner, cidr, must_be_empty=True)
