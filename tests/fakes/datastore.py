"""A datastore in memory that refuses as etcd does: revisions, comparisons, watches from a revision, compaction.

`transactional=False` is a store without transactions: a plan's writes are done one after another and those before a
loser stay. Faults are injected by operation and key; somebody else's writes are the synchronous `put` and `remove`.
"""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from dataclasses import dataclass, field

from weft.datastore.base import (
    MAX_GROUP,
    Changed,
    CommitResult,
    Create,
    Delete,
    Event,
    KeyValue,
    Plan,
    Progress,
    Removed,
    Snapshot,
    Update,
    Write,
)
from weft.model.errors import (
    AlreadyExistsError,
    CompactedError,
    ConflictError,
    DatastoreUnavailableError,
    LeaseGoneError,
    NotFoundError,
)


class CrashedError(Exception):
    """The process "died" here: no WeftError, so that nothing under test handles it."""


KEYS_IN_A_PIECE = 3


@dataclass(slots=True)
class _Fault:
    op: str
    key: str | None
    error: Exception
    times: int


@dataclass(slots=True)
class _Watcher:
    prefix: str
    pending: deque[tuple[Event, ...]] = field(default_factory=deque)
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    error: Exception | None = None

    def offer(self, events: Sequence[Event]) -> None:
        mine = tuple(event for event in events if isinstance(event, Progress) or _key(event).startswith(self.prefix))
        if mine:
            self.pending.append(mine)
            self.wake.set()

    def end(self, error: Exception) -> None:
        self.error = error
        self.wake.set()


