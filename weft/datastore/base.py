"""The datastore port: what the rest of weft may ask of a shared key-value store.

Keys are full paths ("/calico/…"), values are bytes; nothing here knows what they mean. Revisions are those of
etcd: one counter for the whole store, and a key's revision is the one of its last write (0 is never a key's).

The port refuses to hide a lost race or a lost connection: both are errors whose type says what to do.
`DatastoreUnavailableError` from a write means that it may or may not have happened: read before you decide.
"""

from collections.abc import AsyncGenerator, Iterable, Iterator, Mapping, Sequence
from typing import Protocol, TypeAlias

from msgspec import Struct

MAX_GROUP = 100
"""Writes in one group: etcd refuses a transaction of more than 128 operations by default."""


class KeyValue(Struct, frozen=True):
    """One stored key; `revision` is that of its last write, `lease` what it goes away with (0: it stays)."""

    key: str
    value: bytes
    revision: int
    lease: int = 0


class Snapshot(Struct, frozen=True):
    """Everything under a prefix at one revision of the store; watch from `revision + 1` to miss nothing."""

    items: tuple[KeyValue, ...]
    revision: int


class Create(Struct, frozen=True):
    """Write a key that must not exist. `lease`: it goes away with this one (0: it stays)."""

    key: str
    value: bytes
    lease: int = 0


class Update(Struct, frozen=True):
    """Write a key whose revision must still be `revision`."""

    key: str
    value: bytes
    revision: int


class Delete(Struct, frozen=True):
    """Delete a key whose revision must still be `revision`; None: delete it if it is there."""

    key: str
    revision: int | None = None


Write: TypeAlias = Create | Update | Delete


class Plan(Struct, frozen=True):
    """Writes in an order in which the committer may stop after any of them and leave nothing broken.

    A store with transactions commits each group as one; a store without runs the writes one by one.
    """

    groups: tuple[tuple[Write, ...], ...]

    def __post_init__(self) -> None:
        for group in self.groups:
            if not 0 < len(group) < MAX_GROUP:
                raise ValueError(f"a group has 1 to {MAX_GROUP - 1} writes, not {len(group)}")
            if len({write.key for write in group}) != len(group):
                raise ValueError("a group writes no key twice")

    @classmethod
    def of(cls, *writes: Write) -> "Plan":
        """One group of these writes; no writes, no group."""
        return cls((writes,) if writes else ())

    @classmethod
    def chunked(cls, writes: Iterable[Write], size: int = MAX_GROUP - 1) -> "Plan":
        """As few groups as hold these writes in this order."""
        flat = tuple(writes)
        return cls(tuple(flat[start : start + size] for start in range(0, len(flat), size)))

    def ungrouped(self) -> "Plan":
        """The same writes, each on its own: how a group that lost is tried again member by member."""
        return Plan(tuple((write,) for write in self.writes()))

    def writes(self) -> Iterator[Write]:
        """All writes in order."""
        for group in self.groups:
            yield from group

    def __bool__(self) -> bool:
        return bool(self.groups)


class CommitResult(Struct, frozen=True):
    """What a committed plan left behind: the revision of each key's last write (or of its deletion)."""

    revisions: Mapping[str, int]


class Changed(Struct, frozen=True):
    """A key was created or updated."""

    kv: KeyValue


class Removed(Struct, frozen=True):
    """A key was deleted, at this revision of the store."""

    key: str
    revision: int


class Progress(Struct, frozen=True):
    """Everything up to this revision has been seen: a watch may resume behind it."""

    revision: int


Event: TypeAlias = Changed | Removed | Progress


class Datastore(Protocol):
    """A key-value store with revisions. Every method raises `DatastoreUnavailableError` when nobody answers."""

    async def get(self, key: str) -> KeyValue | None:
        """The key's value, or None."""
        ...

    async def get_many(self, keys: Sequence[str]) -> list[KeyValue | None]:
        """The values of several keys in the order asked; one round trip, one revision (up to 99 keys)."""
        ...

    async def list(self, prefix: str) -> Snapshot:
        """Every key that starts with `prefix`, in key order."""
        ...

    def pieces(self, prefix: str) -> AsyncGenerator[Snapshot, None]:
        """What `list` gives, piece by piece in key order and all at one revision, so that nobody holds all of it.

        `CompactedError` when that revision is gone before the last piece."""
        ...

    async def create(self, key: str, value: bytes, lease: int = 0) -> int:
        """Write a new key and return its revision; `AlreadyExistsError` if it is there, `LeaseGoneError`."""
        ...

    async def update(self, key: str, value: bytes, revision: int) -> int:
        """Replace the value last written at `revision`; `ConflictError` if changed, `NotFoundError` if gone."""
        ...

    async def delete(self, key: str, revision: int | None = None) -> None:
        """Delete a key; `NotFoundError` if it is gone, `ConflictError` if its revision is another than the given."""
        ...

    async def commit(self, plan: Plan) -> CommitResult:
        """Commit group after group. `ConflictError` names the key that lost; earlier groups stay committed.
        `LeaseGoneError` where a lease of the group has ended.

        In a transactional store nothing of the losing group is written, in another the writes before the loser are.
        """
        ...

    def watch(self, prefix: str, from_revision: int) -> AsyncGenerator[Sequence[Event], None]:
        """Changes under `prefix` from `from_revision` on (inclusive), one transaction never split between batches.

        The first batch is a `Progress` that says that the watch stands. It ends only with an error: `CompactedError`
        (take a fresh snapshot; if its `compacted` is below `requested - 1` the store is older than what was read from
        it, and known revisions mean nothing) or `DatastoreUnavailableError` (watch again from behind the last event).
        """
        ...

    async def grant(self, time_s: int) -> int:
        """A new lease: what is bound to it is deleted when it is revoked, or this much later at the latest.

        A store may take more time than asked for."""
        ...

    async def revoke(self, lease: int) -> None:
        """End a lease with all that is bound to it; harmless for one that has ended."""
        ...

    async def close(self) -> None:
        """Release connections; running calls and watches end with `DatastoreUnavailableError`."""
        ...
