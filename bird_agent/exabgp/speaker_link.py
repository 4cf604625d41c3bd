"""The speaker link: ExaBGP's helper process, between ExaBGP's pipes and the agent's unix socket.

It always reads what ExaBGP writes, whether an agent is attached or not, because a pipe that nobody reads stops
ExaBGP and costs the sessions. It keeps a bounded history for the next agent, passes whole command lines on, and
ends only when ExaBGP does. It decides nothing and understands no BGP. Started as `python -I -S speaker_link.py
SOCKET [LIMIT]`, it uses nothing but the standard library."""

from __future__ import annotations

import os
import select
import socket
import sys
from collections import deque
from typing import Final

if __name__ == "__main__":  # -I -S: nothing is on the path, not even this package
    sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))

from bird_agent.exabgp import link
from bird_agent.exabgp.spool import DEFAULT_LIMIT_BYTES, Spool

FROM_SPEAKER: Final = 0
TO_SPEAKER: Final = 1
READ_BYTES: Final = 1 << 18
WRITE_BYTES: Final = 1 << 16
MAX_COMMAND_BACKLOG: Final = 1 << 20  # then the agent has to wait
MAX_AGENT_BACKLOG: Final = 64 << 20  # then the agent is cut off, and replayed to when it comes back
FORGET: Final = b"!forget "


class Outbox:
    """Bytes waiting for a descriptor that may not take them all at once."""

    def __init__(self) -> None:
        self._chunks: deque[bytes] = deque()
        self.size = 0

    def put(self, data: bytes) -> None:
        self._chunks.append(data)
        self.size += len(data)

    def write_to(self, fd: int) -> None:
        """Write until empty or the descriptor is full. Raises OSError when it is gone."""
        while self._chunks:
            data = self._chunks[0]
            if len(data) < WRITE_BYTES and len(self._chunks) > 1:
                data = self._merged()
            try:
                written = os.write(fd, data[:WRITE_BYTES])
            except BlockingIOError:
                return
            self.size -= written
            if written < len(data):
                self._chunks[0] = data[written:]
            else:
                self._chunks.popleft()

    def _merged(self) -> bytes:
        parts, size = [], 0
        while self._chunks and size < WRITE_BYTES:
            part = self._chunks.popleft()
            parts.append(part)
            size += len(part)
        data = b"".join(parts)
        self._chunks.appendleft(data)
        return data


class Agent:
    """The attached agent."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.fd = connection.fileno()
        self.commands = link.LineBuffer()
        self.outbox = Outbox()


class SpeakerLink:
    """The process: three descriptors and the listening socket in one loop that never blocks."""

    def __init__(self, path: str, limit_bytes: int) -> None:
        self._spool = Spool(limit_bytes)
        self._speaker_lines = link.LineBuffer()
        self._to_speaker = Outbox()
        self._agent: Agent | None = None
        self._listener = _listen(path)
        os.set_blocking(FROM_SPEAKER, False)
        os.set_blocking(TO_SPEAKER, False)

    def run(self) -> None:
        """Until ExaBGP closes its end."""
        while True:
            for fd, events in self._poll():
                if fd == FROM_SPEAKER:
                    if not self._read_speaker():
                        return
                elif fd == TO_SPEAKER:
                    self._to_speaker.write_to(TO_SPEAKER)
                elif fd == self._listener.fileno():
                    self._accept()
                elif self._agent is not None and fd == self._agent.fd:
                    self._serve_agent(self._agent, gone=bool(events & (select.POLLHUP | select.POLLERR)))

    def _poll(self) -> list[tuple[int, int]]:
        poller = select.poll()
        poller.register(FROM_SPEAKER, select.POLLIN)
        poller.register(self._listener.fileno(), select.POLLIN)
        if self._to_speaker.size:
            poller.register(TO_SPEAKER, select.POLLOUT)
        if self._agent is not None:
            wanted = select.POLLIN if self._to_speaker.size < MAX_COMMAND_BACKLOG else 0
            wanted |= select.POLLOUT if self._agent.outbox.size else 0
            poller.register(self._agent.fd, wanted)
        return poller.poll()

    def _read_speaker(self) -> bool:
        try:
            data = os.read(FROM_SPEAKER, READ_BYTES)
        except BlockingIOError:
            return True
        if not data:
            return False
        for line in self._speaker_lines.feed(data):
            self._spool.store(line)
            if self._agent is not None:
                self._agent.outbox.put(line + b"\n")
        self._flush_agent()
        return True

    def _accept(self) -> None:
        """A newer agent takes the place of an older one."""
        connection, _ = self._listener.accept()
        connection.setblocking(False)
        self._detach()
        self._agent = Agent(connection)
        outbox = self._agent.outbox
        outbox.put(link.hello(os.getppid(), os.getpid()))
        for peer, complete, lines in self._spool.replay():
            outbox.put(link.replaying(peer, complete))
            for line in lines:
                outbox.put(line + b"\n")
        outbox.put(link.live())
        self._flush_agent()

    def _serve_agent(self, agent: Agent, gone: bool) -> None:
        if gone or self._to_speaker.size < MAX_COMMAND_BACKLOG:
            try:
                data = agent.connection.recv(READ_BYTES)
                if not data:
                    self._detach()
                    return
                self._take_commands(agent.commands.feed(data))
            except BlockingIOError:
                pass
            except (OSError, link.LinkProtocolError):
                self._detach()
                return
        self._flush_agent()

    def _take_commands(self, lines: list[bytes]) -> None:
        for line in lines:
            if line.startswith(FORGET):
                self._spool.forget(line[len(FORGET) :])
            elif not line.startswith(b"!"):
                self._to_speaker.put(line + b"\n")
        self._to_speaker.write_to(TO_SPEAKER)

    def _flush_agent(self) -> None:
        if self._agent is None:
            return
        try:
            self._agent.outbox.write_to(self._agent.fd)
        except OSError:
            self._detach()
            return
        if self._agent.outbox.size > MAX_AGENT_BACKLOG:
            self._detach()

    def _detach(self) -> None:
        if self._agent is not None:
            self._agent.connection.close()
            self._agent = None


def _listen(path: str) -> socket.socket:
    """Bind beside the path and move it there, so that there is never a moment without a socket."""
    fresh = f"{path}.{os.getpid()}"
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(fresh)
    os.chmod(fresh, 0o600)
    listener.listen(4)
    listener.setblocking(False)
    os.replace(fresh, path)
    return listener


def main(arguments: list[str]) -> None:
    limit = int(arguments[1]) if len(arguments) > 1 else DEFAULT_LIMIT_BYTES
    try:
        SpeakerLink(arguments[0], limit).run()
    except BrokenPipeError:
        return  # ExaBGP has gone between two reads


if __name__ == "__main__":
    main(sys.argv[1:])
