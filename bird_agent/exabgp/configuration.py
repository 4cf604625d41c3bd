"""Render ExaBGP's configuration: sessions in, text out.

Pure and canonical: the same sessions in any order give the same text. It holds no routes (those go through the process
API) and no decisions about who peers with whom (bird_agent/peering.py). A value that could end a statement or begin
another is refused, never quoted."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from ipaddress import IPv4Address, IPv6Address

from msgspec import Struct

from weft.model.address import IPAddress

PROCESS = "speaker"
MAX_RESTART_TIME_S = 4095  # 12 bits; a larger one would run over into the flags (RFC 4724 3)
_PASSWORD_STATEMENT = re.compile(r'md5-password\s+("[^"]*"?|\S+)')
_PASSWORD = re.compile(r"[!#-:<-z|~]{1,80}")  # printable, without space ; { } and the double quote


class UnrenderableSessionError(ValueError):
    """A session that ExaBGP cannot express; carries the peer and what is wrong."""

    def __init__(self, peer: IPAddress, problem: str) -> None:
        super().__init__(f"session with {peer}: {problem}")
        self.peer = peer
        self.problem = problem


class Neighbor(Struct, frozen=True, kw_only=True):
    """One session as ExaBGP has to know it. `router_id` and the two addresses are this node's and the peer's;
    `versions` are 4 and 6 by the prefixes it carries, none: those of its addresses."""

    peer: IPAddress
    local: IPAddress
    router_id: IPv4Address
    local_as: int
    peer_as: int
    hold_time_s: int = 90
    restart_time_s: int = 120
    passive: bool = False
    port: int | None = None
    password: str | None = None
    ttl_security_hops: int | None = None
    versions: tuple[int, ...] = ()
    local_port: int = 179

    def __post_init__(self) -> None:
        if self.peer.version != self.local.version:
            raise UnrenderableSessionError(self.peer, f"the local address {self.local} is of the other family")
        if self.password is not None and not _PASSWORD.fullmatch(self.password):
            raise UnrenderableSessionError(
                self.peer, "a password of 1-80 printable characters is needed, without ; { }"
            )
        for name, number in (("local", self.local_as), ("peer", self.peer_as)):
            if not 0 < number < 1 << 32:
                raise UnrenderableSessionError(self.peer, f"{number} is not a {name} AS number")
        if self.hold_time_s != 0 and not 3 <= self.hold_time_s <= 65535:
            raise UnrenderableSessionError(self.peer, f"{self.hold_time_s} s is not a hold time")
        if not 0 <= self.restart_time_s <= MAX_RESTART_TIME_S:
            raise UnrenderableSessionError(self.peer, f"{self.restart_time_s} s is not a restart time")
        if isinstance(self.peer, IPv6Address) and self.peer.scope_id is not None:
            raise UnrenderableSessionError(self.peer, "a peer cannot be told by an address with a zone")


def render(neighbors: Iterable[Neighbor], helper: Sequence[str]) -> str:
    """The whole configuration; `helper` is the argument list of the speaker link."""
    ordered = sorted(neighbors, key=lambda each: (each.peer.version, each.peer))
    parts = [f"process {PROCESS} {{\n  run {' '.join(helper)};\n  encoder json;\n}}\n"]
    parts.extend(_neighbor(each) for each in ordered)
    return "\n".join(parts)


def without_passwords(text: str) -> str:
    """What ExaBGP says of a configuration may quote it, and goes into logs."""
    return _PASSWORD_STATEMENT.sub("md5-password (hidden)", text)


def digest_of(content: bytes) -> str:
    """How a configuration is named in reports: 16 hex digits."""
    return hashlib.sha256(content).hexdigest()[:16]


def _neighbor(session: Neighbor) -> str:
    versions = session.versions or (session.peer.version,)
    families = " ".join(f"ipv{version} unicast;" for version in sorted(versions))
    optional = []
    if session.peer.version == 6 and 4 in versions:
        optional.append("nexthop { ipv4 unicast ipv6; }")  # RFC 8950, if the peer offers it too
    if session.passive:
        optional.append("passive true;")
    if session.port is not None:
        optional.append(f"connect {session.port};")
    if session.password is not None:
        optional.append(f'md5-password "{session.password}";')
    if session.ttl_security_hops is not None:
        # GTSM (RFC 5082): send with 255, accept what has crossed at most that many routers.
        optional.append("outgoing-ttl 255;")
        optional.append(f"incoming-ttl {256 - session.ttl_security_hops};")
    extended = " nexthop enable;" if session.peer.version == 6 and 4 in versions else ""
    extra = "".join(f"  {line}\n" for line in optional)
    return (
        f"neighbor {session.peer} {{\n"
        f"  local-address {session.local};\n"
        f"  router-id {session.router_id};\n"
        f"  local-as {session.local_as};\n"
        f"  peer-as {session.peer_as};\n"
        f"  hold-time {session.hold_time_s};\n"
        f"{extra}"
        f"  manual-eor true;\n"
        f"  adj-rib-in false;\n"
        f"  adj-rib-out true;\n"
        f"  family {{ {families} }}\n"
        f"  capability {{ route-refresh enable; graceful-restart {session.restart_time_s};{extended} }}\n"
        f"  api {{ processes [ {PROCESS} ]; neighbor-changes; "
        f"receive {{ parsed; open; update; refresh; notification; }} }}\n"
        f"}}\n"
    )
