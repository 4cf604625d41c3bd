"""What addresses come from: IPPool, IPReservation and IPAMConfiguration."""

from __future__ import annotations

from typing import ClassVar, Final, Literal

import msgspec

from weft.model.address import IPNetwork, MaskedNetwork
from weft.model.base import Resource, Value, written
from weft.model.errors import FieldError

EncapsulationMode = Literal["Never", "Always", "CrossSubnet"]
AllowedUse = Literal["Workload", "Tunnel", "LoadBalancer"]
AssignmentMode = Literal["Automatic", "Manual"]

DEFAULT_BLOCK_SIZE: Final = {4: 26, 6: 122}
BLOCK_SIZES: Final = {4: range(20, 33), 6: range(116, 129)}


class IPPoolSpec(Value, frozen=True, kw_only=True):
    """`block_size` is a prefix length; left out it is 26 or 122."""

    cidr: IPNetwork
    vxlan_mode: EncapsulationMode = written("Never")
    ipip_mode: EncapsulationMode = written("Never")
    nat_outgoing: bool = False
    disabled: bool = False
    disable_bgp_export: bool = False
    block_size: int = 0
    node_selector: str = written("all()")
    namespace_selector: str = ""
    allowed_uses: tuple[AllowedUse, ...] = written(("Workload", "Tunnel"))
    assignment_mode: AssignmentMode = written("Automatic")

    def __post_init__(self) -> None:
        version = self.cidr.version
        if self.block_size == 0:
            msgspec.structs.force_setattr(self, "block_size", DEFAULT_BLOCK_SIZE[version])
        if self.node_selector == "":
            msgspec.structs.force_setattr(self, "node_selector", "all()")
        if not self.allowed_uses:
            msgspec.structs.force_setattr(self, "allowed_uses", ("Workload", "Tunnel"))
        sizes = BLOCK_SIZES[version]
        if self.block_size not in sizes:
            expected = f"an IPv{version} block size from {sizes[0]} to {sizes[-1]}"
            raise FieldError("blockSize", self.block_size, expected)
        if self.cidr.prefixlen > self.block_size and not self.disabled:
            expected = f"a pool at least as large as one block (/{self.block_size})"
            raise FieldError("cidr", str(self.cidr), expected)


class IPPool(Resource, frozen=True, kw_only=True):
    kind: ClassVar[str] = "IPPool"
    spec: IPPoolSpec


class IPReservationSpec(Value, frozen=True, kw_only=True):
    """Addresses that automatic assignment never hands out."""

    reserved_cidrs: tuple[MaskedNetwork, ...] = ()


class IPReservation(Resource, frozen=True, kw_only=True):
    kind: ClassVar[str] = "IPReservation"
    spec: IPReservationSpec = IPReservationSpec()


class IPAMConfigurationSpec(Value, frozen=True, kw_only=True):
    """The manifest's spelling; stored as `weft.model.ipam.IPAMConfigValue` (`to_stored`, `from_stored` there)."""

    strict_affinity: bool = written(False)
    max_blocks_per_host: int = 0
    auto_allocate_blocks: bool = written(True)
    kube_virt_vm_address_persistence: Literal["Enabled", "Disabled"] | None = None

    def __post_init__(self) -> None:
        if self.max_blocks_per_host < 0:
            raise FieldError("maxBlocksPerHost", self.max_blocks_per_host, "0 (no limit) or more")


class IPAMConfiguration(Resource, frozen=True, kw_only=True):
    kind: ClassVar[str] = "IPAMConfiguration"
    spec: IPAMConfigurationSpec = IPAMConfigurationSpec()
