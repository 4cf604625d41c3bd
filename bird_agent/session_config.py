"""A BGP session as this node should have it, and what a plan of sessions rests on.

Values only; bird_agent/peering.py makes them of resources. A password is a value whose text never appears in a log."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from ipaddress import IPv4Address
from typing import Final, Literal, NamedTuple

from msgspec import Struct, field
from msgspec.structs import force_setattr

from bird_agent.bfd.wire import Watch
from weft.model.address import IPAddress

DEFAULT_PORT: Final = 179
DEFAULT_HOLD_TIME_S: Final = 90
DEFAULT_RESTART_TIME_S: Final = 120
REFLECTOR_HOLD_TIME_S: Final = 30
"""Of sessions with automatic reflectors: they are few, and there much depends on each."""
MAX_RESTART_TIME_S: Final = 4095

NextHopMode = Literal["Auto", "Self", "Keep"]


class SessionKind(Enum):
    """Why a session exists."""

    MESH = "node-to-node mesh"
    NODE = "node specific"
    GLOBAL = "global"
    WORKLOAD = "local workload"
    REFLECTOR = "automatic reflector"


class Password(Struct, frozen=True):
    """A TCP MD5 key (RFC 2385). `str` and `repr` do not tell it."""

    text: str

    def __repr__(self) -> str:
        return "(a password)"


class SecretKey(NamedTuple):
    """One key of a secret, in the namespace that the agent was told."""

    name: str
    key: str

    def __str__(self) -> str:
        return f"{self.name}/{self.key}"


class Surroundings(Struct, frozen=True):
    """What a plan needs and resources do not say: the secrets that could be read, and for peers without a configured
    source address the one that the kernel would use."""

    secrets: Mapping[SecretKey, Password] = field(default_factory=dict)
    sources: Mapping[IPAddress, IPAddress] = field(default_factory=dict)


NOTHING_KNOWN: Final = Surroundings()


class Needs(Struct, frozen=True):
    """What a plan asks to be told of its surroundings."""

    secrets: frozenset[SecretKey] = frozenset()
    sources: frozenset[IPAddress] = frozenset()


class SessionConfig(Struct, frozen=True, kw_only=True):
    """One session this node should have. `port` is where the peer listens; `resource` asked for it.

    `allowed_own_as`: how often the local AS number may be in a received path. `gateway`: a host route to the peer leads
    there. `max_prefixes`: more end the session; None: no limit. `bfd`: the path is watched. `client`: of this node as a
    reflector (RFC 4456). `versions`: of the prefixes that are told, 4 and 6; `other_local`: this node's address of the
    family that is not the session's own. `passive`: the peer connects. `dies_with`: of a peer
    that forwards nothing itself, the next hops that are dead when it is; None: all that it says is."""

    peer: IPAddress
    peer_as: int
    local: IPAddress
    local_as: int
    kind: SessionKind
    resource: str
    port: int = DEFAULT_PORT
    hold_time_s: int = DEFAULT_HOLD_TIME_S
    restart_time_s: int = DEFAULT_RESTART_TIME_S
    ttl_security_hops: int | None = None
    password: Password | None = None
    next_hop_mode: NextHopMode = "Auto"
    allowed_own_as: int = 0
    gateway: IPAddress | None = None
    filters: tuple[str, ...] = ()
    max_prefixes: int | None = None
    bfd: Watch | None = None
    client: bool = False
    versions: tuple[int, ...] = ()
    other_local: IPAddress | None = None
    passive: bool = False
    dies_with: frozenset[IPAddress] | None = None

    def __post_init__(self) -> None:
        if not self.versions:
            force_setattr(self, "versions", (self.peer.version,))

    @property
    def internal(self) -> bool:
        return self.peer_as == self.local_as

    def next_hop_for(self, version: int, extended: bool) -> IPAddress | None:
        """This node as the next hop of prefixes of a family; `extended`: an IPv6 one may stand for IPv4 (RFC 8950)."""
        if version == self.local.version or (version == 4 and extended):
            return self.local
        return self.other_local


class Problem(Struct, frozen=True):
    """Something asked for that has no effect here: `subject` is "BGPPeer/tor"."""

    subject: str
    text: str


class Peering(Struct, frozen=True):
    """This node as a BGP speaker, and its sessions by peer address. It listens on `listen`, 0.0.0.0 and :: mostly; its
    `virtual` addresses are there for local workloads to peer with."""

    asn: int
    router_id: IPv4Address
    addresses: tuple[IPAddress, ...]
    port: int
    cluster_id: IPv4Address | None = None
    sessions: Mapping[IPAddress, SessionConfig] = field(default_factory=dict)
    listen: tuple[IPAddress, ...] = ()
    virtual: tuple[IPAddress, ...] = ()
    problems: tuple[Problem, ...] = ()
    needs: Needs = Needs()
