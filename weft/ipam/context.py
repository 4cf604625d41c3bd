"""Where a decision's surroundings come from: read anew each time, or kept up to date by a watch."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from weft.datastore.base import Datastore
from weft.ipam.pools import IPAMContext
from weft.model import codec, keys
from weft.model.address import IPNetwork
from weft.model.errors import ValidationError
from weft.model.ipam import DEFAULT_CONFIG, IPAMConfigValue
from weft.model.keys import IPAMConfigKey, Key, ResourceKey
from weft.model.node import Node
from weft.model.pool import IPPool, IPReservation


class ContextSource(Protocol):
    """Gives what a decision of this node depends on; raises DatastoreUnavailableError while it does not know."""

    async def context(self) -> IPAMContext: ...


class ContextState:
    """Pools, reservations, configuration and the node, as last seen. Synchronous, no IO."""

    def __init__(self, node: str) -> None:
        self._node = node
        self._values: dict[Key, object] = {}
        self._context: IPAMContext | None = None

    def set(self, key: Key, value: object | None) -> None:
        """A key has this value now, or is gone (None). Keys that no decision depends on are ignored."""
        if isinstance(key, IPAMConfigKey) or (isinstance(key, ResourceKey) and self._is_wanted(key)):
            self._context = None
            if value is None:
                self._values.pop(key, None)
            else:
                self._values[key] = value

    def current(self) -> IPAMContext:
        """The surroundings as of the last `set`."""
        if self._context is None:
            self._context = self._build()
        return self._context

    def _is_wanted(self, key: ResourceKey) -> bool:
        return key.kind in ("IPPool", "IPReservation") or (key.kind == "Node" and key.name == self._node)

    def _build(self) -> IPAMContext:
        values = self._values.values()
        config = self._values.get(IPAMConfigKey())
        node = self._values.get(ResourceKey("Node", self._node))
        return IPAMContext(
            node=self._node,
            node_labels=node.metadata.labels if isinstance(node, Node) else {},
            pools=tuple(value for value in values if isinstance(value, IPPool)),
            reserved=tuple(_reserved(value for value in values if isinstance(value, IPReservation))),
            config=config if isinstance(config, IPAMConfigValue) else DEFAULT_CONFIG,
        )


class StoredContext:
    """Reads the datastore for every decision: for commands, not for an agent."""

    def __init__(self, store: Datastore, node: str) -> None:
        self._store = store
        self._node = node

    async def context(self) -> IPAMContext:
        state = ContextState(self._node)
        found = [
            *(await self._store.list(keys.prefix("IPPool"))).items,
            *(await self._store.list(keys.prefix("IPReservation"))).items,
            *await self._store.get_many([keys.path(IPAMConfigKey()), keys.path(ResourceKey("Node", self._node))]),
        ]
        for item in found:
            key = keys.parse(item.key) if item else None
            if item is None or key is None:
                continue
            try:
                state.set(key, codec.decode_stored(key, item.value))
            except ValidationError:
                continue  # an unusable value counts as absent, as for everybody who reads it
        return state.current()


def _reserved(reservations: Iterable[IPReservation]) -> Iterable[IPNetwork]:
    for reservation in reservations:
        yield from reservation.spec.reserved_cidrs
