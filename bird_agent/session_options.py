"""What a resource says about a session itself, whoever it is with: timers, password, filters, and annotations of ours.

Pure. Who the session is with, bird_agent/peering.py says."""

from __future__ import annotations

from datetime import timedelta
from ipaddress import IPv4Address

from msgspec import Struct

from bird_agent.bfd.wire import Watch
from bird_agent.session_config import (
    DEFAULT_HOLD_TIME_S,
    DEFAULT_RESTART_TIME_S,
    MAX_RESTART_TIME_S,
    NextHopMode,
    Password,
)
from weft.model.address import IPAddress


class Options(Struct, frozen=True, kw_only=True):
    """What a resource says about the session itself. `wants_password`: one is asked for, and None if not at hand."""

    local_as: int | None = None
    allowed_own_as: int = 0
    hold_time_s: int = DEFAULT_HOLD_TIME_S
    restart_time_s: int = DEFAULT_RESTART_TIME_S
    ttl_security_hops: int | None = None
    wants_password: bool = False
    password: Password | None = None
    source_is_free: bool = False
    next_hop_mode: NextHopMode = "Auto"
    keep_external_next_hop: bool = False
    gateway: IPAddress | None = None
    filters: tuple[str, ...] = ()
    max_prefixes: int | None = None
    bfd: Watch | None = None
    peer_cluster: IPv4Address | None = None
    versions: frozenset[int] = frozenset()
    dies_with: frozenset[IPAddress] | None = None


def restart_time_s(wanted: timedelta | None) -> int:
    """In whole seconds, and as much of it as the capability can carry (RFC 4724 3)."""
    return DEFAULT_RESTART_TIME_S if wanted is None else min(round(wanted.total_seconds()), MAX_RESTART_TIME_S)


def hold_time_s(keepalive: timedelta | None) -> int:
    """ExaBGP sends three keepalives in a hold time, so the interval asked for is a third of it."""
    return DEFAULT_HOLD_TIME_S if keepalive is None else min(3 * max(1, round(keepalive.total_seconds())), 65535)


def prefix_limit(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) > 0):
        raise ValueError(f"{text!r} is not a number of prefixes: no limit")
    return int(text)


def versions(text: str) -> frozenset[int]:
    """`IPv4,IPv6`: the families a session carries beside that of its addresses. Raises ValueError."""
    known = {"ipv4": 4, "ipv6": 6}
    try:
        return frozenset(known[name.strip().lower()] for name in text.split(","))
    except KeyError:
        raise ValueError(f"{text!r} is none of IPv4, IPv6 and IPv4,IPv6") from None
