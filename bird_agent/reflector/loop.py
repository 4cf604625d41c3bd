"""The connections of a reflector: sockets in one epoll set, which the event loop sees as one descriptor.

It carries out what `Reflector` says and tells it what happened, and decides only what belongs to sockets: a connection
that takes no more is given nothing until it does, and changes are gathered for twice as long as telling the last ones
took, and while peers keep connecting, so that many of them cost one round of writing. An event loop's own readers and
writers would cost a call-back and a scheduler's turn for each socket and event (ADR 0155)."""

from __future__ import annotations

import asyncio
import logging
import select
import socket
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from msgspec import Struct, field

from bird_agent.policy import Policies
from bird_agent.reflector import outputs, sockets
from bird_agent.reflector.groups import Pieces
from bird_agent.reflector.listeners import Listeners
from bird_agent.reflector.plan import ReflectorPlan
from bird_agent.reflector.reflector import ConnectionOutput, Reflector
from bird_agent.session_config import SessionConfig
from weft.model.address import IPAddress

log = logging.getLogger("weft-reflector")

_EVENTS_AT_ONCE: Final = 1024
_READ_BYTES: Final = 1 << 16
_PIECES_AT_ONCE: Final = 64
_LAST_WORDS_S: Final = 5.0
_FINEST_TICK_S: Final = 0.05
_REST: Final = 2.0
_BETWEEN_COMERS_S: Final = 0.008
"""A peer that connects has routes to tell and is to be told others': what is new waits so long for the next to come,"""
_GATHERED_S: Final = 0.05
"""but no longer than this."""


class _Connection(Struct):
    """One TCP connection, or an attempt at one (`conn` 0), which has been here since a round of events."""

    peer: IPAddress
    socket: socket.socket
    since: int
    conn: int = 0
    unsent: deque[bytes | memoryview] = field(default_factory=deque)
    closing: bool = False


