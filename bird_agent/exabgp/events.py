"""What the agent learns from ExaBGP, as frozen events: the closed union `SpeakerEvent` is all of it.

A line of a kind we did not ask for, or that does not read as expected, is `Unrecognised`. Times are ExaBGP's (seconds
since the epoch), because a replayed line was written long before it is read. `decoder.py` makes them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address

from bird_agent.exabgp.commands import Family
from weft.model.address import IPAddress, IPNetwork


@dataclass(frozen=True, slots=True)
class AsSegment:
    """One segment of an AS_PATH (RFC 4271 4.3, RFC 5065)."""

    kind: str
    numbers: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class PathAttributes:
    """What a peer said about a path, next hop excepted. Absent attributes are None or empty."""

    origin: int = 2
    as_path: tuple[AsSegment, ...] = ()
    local_preference: int | None = None
    med: int | None = None
    originator_id: IPv4Address | None = None
    cluster_list: tuple[IPv4Address, ...] = ()
    communities: tuple[tuple[int, int], ...] = ()
    large_communities: tuple[tuple[int, int, int], ...] = ()
    extended_communities: tuple[int, ...] = ()
    others: tuple[str, ...] = ()
    """What the decision does not look at and whoever passes the route on has to (RFC 4271 5), as ExaBGP's commands
    have it: the aggregator, and optional transitive attributes that nobody here knows."""


@dataclass(frozen=True, slots=True)
class PeerOpen:
    """What matters of the peer's OPEN. `restart_families` maps a family of its graceful-restart capability to
    whether it kept forwarding; None means no such capability (RFC 4724). `families`: None, without multiprotocol
    extensions. `extended_next_hop`: IPv6 next hops of IPv4 prefixes (RFC 8950). `restarting`: the peer's speaker had
    just been started (RFC 4724's Restart State bit)."""

    asn: int
    router_id: IPv4Address
    hold_time_s: int
    route_refresh: bool
    enhanced_refresh: bool
    restart_time_s: int
    restart_families: Mapping[str, bool] | None
    families: frozenset[Family] | None = None
    extended_next_hop: bool = False
    restarting: bool = False


@dataclass(frozen=True, slots=True)
class SessionConnecting:
    """A TCP connection; whether it becomes a session is open."""

    peer: IPAddress
    at: float


@dataclass(frozen=True, slots=True)
class SessionOpened:
    peer: IPAddress
    at: float
    opened: PeerOpen


@dataclass(frozen=True, slots=True)
class SessionUp:
    peer: IPAddress
    at: float


@dataclass(frozen=True, slots=True)
class SessionDown:
    """Also said of attempts that never came up. `notification` is (code, subcode) when one was sent or received."""

    peer: IPAddress
    at: float
    reason: str
    notification: tuple[int, int] | None
    sent: bool = False


@dataclass(frozen=True, slots=True)
class RoutesReceived:
    """One UPDATE: prefixes with their next hop, and prefixes withdrawn."""

    peer: IPAddress
    attributes: PathAttributes
    announced: tuple[tuple[IPNetwork, IPAddress], ...]
    withdrawn: tuple[IPNetwork, ...]


@dataclass(frozen=True, slots=True)
class EndOfRib:
    peer: IPAddress
    family: Family


@dataclass(frozen=True, slots=True)
class RefreshMark:
    """The peer begins or has ended to send a family again (RFC 7313)."""

    peer: IPAddress
    family: Family
    begins: bool


@dataclass(frozen=True, slots=True)
class SessionReport:
    """Answer to `sync`: how a session stands; `opened` only when established."""

    peer: IPAddress
    state: str
    since: float
    opened: PeerOpen | None


@dataclass(frozen=True, slots=True)
class AdvertisedReport:
    """Answer to `sync`: (part of) what was last announced to a peer."""

    peer: IPAddress
    prefixes: tuple[IPNetwork, ...]


@dataclass(frozen=True, slots=True)
class UnsentReport:
    """Answer to `unsent`: peers with an established session for which something waits to be sent."""

    number: int
    peers: tuple[IPAddress, ...]


@dataclass(frozen=True, slots=True)
class SyncEnd:
    """The answer to `sync` is complete; `digest` names the configuration that ExaBGP runs with."""

    digest: str


@dataclass(frozen=True, slots=True)
class ReloadReport:
    """The configuration with this digest was read."""

    digest: str
    taken: bool
    error: str


@dataclass(frozen=True, slots=True)
class CommandRefused:
    """A command (its beginning) that could not be read, and why; nothing of it was done. A defect of ours."""

    command: str
    problem: str


@dataclass(frozen=True, slots=True)
class Unrecognised:
    """A line we cannot use, and why."""

    line: str
    problem: str


SpeakerEvent = (
    SessionConnecting
    | SessionOpened
    | SessionUp
    | SessionDown
    | RoutesReceived
    | EndOfRib
    | RefreshMark
    | SessionReport
    | AdvertisedReport
    | UnsentReport
    | SyncEnd
    | ReloadReport
    | CommandRefused
    | Unrecognised
)
