"""Prefixes as the reflector keeps them: the bytes of the wire, and the families they belong to.

A prefix (`Nlri`) is its length in one byte and the bytes that matter (RFC 4271 4.3), host bits zero, so that equal
prefixes are equal bytes. A table of a million of them hashes each once, an UPDATE is a join, and no object of the
standard library is made until somebody wants to read it. The family is not in the bytes: it is said beside them."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network
from typing import Final

from bird_agent.exabgp.commands import Family
from bird_agent.reflector.errors import UpdateMalformed
from weft.model.address import IPNetwork

Nlri = bytes

IPV4: Final[Family] = "ipv4 unicast"
IPV6: Final[Family] = "ipv6 unicast"
FAMILIES: Final[tuple[Family, ...]] = (IPV4, IPV6)

AFI: Final[dict[Family, int]] = {IPV4: 1, IPV6: 2}
UNICAST: Final = 1
FAMILY_OF: Final[dict[tuple[int, int], Family]] = {(1, UNICAST): IPV4, (2, UNICAST): IPV6}
MAX_LENGTH: Final[dict[Family, int]] = {IPV4: 32, IPV6: 128}


def nlri_of(network: IPNetwork) -> Nlri:
    return bytes((network.prefixlen,)) + network.network_address.packed[: (network.prefixlen + 7) // 8]


def network_of(family: Family, nlri: Nlri) -> IPNetwork:
    if family == IPV4:
        return IPv4Network((nlri[1:].ljust(4, b"\0"), nlri[0]))
    return IPv6Network((nlri[1:].ljust(16, b"\0"), nlri[0]))


def read_nlris(family: Family, data: bytes) -> tuple[Nlri, ...]:
    """The prefixes of a field. Raises UpdateMalformed where the field cannot be told apart (RFC 7606 5.3)."""
    found = []
    longest = MAX_LENGTH[family]
    position, size = 0, len(data)
    while position < size:
        bits = data[position]
        if bits > longest:
            raise UpdateMalformed(10, f"a prefix of {family} with a length of {bits}")
        end = position + 1 + (bits + 7) // 8
        if end > size:
            raise UpdateMalformed(10, f"a prefix of {family} with a length of {bits} has {size - position - 1} bytes")
        nlri = data[position:end]
        if bits % 8 and nlri[-1] & (0xFF >> bits % 8):
            nlri = nlri[:-1] + bytes((nlri[-1] & ~(0xFF >> bits % 8) & 0xFF,))
        found.append(nlri)
        position = end
    return tuple(found)
