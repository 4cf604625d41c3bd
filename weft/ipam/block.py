"""One block of addresses as a value: who holds which, which is next, what a release leaves.

Every operation returns a new block and checks before it changes. Nothing here reads or writes a
datastore, and nothing decides which block to use: that is `weft.ipam.allocator`.

The rules are Calico's (libcalico-go/lib/ipam): free addresses are handed out first in, first out; an
allocation remembers the block's sequence number of that moment; every write of the block increases it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime

import msgspec
from msgspec import Struct

from weft.model.address import IPAddress, IPNetwork
from weft.model.errors import AddressInUseError, BlockFullError
from weft.model.ipam import Attribute, BlockValue, empty_block
from weft.model.keys import Owner


class Holder(Struct, frozen=True):
    """Who holds an address: the handle that releases it, and what an administrator wants to read about it."""

    handle_id: str
    attributes: Mapping[str, str]


class Block(Struct, frozen=True):
    """A stored block with the operations IPAM needs."""

    value: BlockValue

    @classmethod
    def claimed(cls, cidr: IPNetwork, owner: Owner, now: datetime) -> Block:
        """A new, empty block. Its sequence numbers begin at the time, so that those of an earlier block
        of the same prefix never come back."""
        empty = empty_block(cidr, owner, now.replace(microsecond=0))
        return cls(msgspec.structs.replace(empty, sequence_number=int(now.timestamp() * 1_000_000) * 1000))

    @property
    def cidr(self) -> IPNetwork:
        return self.value.cidr

    @property
    def is_empty(self) -> bool:
        """No address is held by anybody."""
        return all(index is None for index in self.value.allocations)

    def belongs_to(self, owner: Owner) -> bool:
        return self.value.affinity == str(owner)

    def free(self, reserved: Sequence[IPNetwork] = ()) -> list[int]:
        """The ordinals that may be handed out, next one first."""
        barred = reserved_ordinals(self.cidr, reserved)
        if not barred:
            return list(self.value.unallocated)
        return [ordinal for ordinal in self.value.unallocated if not any(ordinal in span for span in barred)]

    def holder(self, address: IPAddress) -> Attribute | None:
        """The attributes of a held address; None if it is free."""
        index = self.value.allocations[self._ordinal(address)]
        return None if index is None else self.value.attributes[index]

    def held_by(self, handle_id: str) -> list[IPAddress]:
        """The addresses of a handle, in order."""
        return [self.cidr[ordinal] for ordinal in self._ordinals_of(handle_id)]

    def assign_next(
        self, count: int, holder: Holder, reserved: Sequence[IPNetwork] = ()
    ) -> tuple[Block, list[IPAddress]]:
        """Up to `count` addresses for the holder. BlockFullError if there is none at all."""
        ordinals = self.free(reserved)[:count]
        if not ordinals:
            raise BlockFullError(self.cidr)
        return self._with_holder(ordinals, holder), [self.cidr[ordinal] for ordinal in ordinals]

    def assign(self, address: IPAddress, holder: Holder) -> Block:
        """This very address, reserved or not. AddressInUseError if somebody, even the same holder, has it."""
        ordinal = self._ordinal(address)
        index = self.value.allocations[ordinal]
        if index is not None:
            raise AddressInUseError(address, self.value.attributes[index].handle_id)
        return self._with_holder([ordinal], holder)

    def release(self, addresses: Iterable[IPAddress], handle_id: str | None = None) -> tuple[Block, dict[str, int]]:
        """Free those addresses that are held (by `handle_id`, if given) and say how many each handle lost.

        Addresses without a handle count for ""."""
        ordinals: list[int] = []
        lost: dict[str, int] = {}
        for address in dict.fromkeys(addresses):
            ordinal = self._ordinal(address)
            index = self.value.allocations[ordinal]
            if index is None:
                continue
            holder = self.value.attributes[index].handle_id or ""
            if handle_id not in (None, holder):
                continue
            ordinals.append(ordinal)
            lost[holder] = lost.get(holder, 0) + 1
        return self._without(ordinals), lost

    def touched(self) -> Block:
        """The same block, to be written anew: whoever decided on the old one loses its compare-and-swap."""
        return Block(msgspec.structs.replace(self.value, sequence_number=self.value.sequence_number + 1))

    def without_affinity(self) -> Block:
        """The block as nobody's: its addresses stay held, nobody takes new ones from it without borrowing."""
        return Block(msgspec.structs.replace(self.touched().value, affinity=None, affinity_claim_time=None))

    def _with_holder(self, ordinals: Sequence[int], holder: Holder) -> Block:
        value = self.value
        attributes = value.attributes
        wanted = Attribute(handle_id=holder.handle_id, secondary=dict(holder.attributes))
        index = next((at for at, attribute in enumerate(attributes) if attribute == wanted), len(attributes))
        allocations = list(value.allocations)
        sequence_numbers = dict(value.sequence_number_for_allocation)
        for ordinal in ordinals:
            allocations[ordinal] = index
            sequence_numbers[ordinal] = value.sequence_number
        taken = set(ordinals)
        return Block(
            msgspec.structs.replace(
                value,
                allocations=tuple(allocations),
                unallocated=tuple(ordinal for ordinal in value.unallocated if ordinal not in taken),
                attributes=attributes if index < len(attributes) else (*attributes, wanted),
                sequence_number=value.sequence_number + 1,
                sequence_number_for_allocation=sequence_numbers,
            )
        )

    def _without(self, ordinals: Collection[int]) -> Block:
        if not ordinals:
            return self
        value = self.value
        allocations = list(value.allocations)
        sequence_numbers = dict(value.sequence_number_for_allocation)
        for ordinal in ordinals:
            allocations[ordinal] = None
            sequence_numbers.pop(ordinal, None)
        used = sorted({index for index in allocations if index is not None})
        moved = {old: new for new, old in enumerate(used)}
        return Block(
            msgspec.structs.replace(
                value,
                allocations=tuple(None if index is None else moved[index] for index in allocations),
                unallocated=(*value.unallocated, *ordinals),
                attributes=tuple(value.attributes[index] for index in used),
                sequence_number=value.sequence_number + 1,
                sequence_number_for_allocation=sequence_numbers,
            )
        )

    def _ordinals_of(self, handle_id: str) -> list[int]:
        mine = {index for index, attribute in enumerate(self.value.attributes) if attribute.handle_id == handle_id}
        return [ordinal for ordinal, index in enumerate(self.value.allocations) if index in mine] if mine else []

    def _ordinal(self, address: IPAddress) -> int:
        ordinal = self.value.ordinal(address)
        if ordinal is None:
            raise ValueError(f"{address} is not in {self.cidr}")
        return ordinal


def reserved_ordinals(cidr: IPNetwork, reserved: Iterable[IPNetwork]) -> list[range]:
    """The parts of a block that reservations cover, as ordinals."""
    first = int(cidr.network_address)
    spans = []
    for network in reserved:
        if network.version != cidr.version:
            continue
        start = max(int(network.network_address) - first, 0)
        stop = min(int(network.broadcast_address) - first + 1, cidr.num_addresses)
        if start < stop:
            spans.append(range(start, stop))
    return spans
