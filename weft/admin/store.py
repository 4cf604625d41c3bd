"""ResourceAPI on a datastore: what create, apply, replace and delete do to what is stored.

Every write is compare-and-swap against what was read; fields of the stored JSON that we do not know survive. What may
be written is decided in rules.py. A write that changes nothing is not made."""

from __future__ import annotations

import datetime
import logging
import uuid
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Sequence
from contextlib import aclosing
from typing import TypeVar, get_args

import msgspec

from weft.admin import api, rules
from weft.datastore.base import Changed, Datastore, Event, KeyValue, Removed
from weft.model import codec, keys, kinds, names
from weft.model import ipam as ipam_model
from weft.model.address import IPNetwork
from weft.model.base import Resource
from weft.model.bgp import BGPPeer
from weft.model.defaults import DEFAULT_NAMESPACE
from weft.model.errors import (
    AlreadyExistsError,
    CompactedError,
    ConflictError,
    FieldError,
    NotFoundError,
    ValidationError,
)
from weft.model.policy import TIER_ORDERS, GlobalNetworkPolicy, NetworkPolicy
from weft.model.pool import IPAMConfiguration, IPPool
from weft.model.staged import StagedGlobalNetworkPolicy, StagedNetworkPolicy

LOG = logging.getLogger(__name__)
ATTEMPTS = 5
IPAM_CONFIGURATION = "IPAMConfiguration"
POLICIES: tuple[type[rules.TieredPolicy], ...] = get_args(rules.TieredPolicy)
R = TypeVar("R", bound=Resource)


