"""The finite state machine of RFC 4271 section 8 as a table: every state, every event.

One machine is one connection, or the wish for one; a peer has a second one while two connections collide (session.py).
What the actions do is the session's; here is only which are due, in which order, and what state follows.

Numbers of events are the RFC's. Not there, because they cannot happen: automatic starts without damping (3, 5); the
delay before an OPEN (12, 20), because we send ours at once; SYNs and refused peers (14, 15), which a socket does not
show; the idle-hold timer (13) starts by 6 or 7. The table differs from the RFC in five places:
* Connect, connection fails: to Active, as if DelayOpen were in use; Idle would refuse the peer's own connection.
* a passive session never calls: its connect-retry timer does not run (the session sees to that).
* a NOTIFICATION in OpenSent is not answered with another (6.4).
* an OPEN on a connection that had one is an error of state: collisions are between two machines.
* with an OPEN accepted, a call of ours that is still under way is given up (collision.py)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import Enum, IntEnum, auto
from types import MappingProxyType
from typing import Final

from msgspec import Struct


class State(Enum):
    IDLE = "Idle"
    CONNECT = "Connect"
    ACTIVE = "Active"
    OPEN_SENT = "OpenSent"
    OPEN_CONFIRM = "OpenConfirm"
    ESTABLISHED = "Established"

    __hash__ = object.__hash__  # Enum's is written in Python, and this one is asked for with every message


class Event(IntEnum):
    """From 29 on they are not RFC 4271's."""

    MANUAL_START = 1
    MANUAL_STOP = 2
    MANUAL_START_PASSIVE = 4
    DAMPED_START = 6
    DAMPED_START_PASSIVE = 7
    AUTOMATIC_STOP = 8
    CONNECT_RETRY_EXPIRES = 9
    HOLD_TIMER_EXPIRES = 10
    KEEPALIVE_TIMER_EXPIRES = 11
    CONNECTED = 16
    ACCEPTED = 17
    CONNECTION_FAILS = 18
    OPEN = 19
    HEADER_ERROR = 21
    OPEN_ERROR = 22
    COLLISION_DUMP = 23
    NOTIFICATION_VERSION = 24
    NOTIFICATION = 25
    KEEPALIVE = 26
    UPDATE = 27
    UPDATE_ERROR = 28
    REFRESH = 29
    """A ROUTE-REFRESH (RFC 2918)."""
    REPLACED = 30
    """The peer has confirmed another connection: it no longer knows this one (RFC 4724 5)."""


class Action(Enum):
    """In the table a transition's actions are in the order in which they are done."""

    __hash__ = object.__hash__

    DIAL = auto()
    CANCEL_DIAL = auto()
    ARM_CONNECT_RETRY = auto()
    STOP_CONNECT_RETRY = auto()
    CLEAR_RETRIES = auto()
    SEND_OPEN = auto()
    ARM_OPEN_HOLD = auto()
    """The long hold timer that waits for an OPEN."""
    TELL_OPENED = auto()
    SEND_KEEPALIVE = auto()
    ARM_KEEPALIVE = auto()
    ARM_HOLD = auto()
    TELL_UP = auto()
    """Established; other connections of the peer go."""
    DELIVER = auto()
    NOTIFY = auto()
    """Send the NOTIFICATION of the event."""
    NOTIFY_STATE = auto()
    """Send one that says: a finite state machine error (RFC 6608)."""
    DROP = auto()
    """Close the connection, stop its timers."""
    TELL_DOWN = auto()
    DAMP = auto()
    """Count a failure, and hold the peer idle if it has no other connection."""


class Transition(Struct, frozen=True):
    state: State
    actions: tuple[Action, ...] = ()


_A, _E, _S = Action, Event, State
_STARTS: Final = (_E.MANUAL_START, _E.MANUAL_START_PASSIVE, _E.DAMPED_START, _E.DAMPED_START_PASSIVE)
_CONNECTIONS: Final = (_E.CONNECTED, _E.ACCEPTED)

_OPEN_SENT: Final = Transition(_S.OPEN_SENT, (_A.STOP_CONNECT_RETRY, _A.SEND_OPEN, _A.ARM_OPEN_HOLD))
_STOPPED: Final = Transition(_S.IDLE, (_A.STOP_CONNECT_RETRY, _A.CANCEL_DIAL, _A.CLEAR_RETRIES))
_FALLEN: Final = Transition(_S.IDLE, (_A.STOP_CONNECT_RETRY, _A.CANCEL_DIAL, _A.DAMP))
_TOLD_AND_STOPPED: Final = Transition(
    _S.IDLE, (_A.NOTIFY, _A.DROP, _A.TELL_DOWN, _A.STOP_CONNECT_RETRY, _A.CANCEL_DIAL, _A.CLEAR_RETRIES)
)
_TOLD: Final = Transition(_S.IDLE, (_A.NOTIFY, _A.DROP, _A.TELL_DOWN, _A.DAMP))
_WRONG_STATE: Final = Transition(_S.IDLE, (_A.NOTIFY_STATE, _A.DROP, _A.TELL_DOWN, _A.DAMP))
_SILENT: Final = Transition(_S.IDLE, (_A.DROP, _A.TELL_DOWN, _A.DAMP))
_DUMPED: Final = Transition(_S.IDLE, (_A.NOTIFY, _A.DROP, _A.DAMP))


