"""ExaBGP's families, made once.

ExaBGP 5.0.15 makes an object and a text of the family of every route a dozen times on its way out. There are two
families here; an object of each, which nobody changes, and one text do as well."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from exabgp.protocol.family import Family

_original_index: Callable[[Any], bytes] = Family.index
_families: dict[tuple[int, int], Any] = {}
_indexes: dict[tuple[int, int], bytes] = {}


def family(self: Any) -> Any:
    """`Family.family`."""
    key = (self.afi, self.safi)
    found = _families.get(key)
    if found is None:
        found = _families[key] = Family(*key)
    return found


def index(self: Any) -> bytes:
    """`Family.index`."""
    key = (self.afi, self.safi)
    found = _indexes.get(key)
    if found is None:
        found = _indexes[key] = _original_index(self)
    return found