class ResourceStore:
    """`remove_node(name)` and `release_pool(cidr)` clean up what belongs to a node or pool before it is deleted."""

    def __init__(
        self,
        store: Datastore,
        remove_node: Callable[[str], Awaitable[None]],
        release_pool: Callable[[IPNetwork], Awaitable[None]],
    ) -> None:
        self._store = store
        self._remove_node = remove_node
        self._release_pool = release_pool

    async def get(self, kind: str, namespace: str, name: str) -> api.StoredResource:
        key = key_of(kind, namespace, name)
        kv = await self._read(key)
        if kv is None:
            raise NotFoundError(label(kind, namespace, name))
        return stored(_decode(key, kv), kv.revision)

    async def list(self, kind: str, namespace: str = "") -> api.Listing:
        snapshot = await self._store.list(_prefix(kind, namespace))
        items = (_decode_listed(kv) for kv in snapshot.items)
        resources = tuple(
            stored(resource, kv.revision)
            for resource, kv in zip(items, snapshot.items, strict=True)
            if resource is not None
        )
        return api.Listing(resources, snapshot.revision)

    async def write(self, verb: api.Verb, manifest: api.Manifest, dry_run: bool = False) -> api.Written:
        resource = parse(manifest)
        try:
            match verb:
                case api.Verb.CREATE:
                    written = await self._create(resource, dry_run)
                case api.Verb.REPLACE:
                    written = await self._update(resource, dry_run)
                case api.Verb.APPLY:
                    written = await self._apply(resource, dry_run)
        except ValidationError as error:
            # A rule knows the field; only here is known whose document it is.
            raise located(error, manifest) from error
        return api.Written(written, rules.warnings(resource))

    async def _apply(self, resource: Resource, dry_run: bool) -> api.StoredResource:
        for _ in range(ATTEMPTS):
            try:
                return await self._update(resource, dry_run)
            except NotFoundError:
                pass
            try:
                metadata = msgspec.structs.replace(resource.metadata, resource_version="")
                unversioned = msgspec.structs.replace(resource, metadata=metadata)
                return await self._create(unversioned, dry_run, known_missing=True)
            except AlreadyExistsError:
                continue
        raise ConflictError(_label_of(resource))

    async def _create(self, resource: Resource, dry_run: bool, known_missing: bool = False) -> api.StoredResource:
        if resource.metadata.resource_version:
            expected = "left out: it is not for a resource yet to be created"
            raise rules.wrong("metadata.resourceVersion", resource.metadata.resource_version, expected)
        key = keys.of(resource)
        if not known_missing and await self._read(key) is not None:
            raise AlreadyExistsError(_label_of(resource))
        await self._check_neighbours(resource, new=True)
        now = datetime.datetime.now(datetime.UTC).replace(microsecond=0)
        metadata = rules.creation_metadata(resource.metadata, str(uuid.uuid4()), now)
        resource = msgspec.structs.replace(resource, metadata=metadata)
        if dry_run:
            return stored(resource, 0)
        try:
            revision = await self._store.create(keys.path(key), _encode(resource, None))
        except AlreadyExistsError as error:
            raise AlreadyExistsError(_label_of(resource)) from error
        return stored(resource, revision)

    async def _update(self, resource: Resource, dry_run: bool) -> api.StoredResource:
        """Without a resourceVersion a lost race is tried again; with one it is a conflict."""
        key = keys.of(resource)
        asked = resource.metadata.resource_version
        await self._check_neighbours(resource, new=False)
        for _ in range(ATTEMPTS):
            kv = await self._read(key)
            if kv is None:
                raise NotFoundError(_label_of(resource))
            if asked and asked != str(kv.revision):
                raise ConflictError(_label_of(resource))
            old = _decode(key, kv)
            rules.check_update(resource, old)
            metadata = rules.update_metadata(old.metadata, resource.metadata)
            merged = rules.with_status(msgspec.structs.replace(resource, metadata=metadata), old)
            raw = _encode(merged, kv.value)
            if dry_run or raw == kv.value:
                return stored(merged, kv.revision)
            try:
                return stored(merged, await self._store.update(kv.key, raw, kv.revision))
            except ConflictError as error:
                if asked:
                    raise ConflictError(_label_of(resource)) from error
            except NotFoundError as error:
                raise NotFoundError(_label_of(resource)) from error
        raise ConflictError(_label_of(resource))

    async def _check_neighbours(self, resource: Resource, new: bool) -> None:
        match resource:
            case IPPool() if new:
                rules.check_pool_overlap(resource, await self._all(IPPool))
                blocks = await self._store.list(keys.block_prefix(resource.spec.cidr.version))
                parsed = (keys.parse(kv.key) for kv in blocks.items)
                rules.check_pool_blocks(resource, [key.cidr for key in parsed if isinstance(key, keys.BlockKey)])
            case NetworkPolicy() | GlobalNetworkPolicy() | StagedNetworkPolicy() | StagedGlobalNetworkPolicy() if new:
                tier = keys.path(keys.ResourceKey("Tier", resource.spec.tier))
                # The built-in tiers are created at first start; a policy may come before that.
                if resource.spec.tier not in TIER_ORDERS and await self._store.get(tier) is None:
                    raise rules.wrong("spec.tier", resource.spec.tier, "the name of an existing tier")
            case BGPPeer() if resource.spec.filters:
                snapshot = await self._store.list(keys.prefix("BGPFilter"))
                known = {kv.key.rsplit("/", 1)[-1] for kv in snapshot.items}
                for index, name in enumerate(resource.spec.filters):
                    if name not in known:
                        raise rules.wrong(f"spec.filters[{index}]", name, "the name of an existing BGPFilter")
            case _:
                pass

    async def _all(self, cls: type[R]) -> tuple[R, ...]:
        snapshot = await self._store.list(keys.prefix(cls.kind))
        decoded = (_decode_listed(kv) for kv in snapshot.items)
        return tuple(resource for resource in decoded if isinstance(resource, cls))

    async def _read(self, key: keys.ResourceKey | keys.IPAMConfigKey) -> KeyValue | None:
        """What is stored for a resource, also where it was stored before Calico 3.32."""
        paths = [keys.path(key)]
        if isinstance(key, keys.ResourceKey) and key.kind in {cls.kind for cls in POLICIES}:
            older = names.legacy_policy_name(rules.DEFAULT_NAME, key.name)
            paths.append(keys.path(keys.ResourceKey(key.kind, older, key.namespace)))
        found = await self._store.get_many(paths)
        return next((kv for kv in found if kv is not None), None)

    async def delete(
        self, kind: str, namespace: str, name: str, revision: int = 0, dry_run: bool = False
    ) -> api.Written:
        key = key_of(kind, namespace, name)
        policies: list[rules.TieredPolicy] = []
        for cls in POLICIES if kind == "Tier" else ():
            policies += await self._all(cls)
        rules.check_deletable(kind, name, policies)
        kv = await self._read(key)
        if kv is None:
            raise NotFoundError(label(kind, namespace, name))
        if revision and revision != kv.revision:
            raise ConflictError(label(kind, namespace, name))
        resource = _decode(key, kv)
        if not dry_run:
            await self._remove(resource, kv, exactly=bool(revision))
        return api.Written(stored(resource, kv.revision))

    async def _remove(self, resource: Resource, kv: KeyValue, exactly: bool) -> None:
        revision = kv.revision if exactly else None
        if isinstance(resource, IPPool):
            # As Calico: nobody may allocate from the pool while its blocks are given back.
            revision = await self._disable(resource, kv)
            await self._release_pool(resource.spec.cidr)
        elif resource.kind == "Node":
            # Removes the Node itself last, so that a removal cut short can be done again.
            await self._remove_node(resource.name)
            revision = None
        try:
            await self._store.delete(kv.key, revision)
        except NotFoundError:
            return
        except ConflictError as error:
            raise ConflictError(_label_of(resource)) from error

    async def _disable(self, pool: IPPool, kv: KeyValue) -> int:
        """The revision of the pool with `disabled` set."""
        if pool.spec.disabled:
            return kv.revision
        disabled = msgspec.structs.replace(pool, spec=msgspec.structs.replace(pool.spec, disabled=True))
        try:
            return await self._store.update(kv.key, _encode(disabled, kv.value), kv.revision)
        except ConflictError as error:
            raise ConflictError(_label_of(pool)) from error

    async def watch(self, kind: str, namespace: str = "", name: str = "") -> AsyncGenerator[api.Change, None]:
        """Goes on through compaction: what changed meanwhile is found by comparing."""
        prefix = keys.path(key_of(kind, namespace, name)) if name else _prefix(kind, namespace)
        known: dict[str, int] = {}
        in_sync = False
        while True:
            snapshot = await self._store.list(prefix)
            items = {kv.key: kv for kv in snapshot.items if not name or kv.key == prefix}
            for path in [path for path in known if path not in items]:
                del known[path]
                yield _removed(path, snapshot.revision)
            for path, kv in items.items():
                if known.get(path) != kv.revision:
                    change = _changed(kv, path in known)
                    known[path] = kv.revision
                    if change is not None:
                        yield change
            if not in_sync:
                in_sync = True
                yield api.Change(api.ChangeType.IN_SYNC)
            try:
                async with aclosing(self._store.watch(prefix, snapshot.revision + 1)) as batches:
                    async for events in batches:
                        for change in _changes(events, known, prefix if name else None):
                            yield change
            except CompactedError:
                continue


