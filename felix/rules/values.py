"""What the table `inet weft` can hold, as frozen values: verdicts, statements, rules, chains, sets, maps.

Renderers build these, `writer` turns them into netlink messages or nft text, and the driver compares them.
A value that the kernel would refuse cannot be built (wrong name, a port match without a protocol, two
address families in one rule). This module does not encode, does not know the layout of our chains, and
does not check that a jump or a lookup has a target: that belongs to `Table.missing_references`.

Source of the terms: nft(8)."""

import re
from collections.abc import Iterable, Iterator, Mapping
from enum import Enum
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Literal

from msgspec import Struct, field
from msgspec.structs import force_setattr

IPAddress = IPv4Address | IPv6Address
IPNetwork = IPv4Network | IPv6Network
IPVersion = Literal[4, 6]

ICMP, TCP, UDP, DCCP, ICMPV6, SCTP, UDPLITE = 1, 6, 17, 33, 58, 132, 136
PROTOCOLS_WITH_PORTS = frozenset({TCP, UDP, DCCP, SCTP, UDPLITE})

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9/\-_.]{0,127}\Z")
_INTERFACE = re.compile(r"[^\s/*\"]{1,15}\Z")
_TEXT = re.compile(r"[^\"\\\x00-\x1f]*\Z")


class InvalidValueError(ValueError):
    """The kernel or nft would refuse this: the renderer that built it has a defect."""


def _require(condition: bool, problem: str) -> None:
    if not condition:
        raise InvalidValueError(problem)


def _require_name(name: str) -> None:
    _require(_NAME.match(name) is not None, f"not a name nft accepts: {name!r}")


def _require_interface(name: str, wildcard: bool) -> None:
    plain = name[:-1] if wildcard and name.endswith("*") else name
    _require(_INTERFACE.match(plain) is not None, f"not an interface name: {name!r}")


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
        _require_name(self.chain)


class Goto(Struct, frozen=True):
    chain: str

    def __post_init__(self) -> None:
        _require_name(self.chain)


Verdict = Accept | Drop | Return | Jump | Goto


# --- matches --------------------------------------------------------------------------------------------------


class Interface(Struct, frozen=True):
    """`iifname "eth0"`; a name that ends in `*` matches every interface with that beginning."""

    way: Way
    name: str
    negated: bool = False

    def __post_init__(self) -> None:
        _require_interface(self.name, wildcard=True)


class NetworkProtocol(Struct, frozen=True):
    """`meta nfproto ipv4`. An address match implies it, and the writer never tests it twice in a rule."""

    version: IPVersion


class L4Protocol(Struct, frozen=True):
    """`meta l4proto tcp`; the number of the IANA registry."""

    number: int
    negated: bool = False

    def __post_init__(self) -> None:
        _require(0 <= self.number <= 255, f"not a protocol number: {self.number}")


class Address(Struct, frozen=True):
    """`ip saddr 10.0.0.0/8`: in one of `networks`, or negated in none of them. All of one family.

    One network is tested inline, several in an anonymous set. A single address is its /32 or /128."""

    side: Side
    networks: tuple[IPNetwork, ...]
    negated: bool = False

    def __post_init__(self) -> None:
        _require(bool(self.networks), "an address match without a network")
        _require(len({n.version for n in self.networks}) == 1, "an address match of two families")

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
        _require_name(self.set)


class PortRange(Struct, frozen=True, order=True):
    """Ports from `first` to `last`, both included. `PortRange(80)` is one port."""

    first: int
    last: int = -1

    def __post_init__(self) -> None:
        if self.last == -1:
            force_setattr(self, "last", self.first)
        _require(0 <= self.first <= self.last <= 65535, f"not a port range: {self.first}-{self.last}")


class Ports(Struct, frozen=True):
    """`tcp dport 80`; needs an L4Protocol with ports before it in the rule. Several use an anonymous set."""

    side: Side
    ranges: tuple[PortRange, ...]
    negated: bool = False

    def __post_init__(self) -> None:
        _require(bool(self.ranges), "a port match without a port")


class PortInSet(Struct, frozen=True):
    """`tcp dport @name` on a set of `KeyType.PORT`; cheaper than an anonymous set that many rules repeat."""

    side: Side
    set: str
    negated: bool = False

    def __post_init__(self) -> None:
        _require_name(self.set)


