"""What a rule of the table `inet weft` looks at in a packet, as frozen values.

Part of `values`, which names everything here, too. A match that the kernel would refuse by itself cannot be built;
whether statements go together is for `values.Rule` to say.

Source of the terms: nft(8)."""

from enum import Enum
from ipaddress import IPv4Network
from typing import Literal

from msgspec import Struct
from msgspec.structs import force_setattr

from felix.rules.required import require, require_interface, require_masked, require_name
from weft.model.address import IPNetwork

IPVersion = Literal[4, 6]

ICMP, TCP, UDP, DCCP, ICMPV6, SCTP, UDPLITE = 1, 6, 17, 33, 58, 132, 136
PROTOCOLS_WITH_PORTS = frozenset({TCP, UDP, DCCP, SCTP, UDPLITE})


class Side(Enum):
    """Which end of the packet a match looks at."""

    SOURCE = "s"
    DESTINATION = "d"


class Way(Enum):
    """The interface a packet came in by, or leaves by."""

    IN = "iif"
    OUT = "oif"


class Interface(Struct, frozen=True):
    """`iifname "eth0"`; a name that ends in `*` matches every interface with that beginning."""

    way: Way
    name: str
    negated: bool = False

    def __post_init__(self) -> None:
        require_interface(self.name, wildcard=True)


class NetworkProtocol(Struct, frozen=True):
    """`meta nfproto ipv4`. An address match implies it, and the writer never tests it twice in a rule."""

    version: IPVersion


class L4Protocol(Struct, frozen=True):
    """`meta l4proto tcp`; the number of the IANA registry."""

    number: int
    negated: bool = False

    def __post_init__(self) -> None:
        require(0 <= self.number <= 255, f"not a protocol number: {self.number}")


class Address(Struct, frozen=True):
    """`ip saddr 10.0.0.0/8`: in one of `networks`, or negated in none of them. All of one family.

    One network is tested inline, several in an anonymous set. A single address is its /32 or /128."""

    side: Side
    networks: tuple[IPNetwork, ...]
    negated: bool = False

    def __post_init__(self) -> None:
        require(bool(self.networks), "an address match without a network")
        require(len({n.version for n in self.networks}) == 1, "an address match of two families")

    @property
    def version(self) -> IPVersion:
        return 4 if isinstance(self.networks[0], IPv4Network) else 6


class AddressInSet(Struct, frozen=True):
    """`ip saddr @name`; `version` is that of the set's keys."""

    side: Side
    set: str
    version: IPVersion
    negated: bool = False

    def __post_init__(self) -> None:
        require_name(self.set)


class PortRange(Struct, frozen=True, order=True):
    """Ports from `first` to `last`, both included. `PortRange(80)` is one port."""

    first: int
    last: int = -1

    def __post_init__(self) -> None:
        if self.last == -1:
            force_setattr(self, "last", self.first)
        require(0 <= self.first <= self.last <= 65535, f"not a port range: {self.first}-{self.last}")


class Ports(Struct, frozen=True):
    """`tcp dport 80`; needs an L4Protocol with ports before it in the rule. Several use an anonymous set."""

    side: Side
    ranges: tuple[PortRange, ...]
    negated: bool = False

    def __post_init__(self) -> None:
        require(bool(self.ranges), "a port match without a port")


class PortInSet(Struct, frozen=True):
    """`tcp dport @name` on a set of `KeyType.PORT`; cheaper than an anonymous set that many rules repeat."""

    side: Side
    set: str
    negated: bool = False

    def __post_init__(self) -> None:
        require_name(self.set)


class ServiceInSet(Struct, frozen=True):
    """`ip daddr . meta l4proto . th dport @name`: an address with a port of its own, as named ports need..

    Address and port are of the same side."""

    side: Side
    set: str
    version: IPVersion
    negated: bool = False

    def __post_init__(self) -> None:
        require_name(self.set)


class IcmpType(Struct, frozen=True):
    """`icmp type 8 icmp code 0`; needs L4Protocol ICMP or ICMPV6 before it. Negated: not this pair."""

    type: int
    code: int | None = None
    negated: bool = False

    def __post_init__(self) -> None:
        require(0 <= self.type <= 255, f"not an ICMP type: {self.type}")
        require(self.code is None or 0 <= self.code <= 255, f"not an ICMP code: {self.code}")


class ConntrackState(Struct, frozen=True):
    """`ct state established,related`: any of them."""

    states: tuple[Literal["invalid", "established", "related", "new", "untracked"], ...]
    negated: bool = False

    def __post_init__(self) -> None:
        require(bool(self.states), "a conntrack state match without a state")


class ConntrackStatus(Struct, frozen=True):
    """`ct status dnat`: any of them."""

    statuses: tuple[Literal["expected", "seen-reply", "assured", "confirmed", "snat", "dnat", "dying"], ...]
    negated: bool = False

    def __post_init__(self) -> None:
        require(bool(self.statuses), "a conntrack status match without a status")


class Mark(Struct, frozen=True):
    """`meta mark and mask == value`."""

    value: int
    mask: int = 0xFFFFFFFF
    negated: bool = False

    def __post_init__(self) -> None:
        require_masked(self.value, self.mask)


class ConntrackMark(Struct, frozen=True):
    """`ct mark and mask == value`."""

    value: int
    mask: int = 0xFFFFFFFF
    negated: bool = False

    def __post_init__(self) -> None:
        require_masked(self.value, self.mask)


class ReversePath(Struct, frozen=True):
    """`fib saddr . iif oif missing` (or `exists`): is the sender reached by the interface it came from?"""

    exists: bool


class AddressType(Struct, frozen=True):
    """`fib daddr type local`: what the routing table says the address is."""

    side: Side
    type: Literal["unicast", "local", "broadcast", "multicast", "blackhole", "unreachable", "prohibit"]
    negated: bool = False


Match = (
    Interface
    | NetworkProtocol
    | L4Protocol
    | Address
    | AddressInSet
    | Ports
    | PortInSet
    | ServiceInSet
    | IcmpType
    | ConntrackState
    | ConntrackStatus
    | Mark
    | ConntrackMark
    | ReversePath
    | AddressType
)
