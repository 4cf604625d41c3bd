"""What a session wants done and has to tell: the closed union `Output`.

Values only. `conn` is the number that the loop gave a TCP connection."""

from __future__ import annotations

from msgspec import Struct

from bird_agent.exabgp.commands import Family
from bird_agent.reflector.attributes import AttributeSet
from bird_agent.reflector.errors import Notification
from bird_agent.reflector.negotiation import Negotiated
from bird_agent.reflector.prefixes import Nlri
from weft.model.address import IPAddress


class Connect(Struct, frozen=True):
    """Begin to connect to the peer; an attempt still under way is given up. Answer with `on_connection` or
    `on_connect_failed`."""


class CancelConnect(Struct, frozen=True):
    """Give up the attempt under way; nothing is to be answered."""


class Write(Struct, frozen=True):
    conn: int
    data: bytes


class Close(Struct, frozen=True):
    """Send what was written before, then close. Nothing is to be answered."""

    conn: int


class Opened(Struct, frozen=True):
    """The peer's OPEN was accepted. This may be one of two connections of which one will be closed."""

    conn: int
    negotiated: Negotiated


class Up(Struct, frozen=True):
    """Established; UPDATEs may be written to `conn` from here on."""

    conn: int
    negotiated: Negotiated


class Down(Struct, frozen=True):
    """The end of a session that was up, or of an attempt that reached an OPEN (`was_up` tells).

    `graceful`: its routes are to be kept as stale for the time of the peer's OPEN (RFC 4724, RFC 8538), otherwise they
    go at once. `sent`: the NOTIFICATION was ours. `silent`: the hold timer or BFD ended it."""

    why: str
    notification: Notification | None = None
    sent: bool = False
    graceful: bool = False
    was_up: bool = True
    silent: bool = False


class Updates(Struct, frozen=True):
    """Routes of one family from one UPDATE. Withdrawals come first. `attributes` and `next_hop` are None if nothing is
    announced. A link-local next hop is one that no other peer can use."""

    family: Family
    attributes: AttributeSet | None
    next_hop: IPAddress | None
    announced: tuple[Nlri, ...]
    withdrawn: tuple[Nlri, ...]


class EndOfRib(Struct, frozen=True):
    family: Family


class RefreshAsked(Struct, frozen=True):
    """The peer wants everything of a family again (RFC 2918)."""

    family: Family


class RefreshMark(Struct, frozen=True):
    """The peer begins or has ended to send a family again (RFC 7313)."""

    family: Family
    begins: bool


class Treated(Struct, frozen=True):
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
