"""Automatic reflectors on a datastore: what there is, what other settings would change, and setting them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from weft.datastore.base import Datastore
from weft.model import codec, keys
from weft.model.bgp import BGPConfiguration
from weft.model.errors import AlreadyExistsError, ConflictError, FieldError, NotFoundError, ValidationError
from weft.model.keys import ReflectorKey, ResourceKey
from weft.model.node import Node
from weft.model.pool import IPPool
from weft.model.reflectors import (
    AttachmentRecord,
    ReflectorRecord,
    ReflectorSettings,
    ReflectorState,
    changed_settings,
)
from weft.reflectors.plan import DEFAULT_AS, NO_SETTINGS, Fabric
from weft.reflectors.report import ReflectorReport, report
from weft.reflectors.stored import Stored

ATTEMPTS = 5
SETTINGS = ReflectorKey("settings")


class ReflectorAPI(Protocol):
    """`changes` are fields of ReflectorSettings by attribute. Every method raises WeftErrors."""

    async def report(self, changes: Mapping[str, object] | None = None) -> ReflectorReport: ...

    async def configure(self, changes: Mapping[str, object]) -> ReflectorSettings: ...


class ReflectorStore:
    """The ReflectorAPI on a datastore."""

    def __init__(self, store: Datastore) -> None:
        self._store = store

    async def report(self, changes: Mapping[str, object] | None = None) -> ReflectorReport:
        """How it stands, and with `changes` what they would come to."""
        stored = await self._read()
        other = None if changes is None else _changed(stored.settings, changes)
        if other is not None:
            await self._check_pools(other)
        return report(stored, other)

    async def configure(self, changes: Mapping[str, object]) -> ReflectorSettings:
        """ValidationError names the field, the value, and what would be right."""
        path = keys.path(SETTINGS)
        for _ in range(ATTEMPTS):
            kv = await self._store.get(path)
            before = NO_SETTINGS if kv is None else codec.decode_stored(SETTINGS, kv.value)
            assert isinstance(before, ReflectorSettings)
            settings = _changed(before, changes)
            await self._check_pools(settings)
            try:
                if kv is None:
                    await self._store.create(path, codec.encode_stored(settings))
                else:
                    await self._store.update(path, codec.encode_stored(settings, kv.value), kv.revision)
            except (AlreadyExistsError, ConflictError, NotFoundError):
                continue
            return settings
        raise ConflictError(path)

    async def _check_pools(self, settings: ReflectorSettings) -> None:
        for name in settings.pools:
            kv = await self._store.get(keys.path(ResourceKey("IPPool", name)))
            pool = None if kv is None else codec.decode_stored(ResourceKey("IPPool", name), kv.value)
            if not isinstance(pool, IPPool):
                raise ValidationError("", 0, "pools", name, "the name of an IPPool")
            if "Tunnel" not in pool.spec.allowed_uses:
                raise ValidationError("", 0, "pools", name, "an IPPool whose allowedUses include Tunnel")

    async def _read(self) -> Stored:
        values: dict[keys.Key, object] = {}
        for prefix in (keys.prefix("Node"), keys.REFLECTORS):
            for item in (await self._store.list(prefix)).items:
                key = keys.parse(item.key)
                if key is not None:
                    values[key] = codec.decode_stored(key, item.value)
        kv = await self._store.get(keys.path(ResourceKey("BGPConfiguration", "default")))
        found = None if kv is None else codec.decode_stored(ResourceKey("BGPConfiguration", "default"), kv.value)
        spec = found.spec if isinstance(found, BGPConfiguration) else None
        nodes = {value.name: value for value in values.values() if isinstance(value, Node)}
        fabric = Fabric(
            nodes,
            int((spec and spec.as_number) or DEFAULT_AS),
            spec is None or spec.node_to_node_mesh_enabled is not False,
        )
        state, settings = values.get(ReflectorKey("state")), values.get(SETTINGS)
        return Stored(
            fabric,
            settings if isinstance(settings, ReflectorSettings) else NO_SETTINGS,
            state if isinstance(state, ReflectorState) else ReflectorState(),
            {
                key.node: one
                for key, one in values.items()
                if isinstance(key, ReflectorKey) and isinstance(one, ReflectorRecord)
            },
            {
                key.node: one
                for key, one in values.items()
                if isinstance(key, ReflectorKey) and isinstance(one, AttachmentRecord)
            },
        )


def _changed(settings: ReflectorSettings, changes: Mapping[str, object]) -> ReflectorSettings:
    try:
        return changed_settings(settings, changes)
    except FieldError as error:
        raise ValidationError("", 0, error.field, error.value, error.expected) from error