def _changes(events: Sequence[Event], known: dict[str, int], only: str | None) -> Iterator[api.Change]:
    """What a batch means for the keys that are known, which are brought up to date."""
    for event in events:
        if isinstance(event, Changed) and only in (None, event.kv.key):
            change = _changed(event.kv, event.kv.key in known)
            known[event.kv.key] = event.kv.revision
            if change is not None:
                yield change
        elif isinstance(event, Removed) and known.pop(event.key, None) is not None:
            yield _removed(event.key, event.revision)


def parse(manifest: api.Manifest) -> Resource:
    """The one resource of a document, with its defaults filled in. Raises ValidationError."""
    try:
        resources: Sequence[Resource] = codec.decode_manifests(
            manifest.document, manifest.source, manifest.default_namespace or DEFAULT_NAMESPACE
        )
    except ValidationError as error:
        raise located(error, manifest) from error
    if len(resources) != 1:
        raise located(rules.wrong("", len(resources), "exactly one resource"), manifest)
    return resources[0]


def located(error: ValidationError, manifest: api.Manifest) -> ValidationError:
    """The same error about the document it came from."""
    return ValidationError(manifest.source, manifest.position, error.field, error.value, error.expected)


def label(kind: str, namespace: str, name: str) -> str:
    """How people call a resource: `Kind(namespace/name)`."""
    return f"{kind}({namespace}/{name})" if namespace else f"{kind}({name})"


