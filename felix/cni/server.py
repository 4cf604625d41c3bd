"""The unix socket that the plugin program calls. One request per connection, one answer, no more.

A namespace arrives as a descriptor beside the request (SCM_RIGHTS), which asyncio's streams cannot
receive, so the sockets are read here directly."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path

from felix.cni.protocol import CNIError, Code, asked_version, format_error, split_message

log = logging.getLogger(__name__)

MAX_MESSAGE = 4 << 20
BACKLOG = 512
REQUEST_TIMEOUT_S = 10.0

Handler = Callable[[dict[str, str], bytes, int | None], Awaitable[bytes]]
"""(environment, input, namespace descriptor or None) -> what to print. CNIError is what it may raise.
The descriptor stays open during the call."""


class CNIServer:
    """Serves `handle` on a socket that only root may use."""

    def __init__(self, path: Path, handle: Handler) -> None:
        self._path = path
        self._handle = handle
        self._listener: socket.socket | None = None
        self._calls: set[asyncio.Task[None]] = set()

    @property
    def is_busy(self) -> bool:
        """Whether a call is under way."""
        return bool(self._calls)

    async def start(self) -> None:
        """Listen; a socket file that a dead agent left is replaced."""
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        temporary = self._path.with_name(f".{self._path.name}.{os.getpid()}")
        temporary.unlink(missing_ok=True)
        listener.bind(str(temporary))
        temporary.chmod(0o600)
        listener.listen(BACKLOG)
        temporary.rename(self._path)  # in one step: no caller finds a file that nobody listens on
        self._listener = listener
        asyncio.get_running_loop().add_reader(listener.fileno(), self._accept, listener)

    async def close(self) -> None:
        """Stop listening; calls that have begun come to their end."""
        if self._listener is not None:
            asyncio.get_running_loop().remove_reader(self._listener.fileno())
            self._listener.close()
            self._path.unlink(missing_ok=True)
            self._listener = None
        if self._calls:
            await asyncio.wait(self._calls)

    def _accept(self, listener: socket.socket) -> None:
        try:
            connection, _ = listener.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return
        except OSError as error:
            log.error("cannot accept a CNI call: %s", error)
            return
        connection.setblocking(False)
        call = _Call(connection, self._serve)
        call.start()

    def _serve(self, connection: socket.socket, message: bytes, netns: int | None) -> None:
        task = asyncio.ensure_future(self._answer(connection, message, netns))
        self._calls.add(task)
        task.add_done_callback(self._calls.discard)

    async def _answer(self, connection: socket.socket, message: bytes, netns: int | None) -> None:
        raw = b""
        try:
            environment, raw = split_message(message)
            answer = b"\0" + _sized(await self._handle(environment, raw, netns))
        except CNIError as error:
            answer = b"\1" + _sized(format_error(asked_version(raw), error))
        except Exception as error:
            log.exception("a CNI call failed")
            answer = b"\1" + _sized(
                format_error(asked_version(raw), CNIError(Code.INTERNAL, "internal error of weft-felix", repr(error)))
            )
        finally:
            if netns is not None:
                os.close(netns)
        try:
            await _send(connection, answer)
        except OSError as error:
            log.warning("a CNI caller left before it was answered: %s", error)
        finally:
            connection.close()


class _Call:
    """A connection until its request is whole."""

    def __init__(self, connection: socket.socket, whole: Callable[[socket.socket, bytes, int | None], None]) -> None:
        self._connection = connection
        self._whole = whole
        self._received = bytearray()
        self._netns: int | None = None
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Usually the request is there already: read it without asking the event loop."""
        if not self._read():
            self._timer = self._loop.call_later(REQUEST_TIMEOUT_S, self._give_up)
            self._loop.add_reader(self._connection.fileno(), self._on_readable)

    def _on_readable(self) -> None:
        if self._read():
            self._stop_waiting()

    def _read(self) -> bool:
        """Whether the call is over, for better or worse."""
        while True:
            try:
                part, descriptors, _, _ = socket.recv_fds(self._connection, 1 << 16, 4)
            except BlockingIOError:
                return False
            except OSError:
                part, descriptors = b"", []
            for descriptor in descriptors:
                self._keep(descriptor)
            self._received += part
            length = int.from_bytes(self._received[:4]) if len(self._received) >= 4 else None
            if not part or (length is not None and length > MAX_MESSAGE):
                self._drop()
                return True
            if length is not None and len(self._received) >= 4 + length:
                self._whole(self._connection, bytes(self._received[4 : 4 + length]), self._netns)
                return True

    def _keep(self, descriptor: int) -> None:
        if self._netns is None:
            self._netns = descriptor
            os.set_inheritable(descriptor, False)
        else:
            os.close(descriptor)

    def _stop_waiting(self) -> None:
        self._loop.remove_reader(self._connection.fileno())
        if self._timer is not None:
            self._timer.cancel()

    def _give_up(self) -> None:
        self._stop_waiting()
        self._drop()

    def _drop(self) -> None:
        if self._netns is not None:
            os.close(self._netns)
        self._connection.close()


def _sized(body: bytes) -> bytes:
    return len(body).to_bytes(4) + body


async def _send(connection: socket.socket, data: bytes) -> None:
    try:
        sent = connection.send(data)
    except BlockingIOError:
        sent = 0
    if sent < len(data):
        await asyncio.get_running_loop().sock_sendall(connection, data[sent:])
