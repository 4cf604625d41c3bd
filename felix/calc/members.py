"""What sets hold, and one address family of a set: its members, counted, and who is among them.

In the kernel each address family of a set is a set of its own, and its kind follows from its members alone: none
without members, ports where they have ports, addresses while all are single addresses, networks otherwise."""

from collections.abc import Iterable
from enum import Enum
from ipaddress import IPv4Address, IPv6Address, ip_network
from typing import NamedTuple, TypeGuard

from msgspec import Struct

from weft.model.address import IPAddress, IPNetwork
from weft.policy.values import AddressPort

Member = IPAddress | IPNetwork | AddressPort
"""A single address is an address, never a /32 or /128 network."""


class SetKind(Enum):
    ADDRESSES = "addresses"
    NETWORKS = "networks"
    PORTS = "ports"


class SetKey(NamedTuple):
    """The part of a set that holds one address family."""

    id: str
    version: int


class SetChange(Struct, frozen=True):
    """What became of a set since the last flush.

    kind: None if it has no members (and so no place in the kernel). replaced: it is new or its kind is another,
    and `added` are all its members; otherwise `added` and `removed` are the difference. Members are addresses in a
    set of ADDRESSES, networks in a set of NETWORKS, where they may overlap, and AddressPorts in a set of PORTS."""

    kind: SetKind | None
    replaced: bool = False
    added: frozenset[Member] = frozenset()
    removed: frozenset[Member] = frozenset()


def as_member(network: IPNetwork) -> Member:
    return network.network_address if network.prefixlen == network.max_prefixlen else network


class Family:
    """Member -> how many items have it. All members have ports, or none has."""

    __slots__ = ("_counts", "_of_ports", "_prefixes", "_reported", "_was_present")

    def __init__(self, *, of_ports: bool) -> None:
        self._of_ports = of_ports
        self._counts: dict[Member, int] = {}
        self._prefixes: dict[int, set[int]] = {}
        self._reported: SetKind | None = None
        self._was_present: dict[Member, bool] = {}

    def __bool__(self) -> bool:
        """Whether it has members."""
        return bool(self._counts)

    # --- input --------------------------------------------------------------------------------------------------

    def add(self, member: Member) -> None:
        count = self._counts.get(member, 0)
        if count == 0:
            self._was_present.setdefault(member, False)
            self._file(member)
        self._counts[member] = count + 1

    def remove(self, member: Member) -> None:
        count = self._counts[member] - 1
        if count:
            self._counts[member] = count
            return
        del self._counts[member]
        self._was_present.setdefault(member, True)
        self._unfile(member)

    # --- questions ----------------------------------------------------------------------------------------------

    def contains(self, address: IPAddress) -> bool:
        """Whether the address, or a prefix that it is in, is a member. Asks once for each length that prefixes have."""
        if address in self._counts:
            return True
        number, length = int(address), address.max_prefixlen
        return any(number >> (length - prefixlen) in heads for prefixlen, heads in self._prefixes.items())

    def contains_port(self, address: IPAddress, protocol: int, port: int) -> bool:
        return AddressPort(address, protocol, port) in self._counts

    def kind(self) -> SetKind | None:
        if not self._counts:
            return None
        if self._of_ports:
            return SetKind.PORTS
        return SetKind.NETWORKS if self._prefixes else SetKind.ADDRESSES

    def flush(self) -> SetChange | None:
        """The change since the last call, None if there is none."""
        kind, touched = self.kind(), self._was_present
        self._was_present = {}
        if kind is not self._reported:
            self._reported = kind
            return SetChange(kind, replaced=kind is not None, added=_as_kind(self._counts, kind))
        added = [member for member, before in touched.items() if not before and member in self._counts]
        removed = [member for member, before in touched.items() if before and member not in self._counts]
        if not added and not removed:
            return None
        return SetChange(kind, False, _as_kind(added, kind), _as_kind(removed, kind))

    # --- workings -----------------------------------------------------------------------------------------------

    def _file(self, member: Member) -> None:
        if _is_network(member):
            self._prefixes.setdefault(member.prefixlen, set()).add(_head(member))

    def _unfile(self, member: Member) -> None:
        if _is_network(member):
            heads = self._prefixes[member.prefixlen]
            heads.remove(_head(member))
            if not heads:
                del self._prefixes[member.prefixlen]


def _is_network(member: Member) -> TypeGuard[IPNetwork]:
    return not isinstance(member, (IPv4Address, IPv6Address, AddressPort))


def _head(network: IPNetwork) -> int:
    """The bits that all its addresses begin with."""
    return int(network.network_address) >> (network.max_prefixlen - network.prefixlen)


def _as_kind(members: Iterable[Member], kind: SetKind | None) -> frozenset[Member]:
    if kind is SetKind.NETWORKS:
        return frozenset(ip_network(m) if isinstance(m, (IPv4Address, IPv6Address)) else m for m in members)
    return frozenset(members)
