"""What of the table `inet weft` becomes another: renderers say it, the driver does it.

Only values; nothing here checks that what a change refers to is there."""

from collections.abc import Mapping

from msgspec import Struct, field

from felix.rules import values as v


class MemberChange(Struct, frozen=True):
    """Members that come to and go from a set that is there."""

    added: frozenset[v.Member] = frozenset()
    removed: frozenset[v.Member] = frozenset()


class Changes(Struct, frozen=True):
    """What differs from the desired state so far, by name. None removes. Order between the fields: sets and maps
    first, then members and entries, then chains; the whole is applied at once."""

    chains: Mapping[str, v.Chain | None] = field(default_factory=dict)
    sets: Mapping[str, v.Set | None] = field(default_factory=dict)
    maps: Mapping[str, v.VerdictMap | None] = field(default_factory=dict)
    members: Mapping[str, MemberChange] = field(default_factory=dict)
    entries: Mapping[str, Mapping[str, v.Verdict | None]] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.chains or self.sets or self.maps or self.members or self.entries)


def first_table(changes: Changes) -> v.Table:
    """The whole table that changes to an empty one make: what a driver starts with."""
    entries = {name: {k: one for k, one in found.items() if one is not None} for name, found in changes.entries.items()}
    maps = {name: one for name, one in changes.maps.items() if one is not None}
    return v.Table(
        {name: one for name, one in changes.chains.items() if one is not None},
        {name: one for name, one in changes.sets.items() if one is not None},
        {name: v.VerdictMap(name, {**one.entries, **entries.get(name, {})}) for name, one in maps.items()},
    )