class MemoryDatastore:
    """`weft.datastore.base.Datastore`; `calls` lists every operation asked for, in order."""

    def __init__(self, *, transactional: bool = True) -> None:
        self.transactional = transactional
        self.revision = 1
        self.calls: list[tuple[str, str]] = []
        self.before_write: Callable[[Write], None] | None = None
        """Called before each write is compared and done; may `put`, `remove` or raise."""
        self._items: dict[str, KeyValue] = {}
        self._history: list[tuple[int, tuple[Event, ...]]] = []
        self._compacted = 0
        self._watchers: list[_Watcher] = []
        self._faults: list[_Fault] = []
        self._races: dict[str, bytes | None] = {}
        self._leases: set[int] = set()
        self._granted = 0
        self._crash_in: int | None = None
        self._down = False

    # What a test does to the store.

    def put(self, key: str, value: bytes) -> int:
        """Somebody else writes unconditionally."""
        self._apply((Update(key, value, 0),))
        return self.revision

    def remove(self, key: str) -> None:
        """Somebody else deletes the key, if it is there."""
        self._apply((Delete(key),))

    def value(self, key: str) -> bytes | None:
        """What is stored, without counting as a call."""
        item = self._items.get(key)
        return item.value if item else None

    def items(self, prefix: str = "") -> dict[str, bytes]:
        """Everything stored under a prefix, without counting as a call."""
        return {key: item.value for key, item in sorted(self._items.items()) if key.startswith(prefix)}

    def expire(self, lease: int) -> None:
        """The time of a lease is over."""
        self._leases.discard(lease)
        bound = [key for key, item in self._items.items() if lease and item.lease == lease]
        self._apply([Delete(key) for key in bound])

    def compact(self, revision: int | None = None) -> None:
        """Forget history up to a revision (default: all); watches that need older events fail from now on."""
        self._compacted = self.revision if revision is None else revision
        self._history = [entry for entry in self._history if entry[0] > self._compacted]

    def fail(self, op: str, key: str | None = None, error: Exception | None = None, times: int = 1) -> None:
        """The next `times` operations of that name ("get", "list", "create", …; for that key) raise `error`."""
        self._faults.append(_Fault(op, key, error or DatastoreUnavailableError("injected"), times))

    def crash_before_write(self, number: int) -> None:
        """The process dies before its `number`-th write from now (1: the next); a transaction is all or nothing."""
        self._crash_in = number

    def lose_race(self, key: str, value: bytes | None) -> None:
        """Just before the next write of `key`, somebody else writes `value` (None: deletes it)."""
        self._races[key] = value

    def disconnect(self) -> None:
        """Every call fails and every watch ends until `reconnect`."""
        self._down = True
        for watcher in self._watchers:
            watcher.end(DatastoreUnavailableError("disconnected"))

    def reconnect(self) -> None:
        """Answer again."""
        self._down = False

    def restore(self, items: dict[str, bytes]) -> None:
        """Go back in time, as from a backup: other contents, revisions that start again, watches that end."""
        self._items, self._history, self._compacted, self.revision = {}, [], 0, 1
        for key, value in items.items():
            self.put(key, value)
        for watcher in self._watchers:
            watcher.end(DatastoreUnavailableError("restored"))

    def send_progress(self) -> None:
        """Tell every watch that it has seen everything up to now."""
        for watcher in self._watchers:
            watcher.offer((Progress(self.revision),))

    # The port.

    async def get(self, key: str) -> KeyValue | None:
        self._called("get", key)
        return self._items.get(key)

    async def get_many(self, keys: Sequence[str]) -> list[KeyValue | None]:
        if len(keys) >= MAX_GROUP:
            raise ValueError(f"at most {MAX_GROUP - 1} keys at a time, not {len(keys)}")
        for key in keys:
            self._check("get", key)
        self._called("get_many", ",".join(keys))
        return [self._items.get(key) for key in keys]

    async def list(self, prefix: str) -> Snapshot:
        self._called("list", prefix)
        found = sorted((key, item) for key, item in self._items.items() if key.startswith(prefix))
        return Snapshot(tuple(item for _, item in found), self.revision)

    async def pieces(self, prefix: str) -> AsyncGenerator[Snapshot, None]:
        self._called("list", prefix)
        found = [self._items[key] for key in sorted(self._items) if key.startswith(prefix)]
        revision = self.revision
        for start in range(0, max(len(found), 1), KEYS_IN_A_PIECE):
            if start:
                self._called("list", prefix)
            if revision < self._compacted:
                raise CompactedError(revision, self._compacted)
            yield Snapshot(tuple(found[start : start + KEYS_IN_A_PIECE]), revision)

    async def create(self, key: str, value: bytes, lease: int = 0) -> int:
        self._called("create", key)
        if self._attempt((Create(key, value, lease),)) is not None:
            raise AlreadyExistsError(key)
        return self.revision

    async def update(self, key: str, value: bytes, revision: int) -> int:
        self._called("update", key)
        self._raise_if_lost(self._attempt((Update(key, value, revision),)))
        return self.revision

    async def delete(self, key: str, revision: int | None = None) -> None:
        self._called("delete", key)
        present = key in self._items
        self._raise_if_lost(self._attempt((Delete(key, revision),)))
        if not present:
            raise NotFoundError(key)

    async def commit(self, plan: Plan) -> CommitResult:
        self._called("commit", ",".join(write.key for write in plan.writes()))
        revisions: dict[str, int] = {}
        for group in plan.groups if self.transactional else plan.ungrouped().groups:
            lost = self._attempt(group)
            if lost is not None:
                raise ConflictError(lost)
            revisions.update((write.key, self.revision) for write in group)
        return CommitResult(revisions)

    async def watch(self, prefix: str, from_revision: int) -> AsyncGenerator[Sequence[Event], None]:
        self._called("watch", prefix)
        if 0 < from_revision <= self._compacted:
            raise CompactedError(from_revision, self._compacted)
        if self.revision < from_revision - 1:
            raise CompactedError(from_revision, self.revision)
        watcher = _Watcher(prefix)
        watcher.offer((Progress(from_revision - 1),))
        for revision, events in self._history:
            if revision >= from_revision > 0:
                watcher.offer(events)
        self._watchers.append(watcher)
        try:
            while True:
                while watcher.pending:
                    yield watcher.pending.popleft()
                if watcher.error is not None:
                    raise watcher.error
                watcher.wake.clear()
                await watcher.wake.wait()
        finally:
            self._watchers.remove(watcher)

    async def grant(self, time_s: int) -> int:
        self._called("grant", str(time_s))
        self._granted += 1
        self._leases.add(self._granted)
        return self._granted

    async def revoke(self, lease: int) -> None:
        self._called("revoke", str(lease))
        self.expire(lease)

    async def close(self) -> None:
        self.disconnect()

    # How it is done.

    def _called(self, op: str, key: str) -> None:
        self.calls.append((op, key))
        self._check(op, key)

    def _check(self, op: str, key: str) -> None:
        if self._down:
            raise DatastoreUnavailableError("disconnected")
        for fault in self._faults:
            if fault.times > 0 and fault.op == op and fault.key in (None, key):
                fault.times -= 1
                raise fault.error

    def _attempt(self, group: tuple[Write, ...]) -> str | None:
        """Do the writes if all comparisons hold; otherwise the key that lost."""
        for write in group:
            self._disturb(write)
            if isinstance(write, Create) and write.lease and write.lease not in self._leases:
                raise LeaseGoneError(write.lease)
        for write in group:
            item = self._items.get(write.key)
            actual = item.revision if item else 0
            expected = 0 if isinstance(write, Create) else write.revision
            if expected is not None and actual != expected:
                return write.key
        self._apply(group)
        return None

    def _disturb(self, write: Write) -> None:
        if self._crash_in is not None:
            self._crash_in -= 1
            if self._crash_in == 0:
                self._crash_in = None
                raise CrashedError(write.key)
        if self.before_write is not None:
            self.before_write(write)
        if write.key in self._races:
            value = self._races.pop(write.key)
            if value is None:
                self.remove(write.key)
            else:
                self.put(write.key, value)

    def _apply(self, group: Sequence[Write]) -> None:
        revision = self.revision + 1
        events = tuple(self._events(group, revision))
        if not events:
            return
        self.revision = revision
        self._history.append((revision, events))
        for watcher in self._watchers:
            watcher.offer(events)

    def _events(self, group: Sequence[Write], revision: int) -> Iterator[Event]:
        for write in group:
            if isinstance(write, Delete):
                if self._items.pop(write.key, None) is not None:
                    yield Removed(write.key, revision)
            else:
                item = KeyValue(write.key, write.value, revision, write.lease if isinstance(write, Create) else 0)
                self._items[write.key] = item
                yield Changed(item)

    def _raise_if_lost(self, lost: str | None) -> None:
        if lost is not None:
            raise ConflictError(lost) if lost in self._items else NotFoundError(lost)


def _key(event: Changed | Removed) -> str:
    return event.kv.key if isinstance(event, Changed) else event.key
