"""Which pools a request may use, and in which order a node tries the blocks of one. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from ipaddress import IPv4Network, IPv6Network

from msgspec import Struct

from weft.model.address import IPAddress, IPNetwork
from weft.model.errors import NoFreeAddressError
from weft.model.ipam import IPAMConfigValue
from weft.model.pool import AllowedUse, IPPool
from weft.selector import parse

DEFAULT_MAX_BLOCKS = 20
"""Blocks a node may own per IP version when the configuration names no limit (as Calico)."""


class IPAMContext(Struct, frozen=True):
    """What a decision depends on besides blocks and handles. `pools` are all of them, disabled ones too."""

    node: str
    node_labels: Mapping[str, str]
    pools: tuple[IPPool, ...]
    reserved: tuple[IPNetwork, ...]
    config: IPAMConfigValue

    @property
    def max_blocks(self) -> int:
        return self.config.max_blocks_per_host or DEFAULT_MAX_BLOCKS


def selects_node(pool: IPPool, context: IPAMContext) -> bool:
    """Whether the node may own blocks of the pool."""
    return parse(pool.spec.node_selector).matches(context.node_labels)


def usable_pools(
    context: IPAMContext,
    version: int,
    use: AllowedUse,
    requested: Sequence[IPNetwork] = (),
    namespace_labels: Mapping[str, str] | None = None,
) -> tuple[IPPool, ...]:
    """The pools that may serve the request, by name, or in the order asked for.

    Pools asked for are used whatever their selectors say (as Calico), but must be enabled.
    NoFreeAddressError says why there is none."""
    enabled = [pool for pool in _by_name(context.pools) if pool.spec.cidr.version == version and not pool.spec.disabled]
    if requested:
        by_cidr = {pool.spec.cidr: pool for pool in enabled}
        missing = [cidr for cidr in requested if cidr not in by_cidr]
        if missing:
            raise NoFreeAddressError(version, missing, "the pool does not exist or is disabled")
        selected = [by_cidr[cidr] for cidr in requested]
    else:
        selected = [
            pool
            for pool in enabled
            if pool.spec.assignment_mode == "Automatic"
            and selects_node(pool, context)
            and _selects_namespace(pool, namespace_labels)
        ]
        if not selected:
            raise NoFreeAddressError(version, (), f"no enabled pool selects node {context.node}")
    allowed = tuple(pool for pool in selected if use in pool.spec.allowed_uses)
    if not allowed:
        raise NoFreeAddressError(version, [pool.spec.cidr for pool in selected], f"no pool allows the use {use}")
    return allowed


def pool_of(pools: Iterable[IPPool], address: IPAddress) -> IPPool | None:
    """The pool an address lies in."""
    return next((pool for pool in _by_name(pools) if contains(pool.spec.cidr, address)), None)


def contains(network: IPNetwork, address: IPAddress) -> bool:
    return network.version == address.version and address in network


def block_of(pool: IPPool, address: IPAddress) -> IPNetwork:
    """The block of the pool that holds an address."""
    size = address.max_prefixlen - pool.spec.block_size
    return _network(address.version, int(address) >> size << size, pool.spec.block_size)


def blocks_in_order(pool: IPPool, node: str) -> Iterator[IPNetwork]:
    """Every block of the pool once, in an order of the node's own.

    A hash of the node's name picks the start and an odd stride, so that two nodes rarely ask for the
    same block and a node finds a free one without listing any."""
    count = 1 << (pool.spec.block_size - pool.spec.cidr.prefixlen)
    digest = hashlib.blake2b(f"{node} {pool.spec.cidr}".encode(), digest_size=32).digest()
    start = int.from_bytes(digest[:16]) % count
    stride = int.from_bytes(digest[16:]) % count | 1
    first = int(pool.spec.cidr.network_address)
    shift = pool.spec.cidr.max_prefixlen - pool.spec.block_size
    for step in range(count):
        position = (start + step * stride) % count
        yield _network(pool.spec.cidr.version, first + (position << shift), pool.spec.block_size)


def by_preference(blocks: Iterable[IPNetwork], node: str) -> list[IPNetwork]:
    """Some blocks in an order of the node's own, so that nodes that borrow do not all ask the same owner."""
    return sorted(blocks, key=lambda cidr: hashlib.blake2b(f"{node} {cidr}".encode(), digest_size=8).digest())


def _network(version: int, first: int, length: int) -> IPNetwork:
    return IPv4Network((first, length)) if version == 4 else IPv6Network((first, length))


def _selects_namespace(pool: IPPool, labels: Mapping[str, str] | None) -> bool:
    selector = pool.spec.namespace_selector
    return not selector or parse(selector).matches(labels or {})


def _by_name(pools: Iterable[IPPool]) -> list[IPPool]:
    return sorted(pools, key=lambda pool: pool.metadata.name)