class ServiceInSet(Struct, frozen=True):
    """`ip daddr . meta l4proto . th dport @name`: an address with a port of its own, as named ports need..

    Address and port are of the same side."""

    side: Side
    set: str
    version: IPVersion
    negated: bool = False

    def __post_init__(self) -> None:
        _require_name(self.set)


class IcmpType(Struct, frozen=True):
    """`icmp type 8 icmp code 0`; needs L4Protocol ICMP or ICMPV6 before it. Negated: not this pair."""

    type: int
    code: int | None = None
    negated: bool = False

    def __post_init__(self) -> None:
        _require(0 <= self.type <= 255, f"not an ICMP type: {self.type}")
        _require(self.code is None or 0 <= self.code <= 255, f"not an ICMP code: {self.code}")


class ConntrackState(Struct, frozen=True):
    """`ct state established,related`: any of them."""

    states: tuple[Literal["invalid", "established", "related", "new", "untracked"], ...]
    negated: bool = False

    def __post_init__(self) -> None:
        _require(bool(self.states), "a conntrack state match without a state")


class ConntrackStatus(Struct, frozen=True):
    """`ct status dnat`: any of them."""

    statuses: tuple[Literal["expected", "seen-reply", "assured", "confirmed", "snat", "dnat", "dying"], ...]
    negated: bool = False

    def __post_init__(self) -> None:
        _require(bool(self.statuses), "a conntrack status match without a status")


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
    _require(0 < mask <= 0xFFFFFFFF, f"not a mark's mask: {mask:#x}")
    _require(value & ~mask == 0 and value >= 0, f"mark {value:#x} has bits outside its mask {mask:#x}")


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


class Log(Struct, frozen=True):
    """To the kernel log, or to an nflog group."""

    prefix: str = ""
    group: int | None = None

    def __post_init__(self) -> None:
        _require(len(self.prefix.encode()) <= 127, f"log prefix of more than 127 bytes: {self.prefix!r}")
        _require(_TEXT.match(self.prefix) is not None, f"log prefix with a quote or backslash: {self.prefix!r}")
        _require(self.group is None or 0 <= self.group <= 65535, f"not an nflog group: {self.group}")


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
        _require_name(self.map)


Action = Counter | Log | SetMark | SetConntrackMark | Masquerade | SourceNat | NoTrack | Reject | InterfaceVerdict
Statement = Match | Action | Verdict
FINAL = (Accept, Drop, Return, Jump, Goto, Masquerade, SourceNat, Reject, InterfaceVerdict)


# --- rules and chains -----------------------------------------------------------------------------------------


class Rule(Struct, frozen=True, cache_hash=True):
    """Statements in order: matches narrow, actions act on what is left. `comment` is shown by `nft list`."""

    statements: tuple[Statement, ...]
    comment: str = ""

    def __post_init__(self) -> None:
        _require(bool(self.statements), "a rule without a statement")
        _require(len(self.comment.encode()) <= 127, f"comment of more than 127 bytes: {self.comment!r}")
        _require(_TEXT.match(self.comment) is not None, f"comment with a quote or backslash: {self.comment!r}")
        version: int | None = None
        protocol: int | None = None
        for position, statement in enumerate(self.statements):
            match statement:
                case NetworkProtocol(v) | Address(version=v) | AddressInSet(version=v) | ServiceInSet(version=v):
                    _require(version in (None, v), f"a rule that matches IPv4 and IPv6: {self.statements}")
                    version = v
                case L4Protocol(number, False):
                    protocol = number
                case Ports() | PortInSet():
                    _require(protocol in PROTOCOLS_WITH_PORTS, "a port match needs a protocol with ports before it")
                case IcmpType():
                    _require(protocol in (ICMP, ICMPV6), "an ICMP match needs L4Protocol ICMP before it")
                case Reject(True):
                    _require(protocol == TCP, "a TCP reset needs L4Protocol TCP before it")
                case _:
                    pass
            last = position == len(self.statements) - 1
            _require(last or not isinstance(statement, FINAL), f"statements after {statement}")


def rule(*statements: Statement, comment: str = "") -> Rule:
    return Rule(statements, comment)


class Hook(Struct, frozen=True):
    """What makes a chain a base chain. Changing any of it replaces the chain."""

    type: Literal["filter", "nat", "route"]
    hook: Literal["prerouting", "input", "forward", "output", "postrouting"]
    priority: int
    policy: Literal["accept", "drop"] = "accept"


