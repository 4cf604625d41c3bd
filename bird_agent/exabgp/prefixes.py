"""Read prefixes fast, from text, UPDATEs and the kernel: a hundred thousand come in one table, and each is looked up a
dozen times.

What comes out is an ordinary IPv4Network or IPv6Network, equal to any other of the same prefix. An IPv4 one is a number
and a length: it remembers its hash, which the standard library calculates anew each time, and makes its addresses only
for those who ask. Text that is not in the usual form is read, and refused, by the standard library."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Network, ip_network
from typing import Any, Final

from weft.model.address import IPNetwork

_OCTETS: Final = {str(number): number for number in range(256)}
_LENGTHS: Final = {str(length): length for length in range(33)}
_LONGEST: Final = 30
"""A /31 and a /32 have hosts of their own, with which the standard library's constructor provides them."""
_MASKS: Final = [(0xFFFFFFFF << (32 - length)) & 0xFFFFFFFF for length in range(33)]
_LENGTH_BYTES: Final = [bytes((length,)) for length in range(129)]
_NETMASKS: Final = [IPv4Address(mask) for mask in _MASKS]


class _Prefix(IPv4Network):
    """See the module; made by `_made` alone."""

    _number: int
    _prefixlen: int
    _known_hash: int

    def __new__(cls, *arguments: Any) -> Any:
        """What the standard library derives from one of these (its supernet, its subnets) is an ordinary network."""
        return IPv4Network(*arguments) if arguments else object.__new__(cls)

    @property
    def network_address(self) -> IPv4Address:  # type: ignore[override]
        return IPv4Address(self._number)

    @property
    def netmask(self) -> IPv4Address:  # type: ignore[override]
        return _NETMASKS[self._prefixlen]

    def __hash__(self) -> int:
        return self._known_hash

    def __eq__(self, other: object) -> bool:
        if isinstance(other, _Prefix):
            return self._number == other._number and self._prefixlen == other._prefixlen
        return super().__eq__(other)


class _Narrow(_Prefix):
    """A /31 or a /32."""

    def hosts(self) -> Any:
        return [self.network_address] if self._prefixlen == 32 else iter(self)


_new: Final = object.__new__


def _made(number: int, bits: int) -> IPv4Network:
    """Nothing may be set behind its length."""
    made: _Prefix = _new(_Prefix if bits <= _LONGEST else _Narrow)
    made._number, made._prefixlen, made._known_hash = number, bits, hash(number ^ _MASKS[bits])
    return made


def number_of(prefix: IPNetwork) -> int:
    """Its first address as a number, without making an address of it."""
    return prefix._number if isinstance(prefix, _Prefix) else int(prefix.network_address)


def read_prefix(text: str) -> IPNetwork:
    """`10.65.0.0/26`, `fd65::/122`. Raises ValueError."""
    address, _, length = text.partition("/")
    try:
        first, second, third, fourth = address.split(".")
        number = _OCTETS[first] << 24 | _OCTETS[second] << 16 | _OCTETS[third] << 8 | _OCTETS[fourth]
        bits = _LENGTHS[length]
    except (KeyError, ValueError):
        return ip_network(text)
    if number & ~_MASKS[bits]:
        return ip_network(text)  # which refuses it
    return _made(number, bits)


def read_route(packed: bytes) -> IPNetwork:
    """As the kernel's routes have it: an address's bytes and a length. Raises ValueError."""
    bits = packed[-1]
    if len(packed) != 5 or bits > 32:
        return IPv6Network((packed[:-1], bits))
    number = int.from_bytes(packed[:4], "big")
    if number & ~_MASKS[bits]:
        raise ValueError(f"bits behind the length in {packed.hex()}")
    return _made(number, bits)


def read_packed(data: bytes) -> list[IPNetwork]:
    """IPv4 prefixes as an UPDATE has them (RFC 4271 4.3): a length and as many bytes as it needs; bits behind the
    length mean nothing. Raises ValueError."""
    found: list[IPNetwork] = []
    append = found.append
    position, size = 0, len(data)
    while position < size:
        bits = data[position]
        begin = position + 1
        position = begin + (bits + 7 >> 3)
        if bits > 32 or position > size:
            raise ValueError(f"a prefix of {bits} bits in {size - begin} bytes")
        mask = _MASKS[bits]
        number = int.from_bytes(data[begin:position], "big") << (32 - (position - begin) * 8) & mask
        append(_made(number, bits))
    return found


def pack(prefixes: Iterable[IPNetwork]) -> dict[int, list[bytes]]:
    """By their version, in the order that UPDATEs have them in; each as it stands there (RFC 4271 4.3, RFC 4760 5)."""
    found: dict[int, list[bytes]] = {}
    ipv4: list[bytes] = []
    append = ipv4.append
    for prefix in prefixes:
        bits = prefix.prefixlen
        size = bits + 7 >> 3
        if prefix.version == 4:
            append(_LENGTH_BYTES[bits] + number_of(prefix).to_bytes(4, "big")[:size])
        else:
            found.setdefault(6, []).append(_LENGTH_BYTES[bits] + number_of(prefix).to_bytes(16, "big")[:size])
    if ipv4:
        found[4] = ipv4
    return {version: sorted(found[version]) for version in sorted(found)}
