"""One peer of the reflector, without I/O: connections, bytes and the time go in; `outputs` come out of `take`.

The session carries out what the table in fsm.py says. It holds one machine for each connection of the peer (two while
they collide, or while a restarted peer comes back), or one that waits for a connection. Reads no clock and draws no
lots: `now` and the jitter are arguments. Which routes are told to the peer is not known here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from msgspec.structs import replace

from bird_agent.reflector import exabgp_codec
from bird_agent.reflector.attributes import AttributeSets
from bird_agent.reflector.collision import is_the_peers_to_close, loser, ours_stays
from bird_agent.reflector.errors import (
    COLLISION,
    Code,
    HeaderError,
    Notification,
    OpenError,
    RefreshMalformed,
    Stop,
    UpdateMalformed,
)
from bird_agent.reflector.framing import KEEPALIVE, Framer, Message, notification
from bird_agent.reflector.fsm import TABLE, Action, Event, State
from bird_agent.reflector.legs import Cause, Leg, cease, down, error, state_error
from bird_agent.reflector.negotiation import Negotiated, negotiate, our_open
from bird_agent.reflector.outputs import CancelConnect, Close, Connect, Opened, Output, Up, Write
from bird_agent.reflector.plan import ReflectorPlan, ReflectorSession
from bird_agent.reflector.updates import UpdateDecoder, decode_refresh

CONNECT_RETRY_S: Final = 5.0
OPEN_HOLD_S: Final = 240.0
FIRST_IDLE_HOLD_S: Final = 1.0
LONGEST_IDLE_HOLD_S: Final = 30.0
STABLE_S: Final = 60.0
"""Up for so long, and earlier failures are forgotten."""
FORGIVEN_FAILURES: Final = 2
"""So many failures in a row do not keep us from taking a connection of the peer's; after more the peer is held idle."""

Jitter = Callable[[], float]
"""A number from 0 (inclusive) to 1."""

_ORDER: Final = {state: position for position, state in enumerate(State)}


