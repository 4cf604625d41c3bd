"""What the agent learns from ExaBGP, as frozen events: the closed union `SpeakerEvent` is all of it.

A line of a kind we did not ask for, or that does not read as expected, is `Unrecognised`. Times are ExaBGP's (seconds
since the epoch), because a replayed line was written long before it is read. `decoder.py` makes them."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import IPv4Address

from msgspec import Struct

from bird_agent.exabgp.commands import Family
from weft.model.address import IPAddress, IPNetwork


class AsSegment(Struct, frozen=True):
    """One segment of an AS_PATH (RFC 4271 4.3, RFC 5065)."""

    kind: str
    numbers: tuple[int, ...]


class PathAttributes(Struct, frozen=True):
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


class PeerOpen(Struct, frozen=True):
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


class SessionConnecting(Struct, frozen=True):
    """A TCP connection; whether it becomes a session is open."""

    peer: IPAddress
    at: float


class SessionOpened(Struct, frozen=True):
    peer: IPAddress
    at: float
    opened: PeerOpen


class SessionUp(Struct, frozen=True):
    peer: IPAddress
    at: float


class SessionDown(Struct, frozen=True):
    """Also said of attempts that never came up. `notification` is (code, subcode) when one was sent or received."""

    peer: IPAddress
    at: float
    reason: str
    notification: tuple[int, int] | None
    sent: bool = False


class RoutesReceived(Struct, frozen=True):
    """One UPDATE: prefixes with their next hop, and prefixes withdrawn."""

    peer: IPAddress
    attributes: PathAttributes
    announced: tuple[tuple[IPNetwork, IPAddress], ...]
    withdrawn: tuple[IPNetwork, ...]


class EndOfRib(Struct, frozen=True):
    peer: IPAddress
    family: Family


class RefreshMark(Struct, frozen=True):
    """The peer begins or has ended to send a family again (RFC 7313)."""

    peer: IPAddress
    family: Family
    begins: bool


class SessionReport(Struct, frozen=True):
    """Answer to `sync`: how a session stands; `opened` only when established."""

    peer: IPAddress
    state: str
    since: float
    opened: PeerOpen | None


class AdvertisedReport(Struct, frozen=True):
    """Answer to `sync`: (part of) what was last announced to a peer."""

    peer: IPAddress
    prefixes: tuple[IPNetwork, ...]


class UnsentReport(Struct, frozen=True):
    """Answer to `unsent`: peers with an established session for which something waits to be sent."""

    number: int
    peers: tuple[IPAddress, ...]


class SyncEnd(Struct, frozen=True):
    """The answer to `sync` is complete; `digest` names the configuration that ExaBGP runs with."""

    digest: str


class ReloadReport(Struct, frozen=True):
    """The configuration with this digest was read."""

    digest: str
    taken: bool
    error: str


class CommandRefused(Struct, frozen=True):
    """A command (its beginning) that could not be read, and why; nothing of it was done. A defect of ours."""

    command: str
    problem: str


class Unrecognised(Struct, frozen=True):
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
