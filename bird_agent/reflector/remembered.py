"""A cache that forgets everything once what it holds weighs too much.

Pure. What peers send decides how large attribute sets are, so a number of entries is no bound on memory."""

from __future__ import annotations

from typing import Final, Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")

MOST: Final = 1 << 20
"""Bytes as they are on the wire; a path that was read is about ten times as large."""
_ENTRY: Final = 128


class Remembered(Generic[K, V]):
    """`put` says how large a value is, in bytes on the wire."""

    def __init__(self) -> None:
        self._known: dict[K, V] = {}
        self._weight = 0

    def __len__(self) -> int:
        return len(self._known)

    def get(self, key: K) -> V | None:
        return self._known.get(key)

    def put(self, key: K, value: V, size: int) -> None:
        if self._weight > MOST:
            self.clear()
        self._known[key] = value
        self._weight += size + _ENTRY

    def clear(self) -> None:
        self._known.clear()
        self._weight = 0
