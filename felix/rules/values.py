"""What the table `inet weft` can hold, as frozen values: verdicts, statements, rules, chains, sets, maps.

Renderers build these, `writer` turns them into netlink messages or nft text, and the driver compares them.
A value that the kernel would refuse cannot be built (wrong name, a port match without a protocol, two
address families in one rule). This module does not encode, does not know the layout of our chains, and
does not check that a jump or a lookup has a target: that belongs to `Table.missing_references`.

Source of the terms: nft(8)."""

from collections.abc import Iterable, Iterator, Mapping
from enum import Enum
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Literal

from msgspec import Struct, field

from felix.rules.actions import (
    FINAL,
    Accept,
    Action,
    Counter,
    CountIn,
    Drop,
    Goto,
    InterfaceVerdict,
    Jump,
    Limit,
    Log,
    Masquerade,
    NoTrack,
    Reject,
    Return,
    SetConntrackMark,
    SetMark,
    SourceNat,
    Verdict,
)
from felix.rules.matches import (
    DCCP,
    ICMP,
    ICMPV6,
    PROTOCOLS_WITH_PORTS,
    SCTP,
    TCP,
    UDP,
    UDPLITE,
    Address,
    AddressInSet,
    AddressType,
    ConntrackMark,
    ConntrackState,
    ConntrackStatus,
    IcmpType,
    Interface,
    IPVersion,
    L4Protocol,
    Mark,
    Match,
    NetworkProtocol,
    PortInSet,
    PortRange,
    Ports,
    ReversePath,
    ServiceInSet,
    Side,
    Way,
)
from felix.rules.required import (
    PRINTABLE,
    InvalidValueError,
    require,
    require_interface,
    require_name,
)
from weft.model.address import IPAddress, IPNetwork
from weft.policy.values import AddressPort

__all__ = [
    "DCCP",
    "FINAL",
    "ICMP",
    "ICMPV6",
    "PROTOCOLS_WITH_PORTS",
    "SCTP",
    "TCP",
    "UDP",
    "UDPLITE",
    "Accept",
    "Action",
    "Address",
    "AddressInSet",
    "AddressPort",
    "AddressType",
    "Chain",
    "ConntrackMark",
    "ConntrackState",
    "ConntrackStatus",
    "Count",
    "CountIn",
    "Counter",
    "Drop",
    "Goto",
    "Hook",
    "IPAddress",
    "IPNetwork",
    "IPVersion",
    "IcmpType",
    "Interface",
    "InterfaceVerdict",
    "InvalidValueError",
    "Jump",
    "KeyType",
    "L4Protocol",
    "Limit",
    "Log",
    "Mark",
    "Masquerade",
    "Match",
    "Member",
    "NetworkProtocol",
    "NoTrack",
    "PortInSet",
    "PortRange",
    "Ports",
    "Reject",
    "Return",
    "ReversePath",
    "Rule",
    "ServiceInSet",
    "Set",
    "SetConntrackMark",
    "SetMark",
    "Side",
    "SourceNat",
    "Statement",
    "Table",
    "Verdict",
    "VerdictMap",
    "Way",
    "require_members",
    "rule",
]

Statement = Match | Action | Verdict

# --- rules and chains -----------------------------------------------------------------------------------------


class Rule(Struct, frozen=True, cache_hash=True):
    """Statements in order: matches narrow, actions act on what is left. `comment` is shown by `nft list`."""

    statements: tuple[Statement, ...]
    comment: str = ""

    def __post_init__(self) -> None:
        require(bool(self.statements), "a rule without a statement")
        require(len(self.comment.encode()) <= 127, f"comment of more than 127 bytes: {self.comment!r}")
        require(PRINTABLE.match(self.comment) is not None, f"comment with a quote or backslash: {self.comment!r}")
        version: int | None = None
        protocol: int | None = None
        for position, statement in enumerate(self.statements):
            match statement:
                case NetworkProtocol(v) | Address(version=v) | AddressInSet(version=v) | ServiceInSet(version=v):
                    require(version in (None, v), f"a rule that matches IPv4 and IPv6: {self.statements}")
                    version = v
                case L4Protocol(number, False):
                    protocol = number
                case Ports() | PortInSet():
                    require(protocol in PROTOCOLS_WITH_PORTS, "a port match needs a protocol with ports before it")
                case IcmpType():
                    require(protocol in (ICMP, ICMPV6), "an ICMP match needs L4Protocol ICMP before it")
                case Reject(True):
                    require(protocol == TCP, "a TCP reset needs L4Protocol TCP before it")
                case _:
                    pass
            last = position == len(self.statements) - 1
            require(last or not isinstance(statement, FINAL), f"statements after {statement}")


