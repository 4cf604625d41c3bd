"""Two sessions and the network between them, in which everything happens when a test wants it to.

What can happen next is a list: an attempt to connect succeeds or fails, either end learns of it, a message arrives, an
end learns that the other has closed. Within one connection and direction the order is kept, as TCP keeps it; nothing
else is certain."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from ipaddress import IPv4Address, ip_address

from bird_agent.reflector.attributes import AttributeSets
from bird_agent.reflector.outputs import CancelConnect, Close, Connect, Output, Up, Write
from bird_agent.reflector.plan import ReflectorPlan, ReflectorSession
from bird_agent.reflector.session import Session
from bird_agent.session_config import SessionConfig, SessionKind

ADDRESSES = (ip_address("10.0.0.1"), ip_address("10.0.0.2"))


def plan(router_id: str = "10.0.0.1", asn: int = 64512) -> ReflectorPlan:
    return ReflectorPlan(
        name="r", asn=asn, router_id=IPv4Address(router_id), cluster_id=IPv4Address(router_id), addresses=()
    )


def config(side: int = 0, asn: int = 64512, peer_as: int = 64512, passive: bool = False) -> ReflectorSession:
    made = SessionConfig(
        peer=ADDRESSES[1 - side],
        peer_as=peer_as,
        local=ADDRESSES[side],
        local_as=asn,
        kind=SessionKind.GLOBAL,
        resource="BGPPeer/x",
    )
    return ReflectorSession(made, client=True, passive=passive)


def session(side: int = 0, router_id: str = "10.0.0.1", passive: bool = False, peer_as: int = 64512) -> Session:
    return Session(
        plan(router_id),
        config(side, peer_as=peer_as, passive=passive),
        0.0,
        sets=AttributeSets(),
        jitter=lambda: 0.5,
    )


@dataclass
class Connection:
    """`known`: whether an end has been told of it; `waiting`: what an end has yet to read, None for the end of it."""

    number: int
    dialer: int
    known: list[bool] = field(default_factory=lambda: [False, False])
    gone: list[bool] = field(default_factory=lambda: [False, False])
    waiting: tuple[deque[bytes | None], deque[bytes | None]] = field(default_factory=lambda: (deque(), deque()))


class Wire:
    """See the module. `now` is the time of both ends."""

    def __init__(self, first: Session, second: Session) -> None:
        self.ends = (first, second)
        self.now = 0.0
        self.connections: list[Connection] = []
        self.dialing: list[bool] = [False, False]
        self.told: tuple[list[Output], list[Output]] = ([], [])

    def begin(self) -> None:
        for side in (0, 1):
            self.ends[side].on_start(self.now)
            self._carry_out(side)

    def possible(self) -> list[Callable[[], None]]:
        """What can happen next."""
        found: list[Callable[[], None]] = []
        for side in (0, 1):
            if self.dialing[side]:
                found.append(partial(self._connect, side))
        for each in self.connections:
            for side in (0, 1):
                if not each.known[side] and not each.gone[side]:
                    found.append(partial(self._learn, each, side))
                elif each.waiting[side] and not each.gone[side]:
                    found.append(partial(self._read, each, side))
        return found

    def wait(self) -> None:
        """Nothing happens until a timer of either end expires."""
        times = [each.deadline for each in self.ends if each.deadline is not None]
        self.now = max(self.now, min(times))
        for side in (0, 1):
            self.ends[side].on_tick(self.now)
            self._carry_out(side)

    def lose(self, connection: Connection) -> None:
        """Both ends will find the connection gone, and what was under way is lost."""
        for side in (0, 1):
            connection.waiting[side].clear()
            connection.waiting[side].append(None)

    def refuse(self, side: int) -> None:
        """The attempt of this end comes to nothing."""
        self.dialing[side] = False
        self.ends[side].on_connect_failed(self.now)
        self._carry_out(side)

    def alive(self) -> list[Connection]:
        return [each for each in self.connections if not any(each.gone)]

    def settled(self) -> bool:
        return all(each.established for each in self.ends) and not self.possible()

    def ups(self, side: int) -> int:
        return sum(isinstance(each, Up) for each in self.told[side])

    def _connect(self, side: int) -> None:
        """The handshake is done; neither program knows it yet."""
        self.dialing[side] = False
        self.connections.append(Connection(len(self.connections) + 1, side))

    def _learn(self, connection: Connection, side: int) -> None:
        connection.known[side] = True
        self.ends[side].on_connection(connection.number, side != connection.dialer, self.now)
        self._carry_out(side)

    def _read(self, connection: Connection, side: int) -> None:
        data = connection.waiting[side].popleft()
        if data is None:
            connection.gone[side] = True
            self.ends[side].on_closed(connection.number, self.now)
        else:
            self.ends[side].on_data(connection.number, data, self.now)
        self._carry_out(side)

    def _carry_out(self, side: int) -> None:
        for output in self.ends[side].take():
            self.told[side].append(output)
            match output:
                case Connect():
                    self._give_up(side)
                    self.dialing[side] = True
                case CancelConnect():
                    self._give_up(side)
                case Write(conn, data):
                    self._other_end(conn, side).append(data)
                case Close(conn):
                    self._other_end(conn, side).append(None)
                    self.connections[conn - 1].gone[side] = True

    def _give_up(self, side: int) -> None:
        """Also of a connection that is there, but of which this end has not been told."""
        self.dialing[side] = False
        for each in self.connections:
            if each.dialer == side and not each.known[side]:
                each.known[side] = each.gone[side] = True
                each.waiting[1 - side].append(None)

    def _other_end(self, conn: int, side: int) -> deque[bytes | None]:
        return self.connections[conn - 1].waiting[1 - side]
