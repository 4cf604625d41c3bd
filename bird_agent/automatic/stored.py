"""Write a value of this node's own to the datastore."""

from __future__ import annotations

from weft.datastore.base import Datastore
from weft.model import codec, keys
from weft.model.keys import ReflectorKey
from weft.model.reflectors import ReflectorValue


async def put(store: Datastore, key: ReflectorKey, value: ReflectorValue) -> None:
    """Write what nobody else writes. Raises DatastoreUnavailableError, ConflictError."""
    path = keys.path(key)
    found = await store.get(path)
    if found is None:
        await store.create(path, codec.encode_stored(value))
    else:
        await store.update(path, codec.encode_stored(value, found.value), found.revision)
