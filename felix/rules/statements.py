"""What a rule of the table `inet weft` is made of, as frozen values: verdicts, matches and actions.

Part of `values`, which names everything here, too. A statement that the kernel would refuse by itself cannot be built;
whether statements go together is for `values.Rule` to say.

Source of the terms: nft(8)."""

import re
from enum import Enum
from ipaddress import IPv4Network
from typing import Literal

from msgspec import Struct
from msgspec.structs import force_setattr

from weft.model.address import IPAddress, IPNetwork

IPVersion = Literal[4, 6]

ICMP, TCP, UDP, DCCP, ICMPV6, SCTP, UDPLITE = 1, 6, 17, 33, 58, 132, 136
PROTOCOLS_WITH_PORTS = frozenset({TCP, UDP, DCCP, SCTP, UDPLITE})

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9/\-_.]{0,199}\Z")
_INTERFACE = re.compile(r"[^\s/*\"]{1,15}\Z")
PRINTABLE = re.compile(r"[^\"\\\x00-\x1f]*\Z")


class InvalidValueError(ValueError):
    """The kernel or nft would refuse this: the renderer that built it has a defect."""


def require(condition: bool, problem: str) -> None:
    if not condition:
        raise InvalidValueError(problem)


def require_name(name: str) -> None:
    require(_NAME.match(name) is not None, f"not a name nft accepts: {name!r}")


def require_interface(name: str, wildcard: bool) -> None:
    plain = name[:-1] if wildcard and name.endswith("*") else name
    require(_INTERFACE.match(plain) is not None, f"not an interface name: {name!r}")


class Side(Enum):
    """Which end of the packet a match looks at."""

    SOURCE = "s"
    DESTINATION = "d"


class Way(Enum):
    """The interface a packet came in by, or leaves by."""

    IN = "iif"
    OUT = "oif"


# --- verdicts -------------------------------------------------------------------------------------------------


class Accept(Struct, frozen=True):
    """Ends this base chain; the other base chains of the hook still see the packet."""


class Drop(Struct, frozen=True):
    pass


class Return(Struct, frozen=True):
    pass


class Jump(Struct, frozen=True):
    chain: str

    def __post_init__(self) -> None:
        require_name(self.chain)


class Goto(Struct, frozen=True):
    chain: str

    def __post_init__(self) -> None:
        require_name(self.chain)


Verdict = Accept | Drop | Return | Jump | Goto


# --- matches --------------------------------------------------------------------------------------------------


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
        _require_masked(self.value, self.mask)


class ConntrackMark(Struct, frozen=True):
    """`ct mark and mask == value`."""

    value: int
    mask: int = 0xFFFFFFFF
    negated: bool = False

    def __post_init__(self) -> None:
        _require_masked(self.value, self.mask)


def _require_masked(value: int, mask: int) -> None:
    require(0 < mask <= 0xFFFFFFFF, f"not a mark's mask: {mask:#x}")
    require(value & ~mask == 0 and value >= 0, f"mark {value:#x} has bits outside its mask {mask:#x}")


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


# --- actions --------------------------------------------------------------------------------------------------


class Counter(Struct, frozen=True):
    """Counts what reaches it. A chain that is rewritten counts from zero again."""


class CountIn(Struct, frozen=True):
    """Counts what reaches it in the named counter, which several rules may share and which outlives them."""

    counter: str

    def __post_init__(self) -> None:
        require_name(self.counter)


LIMIT_UNITS = {1: "second", 60: "minute", 3600: "hour", 86400: "day"}


class Limit(Struct, frozen=True):
    """Goes on with so many packets in so many seconds (one, a minute, an hour, a day), and with `burst` at once;
    the rule ends for the others."""

    packets: int
    burst: int
    seconds: int = 1

    def __post_init__(self) -> None:
        require(0 < self.packets < 1 << 32, f"not a rate: {self.packets}")
        require(self.seconds in LIMIT_UNITS, f"not a unit of a rate: {self.seconds} s")
        require(0 < self.burst < 1 << 32, f"not a burst: {self.burst}")


class Log(Struct, frozen=True):
    """To the kernel log, or to an nflog group: there `snap_bytes` of a packet, None: all of it."""

    prefix: str = ""
    group: int | None = None
    snap_bytes: int | None = None

    def __post_init__(self) -> None:
        require(len(self.prefix.encode()) <= 127, f"log prefix of more than 127 bytes: {self.prefix!r}")
        require(PRINTABLE.match(self.prefix) is not None, f"log prefix with a quote or backslash: {self.prefix!r}")
        require(self.group is None or 0 <= self.group <= 65535, f"not an nflog group: {self.group}")
        require(self.snap_bytes is None or self.group is not None, "the kernel log takes no part of a packet")
        require(self.snap_bytes is None or 0 < self.snap_bytes <= 65535, f"not a length: {self.snap_bytes}")


class SetMark(Struct, frozen=True):
    """`meta mark set (mark and not mask) or value`."""

    value: int
    mask: int = 0xFFFFFFFF

    def __post_init__(self) -> None:
        _require_masked(self.value, self.mask)


class SetConntrackMark(Struct, frozen=True):
    value: int
    mask: int = 0xFFFFFFFF

    def __post_init__(self) -> None:
        _require_masked(self.value, self.mask)


class Masquerade(Struct, frozen=True):
    """Ends the rule. Only in nat chains of postrouting."""

    fully_random: bool = False


class SourceNat(Struct, frozen=True):
    """`snat to address`. Ends the rule. Only in nat chains of postrouting."""

    address: IPAddress


class NoTrack(Struct, frozen=True):
    """Only in chains of priority raw."""


class Reject(Struct, frozen=True):
    """`reject with icmpx admin-prohibited`, or a TCP reset (needs L4Protocol TCP before it). Ends the rule."""

    tcp_reset: bool = False


class InterfaceVerdict(Struct, frozen=True):
    """`iifname vmap @map`: the verdict the map has for the interface; goes on if it has none."""

    way: Way
    map: str

    def __post_init__(self) -> None:
        require_name(self.map)


Action = (
    Counter
    | CountIn
    | Limit
    | Log
    | SetMark
    | SetConntrackMark
    | Masquerade
    | SourceNat
    | NoTrack
    | Reject
    | InterfaceVerdict
)
Statement = Match | Action | Verdict
FINAL = (Accept, Drop, Return, Jump, Goto, Masquerade, SourceNat, Reject, InterfaceVerdict)
