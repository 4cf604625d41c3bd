"""One scripted session: bytes in, bytes out, and what it has been told (sans-IO).

It keeps to the order of OPEN, KEEPALIVE and UPDATE and answers a route refresh; it has no hold timer, because nothing
that a test measures is to end by its hand."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from ipaddress import IPv4Address

from lab.speakers import codec
from lab.speakers.codec import Attributes, Identity, Kind
from lab.speakers.table import Table
from lab.speakers.wire import Script
from weft.model.address import IPNetwork


class State(Enum):
    IDLE = "idle"
    OPEN_SENT = "open sent"
    OPEN_CONFIRM = "open confirm"
    ESTABLISHED = "established"


@dataclass(slots=True)
class Counts:
    updates: int = 0
    announced: int = 0
    withdrawn: int = 0
    end_of_ribs: int = 0
    begun: int = 0
    lost: int = 0
    notifications: dict[str, int] = field(default_factory=dict)
    last_route_at: float | None = None


class Session:
    """`held` and `own` are sets of prefixes as the table's bits."""

    def __init__(self, script: Script, table: Table) -> None:
        self.script = script
        self.state = State.IDLE
        self.counts = Counts()
        self.held = 0
        self.own = table.bits(script.routes)
        self._table = table
        self._routes = dict.fromkeys(script.routes)
        self._unread = b""
        self._keepalive_s = script.hold_time_s / 3
        self._keepalive_at: float | None = None
        self._identity = Identity(
            asn=script.asn,
            router_id=script.router_id or IPv4Address(int(script.local) & 0xFFFFFFFF),
            version=script.local.version,
            hold_time_s=script.hold_time_s,
            restart_time_s=script.restart_time_s,
        )
        internal = script.asn == script.peer_asn
        self._attributes = Attributes(
            next_hop=script.next_hop or script.local,
            as_path=() if internal else (script.asn,),
            local_preference=100 if internal else None,
            communities=script.communities,
        )

    def on_connected(self) -> bytes:
        self.state = State.OPEN_SENT
        return codec.open_message(self._identity)

    def on_lost(self) -> None:
        if self.state is State.ESTABLISHED:
            self.counts.lost += 1
        self.state, self.held, self._unread, self._keepalive_at = State.IDLE, 0, b"", None

    def on_data(self, data: bytes, now_s: float) -> bytes:
        """What to answer; MalformedError when the stream makes no sense."""
        data = self._unread + data
        read = self._on_known_updates(data, now_s) if self.state is State.ESTABLISHED else 0
        pieces, self._unread = codec.split(data[read:])
        answers = []
        for piece in pieces:
            if piece[2] == Kind.UPDATE:
                self._on_update(piece, now_s)
            else:
                answers.append(self._on_other(piece, now_s))
        return b"".join(answers)

    def on_tick(self, now_s: float) -> bytes:
        if self._keepalive_at is None or now_s < self._keepalive_at:
            return b""
        self._keepalive_at = now_s + self._keepalive_s
        return codec.KEEPALIVE

    def announce(self, prefixes: tuple[IPNetwork, ...]) -> bytes:
        self._routes.update(dict.fromkeys(prefixes))
        self.own = self._table.bits(self._routes)
        return codec.announce(self._attributes, prefixes) if self.state is State.ESTABLISHED else b""

    def withdraw(self, prefixes: tuple[IPNetwork, ...]) -> bytes:
        for prefix in prefixes:
            self._routes.pop(prefix, None)
        self.own = self._table.bits(self._routes)
        return codec.withdraw(prefixes) if self.state is State.ESTABLISHED else b""

    def _on_known_updates(self, data: bytes, now_s: float) -> int:
        """Of the UPDATEs at the beginning that some session has heard before, and how many bytes they are: reflectors
        say the same to thousands, so this is where the time goes. A marker inside a message makes pieces that nobody
        knows."""
        known = self._table.known
        held, position, updates, announced, withdrawn, markers = self.held, 0, 0, 0, 0, 0
        for piece in data.split(codec.MARKER)[1:] if data.startswith(codec.MARKER) else ():
            heard = known.get(piece)
            if heard is None:
                break
            position += 16 + len(piece)
            updates += 1
            if heard.announcements:
                announced += heard.announcements
                held = (held & ~heard.withdrawn if heard.withdrawals else held) | heard.announced
            elif heard.withdrawals:
                held &= ~heard.withdrawn
            else:
                markers += 1
            withdrawn += heard.withdrawals
        if updates:
            self.held = held
            self._count(updates, announced, withdrawn, markers, now_s)
        return position

    def _on_update(self, piece: bytes, now_s: float) -> None:
        heard = self._table.heard(piece)
        self.held = self.held & ~heard.withdrawn | heard.announced
        self._count(1, heard.announcements, heard.withdrawals, heard.end_of_rib, now_s)

    def _count(self, updates: int, announced: int, withdrawn: int, end_of_ribs: int, now_s: float) -> None:
        counts = self.counts
        counts.updates += updates
        counts.announced += announced
        counts.withdrawn += withdrawn
        counts.end_of_ribs += end_of_ribs
        if announced or withdrawn:
            counts.last_route_at = now_s

    def _on_other(self, piece: bytes, now_s: float) -> bytes:
        match piece[2]:
            case Kind.OPEN if self.state is State.OPEN_SENT:
                offered = int.from_bytes(piece[6:8], "big")
                self._keepalive_s = min(self.script.hold_time_s, offered) / 3
                self._keepalive_at = now_s + self._keepalive_s if self._keepalive_s else None
                self.state = State.OPEN_CONFIRM
                return codec.KEEPALIVE
            case Kind.KEEPALIVE if self.state is State.OPEN_CONFIRM:
                self.state = State.ESTABLISHED
                self.counts.begun += 1
                return self._all_routes()
            case Kind.KEEPALIVE if self.state is State.ESTABLISHED:
                return b""
            case Kind.ROUTE_REFRESH if self.state is State.ESTABLISHED:
                return self._all_routes()
            case Kind.NOTIFICATION:
                why = f"{piece[3]}/{piece[4]}"
                self.counts.notifications[why] = self.counts.notifications.get(why, 0) + 1
                return b""
            case kind:
                raise codec.MalformedError(f"message of kind {kind} while {self.state.value}")

    def _all_routes(self) -> bytes:
        return codec.announce(self._attributes, self._routes) + codec.end_of_rib(self._identity.version)
