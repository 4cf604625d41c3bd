"""The members of the sets that active rules look into.

A set belongs to one selector and is kept for as long as a rule uses it. Its members are the addresses of all items
(endpoints and network sets of the whole cluster) that the selector matches, counted, since two items may have the
same address. What changed is collected until `flush`, and what was undone in between is not reported.

In the kernel each address family of a set is a set of its own, and its kind follows from its members
alone: none without members, addresses while all are single addresses, networks otherwise."""

from collections.abc import Iterable
from enum import Enum
from ipaddress import IPv4Address, IPv6Address, ip_network
from typing import NamedTuple

from msgspec import Struct

from felix.calc.label_index import LabelIndex, Labels
from weft.model.address import IPAddress, IPNetwork
from weft.model.keys import ResourceKey
from weft.policy.values import AddressPort, AddressSet, ServiceSet

Member = IPAddress | IPNetwork | AddressPort
"""A single address is an address, never a /32 or /128 network."""


class SetKind(Enum):
    ADDRESSES = "addresses"
    NETWORKS = "networks"
    PORTS = "ports"


class SetKey(NamedTuple):
    """The part of a selector's set that holds one address family."""

    id: str
    version: int


class SetChange(Struct, frozen=True):
    """What became of a set since the last flush.

    kind: None if it has no members (and so no place in the kernel). replaced: it is new or its kind is another,
    and `added` are all its members; otherwise `added` and `removed` are the difference. Members are addresses in a
    set of ADDRESSES and networks in a set of NETWORKS; networks may overlap."""

    kind: SetKind | None
    replaced: bool = False
    added: frozenset[Member] = frozenset()
    removed: frozenset[Member] = frozenset()


def as_member(network: IPNetwork) -> Member:
    return network.network_address if network.prefixlen == network.max_prefixlen else network


class _Family:
    """One address family of a set: member -> how many items have it."""

    __slots__ = ("counts", "networks", "reported", "was_present")

    def __init__(self) -> None:
        self.counts: dict[Member, int] = {}
        self.networks = 0
        self.reported: SetKind | None = None
        self.was_present: dict[Member, bool] = {}

    def add(self, member: Member) -> None:
        count = self.counts.get(member, 0)
        if count == 0:
            self.was_present.setdefault(member, False)
            self.networks += not isinstance(member, (IPv4Address, IPv6Address))
        self.counts[member] = count + 1

    def remove(self, member: Member) -> None:
        count = self.counts[member] - 1
        if count:
            self.counts[member] = count
            return
        del self.counts[member]
        self.was_present.setdefault(member, True)
        self.networks -= not isinstance(member, (IPv4Address, IPv6Address))

    def kind(self) -> SetKind | None:
        if not self.counts:
            return None
        return SetKind.NETWORKS if self.networks else SetKind.ADDRESSES

    def flush(self) -> SetChange | None:
        """The change since the last call, None if there is none."""
        kind, touched = self.kind(), self.was_present
        self.was_present = {}
        if kind is not self.reported:
            self.reported = kind
            return SetChange(kind, replaced=kind is not None, added=_as_kind(self.counts, kind))
        added = [member for member, before in touched.items() if not before and member in self.counts]
        removed = [member for member, before in touched.items() if before and member not in self.counts]
        if not added and not removed:
            return None
        return SetChange(kind, False, _as_kind(added, kind), _as_kind(removed, kind))


def _as_kind(members: Iterable[Member], kind: SetKind | None) -> frozenset[Member]:
    if kind is SetKind.NETWORKS:
        return frozenset(ip_network(m) if isinstance(m, (IPv4Address, IPv6Address)) else m for m in members)
    return frozenset(members)


class IPSets:
    def __init__(self) -> None:
        self._index: LabelIndex[ResourceKey, str] = LabelIndex(self._on_match)
        self._members: dict[ResourceKey, tuple[Member, ...]] = {}
        self._users: dict[str, int] = {}
        self._families: dict[SetKey, _Family] = {}
        self._dirty: dict[SetKey, None] = {}

    # --- input --------------------------------------------------------------------------------------------------

    def set_item(
        self, item: ResourceKey, labels: Labels, parents: tuple[str, ...], members: tuple[Member, ...]
    ) -> None:
        """An endpoint or network set, its labels, the profiles it inherits labels from, and its addresses."""
        before = self._members.get(item)
        if before is not None and before != members:
            for set_id in self._index.selectors_of(item):
                self._add(set_id, members)
                self._remove(set_id, before)
        self._members[item] = members
        self._index.set_item(item, labels, parents)

    def remove_item(self, item: ResourceKey) -> None:
        self._index.remove_item(item)
        self._members.pop(item, None)

    def set_parent(self, profile: str, labels: Labels) -> None:
        self._index.set_parent(profile, labels)

    def acquire(self, wanted: AddressSet) -> None:
        """One more rule set uses it; the first makes it."""
        users = self._users[wanted.id] = self._users.get(wanted.id, 0) + 1
        if users == 1 and not isinstance(wanted, ServiceSet):
            self._index.set_selector(wanted.id, wanted.selector)

    def release(self, set_id: str) -> None:
        """One user less; with the last it is gone."""
        self._users[set_id] -= 1
        if self._users[set_id] == 0:
            del self._users[set_id]
            self._index.remove_selector(set_id)

    def flush(self) -> dict[SetKey, SetChange]:
        changes = {}
        for key in self._dirty:
            family = self._families[key]
            change = family.flush()
            if change is not None:
                changes[key] = change
            if not family.counts:
                del self._families[key]
        self._dirty = {}
        return changes

    # --- workings -----------------------------------------------------------------------------------------------

    def _on_match(self, set_id: str, item: ResourceKey, matches: bool) -> None:
        if matches:
            self._add(set_id, self._members[item])
        else:
            self._remove(set_id, self._members[item])

    def _add(self, set_id: str, members: tuple[Member, ...]) -> None:
        for member in members:
            self._family(set_id, member).add(member)

    def _remove(self, set_id: str, members: tuple[Member, ...]) -> None:
        for member in members:
            self._family(set_id, member).remove(member)

    def _family(self, set_id: str, member: Member) -> _Family:
        key = SetKey(set_id, member.version)
        self._dirty[key] = None
        family = self._families.get(key)
        if family is None:
            family = self._families[key] = _Family()
        return family
