"""What Calico's IPAM stores: blocks, affinities, handles and the configuration, with its exact JSON.

Only shape and consistency are checked here; what may happen to a block is decided in `weft.ipam.block`."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Final, Literal

import msgspec

from weft.model.address import IPAddress, IPNetwork
from weft.model.base import Metadata, Value, written, written_map
from weft.model.errors import FieldError
from weft.model.keys import Owner, parse_owner
from weft.model.pool import BLOCK_SIZES, IPAMConfiguration, IPAMConfigurationSpec

AffinityState = Literal["pending", "confirmed", "pendingDeletion"]


class Attribute(Value, frozen=True, kw_only=True):
    """What several allocations of a block have in common: their handle and facts about the holder."""

    handle_id: str | None = msgspec.field(default=None, name="handle_id")
    secondary: Mapping[str, str] = msgspec.field(default_factory=dict)
    alternate_owner_attrs: Mapping[str, str] = msgspec.field(default_factory=dict)


class BlockValue(Value, frozen=True, kw_only=True):
    """A block: for each address (by ordinal) None, or the index of its attribute.

    `unallocated` is the queue of free ordinals, first in, first out. `affinity` is `host:<node>`,
    `virtual:<name>` or None; blocks written before Calico 3.0 say `hostAffinity` and are read as the former."""

    cidr: IPNetwork
    affinity: str | None = written(None)
    affinity_claim_time: datetime | None = msgspec.field(default=None, name="affinity_claim_time")
    allocations: tuple[int | None, ...]
    unallocated: tuple[int, ...]
    attributes: tuple[Attribute, ...] = written(())
    sequence_number: int = written(0)
    sequence_number_for_allocation: Mapping[int, int] = written_map()
    deleted: bool = written(False)
    host_affinity: str | None = None

    def __post_init__(self) -> None:
        if self.cidr.prefixlen not in BLOCK_SIZES[self.cidr.version]:
            raise FieldError("cidr", str(self.cidr), "a block of at most 4096 addresses")
        size = self.cidr.num_addresses
        if len(self.allocations) != size:
            raise FieldError("allocations", len(self.allocations), f"{size} entries, one for each address")
        if self.unallocated and not 0 <= min(self.unallocated) <= max(self.unallocated) < size:
            raise FieldError("unallocated", self.unallocated, f"ordinals from 0 to {size - 1}")
        used = [index for index in self.allocations if index is not None]
        if used and not 0 <= min(used) <= max(used) < len(self.attributes):
            expected = f"indices into the {len(self.attributes)} attributes"
            raise FieldError("allocations", max(used), expected)
        if self.host_affinity is not None:
            if self.affinity is None:
                msgspec.structs.force_setattr(self, "affinity", f"host:{self.host_affinity}")
            msgspec.structs.force_setattr(self, "host_affinity", None)
        if self.affinity is not None:
            parse_owner(self.affinity)

    @property
    def owner(self) -> Owner | None:
        """Whose block it is; None where its affinity was released with addresses still in use."""
        return None if self.affinity is None else parse_owner(self.affinity)

    def ordinal(self, address: IPAddress) -> int | None:
        """The place of an address in the block; None where it is outside."""
        if address.version != self.cidr.version:
            return None
        ordinal = int(address) - int(self.cidr.network_address)
        return ordinal if 0 <= ordinal < self.cidr.num_addresses else None


def empty_block(cidr: IPNetwork, owner: Owner | None, claimed: datetime | None = None) -> BlockValue:
    """A block with nothing allocated, its addresses queued in order."""
    size = cidr.num_addresses
    return BlockValue(
        cidr=cidr,
        affinity=None if owner is None else str(owner),
        affinity_claim_time=claimed,
        allocations=(None,) * size,
        unallocated=tuple(range(size)),
    )


class AffinityValue(Value, frozen=True, kw_only=True):
    """The state of a claim. Calico before 3.0 stored no state for confirmed ones, and so reads "" as that."""

    state: AffinityState = written("confirmed")
    deleted: bool = written(False)


class HandleValue(Value, frozen=True, kw_only=True):
    """How many addresses a handle holds in each block (by its CIDR)."""

    block: Mapping[str, int] = written_map()
    deleted: bool = written(False)

    def __post_init__(self) -> None:
        for cidr, count in self.block.items():
            if count < 0:
                raise FieldError(f"block[{cidr}]", count, "0 or more addresses")


class IPAMConfigValue(Value, frozen=True, kw_only=True):
    """The stored configuration. A field left out is false or 0; with no configuration at all `DEFAULT_CONFIG`."""

    strict_affinity: bool = msgspec.field(default=False, name="strict_affinity")
    auto_allocate_blocks: bool = msgspec.field(default=False, name="auto_allocate_blocks")
    max_blocks_per_host: int = 0
    kube_virt_vm_address_persistence: Literal["Enabled", "Disabled"] | None = None


DEFAULT_CONFIG: Final = IPAMConfigValue(auto_allocate_blocks=True)


def to_stored(resource: IPAMConfiguration) -> IPAMConfigValue:
    """The stored form of the resource."""
    spec = resource.spec
    return IPAMConfigValue(
        strict_affinity=spec.strict_affinity,
        auto_allocate_blocks=spec.auto_allocate_blocks,
        max_blocks_per_host=spec.max_blocks_per_host,
        kube_virt_vm_address_persistence=spec.kube_virt_vm_address_persistence,
    )


def from_stored(value: IPAMConfigValue) -> IPAMConfiguration:
    """The stored form as a resource, always named `default`."""
    return IPAMConfiguration(
        metadata=Metadata(name="default"),
        spec=IPAMConfigurationSpec(
            strict_affinity=value.strict_affinity,
            auto_allocate_blocks=value.auto_allocate_blocks,
            max_blocks_per_host=value.max_blocks_per_host,
            kube_virt_vm_address_persistence=value.kube_virt_vm_address_persistence,
        ),
    )


IPAMValue = BlockValue | AffinityValue | HandleValue | IPAMConfigValue