def rule(*statements: Statement, comment: str = "") -> Rule:
    return Rule(statements, comment)


class Hook(Struct, frozen=True):
    """What makes a chain a base chain. Changing any of it replaces the chain."""

    type: Literal["filter", "nat", "route"]
    hook: Literal["prerouting", "input", "forward", "output", "postrouting"]
    priority: int
    policy: Literal["accept", "drop"] = "accept"


class Count(Struct, frozen=True):
    """What a counter holds."""

    packets: int = 0
    bytes: int = 0

    def __bool__(self) -> bool:
        return bool(self.packets or self.bytes)

    def __add__(self, other: "Count") -> "Count":
        return Count(self.packets + other.packets, self.bytes + other.bytes)


class Chain(Struct, frozen=True):
    """A named counter is there as long as a rule of a chain counts in it, or a chain has it in `keeps`."""

    name: str
    rules: tuple[Rule, ...] = ()
    hook: Hook | None = None
    keeps: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        require_name(self.name)

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

    def counters(self) -> set[str]:
        """The named counters that must be there with it."""
        found = {s.counter for one in self.rules for s in one.statements if isinstance(s, CountIn)}
        return found.union(self.keeps)


# --- sets and maps --------------------------------------------------------------------------------------------


class KeyType(Enum):
    """What a set holds, and so what its members are.

    ADDRESS_V4/_V6: IPv4Address, IPv6Address; a hash, the fastest lookup.
    NETWORK_V4/_V6: IPv4Network, IPv6Network, which may overlap and may cover everything.
    PORT: PortRange, which may overlap.
    SERVICE_V4/_V6: AddressPort."""

    ADDRESS_V4 = "address4"
    ADDRESS_V6 = "address6"
    NETWORK_V4 = "network4"
    NETWORK_V6 = "network6"
    PORT = "port"
    SERVICE_V4 = "service4"
    SERVICE_V6 = "service6"


Member = IPv4Address | IPv6Address | IPv4Network | IPv6Network | PortRange | AddressPort

_MEMBERS: Mapping[KeyType, tuple[type[Member], int | None]] = {
    KeyType.ADDRESS_V4: (IPv4Address, None),
    KeyType.ADDRESS_V6: (IPv6Address, None),
    KeyType.NETWORK_V4: (IPv4Network, None),
    KeyType.NETWORK_V6: (IPv6Network, None),
    KeyType.PORT: (PortRange, None),
    KeyType.SERVICE_V4: (AddressPort, 4),
    KeyType.SERVICE_V6: (AddressPort, 6),
}


def require_members(key: KeyType, members: Iterable[Member]) -> None:
    """Raise InvalidValueError if one of them does not belong into a set of this key type."""
    kind, version = _MEMBERS[key]
    for member in members:
        require(type(member) is kind, f"{member!r} in a set of {key.value}")
        if isinstance(member, AddressPort):
            require(member.version == version, f"{member!r} in a set of {key.value}")
            require(member.protocol in PROTOCOLS_WITH_PORTS, f"not a protocol with ports: {member.protocol}")
            require(0 <= member.port <= 65535, f"not a port: {member.port}")


class Set(Struct, frozen=True):
    """A named set. Deltas of a live one go to the driver; this is a whole one."""

    name: str
    key: KeyType
    members: frozenset[Member] = frozenset()

    def __post_init__(self) -> None:
        require_name(self.name)
        require_members(self.key, self.members)


class VerdictMap(Struct, frozen=True):
    """Interface name -> verdict: what InterfaceVerdict looks into. The mapping is read-only by convention."""

    name: str
    entries: Mapping[str, Verdict] = field(default_factory=dict)

    def __post_init__(self) -> None:
        require_name(self.name)
        for interface in self.entries:
            require_interface(interface, wildcard=False)


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
