"""What blocks, pools and reservations say about the use of addresses. Pure: values in, values out.

Counts are taken over blocks, which are few; a pool is never walked address by address."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from msgspec.structs import replace

from weft.admin import api
from weft.model.address import IPAddress, IPNetwork
from weft.model.ipam import Attribute, BlockValue
from weft.model.pool import IPPool

# Keys of an attribute's `secondary`, as Calico's agents write them.
NODE, POD, NAMESPACE, TYPE, VM = "node", "pod", "namespace", "type", "vmi"


def utilization(
    pools: Iterable[IPPool], blocks: Iterable[BlockValue], reservations: Sequence[IPNetwork]
) -> api.Utilization:
    """Pools in order of their addresses, each with the blocks inside it."""
    flat = flatten(reservations)
    left = sorted(blocks, key=lambda block: (block.cidr.version, int(block.cidr.network_address)))
    usages = []
    for pool in sorted(pools, key=lambda pool: (pool.spec.cidr.version, int(pool.spec.cidr.network_address))):
        inside = [block for block in left if is_inside(block.cidr, pool.spec.cidr)]
        left = [block for block in left if not is_inside(block.cidr, pool.spec.cidr)]
        used = tuple(block_usage(block, flat) for block in inside)
        usages.append(
            api.PoolUsage(
                name=pool.name,
                cidr=pool.spec.cidr,
                total=pool.spec.cidr.num_addresses,
                used=sum(usage.used for usage in used),
                reserved=covered(pool.spec.cidr, flat),
                blocks=used,
            )
        )
    return api.Utilization(tuple(usages), tuple(block_usage(block, flat) for block in left))


def block_usage(block: BlockValue, reservations: Sequence[IPNetwork]) -> api.BlockUsage:
    return api.BlockUsage(
        cidr=block.cidr,
        affinity=block.affinity or "",
        total=block.cidr.num_addresses,
        used=sum(index is not None for index in block.allocations),
        reserved=covered(block.cidr, reservations),
    )


def flatten(networks: Iterable[IPNetwork]) -> tuple[IPNetwork, ...]:
    """The same addresses without any counted twice."""
    flat: list[IPNetwork] = []
    for network in sorted(networks, key=lambda network: (network.version, network.prefixlen)):
        if not any(is_inside(network, wider) for wider in flat):
            flat.append(network)
    return tuple(flat)


def covered(cidr: IPNetwork, flat: Sequence[IPNetwork]) -> int:
    """How many of a prefix's addresses lie in the (flattened) others."""
    count = 0
    for network in flat:
        if is_inside(cidr, network):
            return cidr.num_addresses
        if is_inside(network, cidr):
            count += network.num_addresses
    return count


def is_inside(inner: IPNetwork, outer: IPNetwork) -> bool:
    return inner.version == outer.version and inner.prefixlen >= outer.prefixlen and inner.network_address in outer


def borrowed(blocks: Iterable[BlockValue]) -> tuple[api.BorrowedAddress, ...]:
    """Addresses held by a node in a block that is not its own."""
    found = []
    for block in blocks:
        owner = (block.affinity or "").partition(":")[2]
        for ordinal, index in enumerate(block.allocations):
            if index is None:
                continue
            facts = block.attributes[index].secondary
            if NODE in facts and facts[NODE] != owner:
                kind, name = holder_of(block.attributes[index])
                found.append(api.BorrowedAddress(block.cidr[ordinal], facts[NODE], block.cidr, owner, kind, name))
    return tuple(found)


def holder_of(attribute: Attribute) -> tuple[str, str]:
    """What kind of thing holds an address, and its name where it has one."""
    facts = attribute.secondary
    for key in (VM, POD):
        if key in facts:
            return key, f"{facts.get(NAMESPACE, '')}/{facts[key]}"
    return facts.get(TYPE, ""), ""


def look_up(
    address: IPAddress, pools: Iterable[IPPool], block: BlockValue | None, reservations: Iterable[IPNetwork]
) -> api.AddressInfo:
    """`block` is the one that contains the address, if there is one."""
    pool = next((pool for pool in pools if address in pool.spec.cidr), None)
    pool_name = pool.name if pool is not None else ""
    reserved = any(address in network for network in reservations)
    if block is not None:
        info = api.AddressInfo(
            state=api.AddressState.RESERVED if reserved else api.AddressState.FREE,
            pool=pool_name,
            block=str(block.cidr),
            affinity=block.affinity or "",
        )
        ordinal = block.ordinal(address)
        index = None if ordinal is None else block.allocations[ordinal]
        if index is None:
            return info
        attribute = block.attributes[index]
        return replace(
            info,
            state=api.AddressState.IN_USE,
            handle_id=attribute.handle_id or "",
            attributes=tuple(sorted(attribute.secondary.items())),
        )
    if pool is None:
        return api.AddressInfo(api.AddressState.OUTSIDE_POOLS)
    state = api.AddressState.RESERVED if reserved else api.AddressState.NOT_IN_A_BLOCK
    return api.AddressInfo(state, pool=pool_name)
