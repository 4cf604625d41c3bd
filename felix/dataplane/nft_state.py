"""What the kernel holds of our table, and the port through which it is read and changed."""

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple, Protocol

from msgspec import Struct, field

from felix.rules.operations import Operation
from felix.rules.values import Count, KeyType, Verdict
from weft.netlink.nftables import BaseChain


class KernelChain(NamedTuple):
    """A chain: its hook, and the digest that each of its rules carries (empty: not written by us)."""

    base: BaseChain | None
    digests: tuple[bytes, ...]


class KernelSet(NamedTuple):
    """A set. `key` is None for a set of a kind that we never make, or a map with such an entry."""

    key: KeyType | None
    keys: frozenset[bytes]
    is_map: bool = False


class KernelTable(Struct, frozen=True):
    """All of it, as one read found it."""

    exists: bool = False
    chains: Mapping[str, KernelChain] = field(default_factory=dict)
    sets: Mapping[str, KernelSet] = field(default_factory=dict)
    maps: Mapping[str, Mapping[str, Verdict]] = field(default_factory=dict)
    counters: Mapping[str, Count] = field(default_factory=dict)
    """Ours: named objects of other names or types are left alone."""


class Refusal(NamedTuple):
    """The kernel took nothing of a batch. `operation` is what it objected to, None if the batch as a whole."""

    operation: Operation | None
    errno: int
    text: str


class NftKernel(Protocol):
    def read(self) -> KernelTable:
        """Raises OSError, or DumpInterruptedError if it would not hold still."""
        ...

    def commit(self, operations: Sequence[Operation]) -> list[Refusal]:
        """All of them or, with a refusal, none."""
        ...

    def counts(self, names: Collection[str]) -> Mapping[str, Count]:
        """What these counters hold now; one that is not there is left out. Raises OSError."""
        ...
