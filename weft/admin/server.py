"""Serve an agent's admin services on its unix socket, and answer health checks there.

The socket's file mode is the whole access control: owner and group may ask, nobody else. A socket that a dead agent
left behind is taken over; one that somebody still answers on is refused, because gRPC would silently steal it."""

from __future__ import annotations

import errno
import os
import socket
import stat
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol, Self

import grpc

from weft.admin.errors import ErrorInterceptor
from weft.admin.health import HealthService

SOCKET_MODE = 0o660
LONGEST_SOCKET_PATH = 107  # sun_path in unix(7) is 108 bytes with its end mark
UNLIMITED_MESSAGES = (("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1))


class AdminService(Protocol):
    """One gRPC service: `name` as health checks call it, `register` adds it to the server."""

    name: str

    def register(self, server: grpc.aio.Server) -> None: ...


class SocketInUseError(OSError):
    """Another process answers on this socket: stop it, or use another WEFT_RUN_DIR."""

    def __init__(self, path: Path) -> None:
        super().__init__(errno.EADDRINUSE, "another process is serving this socket", str(path))


class AdminServer:
    """`async with AdminServer(run_dir / "felix.sock", [StatusServer(provider)], ready=lambda: in_sync): ...`

    `ready` is what health checks are told; it is asked at each check. Needs a running event loop."""

    def __init__(
        self,
        socket_path: Path,
        services: Sequence[AdminService],
        ready: Callable[[], bool] = lambda: True,
        group_id: int | None = None,
    ) -> None:
        self._path = socket_path
        self._services = services
        self._ready = ready
        self._group_id = group_id
        self._server: grpc.aio.Server | None = None
        self._inode: int | None = None

    async def start(self) -> None:
        """Bind and serve. Raises SocketInUseError, and OSError when the path cannot be bound."""
        if len(os.fsencode(self._path)) > LONGEST_SOCKET_PATH:
            raise OSError(errno.ENAMETOOLONG, f"longer than {LONGEST_SOCKET_PATH} bytes", str(self._path))
        self._path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        clear_stale_socket(self._path)
        server = grpc.aio.server(interceptors=[ErrorInterceptor()], options=UNLIMITED_MESSAGES)
        for service in self._services:
            service.register(server)
        HealthService([service.name for service in self._services], self._ready).register(server)
        # The file must never exist with wider rights than it ends up with.
        previous_mask = os.umask(0o777 & ~SOCKET_MODE)
        try:
            server.add_insecure_port(f"unix:{self._path}")
        except RuntimeError as error:
            raise OSError(errno.EADDRNOTAVAIL, str(error), str(self._path)) from error
        finally:
            os.umask(previous_mask)
        if self._group_id is not None:
            os.chown(self._path, -1, self._group_id)
        await server.start()
        self._server = server
        self._inode = self._path.stat().st_ino

    async def stop(self, grace_s: float = 1.0) -> None:
        """Let calls under way finish for `grace_s`, then close. Harmless when not started."""
        server, self._server = self._server, None
        if server is None:
            return
        await server.stop(grace_s)
        # A successor may have bound the path already; its socket is not ours to remove.
        try:
            if self._path.stat().st_ino == self._inode:
                self._path.unlink()
        except FileNotFoundError:
            pass

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()


def clear_stale_socket(path: Path) -> None:
    """Remove a socket that nobody listens on. Raises SocketInUseError, or OSError for what is no socket."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise OSError(errno.EEXIST, "exists and is not a socket", str(path))
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(path))
        except (ConnectionRefusedError, FileNotFoundError):
            path.unlink(missing_ok=True)
            return
    raise SocketInUseError(path)
