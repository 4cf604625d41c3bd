"""Address types and their one parser.

`IPAddress`, `IPNetwork` and `IPInterface` stand for either family in annotations; at run time they are
abstract classes that the stdlib's types are registered with, so that `isinstance` and msgspec's decoder
take them as one type. The text forms are Go's, because Calico reads what we write."""

from __future__ import annotations

import ipaddress
from abc import ABC
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface, IPv6Network
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    IPAddress = IPv4Address | IPv6Address
    IPNetwork = IPv4Network | IPv6Network
    IPInterface = IPv4Interface | IPv6Interface
    MaskedNetwork = IPNetwork
    CidrNetwork = IPNetwork
else:

    class IPAddress(ABC):  # noqa: B024
        """An IPv4Address or an IPv6Address."""

    class IPNetwork(ABC):  # noqa: B024
        """An IPv4Network or an IPv6Network."""

    class IPInterface(ABC):  # noqa: B024
        """An IPv4Interface or an IPv6Interface."""

    class MaskedNetwork(ABC):  # noqa: B024
        """An IPNetwork where host bits are masked off when it is read, as Calico does for some fields."""

    class CidrNetwork(ABC):  # noqa: B024
        """An IPNetwork that must be written with its prefix length; host bits are masked off, as Kubernetes does."""

    IPAddress.register(IPv4Address)
    IPAddress.register(IPv6Address)
    IPNetwork.register(IPv4Network)
    IPNetwork.register(IPv6Network)
    IPInterface.register(IPv4Interface)
    IPInterface.register(IPv6Interface)
    MaskedNetwork.register(IPv4Network)
    MaskedNetwork.register(IPv6Network)
    CidrNetwork.register(IPv4Network)
    CidrNetwork.register(IPv6Network)


_OCTETS = {str(value): value for value in range(256)}
_LENGTHS = {str(length): length for length in range(33)}


def _ipv4(text: str) -> int | None:
    """The number of an IPv4 address that is written as Go writes it; None for anything else, right or wrong. (A
    cluster's addresses are read at every start; the standard library takes five times as long.)"""
    parts = text.split(".")
    if len(parts) != 4:
        return None
    try:
        first, second, third, fourth = [_OCTETS[part] for part in parts]
    except KeyError:
        return None
    return first << 24 | second << 16 | third << 8 | fourth


def _ipv4_network(text: str) -> IPv4Network | None:
    """As `_ipv4`, for a prefix without host bits."""
    address, _, length = text.partition("/")
    number, bits = _ipv4(address), _LENGTHS.get(length)
    if number is None or bits is None or number & (0xFFFFFFFF >> bits):
        return None
    return IPv4Network((number, bits))


def parse_address(text: str) -> IPAddress:
    """An address without a prefix length. Raises ValueError saying what would be right."""
    number = _ipv4(text)
    if number is not None:
        return IPv4Address(number)
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        raise ValueError("an IPv4 or IPv6 address, such as 10.65.0.1") from None


def parse_network(text: str) -> IPNetwork:
    """A prefix; a bare address is its /32 or /128, as Calico reads it. Host bits are refused."""
    network = _ipv4_network(text)
    if network is not None:
        return network
    try:
        return ipaddress.ip_network(text)
    except ValueError as error:
        if "host bits" in str(error):
            masked = ipaddress.ip_network(text, strict=False)
            raise ValueError(f"a prefix without host bits, such as {masked}") from None
        raise ValueError("a prefix, such as 10.65.0.0/16 or fd00::/64") from None


def parse_masked_network(text: str) -> IPNetwork:
    """A prefix; host bits are masked off."""
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError:
        raise ValueError("a prefix, such as 10.65.0.0/16 or fd00::/64") from None


def parse_cidr(text: str) -> IPNetwork:
    """A prefix with its length in digits; host bits are masked off."""
    _, slash, length = text.partition("/")
    if not (slash and length.isascii() and length.isdigit()):
        raise ValueError("a prefix with its length, such as 10.65.0.0/16 or fd00::/64")
    return parse_masked_network(text)


def parse_interface(text: str) -> IPInterface:
    """An address with its prefix length; without one it is /32 or /128."""
    try:
        return ipaddress.ip_interface(text)
    except ValueError:
        raise ValueError("an address with a prefix length, such as 10.0.0.1/24") from None
