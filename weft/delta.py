"""Desired against actual: what has to change.

A reconciler reads what is there, computes what should be there, and applies the difference. This
module only compares two mappings; it writes nothing and keeps nothing."""

from collections.abc import Mapping
from typing import Generic, TypeVar

from msgspec import Struct

K = TypeVar("K")
V = TypeVar("V")


class Delta(Struct, Generic[K, V], frozen=True):
    """What turns `actual` into `desired`; each mapping keeps the order of the side it came from."""

    create: Mapping[K, V]
    update: Mapping[K, V]
    delete: Mapping[K, V]

    def __bool__(self) -> bool:
        return bool(self.create or self.update or self.delete)


def diff(desired: Mapping[K, V], actual: Mapping[K, V]) -> Delta[K, V]:
    """`update` carries the desired values, `delete` the actual ones."""
    create: dict[K, V] = {}
    update: dict[K, V] = {}
    for key, value in desired.items():
        if key not in actual:
            create[key] = value
        elif actual[key] != value:
            update[key] = value
    return Delta(create, update, {key: value for key, value in actual.items() if key not in desired})
