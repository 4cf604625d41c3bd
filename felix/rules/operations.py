"""The operations that a batch on our table is made of, as values.

The planner orders them, `writer` turns them into messages, `text` into what `nft -f` reads, and the fake kernel of
the tests refuses them as the real one does. Each names the object it touches, so a refusal can be laid at a door."""

from collections.abc import Collection, Mapping

from msgspec import Struct

from felix.rules.compiler import CompiledRule
from felix.rules.values import Count, Hook, KeyType, Verdict


class CreateTable(Struct, frozen=True):
    """Does nothing if it is there."""


class DeleteTable(Struct, frozen=True):
    """With everything in it. Refused if it is not there."""


class CreateChain(Struct, frozen=True):
    name: str
    hook: Hook | None = None


class FlushChain(Struct, frozen=True):
    name: str


class AddRule(Struct, frozen=True):
    """Behind the rules that the chain has."""

    chain: str
    compiled: CompiledRule


class DeleteChain(Struct, frozen=True):
    """With its rules. Refused while something jumps to it."""

    name: str


class CreateSet(Struct, frozen=True):
    name: str
    key: KeyType


class CreateMap(Struct, frozen=True):
    name: str


class DeleteSet(Struct, frozen=True):
    """Or map. Refused while a rule looks into it."""

    name: str
    is_map: bool = False


class AddElements(Struct, frozen=True):
    """Keys as `members` makes them. Refused where two intervals overlap."""

    set: str
    key: KeyType
    keys: Collection[bytes]


class RemoveElements(Struct, frozen=True):
    """Refused if one of them is not there."""

    set: str
    key: KeyType
    keys: Collection[bytes]


class AddEntries(Struct, frozen=True):
    """Refused for an interface that has another verdict already."""

    map: str
    entries: Mapping[str, Verdict]


class RemoveEntries(Struct, frozen=True):
    map: str
    interfaces: Collection[str]


class CreateCounter(Struct, frozen=True):
    """Does nothing if it is there: it keeps what it has counted."""

    name: str
    start: Count = Count()


class DeleteCounter(Struct, frozen=True):
    """Refused while a rule counts in it."""

    name: str


Operation = (
    CreateTable
    | DeleteTable
    | CreateChain
    | FlushChain
    | AddRule
    | DeleteChain
    | CreateSet
    | CreateMap
    | DeleteSet
    | AddElements
    | RemoveElements
    | AddEntries
    | RemoveEntries
    | CreateCounter
    | DeleteCounter
)
