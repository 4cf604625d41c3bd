"""The keys that the kernel must hold for the members of a set, kept up to date change by change.

A hash set holds its members as they are. An interval set refuses overlaps, so of nested prefixes only the outermost
is held, and a change of one prefix may uncover or cover others; port ranges are merged. A key is bytes: the register
contents of a member, or for an interval its first and last value, one behind the other. Nothing here encodes
messages or reads a kernel."""

from bisect import bisect_left, bisect_right, insort
from collections import Counter
from collections.abc import Iterable, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import NamedTuple, Protocol, cast

from felix.rules.values import AddressPort, IPNetwork, KeyType, Member, PortRange


class KeyChange(NamedTuple):
    """Keys to add to and to remove from the kernel's set; disjoint."""

    add: set[bytes]
    remove: set[bytes]


class Members(Protocol):
    """The members of one set. Removing what is absent and adding what is there change nothing."""

    def change(self, added: Iterable[Member], removed: Iterable[Member]) -> KeyChange: ...
    def keys(self) -> set[bytes]: ...
    def __len__(self) -> int: ...


def members_of(key: KeyType, initial: Iterable[Member]) -> Members:
    match key:
        case KeyType.NETWORK_V4 | KeyType.NETWORK_V6:
            return _Networks(32 if key is KeyType.NETWORK_V4 else 128, cast("Iterable[IPNetwork]", initial))
        case KeyType.PORT:
            return _PortRanges(cast("Iterable[PortRange]", initial))
        case _:
            return _Plain(initial)


def is_interval(key: KeyType) -> bool:
    return key in (KeyType.NETWORK_V4, KeyType.NETWORK_V6, KeyType.PORT)


def plain_key(member: Member) -> bytes:
    """The key of a member that is no interval."""
    match member:
        case IPv4Address() | IPv6Address():
            return member.packed
        case AddressPort(address, protocol, port):
            return address.packed + bytes((protocol, 0, 0, 0)) + port.to_bytes(2, "big") + b"\0\0"
        case _:
            raise TypeError(f"not a plain member: {member!r}")


def merged(intervals: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Intervals of integers, both ends included, with those that touch or overlap made one; ascending."""
    result: list[tuple[int, int]] = []
    for first, last in sorted(intervals):
        if result and first <= result[-1][1] + 1:
            result[-1] = (result[-1][0], max(last, result[-1][1]))
        else:
            result.append((first, last))
    return result


def network_intervals(networks: Sequence[IPNetwork]) -> list[tuple[int, int]]:
    return merged((int(n.network_address), int(n.broadcast_address)) for n in networks)


def port_intervals(ranges: Iterable[PortRange]) -> list[tuple[int, int]]:
    return merged((r.first, r.last) for r in ranges)


def prefix_length(first: int, last: int, bits: int) -> int | None:
    """The length of the prefix that is exactly this interval, None if none is."""
    span = last - first
    if span & (span + 1) or first & span:
        return None
    return bits - span.bit_length()


class _Plain:
    def __init__(self, initial: Iterable[Member]) -> None:
        self._keys = set(map(plain_key, initial))

    def change(self, added: Iterable[Member], removed: Iterable[Member]) -> KeyChange:
        wanted = set(map(plain_key, added))
        remove = {key for key in map(plain_key, removed) if key in self._keys} - wanted
        add = wanted - self._keys
        self._keys |= add
        self._keys -= remove
        return KeyChange(add, remove)

    def keys(self) -> set[bytes]:
        return set(self._keys)

    def __len__(self) -> int:
        return len(self._keys)


class _PortRanges:
    """Few and small: merged anew for each change."""

    def __init__(self, initial: Iterable[PortRange]) -> None:
        self._ranges = set(initial)

    def change(self, added: Iterable[Member], removed: Iterable[Member]) -> KeyChange:
        before = self.keys()
        self._ranges -= cast("set[PortRange]", set(removed))
        self._ranges |= cast("set[PortRange]", set(added))
        after = self.keys()
        return KeyChange(after - before, before - after)

    def keys(self) -> set[bytes]:
        return {first.to_bytes(2, "big") + last.to_bytes(2, "big") for first, last in port_intervals(self._ranges)}

    def __len__(self) -> int:
        return len(self._ranges)


class _Networks:
    """Prefixes as sortable integers, address << 8 | length: what lies inside a prefix follows it directly."""

    def __init__(self, bits: int, initial: Iterable[IPNetwork]) -> None:
        self._bits = bits
        self._sorted = sorted(set(map(self._number, initial)))
        self._members = set(self._sorted)
        self._lengths = Counter(number & 0xFF for number in self._sorted)

    def change(self, added: Iterable[Member], removed: Iterable[Member]) -> KeyChange:
        wanted = {self._number(cast("IPNetwork", member)) for member in added}
        held: dict[int, bool] = {}
        for member in removed:
            number = self._number(cast("IPNetwork", member))
            if number in self._members and number not in wanted:
                self._remove(number, held)
        for number in wanted - self._members:
            self._add(number, held)
        # A prefix that one change uncovers and the next covers again needs no message.
        add = {self._key(number) for number, now in held.items() if now}
        return KeyChange(add, {self._key(number) for number, now in held.items() if not now})

    def keys(self) -> set[bytes]:
        return set(map(self._key, self._outermost(0, len(self._sorted))))

    def __len__(self) -> int:
        return len(self._members)

    def _add(self, number: int, held: dict[int, bool]) -> None:
        self._members.add(number)
        insort(self._sorted, number)
        self._lengths[number & 0xFF] += 1
        if not self._covered(number):
            _note(held, number, True)
            for inner in self._inside(number):
                _note(held, inner, False)

    def _remove(self, number: int, held: dict[int, bool]) -> None:
        self._members.remove(number)
        del self._sorted[bisect_left(self._sorted, number)]
        length = number & 0xFF
        self._lengths[length] -= 1
        if not self._lengths[length]:
            del self._lengths[length]
        if not self._covered(number):
            _note(held, number, False)
            for inner in self._inside(number):
                _note(held, inner, True)

    def _covered(self, number: int) -> bool:
        address, own = number >> 8, number & 0xFF
        for length in self._lengths:
            host_bits = self._bits - length
            if length < own and ((address >> host_bits << host_bits) << 8 | length) in self._members:
                return True
        return False

    def _inside(self, number: int) -> list[int]:
        """The outermost of the prefixes that lie in this one, which need not be a member itself."""
        return self._outermost(bisect_right(self._sorted, number), bisect_right(self._sorted, self._end(number)))

    def _outermost(self, start: int, stop: int) -> list[int]:
        found = []
        end = -1
        for place in range(start, stop):
            number = self._sorted[place]
            if number > end:
                found.append(number)
                end = self._end(number)
        return found

    def _end(self, number: int) -> int:
        """The greatest number that a prefix inside this one can have."""
        return (number >> 8 | (1 << (self._bits - (number & 0xFF))) - 1) << 8 | 0xFF

    def _key(self, number: int) -> bytes:
        size = self._bits // 8
        return (number >> 8).to_bytes(size, "big") + (self._end(number) >> 8).to_bytes(size, "big")

    @staticmethod
    def _number(network: IPNetwork) -> int:
        assert isinstance(network, (IPv4Network, IPv6Network))
        return int(network.network_address) << 8 | network.prefixlen


def _note(held: dict[int, bool], number: int, now: bool) -> None:
    if held.pop(number, None) is None:
        held[number] = now
