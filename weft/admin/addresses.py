"""IPAMAPI on a datastore: reads what the report needs, writes the configuration.

Which addresses are free is IPAM's decision alone: releasing goes through its client."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

import msgspec

from weft.admin import api, ipam_report, rules
from weft.datastore.base import Datastore
from weft.model import codec, keys
from weft.model.address import IPAddress, IPNetwork
from weft.model.base import Resource
from weft.model.errors import AlreadyExistsError, ConflictError, NotFoundError, ValidationError
from weft.model.ipam import DEFAULT_CONFIG, BlockValue, IPAMConfigValue
from weft.model.pool import IPPool, IPReservation

ATTEMPTS = 5
R = TypeVar("R", bound=Resource)


class AddressStore:
    """`release(addresses)` frees those that are held and returns them."""

    def __init__(
        self, store: Datastore, release: Callable[[Sequence[IPAddress]], Awaitable[Sequence[IPAddress]]]
    ) -> None:
        self._store = store
        self._release = release

    async def utilization(self) -> api.Utilization:
        blocks = await self._blocks(4) + await self._blocks(6)
        return ipam_report.utilization(await self._all(IPPool), blocks, await self._reservations())

    async def borrowed(self) -> tuple[api.BorrowedAddress, ...]:
        return ipam_report.borrowed(await self._blocks(4) + await self._blocks(6))

    async def look_up(self, address: IPAddress) -> api.AddressInfo:
        blocks = await self._blocks(address.version)
        block = next((block for block in blocks if address in block.cidr), None)
        pools = [pool for pool in await self._all(IPPool) if pool.spec.cidr.version == address.version]
        reservations = [one for one in await self._reservations() if one.version == address.version]
        return ipam_report.look_up(address, pools, block, reservations)

    async def settings(self) -> api.IPAMSettings:
        kv = await self._store.get(keys.IPAM_CONFIG)
        return _settings(DEFAULT_CONFIG if kv is None else _config(kv.value))

    async def configure(
        self,
        strict_affinity: bool | None = None,
        auto_allocate_blocks: bool | None = None,
        max_blocks_per_host: int | None = None,
    ) -> api.IPAMSettings:
        wanted: dict[str, Any] = {
            "strict_affinity": strict_affinity,
            "auto_allocate_blocks": auto_allocate_blocks,
            "max_blocks_per_host": max_blocks_per_host,
        }
        changes = {name: value for name, value in wanted.items() if value is not None}
        for _ in range(ATTEMPTS):
            kv = await self._store.get(keys.IPAM_CONFIG)
            config = msgspec.structs.replace(DEFAULT_CONFIG if kv is None else _config(kv.value), **changes)
            if not (config.strict_affinity or config.auto_allocate_blocks):
                expected = "true, because addresses could come from nowhere with strictAffinity false as well"
                raise rules.wrong("autoAllocateBlocks", False, expected)
            if config.max_blocks_per_host and not config.strict_affinity:
                expected = "0, because a limit of blocks requires strictAffinity"
                raise rules.wrong("maxBlocksPerHost", config.max_blocks_per_host, expected)
            try:
                if kv is None:
                    await self._store.create(keys.IPAM_CONFIG, codec.encode_stored(config))
                else:
                    raw = codec.encode_stored(config, kv.value)
                    await self._store.update(keys.IPAM_CONFIG, raw, kv.revision)
            except (AlreadyExistsError, ConflictError, NotFoundError):
                continue
            return _settings(config)
        raise ConflictError(keys.IPAM_CONFIG)

    async def release(self, addresses: Sequence[IPAddress]) -> api.Released:
        released = set(await self._release(addresses))
        return api.Released(
            tuple(address for address in addresses if address in released),
            tuple(address for address in addresses if address not in released),
        )

    async def _all(self, cls: type[R]) -> list[R]:
        snapshot = await self._store.list(keys.prefix(cls.kind))
        return [value for value in map(_readable, snapshot.items) if isinstance(value, cls)]

    async def _blocks(self, version: int) -> list[BlockValue]:
        snapshot = await self._store.list(keys.block_prefix(version))
        values = map(_readable, snapshot.items)
        return [value for value in values if isinstance(value, BlockValue) and not value.deleted]

    async def _reservations(self) -> list[IPNetwork]:
        return [cidr for one in await self._all(IPReservation) for cidr in one.spec.reserved_cidrs]


def _readable(kv: Any) -> codec.StoredValue | None:
    """None for what nobody can read; the list of resources says so in the log."""
    key = keys.parse(kv.key)
    try:
        return None if key is None else codec.decode_stored(key, kv.value)
    except ValidationError:
        return None


def _config(raw: bytes) -> IPAMConfigValue:
    value = codec.decode_stored(keys.IPAMConfigKey(), raw)
    assert isinstance(value, IPAMConfigValue)
    return value


def _settings(config: IPAMConfigValue) -> api.IPAMSettings:
    return api.IPAMSettings(config.strict_affinity, config.auto_allocate_blocks, config.max_blocks_per_host)
