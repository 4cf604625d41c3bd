"""What the BGP agent tells of its peers and routes, as values: what a BgpProvider returns and weftctl shows.

Only values and the port; how they travel is in services/bgp.py, how they look in weft.ctl."""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum
from ipaddress import IPv4Address
from typing import Protocol

from msgspec import Struct

from weft.model.address import IPAddress, IPNetwork


class PathView(Enum):
    """Which paths are asked for; the last two are of one peer."""

    ALL = "routes"
    BEST = "best"
    RECEIVED = "received"
    ADVERTISED = "advertised"


class PeerReport(Struct, frozen=True, kw_only=True):
    """One session. `hold_time_s` is what both ends agreed on; `max_prefixes` and `ttl_security_hops` 0: none.
    `bfd` is the state of the BFD session that watches the path; empty: none does. `role` is what a reflector's peer is
    to it, `behind` how many changes it has yet to take."""

    address: IPAddress
    asn: int
    local_as: int
    local_address: IPAddress
    resource: str
    state: str
    since_s: float = 0.0
    last_error: str = ""
    router_id: IPv4Address | None = None
    hold_time_s: int = 0
    received: int = 0
    accepted: int = 0
    announced: int = 0
    updates: int = 0
    flaps: int = 0
    restarting: bool = False
    filters: tuple[str, ...] = ()
    max_prefixes: int = 0
    has_password: bool = False
    ttl_security_hops: int = 0
    bfd: str = ""
    role: str = ""
    behind: int = 0


class PathReport(Struct, frozen=True, kw_only=True):
    """One path: from `peer`, or to it. `standing` is one word for how it fared, `reason` says why."""

    prefix: IPNetwork
    peer: IPAddress
    next_hop: IPAddress | None
    standing: str
    reason: str
    as_path: str = ""
    origin: str = ""
    local_preference: int | None = None
    med: int | None = None
    communities: tuple[str, ...] = ()
    originator_id: IPv4Address | None = None
    cluster_list: tuple[IPv4Address, ...] = ()
    stale: bool = False


class TraceReport(Struct, frozen=True):
    """All about the most specific prefix known that holds what was asked; None: there is none."""

    prefix: IPNetwork | None
    paths: tuple[PathReport, ...] = ()
    announcements: tuple[PathReport, ...] = ()
    kernel: tuple[str, ...] = ()


class ConfigReport(Struct, frozen=True):
    """This node as a BGP speaker. `speaker` is the text that ExaBGP was given, without passwords."""

    asn: int
    router_id: IPv4Address | None
    port: int
    addresses: tuple[IPAddress, ...]
    cluster_id: IPv4Address | None
    speaker: str


class BgpProvider(Protocol):
    """What the BGP agent implements: answer from memory, on the event loop."""

    def peers(self) -> list[PeerReport]: ...

    def not_enforced(self) -> list[str]:
        """What is asked for and has no effect: "BGPPeer/tor: why"."""
        ...

    def paths(self, view: PathView, peer: IPAddress | None) -> Iterator[list[PathReport]]:
        """Prefix by prefix, those without any included: each as it is when its turn comes, because a large table takes
        long and the loop has other work. Raises NotFoundError, at once, where `peer` is no peer."""
        ...

    def trace(self, destination: IPNetwork) -> TraceReport: ...

    def config(self) -> ConfigReport: ...
