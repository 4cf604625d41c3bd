"""What the allocator asks for and answers with: reads, changes and decisions. Values only.

A decision's changes are in an order in which the writer may stop after any of them: what a crash
leaves behind is found and used, or released, by a later call with the same handle."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from typing import TypeAlias

from msgspec import Struct

from weft.datastore.base import Create, Delete, Update, Write
from weft.model import codec, keys
from weft.model.address import IPAddress
from weft.model.ipam import AffinityValue, BlockValue, HandleValue
from weft.model.keys import Key

IPAMValue: TypeAlias = BlockValue | AffinityValue | HandleValue


class Stored(Struct, frozen=True):
    """What a key holds now. `value` is None where it could not be understood: such a key is left alone.

    `raw` is what to take unknown fields from when the key is rewritten; b"" where there are none."""

    value: IPAMValue | None
    raw: bytes
    revision: int


class Fetch(Struct, frozen=True):
    """Read these keys."""

    keys: tuple[Key, ...]


class Scan(Struct, frozen=True):
    """Read everything under a prefix."""

    prefix: str


Ask: TypeAlias = Fetch | Scan
Answer: TypeAlias = Mapping[Key, Stored | None]


class Change(Struct, frozen=True):
    """A key from `previous` (None: absent) to `value` (None: deleted)."""

    key: Key
    value: IPAMValue | None
    previous: Stored | None

    def write(self) -> Write:
        path = keys.path(self.key)
        if self.value is None:
            return Delete(path, self.previous.revision if self.previous else None)
        if self.previous is None:
            return Create(path, codec.encode_stored(self.value))
        return Update(path, codec.encode_stored(self.value, self.previous.raw), self.previous.revision)

    def unknown_fields(self) -> bytes:
        """What the next rewrite has to take unknown fields from. Looking for them costs ten times the encoding."""
        if self.value is None or self.previous is None or not self.previous.raw:
            return b""
        merged = codec.encode_stored(self.value, self.previous.raw)
        return b"" if merged == codec.encode_stored(self.value) else merged


class Decision(Struct, frozen=True):
    """Changes to commit. Not `final`: a step on the way; commit it, then decide again from fresh reads.

    `addresses` are those assigned, or those released."""

    changes: tuple[Change, ...]
    addresses: tuple[IPAddress, ...] = ()
    final: bool = True


Deciding: TypeAlias = Generator[Ask, Answer, Decision]