def _row(
    state: State, rest: Transition, same: Iterable[Event], *entries: tuple[Event, Transition]
) -> dict[tuple[State, Event], Transition]:
    """All events in one state: `same` change nothing, those without an entry are the `rest`."""
    row = {(state, event): rest for event in Event}
    row |= {(state, event): Transition(state) for event in same}
    return row | {(state, event): transition for event, transition in entries}


def _table() -> dict[tuple[State, Event], Transition]:
    dial = (_A.ARM_CONNECT_RETRY, _A.DIAL)
    keepalive = (_A.SEND_KEEPALIVE, _A.ARM_KEEPALIVE)
    return {
        **_row(
            _S.IDLE,
            Transition(_S.IDLE),
            (),
            (_E.MANUAL_START, Transition(_S.CONNECT, (_A.CLEAR_RETRIES, *dial))),
            (_E.MANUAL_START_PASSIVE, Transition(_S.ACTIVE, (_A.CLEAR_RETRIES,))),
            (_E.DAMPED_START, Transition(_S.CONNECT, dial)),
            (_E.DAMPED_START_PASSIVE, Transition(_S.ACTIVE, (_A.ARM_CONNECT_RETRY,))),
            *((event, Transition(_S.IDLE, (_A.DROP,))) for event in _CONNECTIONS),
        ),
        **_row(
            _S.CONNECT,
            _FALLEN,
            _STARTS,
            (_E.MANUAL_STOP, _STOPPED),
            (_E.CONNECT_RETRY_EXPIRES, Transition(_S.CONNECT, dial)),
            *((event, _OPEN_SENT) for event in _CONNECTIONS),
            (_E.CONNECTION_FAILS, Transition(_S.ACTIVE, (_A.ARM_CONNECT_RETRY,))),
        ),
        **_row(
            _S.ACTIVE,
            _FALLEN,
            _STARTS,
            (_E.MANUAL_STOP, _STOPPED),
            (_E.CONNECT_RETRY_EXPIRES, Transition(_S.CONNECT, dial)),
            *((event, _OPEN_SENT) for event in _CONNECTIONS),
        ),
        **_row(
            _S.OPEN_SENT,
            _WRONG_STATE,
            (*_STARTS, *_CONNECTIONS),
            (_E.MANUAL_STOP, _TOLD_AND_STOPPED),
            (_E.AUTOMATIC_STOP, _TOLD),
            (_E.HOLD_TIMER_EXPIRES, _TOLD),
            (_E.CONNECTION_FAILS, Transition(_S.ACTIVE, (_A.DROP, _A.TELL_DOWN, _A.ARM_CONNECT_RETRY))),
            (_E.OPEN, Transition(_S.OPEN_CONFIRM, (_A.TELL_OPENED, _A.CANCEL_DIAL, *keepalive, _A.ARM_HOLD))),
            (_E.HEADER_ERROR, _TOLD),
            (_E.OPEN_ERROR, _TOLD),
            (_E.COLLISION_DUMP, _DUMPED),
            (_E.NOTIFICATION_VERSION, _SILENT),
            (_E.NOTIFICATION, _SILENT),
            (_E.REPLACED, _DUMPED),
        ),
        **_row(
            _S.OPEN_CONFIRM,
            _WRONG_STATE,
            (*_STARTS, *_CONNECTIONS),
            (_E.MANUAL_STOP, _TOLD_AND_STOPPED),
            (_E.AUTOMATIC_STOP, _TOLD),
            (_E.HOLD_TIMER_EXPIRES, _TOLD),
            (_E.KEEPALIVE_TIMER_EXPIRES, Transition(_S.OPEN_CONFIRM, keepalive)),
            (_E.CONNECTION_FAILS, _SILENT),
            (_E.HEADER_ERROR, _TOLD),
            (_E.OPEN_ERROR, _TOLD),
            (_E.COLLISION_DUMP, _DUMPED),
            (_E.NOTIFICATION_VERSION, _SILENT),
            (_E.NOTIFICATION, _SILENT),
            (_E.KEEPALIVE, Transition(_S.ESTABLISHED, (_A.ARM_HOLD, _A.TELL_UP))),
            (_E.REPLACED, _DUMPED),
        ),
        **_row(
            _S.ESTABLISHED,
            _WRONG_STATE,
            (*_STARTS, *_CONNECTIONS),
            (_E.MANUAL_STOP, _TOLD_AND_STOPPED),
            (_E.AUTOMATIC_STOP, _TOLD),
            (_E.HOLD_TIMER_EXPIRES, _TOLD),
            (_E.KEEPALIVE_TIMER_EXPIRES, Transition(_S.ESTABLISHED, keepalive)),
            (_E.CONNECTION_FAILS, _SILENT),
            (_E.HEADER_ERROR, _TOLD),
            (_E.COLLISION_DUMP, _TOLD),
            (_E.NOTIFICATION_VERSION, _SILENT),
            (_E.NOTIFICATION, _SILENT),
            (_E.KEEPALIVE, Transition(_S.ESTABLISHED, (_A.ARM_HOLD,))),
            (_E.UPDATE, Transition(_S.ESTABLISHED, (_A.ARM_HOLD, _A.DELIVER))),
            (_E.REFRESH, Transition(_S.ESTABLISHED, (_A.ARM_HOLD, _A.DELIVER))),
            (_E.UPDATE_ERROR, _TOLD),
            (_E.REPLACED, _SILENT),
        ),
    }


TABLE: Final[Mapping[tuple[State, Event], Transition]] = MappingProxyType(_table())
