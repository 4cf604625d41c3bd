"""Decide which addresses a request gets. Pure and sans-IO: a generator that yields reads and returns a decision.

Safe beside Calico's own nodes: a block is claimed in two phases (an affinity in state pending, the block
with that affinity, then the affinity confirmed), and whoever writes the block decides, by its revision.

A decision lists the handle before the blocks, and the caller's own writes come last: an address is held
only by a handle that already lists its block, so that releasing the handle always finds it."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from itertools import islice

from msgspec import Struct, field

from weft.ipam.block import Block, Holder, reserved_ordinals
from weft.ipam.plan import Answer, Ask, Change, Deciding, Decision, Fetch, Scan, Stored
from weft.ipam.pools import IPAMContext, block_of, blocks_in_order, by_preference, contains, pool_of, usable_pools
from weft.ipam.release import block_in, blocks_in, listed_blocks, release_affinity
from weft.model import keys
from weft.model.address import IPAddress, IPNetwork
from weft.model.errors import AddressInUseError, NoFreeAddressError
from weft.model.ipam import AffinityValue, HandleValue
from weft.model.keys import AffinityKey, BlockKey, HandleKey, Owner
from weft.model.pool import AllowedUse, IPPool

RECLAIM_AFTER = timedelta(minutes=1)
"""An empty block of another node may be taken this long after its claim: it has had the time to use it (as Calico)."""

PROBES = (4, 16, 64)
"""How many blocks of a pool are looked at by key, in batches, before all blocks are listed."""

RESERVED_PROBES = 4096
"""How many blocks are skipped because a reservation covers them, once all blocks are listed."""


class AssignRequest(Struct, frozen=True):
    """Addresses for one holder: the ones named, or as many per IP version as `counts` says, from `pools` if any.

    Addresses that the handle already holds (a crash left them) are used before new ones, except those in
    `in_use`. `namespace_labels` are for the pools' namespace selectors."""

    holder: Holder
    counts: Mapping[int, int] = field(default_factory=lambda: {4: 1})
    addresses: tuple[IPAddress, ...] = ()
    pools: tuple[IPNetwork, ...] = ()
    use: AllowedUse = "Workload"
    namespace_labels: Mapping[str, str] | None = None
    in_use: frozenset[IPAddress] = frozenset()


def assign(request: AssignRequest, context: IPAMContext, now: datetime) -> Deciding:
    """NoFreeAddressError, AddressInUseError: nothing was decided."""
    draft = _Draft(request, context, now)
    yield from draft.load_handle()
    for address in request.addresses:
        step = yield from draft.take_address(address)
        if step is not None:
            return step
    if not request.addresses:
        for version, count in request.counts.items():
            step = yield from draft.take_any(version, count)
            if step is not None:
                return step
    return draft.decision()


