"""What a process of scripted speakers is told and what it answers: one JSON line each way, in order.

Sessions are numbered in the order in which they were added; `sessions: null` is all of them. Times are CLOCK_MONOTONIC,
so they compare with those of any process on the machine."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from ipaddress import IPv4Address, ip_address, ip_network
from typing import Any, Final

import msgspec

from weft.model.address import IPAddress, IPNetwork

Numbers = tuple[int, ...] | None


class Script(msgspec.Struct, frozen=True, kw_only=True):
    """One session: who speaks from where to whom, and what it announces once it is established. It carries routes of
    the family of its addresses; the router id is the (end of the) local address unless given.

    `passive`: the other end connects. `restart_time_s`: graceful restart is offered. The next hop is `local` unless
    given; local preference goes to peers of the same AS alone."""

    local: IPAddress
    peer: IPAddress
    asn: int = 64512
    peer_asn: int = 64512
    port: int = 179
    router_id: IPv4Address | None = None
    next_hop: IPAddress | None = None
    routes: tuple[IPNetwork, ...] = ()
    communities: tuple[tuple[int, int], ...] = ()
    hold_time_s: int = 180
    restart_time_s: int | None = None
    passive: bool = False


class Add(msgspec.Struct, frozen=True, tag=True):
    """More sessions; none of them is connected yet."""

    scripts: tuple[Script, ...]


class Connect(msgspec.Struct, frozen=True, tag=True):
    """Be connected from now on, again a second after each loss; `at_once` attempts at a time with each peer, because
    a listener whose queue is full costs every further one a second."""

    sessions: Numbers = None
    at_once: int = 100


class Announce(msgspec.Struct, frozen=True, tag=True):
    """Beside what is announced already, also when the session begins anew."""

    sessions: Numbers
    prefixes: tuple[IPNetwork, ...]


class Withdraw(msgspec.Struct, frozen=True, tag=True):
    sessions: Numbers
    prefixes: tuple[IPNetwork, ...]


class How(StrEnum):
    RESET = "reset"
    """TCP RST: lost without a word of BGP."""
    CLOSE = "close"
    """TCP FIN, the same."""
    CEASE = "cease"
    """NOTIFICATION 6/2: shut down by will."""
    MUTE = "mute"
    """Nothing is said any more, not even KEEPALIVE; what comes is still read."""
    STALL = "stall"
    """Nothing is read any more; what has to be said is."""


class Lose(msgspec.Struct, frozen=True, tag=True):
    """`again`: what was lost is connected again; otherwise it stays away until `Connect`."""

    sessions: Numbers
    how: How
    again: bool = False


class Recover(msgspec.Struct, frozen=True, tag=True):
    """Speak and read again what was muted or stalled."""

    sessions: Numbers = None


class Expect(msgspec.Struct, frozen=True, tag=True):
    """A session is complete while it holds exactly these prefixes (and, if `mutual`, what the others of this process
    that are to be connected announce), whatever it holds of its own."""

    prefixes: tuple[IPNetwork, ...] = ()
    mutual: bool = True


class Zero(msgspec.Struct, frozen=True, tag=True):
    """Count anew."""


class Ask(msgspec.Struct, frozen=True, tag=True):
    """Answered by `Totals`, as every other command is but those below."""


class AskEach(msgspec.Struct, frozen=True, tag=True):
    """Answered by a list of `SessionTotals`."""

    sessions: Numbers = None


class AskHeld(msgspec.Struct, frozen=True, tag=True):
    """Answered by the prefixes that one session holds."""

    session: int


Command = Add | Connect | Announce | Withdraw | Lose | Recover | Expect | Zero | Ask | AskEach | AskHeld


class SessionTotals(msgspec.Struct, frozen=True, kw_only=True):
    number: int
    state: str
    held: int
    complete: bool
    updates: int
    announced: int
    withdrawn: int
    end_of_ribs: int
    begun: int
    lost: int


class Totals(msgspec.Struct, frozen=True, kw_only=True):
    """`established_at`, `complete_at`: since when all that are to be connected are; None while one is not.
    `notifications`: what was received, code/subcode -> how often. `last_route_at`: when a prefix last came or went."""

    wanted: int
    established: int
    established_at: float | None
    complete: int
    complete_at: float | None
    updates: int
    announced: int
    withdrawn: int
    end_of_ribs: int
    begun: int
    lost: int
    notifications: dict[str, int]
    last_route_at: float | None
    cpu_s: float


def _written(value: Any) -> str:
    if isinstance(value, (IPAddress, IPNetwork)):
        return str(value)
    raise NotImplementedError


_PARSERS: Final[dict[Any, Callable[[str], Any]]] = {
    IPAddress: ip_address,
    IPv4Address: IPv4Address,
    IPNetwork: ip_network,
}


def _parsed(kind: type, value: Any) -> Any:
    parse = _PARSERS.get(kind)
    if parse is None:
        raise NotImplementedError
    return parse(value)


ENCODER: Final = msgspec.json.Encoder(enc_hook=_written)
COMMAND: Final = msgspec.json.Decoder(Command, dec_hook=_parsed)
TOTALS: Final = msgspec.json.Decoder(Totals)
EACH: Final = msgspec.json.Decoder(list[SessionTotals])
HELD: Final = msgspec.json.Decoder(list[IPNetwork], dec_hook=_parsed)
