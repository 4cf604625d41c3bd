"""What a session wants done and has to tell: the closed union `Output`.

Values only. `conn` is the number that the loop gave a TCP connection."""

from __future__ import annotations

from dataclasses import dataclass

from bird_agent.exabgp.commands import Family
from bird_agent.reflector.attributes import AttributeSet
from bird_agent.reflector.errors import Notification
from bird_agent.reflector.negotiation import Negotiated
from bird_agent.reflector.prefixes import Nlri
from weft.model.address import IPAddress


@dataclass(frozen=True, slots=True)
class Connect:
    """Begin to connect to the peer; an attempt still under way is given up. Answer with `on_connection` or
    `on_connect_failed`."""


@dataclass(frozen=True, slots=True)
class CancelConnect:
    """Give up the attempt under way; nothing is to be answered."""


@dataclass(frozen=True, slots=True)
class Write:
    conn: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Close:
    """Send what was written before, then close. Nothing is to be answered."""

    conn: int


@dataclass(frozen=True, slots=True)
class Opened:
    """The peer's OPEN was accepted. This may be one of two connections of which one will be closed."""

    conn: int
    negotiated: Negotiated


@dataclass(frozen=True, slots=True)
class Up:
    """Established; UPDATEs may be written to `conn` from here on."""

    conn: int
    negotiated: Negotiated


@dataclass(frozen=True, slots=True)
class Down:
    """The end of a session that was up, or of an attempt that reached an OPEN (`was_up` tells).

    `graceful`: its routes are to be kept as stale for the time of the peer's OPEN (RFC 4724, RFC 8538), otherwise they
    go at once. `sent`: the NOTIFICATION was ours. `silent`: the hold timer or BFD ended it."""

    why: str
    notification: Notification | None = None
    sent: bool = False
    graceful: bool = False
    was_up: bool = True
    silent: bool = False


@dataclass(frozen=True, slots=True)
class Updates:
    """Routes of one family from one UPDATE. Withdrawals come first. `attributes` and `next_hop` are None if nothing is
    announced. A link-local next hop is one that no other peer can use."""

    family: Family
    attributes: AttributeSet | None
    next_hop: IPAddress | None
    announced: tuple[Nlri, ...]
    withdrawn: tuple[Nlri, ...]


@dataclass(frozen=True, slots=True)
class EndOfRib:
    family: Family


@dataclass(frozen=True, slots=True)
class RefreshAsked:
    """The peer wants everything of a family again (RFC 2918)."""

    family: Family


@dataclass(frozen=True, slots=True)
class RefreshMark:
    """The peer begins or has ended to send a family again (RFC 7313)."""

    family: Family
    begins: bool


@dataclass(frozen=True, slots=True)
class Treated:
    """An UPDATE was not as it should be, and the session goes on (RFC 7606): a line for the log."""

    problem: str


Output = (
    Connect
    | CancelConnect
    | Write
    | Close
    | Opened
    | Up
    | Down
    | Updates
    | EndOfRib
    | RefreshAsked
    | RefreshMark
    | Treated
)