class _Draft:
    """One decision in the making. Methods that return a Decision return a step to commit first."""

    def __init__(self, request: AssignRequest, context: IPAMContext, now: datetime) -> None:
        self._request = request
        self._context = context
        self._now = now
        self._owner = Owner("host", context.node)
        self._handle: Stored | None = None
        self._leftover: dict[IPAddress, IPNetwork] = {}
        self._blocks: dict[IPNetwork, tuple[Stored, Block]] = {}
        self._counts: dict[IPNetwork, int] = {}
        self._confirm: list[Change] = []
        self._addresses: list[IPAddress] = []

    def load_handle(self) -> Generator[Ask, Answer, None]:
        """Find what the handle already holds."""
        key = HandleKey(self._request.holder.handle_id)
        self._handle = (yield Fetch((key,)))[key]
        if self._handle is None or not isinstance(self._handle.value, HandleValue):
            return
        listed = listed_blocks(self._handle.value)
        blocks = yield Fetch(tuple(listed))
        for block_key in listed:
            block = block_in(blocks[block_key])
            for address in block.held_by(key.handle_id) if block else ():
                if address not in self._request.in_use:
                    self._leftover[address] = block_key.cidr

    def take_address(self, address: IPAddress) -> Generator[Ask, Answer, Decision | None]:
        """One specific address, in a block that is ours or may be borrowed from or claimed."""
        if address in self._leftover:
            yield from self._reuse(address)
            return None
        enabled = [pool for pool in self._context.pools if not pool.spec.disabled]
        pool = pool_of(enabled, address)
        if pool is None:
            raise NoFreeAddressError(address.version, (), f"{address} is in no enabled pool")
        if self._request.use not in pool.spec.allowed_uses:
            raise NoFreeAddressError(
                address.version, (pool.spec.cidr,), f"the pool does not allow the use {self._request.use}"
            )
        cidr = block_of(pool, address)
        block_key, affinity_key = BlockKey(cidr), AffinityKey(self._owner, cidr)
        found = yield Fetch((block_key, affinity_key))
        stored = found[block_key]
        if stored is None:
            return self._claim(cidr, found[affinity_key])
        block = self._draft_of(stored)
        if block is None:
            raise NoFreeAddressError(address.version, (cidr,), "the block is damaged")
        if block.belongs_to(self._owner):
            self._confirm_affinity(cidr, found[affinity_key])
        elif self._context.config.strict_affinity:
            raise AddressInUseError(address)
        self._blocks[cidr] = (stored, block.assign(address, self._request.holder))
        self._took(cidr, [address])
        return None

    def take_any(self, version: int, count: int) -> Generator[Ask, Answer, Decision | None]:
        """Reuse, then our own blocks, then a block claimed for it, then somebody else's block."""
        for address in [one for one in self._leftover if one.version == version][:count]:
            yield from self._reuse(address)
            count -= 1
        if count <= 0:
            return None
        request, context = self._request, self._context
        requested = [cidr for cidr in request.pools if cidr.version == version]
        pools = usable_pools(context, version, request.use, requested, request.namespace_labels)
        owned = yield from self._own_blocks(version, pools)
        if owned.stale is not None:
            return Decision((Change(owned.stale, None, owned.affinities[owned.stale]),), final=False)
        for cidr, stored in owned.blocks.items():
            taken = self._take_from(cidr, stored, count)
            if taken:
                self._confirm_affinity(cidr, owned.affinities[AffinityKey(self._owner, cidr)])
            count -= taken
            if count == 0:
                return None
        reason = "auto-allocation of blocks is off"
        existing: dict[IPNetwork, Stored] = {}
        if context.config.auto_allocate_blocks:
            reason = f"the node owns {len(owned.affinities)} blocks, its limit"
            if len(owned.affinities) < context.max_blocks:
                reason = "every block of the pools is taken"
                if owned.missing is not None:
                    return self._claim(owned.missing, owned.affinities[AffinityKey(self._owner, owned.missing)])
                step = yield from self._new_block(version, pools, owned, existing)
                if step is not None:
                    return step
        if context.config.strict_affinity:
            reason += ", and strict affinity forbids borrowing"
        else:
            count -= yield from self._borrow(version, pools, existing, count)
        if count > 0:
            raise NoFreeAddressError(version, [pool.spec.cidr for pool in pools], reason)
        return None

    def decision(self) -> Decision:
        """Handle, blocks, confirmed affinities: in this order."""
        changes: list[Change] = []
        if self._counts or self._blocks:
            key = HandleKey(self._request.holder.handle_id)
            before = self._handle.value if self._handle else None
            listed = dict(before.block) if isinstance(before, HandleValue) else {}
            for cidr, count in self._counts.items():
                listed[str(cidr)] = listed.get(str(cidr), 0) + count
            changes.append(Change(key, HandleValue(block=listed), self._handle))
            for cidr, (stored, block) in self._blocks.items():
                changes.append(Change(BlockKey(cidr), block.value, stored))
        return Decision((*changes, *self._confirm), tuple(self._addresses))

    def _own_blocks(self, version: int, pools: Sequence[IPPool]) -> Generator[Ask, Answer, _Owned]:
        owned = _Owned()
        affinities = yield Scan(keys.affinity_prefix(self._owner, version))
        for pool in pools:
            for key, affinity in affinities.items():
                if isinstance(key, AffinityKey) and contains(pool.spec.cidr, key.cidr.network_address):
                    owned.affinities[key] = affinity
        blocks = yield Fetch(tuple(BlockKey(key.cidr) for key in owned.affinities))
        for key in owned.affinities:
            stored = blocks[BlockKey(key.cidr)]
            block = block_in(stored)
            if stored is None:
                owned.missing = owned.missing or key.cidr
            elif block is not None and block.belongs_to(self._owner):
                owned.blocks[key.cidr] = stored
            elif block is not None:
                owned.stale = key
        return owned

    def _new_block(
        self, version: int, pools: Sequence[IPPool], owned: _Owned, existing: dict[IPNetwork, Stored]
    ) -> Generator[Ask, Answer, Decision | None]:
        """Claim a block that nobody has, else one that another node has left empty for a while."""
        for pool in pools:
            candidates = blocks_in_order(pool, self._context.node)
            for size in PROBES:
                batch = list(islice(candidates, size))
                found = (yield Fetch(tuple(BlockKey(cidr) for cidr in batch))) if batch else {}
                for cidr in batch:
                    if found[BlockKey(cidr)] is None and not self._is_reserved(cidr):
                        return self._claim(cidr, None)
                    if cidr not in owned.blocks and self._is_orphan(found[BlockKey(cidr)]):
                        return Decision((self._pending(cidr),), final=False)
            if next(candidates, None) is None:
                continue
            if not existing:
                existing.update(blocks_in((yield Scan(keys.block_prefix(version)))))
            for cidr in islice(blocks_in_order(pool, self._context.node), len(existing) + RESERVED_PROBES):
                if cidr not in existing and not self._is_reserved(cidr):
                    return self._claim(cidr, None)
        if not existing:
            existing.update(blocks_in((yield Scan(keys.block_prefix(version)))))
        for cidr, owner in self._abandoned(pools, existing):
            step = yield from release_affinity(owner, cidr, must_be_empty=True)
            if step.changes:
                return Decision(step.changes, final=False)
        return None

    def _is_orphan(self, stored: Stored | None) -> bool:
        """A block that says it is ours: asked where no affinity says so."""
        block = block_in(stored)
        return block is not None and block.belongs_to(self._owner) and bool(self._free(block))

    def _abandoned(
        self, pools: Sequence[IPPool], existing: Mapping[IPNetwork, Stored]
    ) -> Iterator[tuple[IPNetwork, Owner]]:
        for cidr, stored in existing.items():
            block = block_in(stored)
            owner = block.value.owner if block else None
            if block is None or owner is None or owner == self._owner or not block.is_empty:
                continue
            claimed = block.value.affinity_claim_time
            if claimed is not None and self._now - claimed < RECLAIM_AFTER:
                continue
            if self._free(block) and any(contains(pool.spec.cidr, cidr.network_address) for pool in pools):
                yield cidr, owner

    def _borrow(
        self, version: int, pools: Sequence[IPPool], existing: dict[IPNetwork, Stored], count: int
    ) -> Generator[Ask, Answer, int]:
        """Take addresses from blocks of others; how many."""
        if not existing:
            existing.update(blocks_in((yield Scan(keys.block_prefix(version)))))
        wanted = count
        for pool in pools:
            inside = (cidr for cidr in existing if contains(pool.spec.cidr, cidr.network_address))
            for cidr in by_preference(inside, self._context.node):
                if count and cidr not in self._blocks:
                    count -= self._take_from(cidr, existing[cidr], count)
        return wanted - count

    def _take_from(self, cidr: IPNetwork, stored: Stored, count: int) -> int:
        block = self._draft_of(stored)
        if block is None or not self._free(block):
            return 0
        block, addresses = block.assign_next(count, self._request.holder, self._context.reserved)
        self._blocks[cidr] = (stored, block)
        self._took(cidr, addresses)
        return len(addresses)

    def _took(self, cidr: IPNetwork, addresses: Sequence[IPAddress]) -> None:
        self._counts[cidr] = self._counts.get(cidr, 0) + len(addresses)
        self._addresses.extend(addresses)

    def _reuse(self, address: IPAddress) -> Generator[Ask, Answer, None]:
        """Keep an address the handle holds. Its block is written so that a release under way loses."""
        cidr = self._leftover.pop(address)
        if cidr not in self._blocks:
            key = BlockKey(cidr)
            stored = (yield Fetch((key,)))[key]
            block = block_in(stored)
            if stored is not None and block is not None:
                self._blocks[cidr] = (stored, block.touched())
        self._addresses.append(address)

    def _claim(self, cidr: IPNetwork, affinity: Stored | None) -> Decision:
        """The first phase: an affinity in state pending, written anew if it is there, and the block."""
        block = Block.claimed(cidr, self._owner, self._now)
        return Decision((self._pending(cidr, affinity), Change(BlockKey(cidr), block.value, None)), final=False)

    def _pending(self, cidr: IPNetwork, affinity: Stored | None = None) -> Change:
        return Change(AffinityKey(self._owner, cidr), AffinityValue(state="pending"), affinity)

    def _confirm_affinity(self, cidr: IPNetwork, affinity: Stored | None) -> None:
        """The second phase, once the block is written. An empty state is an old Calico's confirmed."""
        value = affinity.value if affinity else None
        if not isinstance(value, AffinityValue) or value.state not in ("confirmed", ""):
            self._confirm.append(Change(AffinityKey(self._owner, cidr), AffinityValue(state="confirmed"), affinity))

    def _draft_of(self, stored: Stored) -> Block | None:
        """The block as this decision has changed it so far."""
        block = block_in(stored)
        return self._blocks[block.cidr][1] if block and block.cidr in self._blocks else block

    def _free(self, block: Block) -> list[int]:
        return block.free(self._context.reserved)

    def _is_reserved(self, cidr: IPNetwork) -> bool:
        return any(len(span) == cidr.num_addresses for span in reserved_ordinals(cidr, self._context.reserved))


class _Owned(Struct):
    """The node's affinities in the usable pools, and what they refer to."""

    affinities: dict[AffinityKey, Stored | None] = field(default_factory=dict)
    blocks: dict[IPNetwork, Stored] = field(default_factory=dict)
    missing: IPNetwork | None = None
    stale: AffinityKey | None = None
