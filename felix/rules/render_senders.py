"""Workloads that may send from other prefixes than their own addresses (allowedSourcePrefixes).

The kernel's own check of IPv4 senders (rp_filter) knows no exceptions, so it is off on their interfaces
(felix/dataplane/sender_checks.py), and a chain of their own checks both families: the prefixes pass, everything else
must be routed back through the interface it came in by."""

from collections.abc import Iterator
from ipaddress import IPv6Network

from felix.rules import render_names as names
from felix.rules import values as nft
from weft.model.address import IPNetwork

# Never forwarded; what asks for an address or for a neighbour sends from them.
_UNROUTED = (IPv6Network("::/128"), IPv6Network("fe80::/10"))


def forged(version: nft.IPVersion, *before: nft.Statement) -> nft.Rule:
    """Drops what is not routed back through its interface."""
    exempt = () if version == 4 else (nft.Address(nft.Side.SOURCE, (one,), negated=True) for one in _UNROUTED)
    family = nft.NetworkProtocol(version)
    return nft.rule(
        family, *before, *exempt, nft.ReversePath(exists=False), nft.Drop(), comment="sender is not this workload"
    )


class Senders:
    """Interface -> prefixes, and what the table needs for them."""

    def __init__(self) -> None:
        self._prefixes: dict[str, tuple[IPNetwork, ...]] = {}
        self._interfaces: dict[str, str] = {}

    def __bool__(self) -> bool:
        return bool(self._prefixes)

    def set(self, interface: str, prefixes: tuple[IPNetwork, ...]) -> str:
        """The chain that this concerns."""
        name = names.sender_chain(interface)
        self._prefixes.pop(interface, None)
        self._interfaces.pop(name, None)
        if prefixes:
            self._prefixes[interface] = prefixes
            self._interfaces[name] = interface
        return name

    def entry(self, interface: str) -> nft.Verdict | None:
        return nft.Goto(names.sender_chain(interface)) if interface in self._prefixes else None

    def chain(self, name: str) -> nft.Chain | None:
        interface = self._interfaces.get(name)
        return nft.Chain(name, tuple(_rules(self._prefixes[interface]))) if interface is not None else None


def _rules(prefixes: tuple[IPNetwork, ...]) -> Iterator[nft.Rule]:
    for version in (4, 6):
        allowed = tuple(one for one in prefixes if one.version == version)
        if allowed:
            yield nft.rule(nft.Address(nft.Side.SOURCE, allowed), nft.Accept())
    yield forged(4)
    yield forged(6)