def _label_of(resource: Resource) -> str:
    return label(resource.kind, resource.namespace, resource.name)


def key_of(kind: str, namespace: str, name: str) -> keys.ResourceKey | keys.IPAMConfigKey:
    """Raises ValidationError for a kind, a namespace or a name that cannot be."""
    if kind == IPAM_CONFIGURATION:
        if name != rules.DEFAULT_NAME:
            raise NotFoundError(label(kind, namespace, name))
        return keys.IPAMConfigKey()
    try:
        return keys.ResourceKey(kind, name, namespace)
    except FieldError as error:
        raise rules.wrong(error.field, error.value, error.expected) from error


def _prefix(kind: str, namespace: str) -> str:
    if kind not in kinds.KINDS:
        raise rules.wrong("kind", kind, f"one of {', '.join(kinds.KINDS)}")
    return keys.IPAM_CONFIG if kind == IPAM_CONFIGURATION else keys.prefix(kind, namespace)


def _decode(key: keys.Key, kv: KeyValue) -> Resource:
    value = codec.decode_stored(key, kv.value)
    if isinstance(value, ipam_model.IPAMConfigValue):
        return ipam_model.from_stored(value)
    assert isinstance(value, Resource)
    return value


def _decode_listed(kv: KeyValue) -> Resource | None:
    """None for what nobody can read: one bad value must not hide its neighbours."""
    key = keys.parse(kv.key)
    if key is None:
        return None
    try:
        return _decode(key, kv)
    except ValidationError as error:
        LOG.warning("left out of a list: %s", error)
        return None


def _encode(resource: Resource, previous: bytes | None) -> bytes:
    if isinstance(resource, IPAMConfiguration):
        return codec.encode_stored(ipam_model.to_stored(resource), previous)
    return codec.encode_stored(resource, previous)


def stored(resource: Resource, revision: int) -> api.StoredResource:
    """The resource as it travels; revision 0 is that of what was not written."""
    version = str(revision) if revision else ""
    metadata = msgspec.structs.replace(resource.metadata, resource_version=version)
    document = codec.to_manifest(msgspec.structs.replace(resource, metadata=metadata))
    return api.StoredResource(resource.kind, resource.namespace, resource.name, revision, msgspec.json.encode(document))


def _changed(kv: KeyValue, known: bool) -> api.Change | None:
    resource = _decode_listed(kv)
    if resource is None:
        return None
    return api.Change(api.ChangeType.MODIFIED if known else api.ChangeType.ADDED, stored(resource, kv.revision))


def _removed(path: str, revision: int) -> api.Change:
    key = keys.parse(path)
    if isinstance(key, keys.ResourceKey):
        gone = api.StoredResource(key.kind, key.namespace, key.name, revision, b"")
    else:
        gone = api.StoredResource(IPAM_CONFIGURATION, "", rules.DEFAULT_NAME, revision, b"")
    return api.Change(api.ChangeType.DELETED, gone)