class Chain(Struct, frozen=True):
    name: str
    rules: tuple[Rule, ...] = ()
    hook: Hook | None = None

    def __post_init__(self) -> None:
        _require_name(self.name)

    def jumps(self) -> Iterator[str]:
        """The chains its rules jump or go to."""
        for one in self.rules:
            last = one.statements[-1]
            if isinstance(last, (Jump, Goto)):
                yield last.chain

    def lookups(self) -> Iterator[str]:
        """The sets and maps its rules look into."""
        for one in self.rules:
            for statement in one.statements:
                if isinstance(statement, (AddressInSet, PortInSet, ServiceInSet)):
                    yield statement.set
                elif isinstance(statement, InterfaceVerdict):
                    yield statement.map


# --- sets and maps --------------------------------------------------------------------------------------------


class KeyType(Enum):
    """What a set holds, and so what its members are.

    ADDRESS_V4/_V6: IPv4Address, IPv6Address; a hash, the fastest lookup.
    NETWORK_V4/_V6: IPv4Network, IPv6Network, which may overlap and may cover everything.
    PORT: PortRange, which may overlap.
    SERVICE_V4/_V6: Service."""

    ADDRESS_V4 = "address4"
    ADDRESS_V6 = "address6"
    NETWORK_V4 = "network4"
    NETWORK_V6 = "network6"
    PORT = "port"
    SERVICE_V4 = "service4"
    SERVICE_V6 = "service6"


class Service(Struct, frozen=True):
    """A port of one address: a member of a set that a ServiceInSet looks into."""

    address: IPAddress
    protocol: int
    port: int

    def __post_init__(self) -> None:
        _require(self.protocol in PROTOCOLS_WITH_PORTS, f"not a protocol with ports: {self.protocol}")
        _require(0 <= self.port <= 65535, f"not a port: {self.port}")


Member = IPv4Address | IPv6Address | IPv4Network | IPv6Network | PortRange | Service

_MEMBERS: Mapping[KeyType, tuple[type[Member], int | None]] = {
    KeyType.ADDRESS_V4: (IPv4Address, None),
    KeyType.ADDRESS_V6: (IPv6Address, None),
    KeyType.NETWORK_V4: (IPv4Network, None),
    KeyType.NETWORK_V6: (IPv6Network, None),
    KeyType.PORT: (PortRange, None),
    KeyType.SERVICE_V4: (Service, 4),
    KeyType.SERVICE_V6: (Service, 6),
}


def require_members(key: KeyType, members: Iterable[Member]) -> None:
    """Raise InvalidValueError if one of them does not belong into a set of this key type."""
    kind, version = _MEMBERS[key]
    for member in members:
        _require(type(member) is kind, f"{member!r} in a set of {key.value}")
        if version is not None and isinstance(member, Service):
            _require(member.address.version == version, f"{member!r} in a set of {key.value}")


class Set(Struct, frozen=True):
    """A named set. Deltas of a live one go to the driver; this is a whole one."""

    name: str
    key: KeyType
    members: frozenset[Member] = frozenset()

    def __post_init__(self) -> None:
        _require_name(self.name)
        require_members(self.key, self.members)


class VerdictMap(Struct, frozen=True):
    """Interface name -> verdict: what InterfaceVerdict looks into. The mapping is read-only by convention."""

    name: str
    entries: Mapping[str, Verdict] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _require_name(self.name)
        for interface in self.entries:
            _require_interface(interface, wildcard=False)


class Table(Struct, frozen=True):
    """The whole of `inet weft`, by name; read-only by convention."""

    chains: Mapping[str, Chain] = field(default_factory=dict)
    sets: Mapping[str, Set] = field(default_factory=dict)
    maps: Mapping[str, VerdictMap] = field(default_factory=dict)

    @classmethod
    def of(cls, chains: Iterable[Chain] = (), sets: Iterable[Set] = (), maps: Iterable[VerdictMap] = ()) -> "Table":
        return cls({c.name: c for c in chains}, {s.name: s for s in sets}, {m.name: m for m in maps})

    def missing_references(self) -> set[str]:
        """Names of chains, sets and maps that something refers to and that are not in the table."""
        chains = {name for chain in self.chains.values() for name in chain.jumps()}
        for verdict_map in self.maps.values():
            chains |= {v.chain for v in verdict_map.entries.values() if isinstance(v, (Jump, Goto))}
        lookups = {name for chain in self.chains.values() for name in chain.lookups()}
        return (chains - self.chains.keys()) | (lookups - self.sets.keys() - self.maps.keys())
