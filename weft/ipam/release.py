"""Decide what a release writes. Pure and sans-IO, as the allocator.

Blocks come before handles: an address is free before the handle that lists its block forgets it, and a
crash in between leaves a handle that lists too much, which the next release of it repairs. A block that
a handle lists without holding anything in it is written all the same: somebody who listed it and is
about to assign from it must lose."""

from __future__ import annotations

from collections.abc import Collection, Generator, Iterable, Mapping

from weft.ipam.block import Block
from weft.ipam.plan import Answer, Ask, Change, Deciding, Decision, Fetch, Scan, Stored
from weft.ipam.pools import IPAMContext, block_of, contains, pool_of
from weft.model import keys
from weft.model.address import IPAddress, IPNetwork, parse_network
from weft.model.ipam import AffinityValue, BlockValue, HandleValue
from weft.model.keys import AffinityKey, BlockKey, HandleKey, Owner


def block_in(stored: Stored | None) -> Block | None:
    """The block that was read, if it was there and could be understood."""
    return Block(stored.value) if stored is not None and isinstance(stored.value, BlockValue) else None


def blocks_in(found: Answer) -> dict[IPNetwork, Stored]:
    """What was found, by prefix."""
    return {key.cidr: stored for key, stored in found.items() if isinstance(key, BlockKey) and stored is not None}


def listed_blocks(handle: HandleValue) -> list[BlockKey]:
    """The blocks a handle lists; what is no prefix is passed over."""
    keys_of_blocks = []
    for text in handle.block:
        try:
            keys_of_blocks.append(BlockKey(parse_network(text)))
        except ValueError:
            continue
    return keys_of_blocks


def release_by_handle(handle_id: str, keep: Collection[IPAddress] = ()) -> Deciding:
    """Free everything the handle holds, except `keep`. Nothing to do if there is no such handle."""
    handle_key = HandleKey(handle_id)
    handle = (yield Fetch((handle_key,)))[handle_key]
    if handle is None or not isinstance(handle.value, HandleValue):
        return Decision(())
    listed = listed_blocks(handle.value)
    found = yield Fetch(tuple(listed))
    changes: list[Change] = []
    remaining: dict[str, int] = {}
    released: list[IPAddress] = []
    for key in listed:
        stored, block = found[key], block_in(found[key])
        if stored is None:
            continue
        if block is None:
            remaining[str(key.cidr)] = handle.value.block.get(str(key.cidr), 1)
            continue
        held = block.held_by(handle_id)
        freed = [address for address in held if address not in keep]
        if len(freed) < len(held):
            remaining[str(key.cidr)] = len(held) - len(freed)
        if freed:
            changes.append(_block_change(stored, block.release(freed)[0]))
        elif not held:
            changes.append(Change(key, block.touched().value, stored))
        released += freed
    changes.append(Change(handle_key, HandleValue(block=remaining) if remaining else None, handle))
    return Decision(tuple(changes), tuple(released))


def release_addresses(addresses: Iterable[IPAddress], context: IPAMContext, handle_id: str | None = None) -> Deciding:
    """Free these addresses where they are held (by `handle_id`, if given); the decision names those that were."""
    by_block: dict[IPNetwork, list[IPAddress]] = {}
    for address in dict.fromkeys(addresses):
        cidr = yield from _find_block(address, context)
        if cidr is not None:
            by_block.setdefault(cidr, []).append(address)
    found = yield Fetch(tuple(BlockKey(cidr) for cidr in by_block))
    changes: list[Change] = []
    released: list[IPAddress] = []
    losses: dict[str, dict[IPNetwork, int]] = {}
    for cidr, wanted in by_block.items():
        stored, block = found[BlockKey(cidr)], block_in(found[BlockKey(cidr)])
        if stored is None or block is None:
            continue
        before = set(block.value.unallocated)
        after, lost = block.release(wanted, handle_id)
        if not lost:
            continue
        changes.append(_block_change(stored, after))
        released += [cidr[ordinal] for ordinal in after.value.unallocated if ordinal not in before]
        for holder in lost:
            losses.setdefault(holder, {})[cidr] = len(after.held_by(holder))
    losses.pop("", None)
    changes += yield from _shrunk_handles(losses)
    return Decision(tuple(changes), tuple(released))


def release_affinity(owner: Owner, cidr: IPNetwork, must_be_empty: bool = False) -> Deciding:
    """Give a block up: deleted if it is empty, else nobody's. In two phases, as the claim.

    With `must_be_empty`, a block in use is left as it is and there is nothing to do."""
    affinity_key, block_key = AffinityKey(owner, cidr), BlockKey(cidr)
    found = yield Fetch((affinity_key, block_key))
    affinity, stored = found[affinity_key], found[block_key]
    block = block_in(stored)
    forget = (Change(affinity_key, None, affinity),) if affinity is not None else ()
    if stored is None or (block is not None and not block.belongs_to(owner)):
        return Decision(forget)
    if block is None or (must_be_empty and not block.is_empty):
        return Decision(())
    value = affinity.value if affinity else None
    if affinity is not None and not (isinstance(value, AffinityValue) and value.state == "pendingDeletion"):
        return Decision((Change(affinity_key, AffinityValue(state="pendingDeletion"), affinity),), final=False)
    return Decision((_block_change(stored, block.without_affinity()), *forget))


def _block_change(stored: Stored, block: Block) -> Change:
    """A block that is nobody's and empty goes."""
    gone = block.is_empty and block.value.affinity is None
    return Change(BlockKey(block.cidr), None if gone else block.value, stored)


def _find_block(address: IPAddress, context: IPAMContext) -> Generator[Ask, Answer, IPNetwork | None]:
    """The block of an address: by its pool, or, if that is gone, among all."""
    pool = pool_of(context.pools, address)
    if pool is not None:
        return block_of(pool, address)
    found = yield Scan(keys.block_prefix(address.version))
    return next((cidr for cidr in blocks_in(found) if contains(cidr, address)), None)


def _shrunk_handles(losses: Mapping[str, Mapping[IPNetwork, int]]) -> Generator[Ask, Answer, list[Change]]:
    """Handles with what they still hold in the blocks that were written."""
    found = yield Fetch(tuple(HandleKey(handle_id) for handle_id in losses))
    changes = []
    for handle_id, remaining in losses.items():
        handle = found[HandleKey(handle_id)]
        if handle is None or not isinstance(handle.value, HandleValue):
            continue
        listed = dict(handle.value.block)
        for cidr, count in remaining.items():
            if count:
                listed[str(cidr)] = count
            else:
                listed.pop(str(cidr), None)
        changes.append(Change(HandleKey(handle_id), HandleValue(block=listed) if listed else None, handle))
    return changes
