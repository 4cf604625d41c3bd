"""A machine with its connection, what can happen to it, and what follows for its routes. Values and functions on them;
the session (session.py) owns them."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct, field

from bird_agent.reflector.errors import COLLISION, HARD_RESET, Code, Notification, SessionError, Stop, shutdown_data
from bird_agent.reflector.framing import Framer
from bird_agent.reflector.fsm import Event, State
from bird_agent.reflector.negotiation import Negotiated
from bird_agent.reflector.outputs import Down, Output
from bird_agent.reflector.updates import UpdateDecoder

_SUBCODES = {State.OPEN_SENT: 1, State.OPEN_CONFIRM: 2, State.ESTABLISHED: 3}


class Leg(Struct, eq=False):
    """`before` is the state before the event that is being carried out, `told` the NOTIFICATION sent because of it."""

    state: State = State.IDLE
    conn: int | None = None
    incoming: bool = False
    framer: Framer = field(default_factory=Framer)
    negotiated: Negotiated | None = None
    heard: bytes = b""
    """The peer's OPEN, without its header."""
    ours_stays: bool = False
    """Of two connections with the router id in the peer's OPEN, the one that we began (collision.py)."""
    decoder: UpdateDecoder | None = None
    hold_at: float | None = None
    keepalive_at: float | None = None
    before: State = State.IDLE
    told: Notification | None = None


class Cause(Struct, frozen=True):
    """What happened to a leg. `notification` is what came or what is to be sent; `deliver` what came of a message."""

    event: Event
    now: float
    why: str = ""
    notification: Notification | None = None
    stop: Stop | None = None
    deliver: Sequence[Output] = ()

    @property
    def received(self) -> bool:
        """The NOTIFICATION came from the peer."""
        return self.event in (Event.NOTIFICATION, Event.NOTIFICATION_VERSION)

    @property
    def lost_collision(self) -> bool:
        """The peer keeps another connection, of which we may not know yet."""
        said = self.notification
        return self.received and said is not None and (said.code, said.subcode) == (Code.CEASE, COLLISION)


def error(event: Event, now: float, found: SessionError) -> Cause:
    return Cause(event, now, found.why, found.notification)


def state_error(leg: Leg) -> Notification:
    """What is said of a message that does not belong into a state (RFC 6608)."""
    return Notification(Code.STATE_MACHINE, _SUBCODES.get(leg.before, 0))


def cease(stop: Stop, text: str, negotiated: Negotiated | None) -> Notification | None:
    """What the peer is told of an end that we want; None: nothing. Where a NOTIFICATION would keep our routes, a final
    one is a hard reset (RFC 8538 3.1)."""
    if stop.value is None:
        return None
    data = shutdown_data(text) if stop in (Stop.SHUTDOWN, Stop.RESET) else b""
    if stop.final and negotiated is not None and negotiated.keeps_after_notification:
        return Notification(Code.CEASE, HARD_RESET, bytes((Code.CEASE, stop.value)) + data)
    return Notification(Code.CEASE, stop.value, data)


def down(leg: Leg, cause: Cause) -> Down:
    return Down(
        why=cause.why,
        notification=cause.notification if cause.received else leg.told,
        sent=leg.told is not None,
        graceful=leg.before is State.ESTABLISHED and _keeps_routes(leg.negotiated, cause),
        was_up=leg.before is State.ESTABLISHED,
        silent=cause.event is Event.HOLD_TIMER_EXPIRES or cause.stop is Stop.BFD_DOWN,
    )


def _keeps_routes(negotiated: Negotiated | None, cause: Cause) -> bool:
    """Whether the peer's routes stay for its restart time (RFC 4724 4.2, RFC 8538 4). Silence is no restart: a hold
    timer that expires takes them away at once, whatever was agreed."""
    if negotiated is None or negotiated.restart is None or not negotiated.restart.families:
        return False
    match cause.event:
        case Event.CONNECTION_FAILS | Event.REPLACED:
            return True
        case Event.HOLD_TIMER_EXPIRES:
            return False
        case Event.MANUAL_STOP | Event.AUTOMATIC_STOP:
            return cause.stop is not None and not cause.stop.final
        case Event.NOTIFICATION | Event.NOTIFICATION_VERSION:
            hard = cause.notification is not None and cause.notification.hard
            return negotiated.keeps_after_notification and not hard
    return negotiated.keeps_after_notification
