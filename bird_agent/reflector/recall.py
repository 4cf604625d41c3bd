"""What the datastore has said, kept so that a reflector begins with it where the datastore does not answer.

Pure. Kept are the resources as they are stored and not the plan that follows from them: a plan has the text of its
passwords, resources have the names of the files. What is recalled is told as if the datastore had said it; when the
datastore answers, all of it is replaced at once, by way of no state in between."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple
from zlib import crc32

import msgspec

from weft.datastore.base import KeyValue, Snapshot
from weft.datastore.syncer import Deleted, InSync, Mirror, SyncEvent, Unreadable, Upserted
from weft.model import codec, keys
from weft.model.codec import StoredValue
from weft.model.errors import WeftError
from weft.model.keys import Key

_WHAT: Final = "what the datastore said to a weft reflector"
_VERSION: Final = 1


class UnusableError(WeftError):
    """The bytes are not, or no longer, what was kept for this reflector: do without."""


class _Header(msgspec.Struct, frozen=True, kw_only=True):
    """The first line. `endpoints` of the datastore that said it; `at_s`: when, since 1970; `checksum`: CRC-32 of the
    rest."""

    what: str
    version: int
    reflector: str
    endpoints: tuple[str, ...] = ()
    at_s: int
    checksum: int


class Kept(NamedTuple):
    """Events of everything that was kept, and when that was."""

    events: list[SyncEvent]
    at_s: int


class Whose(NamedTuple):
    """The reflector, and the endpoints of its datastore: a machine may be moved to another cluster."""

    reflector: str
    endpoints: tuple[str, ...]


def encode(whose: Whose, at_s: int, known: Mapping[Key, StoredValue | bytes]) -> bytes:
    """A line of JSON about the rest, and the rest: a MessagePack map of paths to values as the datastore has them."""
    items = {
        keys.path(key): value if isinstance(value, bytes) else codec.encode_stored(value)
        for key, value in known.items()
    }
    body = msgspec.msgpack.encode(items, order="deterministic")
    header = _Header(
        what=_WHAT,
        version=_VERSION,
        reflector=whose.reflector,
        endpoints=whose.endpoints,
        at_s=at_s,
        checksum=crc32(body),
    )
    return msgspec.json.encode(header) + b"\n" + body


def decode(whose: Whose, data: bytes) -> Kept:
    """Raises UnusableError. A value that this version cannot read is an event of its own."""
    first, _, body = data.partition(b"\n")
    try:
        header = msgspec.json.decode(first, type=_Header)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise UnusableError("it does not begin as it should") from None
    if header.what != _WHAT or header.version != _VERSION:
        raise UnusableError(f"it is {header.what!r} of version {header.version}, not {_WHAT!r} of {_VERSION}")
    if header.reflector != whose.reflector:
        raise UnusableError(f"it is of the reflector {header.reflector}")
    if header.endpoints and whose.endpoints and not set(header.endpoints) & set(whose.endpoints):
        said, ours = (", ".join(each) for each in (header.endpoints, whose.endpoints))
        raise UnusableError(f"it was said by a datastore at {said}, and ours is at {ours}")
    if header.checksum != crc32(body):
        raise UnusableError("it is damaged: its checksum is wrong")
    try:
        items = msgspec.msgpack.decode(body, type=dict[str, bytes])
    except msgspec.DecodeError:
        raise UnusableError("it is no list of resources") from None
    stored = tuple(KeyValue(path, value, 1) for path, value in items.items())
    return Kept(Mirror().on_snapshot(Snapshot(stored, 1)), header.at_s)


class Recall:
    """Between a syncer and a consumer, who is told nothing before everything has been read."""

    def __init__(self) -> None:
        self._known: dict[Key, StoredValue | bytes] = {}
        self._first: list[SyncEvent] = []
        self._recalled: frozenset[Key] | None = None
        self.answered = False
        """The datastore has said everything."""

    @property
    def recalling(self) -> bool:
        """The consumer goes by what was kept."""
        return self._recalled is not None and not self.answered

    @property
    def known(self) -> Mapping[Key, StoredValue | bytes]:
        """What the datastore has said; bytes where they cannot be read."""
        return self._known

    def on_recalled(self, events: Sequence[SyncEvent]) -> list[SyncEvent]:
        """What was kept, to one who is not answered; what the consumer is told."""
        if self.answered:
            return []
        self._recalled = frozenset(event.key for event in events if isinstance(event, Upserted | Unreadable))
        return [*events, InSync()]

    def on_datastore(self, batch: Sequence[SyncEvent]) -> Sequence[SyncEvent]:
        """What the consumer is told of it."""
        in_sync = False
        for event in batch:
            match event:
                case Upserted(key, value):
                    self._known[key] = value
                case Unreadable(key, raw):
                    self._known[key] = raw
                case Deleted(key):
                    self._known.pop(key, None)
                case InSync():
                    in_sync = True
        if self.answered:
            return batch
        self._first += batch
        if not in_sync:
            return []
        told, self._first, self.answered = self._first, [], True
        gone = [Deleted(key) for key in (self._recalled or frozenset()) - self._known.keys()]
        return [*gone, *told]