class Session:
    """See the module. `sets` is shared by all sessions of a process. `restarting` is said in our OPENs (RFC 4724): the
    reflector has lost its routes and will send an end-of-RIB when it has them again."""

    def __init__(
        self,
        plan: ReflectorPlan,
        config: ReflectorSession,
        now_s: float,
        *,
        sets: AttributeSets,
        jitter: Jitter,
    ) -> None:
        self.restarting = False
        self.since = now_s
        """Since when `state` is what it is."""
        self._plan = plan
        self._config = config
        self._sets = sets
        self._jitter = jitter
        self._legs = [Leg()]
        self._out: list[Output] = []
        self._started = False
        self._dialing = False
        self._failures = 0
        self._retry_at: float | None = None
        self._idle_until: float | None = None
        self._up_since: float | None = None

    # What one can ask.

    @property
    def state(self) -> State:
        """Of the connection that has come furthest."""
        return max((leg.state for leg in self._legs), key=_ORDER.__getitem__)

    @property
    def established(self) -> Negotiated | None:
        leg = self._established()
        return None if leg is None else leg.negotiated

    @property
    def failures(self) -> int:
        """In a row, each of which makes the next pause longer."""
        return self._failures

    @property
    def deadline(self) -> float | None:
        """When `on_tick` is wanted next."""
        times = [self._retry_at, self._idle_until]
        for leg in self._legs:
            times += (leg.hold_at, leg.keepalive_at)
        return min((each for each in times if each is not None), default=None)

    def take(self) -> list[Output]:
        """What is to be done since the last call, in this order."""
        taken, self._out = self._out, []
        return taken

    # Inputs.

    def set_passive(self, passive: bool) -> None:
        """Who connects when the session has to come up again."""
        self._config = replace(self._config, passive=passive)

    def on_start(self, now: float) -> None:
        """Begin; a session that was started goes on, one that is held idle begins at once."""
        self._started = True
        self._idle_until = None
        start = Event.MANUAL_START_PASSIVE if self._config.passive else Event.MANUAL_START
        self._fire(self._legs[0], Cause(start, now))

    def on_stop(self, now: float, stop: Stop, text: str = "") -> None:
        """End every connection. Where `stop` does not come back by itself, nothing happens until `on_start`."""
        event = Event.AUTOMATIC_STOP if stop.comes_back else Event.MANUAL_STOP
        if event is Event.MANUAL_STOP:
            self._started = False
            self._idle_until = None
        cause = Cause(event, now, f"ended here: {stop.name.lower().replace('_', ' ')}", stop=stop)
        for leg in tuple(self._legs):
            self._fire(leg, replace(cause, notification=cease(stop, text, leg.negotiated)))

    def on_connection(self, conn: int, incoming: bool, now: float) -> None:
        """A TCP connection is there. One that is not wanted is closed."""
        if not incoming and not self._dialing:
            self._out.append(Close(conn))
            return
        if not incoming:
            self._dialing = False
        leg = self._legs[0]
        if leg.conn is not None:
            leg = Leg(State.ACTIVE)
            self._legs.append(leg)
        elif leg.state is State.IDLE and self._started and self._failures <= FORGIVEN_FAILURES:
            self._idle_until = None
            self._fire(leg, Cause(Event.DAMPED_START_PASSIVE, now))
        leg.conn, leg.incoming, leg.framer = conn, incoming, Framer()
        for other in self._others(leg):
            if other.incoming == incoming and other.state is not State.ESTABLISHED:
                self._dump(other, now)  # nobody opens a second one without having given up the first
        self._fire(leg, Cause(Event.ACCEPTED if incoming else Event.CONNECTED, now))

    def on_connect_failed(self, now: float) -> None:
        """The attempt that `Connect` asked for came to nothing."""
        if not self._dialing:
            return
        self._dialing = False
        first = self._legs[0]
        if first.state is State.CONNECT:
            self._fire(first, Cause(Event.CONNECTION_FAILS, now))

    def on_closed(self, conn: int, now: float) -> None:
        """A connection is gone, without our doing."""
        leg = self._leg(conn)
        if leg is not None:
            self._fire(leg, Cause(Event.CONNECTION_FAILS, now, "the connection was lost"))

    def on_data(self, conn: int, data: bytes, now: float) -> None:
        """Bytes of a connection; those of one that was closed meanwhile are ignored."""
        leg = self._leg(conn)
        if leg is None:
            return
        try:
            for kind, body in leg.framer.receive_data(data):
                self._message(leg, kind, body, now)
                if leg.conn != conn:
                    return
        except HeaderError as found:
            self._fire(leg, error(Event.HEADER_ERROR, now, found))

    def on_tick(self, now: float) -> None:
        """Something may be due."""
        for leg in tuple(self._legs):
            if leg.hold_at is not None and leg.hold_at <= now:
                why = "hold timer expired: the peer has said nothing"
                self._fire(leg, Cause(Event.HOLD_TIMER_EXPIRES, now, why, Notification(Code.HOLD_TIMER)))
            elif leg.keepalive_at is not None and leg.keepalive_at <= now:
                self._fire(leg, Cause(Event.KEEPALIVE_TIMER_EXPIRES, now))
        if self._retry_at is not None and self._retry_at <= now:
            self._fire(self._legs[0], Cause(Event.CONNECT_RETRY_EXPIRES, now))
        if self._idle_until is not None and self._idle_until <= now:
            self._idle_until = None
            start = Event.DAMPED_START_PASSIVE if self._config.passive else Event.DAMPED_START
            self._fire(self._legs[0], Cause(start, now))

    # Messages.

    def _message(self, leg: Leg, kind: Message, body: bytes, now: float) -> None:
        match kind:
            case Message.UPDATE:
                self._on_update(leg, body, now)
            case Message.KEEPALIVE:
                self._fire(leg, Cause(Event.KEEPALIVE, now, "a KEEPALIVE where none belongs"))
            case Message.OPEN:
                self._on_open(leg, body, now)
            case Message.NOTIFICATION:
                said = Notification(body[0], body[1], body[2:])
                version = (said.code, said.subcode) == (Code.OPEN, 1)
                event = Event.NOTIFICATION_VERSION if version else Event.NOTIFICATION
                self._fire(leg, Cause(event, now, f"the peer says: {said}", said))
            case Message.REFRESH:
                self._on_refresh(leg, body, now)

    def _on_open(self, leg: Leg, body: bytes, now: float) -> None:
        if leg.state is State.OPEN_CONFIRM and body == leg.heard:
            return  # it has been weighed against other connections (RFC 4271 8.2.2); OpenBGPD has one left at times
        if leg.state is not State.OPEN_SENT:
            self._fire(leg, Cause(Event.OPEN, now, "an OPEN where none belongs"))
            return
        try:
            theirs = exabgp_codec.read_open(body)
            ours = our_open(self._plan, self._config, self.restarting)
            leg.negotiated, leg.heard = negotiate(ours, theirs, self._config.config.peer_as), body
        except OpenError as found:
            self._fire(leg, error(Event.OPEN_ERROR, now, found))
            return
        leg.ours_stays = ours_stays(ours, theirs)
        for other in self._others(leg):
            goes = loser(leg, other)
            if goes is not None:
                self._dump(goes, now)
            if goes is leg:
                return
        self._fire(leg, Cause(Event.OPEN, now))

    def _on_update(self, leg: Leg, body: bytes, now: float) -> None:
        if leg.state is not State.ESTABLISHED or leg.decoder is None:
            self._fire(leg, Cause(Event.UPDATE, now, "an UPDATE where none belongs"))
            return
        try:
            routes = leg.decoder.decode(body)
        except UpdateMalformed as found:
            self._fire(leg, error(Event.UPDATE_ERROR, now, found))
            return
        self._fire(leg, Cause(Event.UPDATE, now, deliver=routes))

    def _on_refresh(self, leg: Leg, body: bytes, now: float) -> None:
        if leg.state is not State.ESTABLISHED or leg.negotiated is None:
            self._fire(leg, Cause(Event.REFRESH, now, "a ROUTE-REFRESH where none belongs"))
            return
        try:
            asked = decode_refresh(body, leg.negotiated)
        except RefreshMalformed as found:
            self._fire(leg, error(Event.UPDATE_ERROR, now, found))
            return
        self._fire(leg, Cause(Event.REFRESH, now, deliver=asked))

    # The machines.

    def _fire(self, leg: Leg, cause: Cause) -> None:
        transition = TABLE[leg.state, cause.event]
        leg.before, leg.told = leg.state, None
        if leg.state is not transition.state:
            was = self.state
            leg.state = transition.state
            self.since = self.since if self.state is was else cause.now
        for action in transition.actions:
            _CARRY_OUT[action](self, leg, cause)
        if leg.conn is None and len(self._legs) > 1:
            self._legs = [each for each in self._legs if each is not leg]

    def _dump(self, leg: Leg, now: float) -> None:
        told = Notification(Code.CEASE, COLLISION)
        self._fire(leg, Cause(Event.COLLISION_DUMP, now, "another connection of this peer stays", told))

    def _leg(self, conn: int) -> Leg | None:
        return next((leg for leg in self._legs if leg.conn == conn), None)

    def _others(self, leg: Leg) -> list[Leg]:
        return [each for each in self._legs if each is not leg and each.conn is not None]

    def _established(self) -> Leg | None:
        return next((leg for leg in self._legs if leg.state is State.ESTABLISHED), None)

    # Actions.

    def _dial(self, leg: Leg, cause: Cause) -> None:
        self._dialing = True
        self._out.append(Connect())

    def _cancel_dial(self, leg: Leg, cause: Cause) -> None:
        if self._dialing:
            self._dialing = False
            self._out.append(CancelConnect())

    def _arm_connect_retry(self, leg: Leg, cause: Cause) -> None:
        if not self._config.passive and len(self._legs) == 1:
            self._retry_at = cause.now + self._jittered(CONNECT_RETRY_S)

    def _stop_connect_retry(self, leg: Leg, cause: Cause) -> None:
        self._retry_at = None

    def _clear_retries(self, leg: Leg, cause: Cause) -> None:
        self._failures = 0

    def _send_open(self, leg: Leg, cause: Cause) -> None:
        self._write(leg, exabgp_codec.write_open(our_open(self._plan, self._config, self.restarting)))

    def _arm_open_hold(self, leg: Leg, cause: Cause) -> None:
        leg.hold_at = cause.now + OPEN_HOLD_S

    def _tell_opened(self, leg: Leg, cause: Cause) -> None:
        conn, negotiated = _connected(leg)
        leg.framer.longest = negotiated.message_size
        leg.decoder = UpdateDecoder(negotiated, self._sets)
        self._out.append(Opened(conn, negotiated))

    def _send_keepalive(self, leg: Leg, cause: Cause) -> None:
        self._write(leg, KEEPALIVE)

    def _arm_keepalive(self, leg: Leg, cause: Cause) -> None:
        _, negotiated = _connected(leg)
        if negotiated.hold_time_s:
            leg.keepalive_at = cause.now + self._jittered(negotiated.keepalive_s)

    def _arm_hold(self, leg: Leg, cause: Cause) -> None:
        _, negotiated = _connected(leg)
        leg.hold_at = cause.now + negotiated.hold_time_s if negotiated.hold_time_s else None

    def _tell_up(self, leg: Leg, cause: Cause) -> None:
        for other in self._others(leg):
            if other.state is State.ESTABLISHED:
                self._fire(other, Cause(Event.REPLACED, cause.now, "the peer has begun the session anew"))
            elif not is_the_peers_to_close(other, leg):
                self._dump(other, cause.now)
        self._cancel_dial(leg, cause)
        self._retry_at = None
        self._up_since = cause.now
        self._out.append(Up(*_connected(leg)))

    def _deliver(self, leg: Leg, cause: Cause) -> None:
        self._out += cause.deliver

    def _notify(self, leg: Leg, cause: Cause) -> None:
        if cause.notification is not None:
            leg.told = cause.notification
            self._write(leg, notification(cause.notification))

    def _notify_state(self, leg: Leg, cause: Cause) -> None:
        leg.told = state_error(leg)
        self._write(leg, notification(leg.told))

    def _drop(self, leg: Leg, cause: Cause) -> None:
        if leg.conn is not None and cause.event is not Event.CONNECTION_FAILS:
            self._out.append(Close(leg.conn))
        leg.conn = leg.hold_at = leg.keepalive_at = leg.decoder = None

    def _tell_down(self, leg: Leg, cause: Cause) -> None:
        self._out.append(down(leg, cause))
        leg.negotiated = None

    def _damp(self, leg: Leg, cause: Cause) -> None:
        if len(self._legs) > 1:
            return
        self._cancel_dial(leg, cause)
        self._retry_at = None
        if self._up_since is not None and cause.now - self._up_since >= STABLE_S:
            self._failures = 0
        self._up_since = None
        if not cause.lost_collision:
            self._failures += 1
        pause = min(FIRST_IDLE_HOLD_S * 2 ** min(max(self._failures - 1, 0), 10), LONGEST_IDLE_HOLD_S)
        self._idle_until = cause.now + self._jittered(pause)

    def _write(self, leg: Leg, data: bytes) -> None:
        if leg.conn is not None:
            self._out.append(Write(leg.conn, data))

    def _jittered(self, seconds: float) -> float:
        """75 to 100 % of it (RFC 4271 10)."""
        return seconds * (0.75 + 0.25 * self._jitter())


def _connected(leg: Leg) -> tuple[int, Negotiated]:
    """Of a leg that has had an OPEN."""
    if leg.conn is None or leg.negotiated is None:
        raise AssertionError(f"nothing was negotiated in {leg.state}")
    return leg.conn, leg.negotiated


_CARRY_OUT: Final[Mapping[Action, Callable[[Session, Leg, Cause], None]]] = {
    each: getattr(Session, f"_{each.name.lower()}") for each in Action
}
"""Each action is the method of its name: DIAL is `_dial`."""
