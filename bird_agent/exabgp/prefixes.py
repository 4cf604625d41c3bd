"""Read prefixes fast: a hundred thousand of them come in one table, and each is looked up a dozen times.

What comes out is an ordinary IPv4Network or IPv6Network, equal to any other of the same prefix; an IPv4 one remembers
its hash, which the standard library calculates anew each time. Text that is not in the usual form is read, and
refused, by the standard library."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, ip_network
from typing import Any, Final

from weft.model.address import IPNetwork

_OCTETS: Final = {str(number): number for number in range(256)}
_LENGTHS: Final = {str(length): length for length in range(31)}
"""A /31 and a /32 have methods of their own, which the standard library's constructor gives them."""
_MASKS: Final = [(0xFFFFFFFF << (32 - length)) & 0xFFFFFFFF for length in range(33)]
_NETMASKS: Final = [IPv4Address(mask) for mask in _MASKS]


class _Prefix(IPv4Network):
    """See the module; made by `read_prefix` alone."""

    _known_hash: int

    def __new__(cls, *arguments: Any) -> Any:
        """What the standard library derives from one of these (its supernet, its subnets) is an ordinary network."""
        return IPv4Network(*arguments) if arguments else object.__new__(cls)

    def __hash__(self) -> int:
        return self._known_hash


def read_prefix(text: str) -> IPNetwork:
    """`10.65.0.0/26`, `fd65::/122`. Raises ValueError."""
    address, _, length = text.partition("/")
    try:
        first, second, third, fourth = address.split(".")
        number = _OCTETS[first] << 24 | _OCTETS[second] << 16 | _OCTETS[third] << 8 | _OCTETS[fourth]
        bits = _LENGTHS[length]
    except (KeyError, ValueError):
        return ip_network(text)
    mask = _MASKS[bits]
    if number & ~mask:
        return ip_network(text)  # which refuses it
    made: _Prefix = object.__new__(_Prefix)
    made.network_address = IPv4Address(number)
    made.netmask = _NETMASKS[bits]
    made._prefixlen = bits  # type: ignore[attr-defined]
    made._known_hash = hash(number ^ mask)
    return made
