"""Outputs of the graph: computed from the present state when asked, reported when they differ from the last report.

Because a value is computed from state alone and compared with what was last reported, the order, repetition and
splitting of input cannot show in the output."""

from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")
O = TypeVar("O")  # noqa: E741


class Output(Generic[K, V]):
    """`compute(key)` gives the present value, None for no value. Keys that may have changed are touched."""

    def __init__(self, compute: Callable[[K], V | None]) -> None:
        self._compute = compute
        self._reported: dict[K, V] = {}
        self._touched: dict[K, None] = {}

    def touch(self, key: K) -> None:
        self._touched[key] = None

    def touch_all(self) -> None:
        """Every value reported now may have changed."""
        self._touched.update(dict.fromkeys(self._reported))

    def reported(self, key: K) -> V | None:
        return self._reported.get(key)

    def flush(self) -> dict[K, V | None]:
        """The values that changed since the last call; None: gone."""
        changes: dict[K, V | None] = {}
        for key in self._touched:
            value = self._compute(key)
            if value == self._reported.get(key):
                continue
            changes[key] = value
            if value is None:
                del self._reported[key]
            else:
                self._reported[key] = value
        self._touched = {}
        return changes


class Claims(Generic[K, O]):
    """Which of those that claim a thing has it: the least, whoever came first."""

    def __init__(self, rank: Callable[[O], tuple[str, ...]]) -> None:
        self._rank = rank
        self._owners: dict[K, list[O]] = {}

    def claim(self, thing: K, owner: O) -> None:
        owners = self._owners.setdefault(thing, [])
        if owner not in owners:
            owners.append(owner)
            owners.sort(key=self._rank)

    def release(self, thing: K, owner: O) -> None:
        owners = self._owners[thing]
        owners.remove(owner)
        if not owners:
            del self._owners[thing]

    def winner(self, thing: K) -> O | None:
        owners = self._owners.get(thing)
        return owners[0] if owners else None

    def claimants(self, thing: K) -> tuple[O, ...]:
        return tuple(self._owners.get(thing, ()))
