"""Turn a datastore into one ordered stream of decoded events that survives lost connections and compaction.

First what is stored is emitted in pieces, as it is read: absence means nothing then. When every prefix has been read
`InSync` comes, once. After that each batch is what one transaction changed under one prefix. When a watch cannot be
resumed a fresh snapshot is taken and only what differs from what was emitted before is. A value that cannot be decoded
is emitted as unreadable, with its bytes, and reported in the status: what it means is the consumer's to say, for whom
absence may open what the value closed. A key that is not of the model is passed over.
"""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing
from typing import TypeAlias, assert_never

from msgspec import Struct, field

from weft.datastore.base import Changed, Datastore, Event, KeyValue, Progress, Removed, Snapshot
from weft.model import codec, keys
from weft.model.codec import Value
from weft.model.errors import CompactedError, DatastoreUnavailableError, ValidationError
from weft.model.keys import Key

log = logging.getLogger(__name__)

FIRST_BACK_OFF_S = 0.1
LONGEST_BACK_OFF_S = 5.0


class Upserted(Struct, frozen=True):
    """A key has this value now."""

    key: Key
    value: Value
    revision: int


class Unreadable(Struct, frozen=True):
    """A key has a value now that cannot be decoded; `reason` says in words why."""

    key: Key
    raw: bytes
    reason: str


class Deleted(Struct, frozen=True):
    """A key that was upserted or unreadable before has no value any more."""

    key: Key


class InSync(Struct, frozen=True):
    """Everything that is stored has been emitted: absence means absence from now on."""


SyncEvent: TypeAlias = Upserted | Unreadable | Deleted | InSync
Sink: TypeAlias = Callable[[Sequence[SyncEvent]], None]


class SyncStatus(Struct, frozen=True):
    """How the syncer does; `undecodable` maps the path of each unusable value to what is wrong with it."""

    connected: bool
    in_sync: bool
    revision: int
    last_error: str | None
    undecodable: dict[str, str]


class Mirror(Struct):
    """What has been emitted for one prefix: pure, so the difference can be tested without a store."""

    known: dict[Key, int] = field(default_factory=dict)
    """Key -> revision of everything stored that is of the model."""
    undecodable: dict[Key, str] = field(default_factory=dict)
    """Key -> what is wrong with its value; these are known, too."""

    def on_snapshot(self, snapshot: Snapshot) -> list[SyncEvent]:
        """The events that lead from what was emitted to the snapshot."""
        stored = {key: item for item in snapshot.items if (key := keys.parse(item.key)) is not None}
        events: list[SyncEvent] = []
        for key in [key for key in self.known if key not in stored]:
            events += self._remove(key)
        for key, item in stored.items():
            if self.known.get(key) != item.revision:
                events.append(self._put(key, item))
        return events

    def on_piece(self, piece: Snapshot) -> list[SyncEvent]:
        """The events of a part of the first snapshot."""
        return [self._put(key, item) for item in piece.items if (key := keys.parse(item.key)) is not None]

    def on_events(self, batch: Sequence[Event]) -> list[SyncEvent]:
        """The events of one watch batch; what is already known is not repeated."""
        events: list[SyncEvent] = []
        for event in batch:
            match event:
                case Changed(kv):
                    key = keys.parse(kv.key)
                    if key is not None and self.known.get(key, 0) < kv.revision:
                        events.append(self._put(key, kv))
                case Removed(path, revision):
                    key = keys.parse(path)
                    if key is not None and self.known.get(key, revision) <= revision:
                        events += self._remove(key)
                case Progress():
                    pass
                case _:
                    assert_never(event)
        return events

    def forget_revisions(self) -> None:
        """The store went back in time: its revisions no longer compare with ours, so everything counts as new."""
        self.known = dict.fromkeys(self.known, -1)

    def _put(self, key: Key, item: KeyValue) -> SyncEvent:
        self.known[key] = item.revision
        try:
            value = codec.decode_stored(key, item.value)
        except ValidationError as error:
            log.warning("%s cannot be read: %s", item.key, error)
            self.undecodable[key] = str(error)
            return Unreadable(key, item.value, str(error))
        self.undecodable.pop(key, None)
        return Upserted(key, value, item.revision)

    def _remove(self, key: Key) -> list[SyncEvent]:
        self.undecodable.pop(key, None)
        return [Deleted(key)] if self.known.pop(key, None) is not None else []