class Network:
    """All sockets. `start` needs a running event loop."""

    def __init__(self, reflector: Reflector, clock: Callable[[], float] = time.monotonic) -> None:
        self._reflector = reflector
        self._clock = clock
        self._epoll = select.epoll()
        self._listeners = Listeners(self._epoll)
        self._by_fd: dict[int, _Connection] = {}
        self._by_conn: dict[int, _Connection] = {}
        self._dialing: dict[IPAddress, _Connection] = {}
        self._leaving: dict[IPAddress, tuple[_Connection, asyncio.TimerHandle]] = {}
        self._conns = 0
        self._round = 0
        self._flush: asyncio.TimerHandle | None = None
        self._tick: asyncio.TimerHandle | None = None
        self._tick_at = 0.0
        self._rest_until = 0.0
        self._came_at = self._wanted_at = float("-inf")

    @property
    def trouble(self) -> str:
        """What keeps peers from connecting; empty: nothing."""
        return self._listeners.trouble

    def start(self) -> None:
        asyncio.get_running_loop().add_reader(self._epoll.fileno(), self._on_events)

    def close(self) -> None:
        """The process ends: without last words but those that were said already."""
        asyncio.get_running_loop().remove_reader(self._epoll.fileno())
        for timer in (self._flush, self._tick, *(timer for _, timer in self._leaving.values())):
            if timer is not None:
                timer.cancel()
        self._listeners.close()
        for one in self._by_fd.values():
            one.socket.close()
        self._epoll.close()

    def configure(self, plan: ReflectorPlan, policies: Policies) -> None:
        """The reflector there should be from now on."""
        addresses = [(address, plan.port) for address in plan.addresses]
        self._listeners.configure(addresses, [one.config for one in plan.sessions.values()])
        self._reflector.configure(plan, policies, self._clock())
        self._carry_out()

    def stop(self) -> None:
        """End the sessions so that the peers keep our routes until another process takes over."""
        self._reflector.stop(self._clock())
        self._carry_out()

    def lose(self, peer: IPAddress, why: str) -> None:
        """The path to a peer is dead."""
        self._reflector.on_path_lost(peer, why, self._clock())
        self._carry_out()
        self._schedule_flush()

    def wake(self) -> None:
        """Something changed that concerns what peers are told."""
        self._schedule_flush()

    # Connections.

    def _accept(self, listener: int) -> None:
        for peer, accepted in self._listeners.accept(listener, self._config_of):
            known = self._reflector.peers[peer].learning.peer  # the address that remembers its hash
            self._established(_Connection(known, accepted, self._round), incoming=True)

    def _config_of(self, peer: IPAddress) -> SessionConfig | None:
        standing = self._reflector.peers.get(peer)
        return None if standing is None else standing.wanted.config

    def _established(self, connection: _Connection, incoming: bool) -> None:
        self._conns += 1
        self._came_at = self._clock()
        connection.conn = self._conns
        self._by_conn[connection.conn] = connection
        descriptor = connection.socket.fileno()
        if incoming:
            self._by_fd[descriptor] = connection
            self._epoll.register(descriptor, select.EPOLLIN)
        else:
            self._epoll.modify(descriptor, select.EPOLLIN)
        self._reflector.on_connection(connection.peer, connection.conn, incoming, self._came_at)

    def _dial(self, peer: IPAddress) -> None:
        self._cancel(peer)
        standing = self._reflector.peers.get(peer)
        if standing is None:
            return  # it was configured away meanwhile
        try:
            made = sockets.dialer(standing.wanted.config)
        except (OSError, ValueError) as error:
            log.debug("%s cannot be connected to: %s", peer, error)
            self._reflector.on_connect_failed(peer, self._clock())
            return
        self._dialing[peer] = self._by_fd[made.fileno()] = connection = _Connection(peer, made, self._round)
        self._epoll.register(connection.socket.fileno(), select.EPOLLOUT)

    def _cancel(self, peer: IPAddress) -> None:
        attempt = self._dialing.pop(peer, None)
        if attempt is not None:
            self._forget(attempt.socket)

    def _dialed(self, attempt: _Connection) -> None:
        self._dialing.pop(attempt.peer, None)
        error = attempt.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if error:
            self._forget(attempt.socket)
            self._reflector.on_connect_failed(attempt.peer, self._clock())
        else:
            self._established(attempt, incoming=False)

    def _forget(self, gone: socket.socket) -> None:
        self._by_fd.pop(gone.fileno(), None)
        with suppress(FileNotFoundError):
            self._epoll.unregister(gone.fileno())
        gone.close()

    def _lost(self, connection: _Connection) -> None:
        if connection.closing:
            self._give_up(connection.peer)
        else:
            self._by_conn.pop(connection.conn, None)
            self._forget(connection.socket)
            self._reflector.on_closed(connection.peer, connection.conn, self._clock())

    # Events.

    def _on_events(self) -> None:
        self._read_once()
        self._schedule_flush()

    def _read_once(self) -> None:
        self._round += 1
        for descriptor, event in self._epoll.poll(0, _EVENTS_AT_ONCE):
            one = self._by_fd.get(descriptor)
            if one is None:
                if descriptor not in self._listeners:
                    continue  # closed because of an event before this one
                self._accept(descriptor)
            elif one.since == self._round:
                continue  # the event is of one that was closed, and whose descriptor this one got
            elif not one.conn:
                self._dialed(one)
            else:
                if event & select.EPOLLOUT:
                    self._on_room(one)
                if event & ~select.EPOLLOUT and self._by_conn.get(one.conn) is one:
                    self._read(one)
            self._carry_out()

    def _read(self, connection: _Connection) -> None:
        try:
            data = connection.socket.recv(_READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._lost(connection)
        elif not connection.closing:
            self._reflector.on_data(connection.peer, connection.conn, data, self._clock())

    def _on_room(self, connection: _Connection) -> None:
        waiting = list(connection.unsent)
        connection.unsent.clear()
        if not connection.closing:
            self._reflector.on_room(connection.peer)
        if self._write(connection, waiting):
            self._epoll.modify(connection.socket.fileno(), select.EPOLLIN)
            if connection.closing:
                self._say_no_more(connection)

    def _write(self, connection: _Connection, pieces: Pieces) -> bool:
        """Whether all of it went; what did not is kept, and goes first when there is room."""
        if connection.unsent:
            connection.unsent.extend(pieces)
            return False
        start = 0
        while start < len(pieces):
            part = pieces[start : start + _PIECES_AT_ONCE]
            try:
                sent = connection.socket.sendmsg(part)
            except BlockingIOError:
                sent = 0
            except OSError:
                return True  # the reading side will hear of it
            for piece in part:
                if sent < len(piece):
                    connection.unsent.append(memoryview(piece)[sent:])
                    connection.unsent.extend(pieces[start + 1 :])
                    self._epoll.modify(connection.socket.fileno(), select.EPOLLIN | select.EPOLLOUT)
                    if not connection.closing:
                        self._reflector.on_stalled(connection.peer, self._clock())
                    return False
                sent -= len(piece)
                start += 1
        return True

    def _close(self, conn: int) -> None:
        """Say no more, and listen until the peer has heard it: a socket that is closed while the peer still speaks is
        reset, and the NOTIFICATION may be lost with it. Only the last one of a peer is waited for."""
        connection = self._by_conn.get(conn)
        if connection is None:
            return
        self._give_up(connection.peer)
        connection.closing = True
        timer = asyncio.get_running_loop().call_later(_LAST_WORDS_S, self._give_up, connection.peer)
        self._leaving[connection.peer] = connection, timer
        if not connection.unsent:
            self._say_no_more(connection)

    @staticmethod
    def _say_no_more(connection: _Connection) -> None:
        with suppress(OSError):  # it is gone already, and the reading side will hear of it
            connection.socket.shutdown(socket.SHUT_WR)

    def _give_up(self, peer: IPAddress) -> None:
        if (leaving := self._leaving.pop(peer, None)) is not None:
            connection, timer = leaving
            timer.cancel()
            self._by_conn.pop(connection.conn, None)
            self._forget(connection.socket)

    # What the reflector wants.

    def _carry_out(self) -> None:
        while True:
            wanted, notes = self._reflector.take()
            for note in notes:
                log.info("%s", note)
            if not wanted:
                break
            for peer, output in wanted:
                self._do(peer, output)
        self._schedule_tick()

    def _do(self, peer: IPAddress, output: ConnectionOutput) -> None:
        match output:
            case outputs.Connect():
                self._dial(peer)
            case outputs.CancelConnect():
                self._cancel(peer)
            case outputs.Write():
                if (connection := self._by_conn.get(output.conn)) is not None:
                    self._write(connection, [output.data])
            case outputs.Close():
                self._close(output.conn)

    def _schedule_tick(self) -> None:
        due = self._reflector.deadline
        if self._tick is not None and self._tick_at <= due:
            return
        if self._tick is not None:
            self._tick.cancel()
        self._tick = None
        if due == float("inf"):
            return
        self._tick_at = due
        delay = max(_FINEST_TICK_S, due - self._clock())
        self._tick = asyncio.get_running_loop().call_later(delay, self._on_tick)

    def _on_tick(self) -> None:
        self._tick = None
        began = self._clock()
        for _ in range(0, len(self._by_fd) + 1, _EVENTS_AT_ONCE):  # whoever has spoken by now is not silent,
            self._read_once()  # however late we come to hear it
        self._reflector.on_tick(began)
        self._carry_out()
        self._schedule_flush()

    def _schedule_flush(self) -> None:
        if self._flush is None and self._reflector.restless:
            self._wanted_at = now = self._clock()
            delay = max(0.0, self._rest_until - now)
            self._flush = asyncio.get_running_loop().call_later(delay, self._on_flush)

    def _on_flush(self) -> None:
        """Tell the peers what is new. What takes a while is not done again before twice as much time has passed."""
        began = self._clock()
        until = min(self._came_at + _BETWEEN_COMERS_S, self._wanted_at + _GATHERED_S)
        if began < until:
            self._flush = asyncio.get_running_loop().call_later(until - began, self._on_flush)
            return
        self._flush = None
        if self._reflector.choose(began):
            for peer, conn in self._reflector.waiting():
                connection = self._by_conn.get(conn)
                if connection is not None and not connection.unsent and not connection.closing:
                    self._feed(peer, connection)
        self._carry_out()
        ended = self._clock()
        self._rest_until = ended + _REST * (ended - began)

    def _feed(self, peer: IPAddress, connection: _Connection) -> None:
        while pieces := self._reflector.advance(peer):
            if not self._write(connection, pieces) or not self._reflector.is_hungry(peer):
                return
