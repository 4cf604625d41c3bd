"""What the admin API offers, as values and ports.

The same ports are implemented on a datastore (store.py, addresses.py) and over gRPC (client.py), so whoever holds one
need not know which. A resource is its JSON document here: its schema has one home, weft.model."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from enum import Enum
from pathlib import Path
from typing import Protocol

from msgspec import Struct

from weft.model.address import IPAddress, IPNetwork
from weft.model.errors import WeftError


class RefusedError(WeftError):
    """This may not be done to this resource, however it is asked for."""


class AgentUnavailableError(WeftError):
    """Nobody answers on this socket: is the agent running, and may you open it?"""

    def __init__(self, socket_path: Path, reason: str) -> None:
        super().__init__(f"no agent answers on {socket_path}: {reason}")
        self.socket_path = socket_path
        self.reason = reason


class Verb(Enum):
    """How a document is written: what is there already decides whether it may be."""

    CREATE = "create"
    APPLY = "apply"
    REPLACE = "replace"


class Manifest(Struct, frozen=True):
    """One document as somebody wrote it, and where: `position` is its index in `source`, 0 first."""

    document: bytes
    source: str = ""
    position: int = 0
    default_namespace: str = ""


class StoredResource(Struct, frozen=True):
    """One resource; `json` is its v3 document with metadata.resourceVersion set."""

    kind: str
    namespace: str
    name: str
    revision: int
    json: bytes


class Listing(Struct, frozen=True):
    items: tuple[StoredResource, ...]
    revision: int


class Written(Struct, frozen=True):
    """What is stored now (before a delete: what was), and what will not have the effect one would expect."""

    resource: StoredResource
    warnings: tuple[str, ...] = ()


class ChangeType(Enum):
    """IN_SYNC comes once, after everything that was there when the watch began."""

    ADDED = "ADDED"
    MODIFIED = "MODIFIED"
    DELETED = "DELETED"
    IN_SYNC = "IN_SYNC"


class Change(Struct, frozen=True):
    """`resource` is None in IN_SYNC; of what was deleted only kind, namespace, name and revision are known."""

    type: ChangeType
    resource: StoredResource | None = None


class ResourceAPI(Protocol):
    """Every method raises WeftErrors. A name or namespace of "" means all, where several may be answered."""

    async def get(self, kind: str, namespace: str, name: str) -> StoredResource: ...

    async def list(self, kind: str, namespace: str = "") -> Listing: ...

    async def write(self, verb: Verb, manifest: Manifest, dry_run: bool = False) -> Written: ...

    async def delete(
        self, kind: str, namespace: str, name: str, revision: int = 0, dry_run: bool = False
    ) -> Written: ...

    def watch(self, kind: str, namespace: str = "", name: str = "") -> AsyncGenerator[Change, None]: ...


class BlockUsage(Struct, frozen=True):
    """`affinity` is "host:<node>", "virtual:<name>" or empty; counts are addresses."""

    cidr: IPNetwork
    affinity: str
    total: int
    used: int
    reserved: int


class PoolUsage(Struct, frozen=True):
    name: str
    cidr: IPNetwork
    total: int
    used: int
    reserved: int
    blocks: tuple[BlockUsage, ...]


class Utilization(Struct, frozen=True):
    """`orphans`: blocks that lie in no pool any more."""

    pools: tuple[PoolUsage, ...]
    orphans: tuple[BlockUsage, ...]


class BorrowedAddress(Struct, frozen=True):
    """An address that a node holds in a block which is another's or nobody's."""

    address: IPAddress
    borrower: str
    block: IPNetwork
    owner: str
    holder_type: str
    holder: str


class AddressState(Enum):
    FREE = "free"
    IN_USE = "in use"
    OUTSIDE_POOLS = "outside the pools"
    NOT_IN_A_BLOCK = "in no block yet"
    RESERVED = "reserved"


class AddressInfo(Struct, frozen=True):
    state: AddressState
    pool: str = ""
    block: str = ""
    affinity: str = ""
    handle_id: str = ""
    attributes: tuple[tuple[str, str], ...] = ()


class IPAMSettings(Struct, frozen=True):
    """`max_blocks_per_host` 0: no limit."""

    strict_affinity: bool
    auto_allocate_blocks: bool
    max_blocks_per_host: int


class Released(Struct, frozen=True):
    released: tuple[IPAddress, ...]
    not_held: tuple[IPAddress, ...]


class IPAMAPI(Protocol):
    async def utilization(self) -> Utilization: ...

    async def borrowed(self) -> tuple[BorrowedAddress, ...]: ...

    async def look_up(self, address: IPAddress) -> AddressInfo: ...

    async def settings(self) -> IPAMSettings: ...

    async def configure(
        self,
        strict_affinity: bool | None = None,
        auto_allocate_blocks: bool | None = None,
        max_blocks_per_host: int | None = None,
    ) -> IPAMSettings: ...

    async def release(self, addresses: Sequence[IPAddress]) -> Released: ...