class Syncer:
    """Keeps one sink up to date with several prefixes of a datastore."""

    def __init__(
        self, store: Datastore, prefixes: Sequence[str], turn: Callable[[], Awaitable[None]] | None = None
    ) -> None:
        """`turn` is awaited before a batch of changes is looked at: the moment for what is more urgent."""
        self._store = store
        self._turn = turn
        self._mirrors = {prefix: Mirror() for prefix in prefixes}
        self._revisions = dict.fromkeys(prefixes, 0)
        self._connected = dict.fromkeys(prefixes, False)
        self._in_sync = False
        self._last_error: str | None = None

    @property
    def status(self) -> SyncStatus:
        """How it stands now."""
        return SyncStatus(
            connected=all(self._connected.values()),
            in_sync=self._in_sync,
            revision=min(self._revisions.values(), default=0),
            last_error=self._last_error,
            undecodable={
                keys.path(key): why for mirror in self._mirrors.values() for key, why in mirror.undecodable.items()
            },
        )

    async def run(self, sink: Sink) -> None:
        """Feed the sink until cancelled. An exception of the sink ends it: a consumer that failed is not consistent."""
        for prefix in self._mirrors:
            await self._read(prefix, sink)
        self._in_sync = True
        sink([InSync()])
        async with asyncio.TaskGroup() as group:
            for prefix in self._mirrors:
                group.create_task(self._follow(prefix, sink))

    async def _read(self, prefix: str, sink: Sink) -> None:
        """What is stored, for the first time: in pieces, since all of a large cluster at once is a multiple of what
        stays of it. If that is interrupted, as the difference to a whole snapshot."""
        mirror = self._mirrors[prefix]
        try:
            async with aclosing(self._store.pieces(prefix)) as pieces:
                async for piece in pieces:
                    self._deliver(sink, mirror.on_piece(piece))
                    self._revisions[prefix] = piece.revision
        except (DatastoreUnavailableError, CompactedError) as error:
            self._failed(prefix, error)
            self._deliver(sink, mirror.on_snapshot(await self._snapshot(prefix)))

    async def _snapshot(self, prefix: str) -> Snapshot:
        """Read a prefix, however long the store stays away."""
        back_off = _BackOff()
        while True:
            try:
                snapshot = await self._store.list(prefix)
            except DatastoreUnavailableError as error:
                self._failed(prefix, error)
                await asyncio.sleep(back_off.next_s())
            else:
                self._revisions[prefix] = snapshot.revision
                return snapshot

    async def _follow(self, prefix: str, sink: Sink) -> None:
        """Watch a prefix for ever; from a fresh snapshot when the watch cannot be resumed."""
        back_off = _BackOff()
        mirror = self._mirrors[prefix]
        while True:
            try:
                async with aclosing(self._store.watch(prefix, self._revisions[prefix] + 1)) as watch:
                    async for batch in watch:
                        if self._turn is not None:
                            await self._turn()
                        self._connected[prefix] = True
                        back_off.reset()
                        self._deliver(sink, mirror.on_events(batch))
                        self._revisions[prefix] = max(self._revisions[prefix], *map(_revision, batch))
            except DatastoreUnavailableError as error:
                self._failed(prefix, error)
                await asyncio.sleep(back_off.next_s())
            except CompactedError as error:
                self._failed(prefix, error)
                if error.compacted < error.requested - 1:
                    log.warning("%s: the datastore is older than what was read from it; reading all again", prefix)
                    mirror.forget_revisions()
                await asyncio.sleep(back_off.next_s())
                self._deliver(sink, mirror.on_snapshot(await self._snapshot(prefix)))

    @staticmethod
    def _deliver(sink: Sink, events: list[SyncEvent]) -> None:
        if events:
            sink(events)

    def _failed(self, prefix: str, error: Exception) -> None:
        if self._connected[prefix] or str(error) != self._last_error:
            log.warning("%s: %s", prefix, error)
        self._connected[prefix] = False
        self._last_error = str(error)


class _BackOff:
    """Doubling waits with jitter, so that a thousand nodes do not come back in step."""

    def __init__(self) -> None:
        self._wait_s = FIRST_BACK_OFF_S

    def next_s(self) -> float:
        wait_s, self._wait_s = self._wait_s, min(self._wait_s * 2, LONGEST_BACK_OFF_S)
        return wait_s * random.uniform(0.5, 1.0)  # noqa: S311 - jitter is no secret

    def reset(self) -> None:
        self._wait_s = FIRST_BACK_OFF_S


def _revision(event: Event) -> int:
    match event:
        case Changed(kv):
            return kv.revision
        case Removed(_, revision) | Progress(revision):
            return revision
        case _:
            assert_never(event)
