"""The process of scripted speakers: sockets, the clock and the commands on standard input, in one loop."""

from __future__ import annotations

import errno
import os
import resource
import selectors
import socket
import struct
import sys
import time
from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import assert_never

from lab.speakers import codec, wire
from lab.speakers.codec import MalformedError
from lab.speakers.group import Group
from lab.speakers.session import Counts, Session, State
from lab.speakers.wire import How

TICK_S = 0.25
RETRY_S = 1.0
RECEIVE = 1 << 18
IPV6_FREEBIND = 78  # <linux/in6.h>


@dataclass(slots=True, eq=False)
class Line:
    """A session's connection. `unsent` waits for the peer to read. `unanswered`: we began it, and the peer has said
    nothing yet, so it may still be in its listener's queue."""

    number: int
    socket: socket.socket
    connecting: bool
    unanswered: bool = False
    muted: bool = False
    stalled: bool = False
    unsent: bytearray = field(default_factory=bytearray)


class Speakers:
    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._group = Group()
        self._lines: dict[int, Line] = {}
        self._pending: dict[str, deque[int]] = {}
        self._retries: deque[tuple[float, int]] = deque()
        self._connecting: Counter[str] = Counter()
        self._at_once = 1
        self._passive: dict[tuple[str, str], int] = {}
        self._listening: set[tuple[socket.AddressFamily, int]] = set()
        self._commands = b""
        self._running = True
        self._selector.register(sys.stdin.fileno(), selectors.EVENT_READ, None)

    def run(self) -> None:
        tick_at = time.monotonic()
        while self._running:
            self._begin_connections()
            for key, ready in self._selector.select(max(0.0, tick_at - time.monotonic())):
                if key.data is None:
                    self._read_commands()
                elif isinstance(key.data, Line):
                    self._on_ready(key.data, ready)
                else:
                    self._accept(key.data)
            if time.monotonic() >= tick_at:
                tick_at = time.monotonic() + TICK_S
                self._on_tick(time.monotonic())

    def _read_commands(self) -> None:
        data = os.read(sys.stdin.fileno(), 1 << 20)
        if not data:
            self._running = False
            return
        *lines, self._commands = (self._commands + data).split(b"\n")
        for line in lines:
            answer = self._obey(wire.COMMAND.decode(line), time.monotonic())
            sys.stdout.buffer.write(wire.ENCODER.encode(answer) + b"\n")
            sys.stdout.buffer.flush()

    def _obey(self, command: wire.Command, now_s: float) -> object:
        group = self._group
        match command:
            case wire.Add():
                self._add(command)
            case wire.Connect():
                self._at_once = command.at_once
                numbers = group.chosen(command.sessions)
                active = [one for one in numbers if one not in self._lines and not group.sessions[one].script.passive]
                waiting = {number for _, number in self._retries}.union(*self._pending.values())
                for number in active:
                    if number not in waiting:
                        self._queue(number)
                group.want(numbers, now_s)
            case wire.Announce() | wire.Withdraw():
                self._tell(command)
                group.judge_all(now_s)
            case wire.Lose():
                numbers = group.chosen(command.sessions)
                if not command.again:
                    group.unwant(numbers, now_s)
                for number in numbers:
                    self._lose(number, command.how)
            case wire.Recover():
                self._recover(group.chosen(command.sessions))
            case wire.Expect():
                group.expect(command, now_s)
            case wire.Zero():
                for session in group.sessions:
                    session.counts = Counts()
            case wire.Ask():
                pass
            case wire.AskEach():
                return group.each(command.sessions)
            case wire.AskHeld():
                return group.table.prefixes(group.sessions[command.session].held)
            case _:
                assert_never(command)
        return self._group.totals(time.process_time())

    def _add(self, command: wire.Add) -> None:
        first = len(self._group.sessions)
        self._group.add(command.scripts)
        for number, script in enumerate(command.scripts, first):
            if script.passive:
                self._passive[str(script.local), str(script.peer)] = number
                self._listen(_family(script), script.port)

    def _listen(self, family: socket.AddressFamily, port: int) -> None:
        if (family, port) in self._listening:
            return
        self._listening.add((family, port))
        listener = socket.create_server(("", port), family=family, backlog=4096)
        listener.setblocking(False)
        self._selector.register(listener, selectors.EVENT_READ, listener)

    def _tell(self, command: wire.Announce | wire.Withdraw) -> None:
        for number in self._group.chosen(command.sessions):
            session = self._group.sessions[number]
            told = session.announce if isinstance(command, wire.Announce) else session.withdraw
            self._say(number, told(command.prefixes))

    # --- connections

    def _begin_connections(self) -> None:
        now_s = time.monotonic()
        while self._retries and self._retries[0][0] <= now_s:
            self._queue(self._retries.popleft()[1])
        for peer, pending in self._pending.items():
            while pending and self._connecting[peer] < self._at_once:
                number = pending.popleft()
                if number in self._group.wanted and number not in self._lines:
                    self._connect(number)

    def _queue(self, number: int) -> None:
        """Each peer has a queue of its own: one that is dead keeps nobody from others."""
        self._pending.setdefault(str(self._group.sessions[number].script.peer), deque()).append(number)

    def _connect(self, number: int) -> None:
        script = self._group.sessions[number].script
        made = socket.socket(_family(script))
        made.setblocking(False)
        if made.family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, IPV6_FREEBIND, 1)  # what a local route has is not enough to bind to
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        made.bind((str(script.local), 0))
        line = self._lines[number] = Line(number, made, connecting=True, unanswered=True)
        self._connecting[str(script.peer)] += 1
        self._selector.register(made, selectors.EVENT_WRITE, line)
        code = made.connect_ex((str(script.peer), script.port))
        if code not in (0, errno.EINPROGRESS):
            self._drop(line)

    def _accept(self, listener: socket.socket) -> None:
        """Of a passive session that has no connection yet; anybody else is sent away."""
        made, (peer, *_) = listener.accept()
        number = self._passive.get((made.getsockname()[0], peer))
        if number is None or number not in self._group.wanted or number in self._lines:
            made.close()
            return
        made.setblocking(False)
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        line = self._lines[number] = Line(number, made, connecting=False)
        self._selector.register(made, selectors.EVENT_READ, line)
        self._say(number, self._session(line).on_connected())

    def _on_ready(self, line: Line, ready: int) -> None:
        if self._lines.get(line.number) is not line:
            return  # lost earlier in the same round
        if line.connecting:
            if line.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                self._drop(line)
                return
            line.connecting = False
            self._say(line.number, self._session(line).on_connected())
            self._watch(line)
            return
        if ready & selectors.EVENT_READ:
            self._receive(line)
        if ready & selectors.EVENT_WRITE and self._lines.get(line.number) is line:
            self._flush(line)

    def _receive(self, line: Line) -> None:
        try:
            data = line.socket.recv(RECEIVE)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._drop(line)
            return
        now_s = time.monotonic()
        if line.unanswered:
            line.unanswered = False
            self._connecting[str(self._session(line).script.peer)] -= 1
        try:
            self._say(line.number, self._session(line).on_data(data, now_s))
        except MalformedError as error:
            print(f"session {line.number}: {error}", file=sys.stderr, flush=True)
            self._drop(line)
            return
        self._group.judge(line.number, now_s)

    def _say(self, number: int, data: bytes) -> None:
        line = self._lines.get(number)
        if line is None or line.muted or not data:
            return
        line.unsent += data
        self._flush(line)

    def _flush(self, line: Line) -> None:
        try:
            while line.unsent:
                del line.unsent[: line.socket.send(line.unsent)]
        except BlockingIOError:
            pass
        except OSError:
            self._drop(line)
            return
        self._watch(line)

    def _watch(self, line: Line) -> None:
        wanted = (0 if line.stalled else selectors.EVENT_READ) | (selectors.EVENT_WRITE if line.unsent else 0)
        known = self._selector.get_map().get(line.socket)
        if known is None:
            if wanted:
                self._selector.register(line.socket, wanted, line)
        elif not wanted:
            self._selector.unregister(line.socket)
        elif known.events != wanted:
            self._selector.modify(line.socket, wanted, line)

    def _drop(self, line: Line) -> None:
        """The connection is over; one that is still wanted is tried again."""
        if line.unanswered:
            self._connecting[str(self._session(line).script.peer)] -= 1
        if line.socket in self._selector.get_map():
            self._selector.unregister(line.socket)
        line.socket.close()
        del self._lines[line.number]
        session = self._session(line)
        session.on_lost()
        now_s = time.monotonic()
        self._group.judge(line.number, now_s)
        if line.number in self._group.wanted and not session.script.passive:
            self._retries.append((now_s + RETRY_S, line.number))

    def _lose(self, number: int, how: How) -> None:
        line = self._lines.get(number)
        if line is None:
            return
        if how is How.MUTE:
            line.muted = True
        elif how is How.STALL:
            line.stalled = True
            self._watch(line)
        else:
            if how is How.RESET:
                line.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            elif how is How.CEASE and self._session(line).state is not State.IDLE:
                self._say(number, codec.cease(2))
            if number in self._lines:
                self._drop(line)

    def _recover(self, numbers: Iterable[int]) -> None:
        for number in numbers:
            line = self._lines.get(number)
            if line is not None:
                line.muted = line.stalled = False
                self._watch(line)

    def _on_tick(self, now_s: float) -> None:
        for number in list(self._lines):
            self._say(number, self._group.sessions[number].on_tick(now_s))

    def _session(self, line: Line) -> Session:
        return self._group.sessions[line.number]


def _family(script: wire.Script) -> socket.AddressFamily:
    return socket.AF_INET if script.local.version == 4 else socket.AF_INET6


def main() -> int:
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    Speakers().run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
