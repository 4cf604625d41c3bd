"""gRPC channels to the endpoints of one etcd cluster: which endpoint to use now, TLS, and the login token.

One endpoint is used at a time and the next is tried when it cannot be reached, so a request is sent only over a
channel that is ready: a later failure then really means that the outcome is unknown. Certificate files are read again
when every endpoint has failed and they have changed, which is how a renewed certificate gets in without a restart.
"""

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
from aetcd import rpc
from msgspec import Struct

from weft.config import EtcdConfig
from weft.model.errors import DatastoreUnavailableError

CONNECT_S = 2.0
"""How long one endpoint may take to connect before the next is tried."""

CHANNEL_OPTIONS: tuple[tuple[str, Any], ...] = (
    ("grpc.max_receive_message_length", 1 << 30),
    ("grpc.max_send_message_length", 1 << 30),
    ("grpc.initial_reconnect_backoff_ms", 100),
    # Also how long one attempt may take: an etcd that starts accepts connections a second before it serves them.
    ("grpc.min_reconnect_backoff_ms", 5000),
    ("grpc.max_reconnect_backoff_ms", 2000),
    # etcd closes connections that ping more often than every 5 s, or at all while no call is under way.
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 0),
    ("grpc.http2.max_pings_without_data", 0),
    # A channel of our own each: sharing one would share its back-off and its old certificates.
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_http_proxy", 0),
)

Metadata = tuple[tuple[str, str], ...]


class Target(Struct, frozen=True):
    """An endpoint as gRPC wants it."""

    name: str
    tls: bool

    @classmethod
    def parse(cls, endpoint: str, has_ca: bool) -> "Target":
        """http(s)://host:port, unix(s):///path, or host:port (TLS if a CA is configured)."""
        scheme, separator, rest = endpoint.partition("://")
        if not separator:
            if endpoint.startswith("unix:"):
                return cls(endpoint, tls=False)
            return cls(endpoint.rstrip("/"), tls=has_ca)
        if scheme in {"unix", "unixs"}:
            return cls(f"unix:{rest}", tls=scheme == "unixs")
        if scheme not in {"http", "https"}:
            raise ValueError(f"{endpoint!r}: expected http://, https:// or unix://")
        return cls(rest.rstrip("/"), tls=scheme == "https")


class Connection:
    """One channel with the stubs on it."""

    def __init__(self, target: Target, credentials: grpc.ChannelCredentials | None) -> None:
        self.target = target
        if credentials is None:
            self.channel = grpc.aio.insecure_channel(target.name, options=CHANNEL_OPTIONS)
        else:
            self.channel = grpc.aio.secure_channel(target.name, credentials, options=CHANNEL_OPTIONS)
        self.kv = rpc.KVStub(self.channel)
        self.lease = rpc.LeaseStub(self.channel)
        self.watch = rpc.WatchStub(self.channel)
        self.auth = rpc.AuthStub(self.channel)

    def is_ready(self) -> bool:
        """Whether a request would go out at once; an idle channel starts to connect."""
        return self.channel.get_state(try_to_connect=True) is grpc.ChannelConnectivity.READY

    async def wait_ready(self, timeout_s: float) -> bool | None:
        """True as soon as the channel is ready, False as soon as an attempt has failed, None: neither in this time."""
        deadline = time.monotonic() + timeout_s
        attempted = False
        while True:
            state = self.channel.get_state(try_to_connect=True)
            if state is grpc.ChannelConnectivity.READY:
                return True
            if state in (grpc.ChannelConnectivity.IDLE, grpc.ChannelConnectivity.CONNECTING):
                attempted = True
            elif state is grpc.ChannelConnectivity.TRANSIENT_FAILURE and attempted:
                return False
            try:
                remaining = deadline - time.monotonic()
                async with asyncio.timeout(max(remaining, 0.001)):
                    await self.channel.wait_for_state_change(state)
            except TimeoutError:
                return None if attempted else False


class ConnectionPool:
    """The endpoints, the one in use, and the token for it."""

    def __init__(self, config: EtcdConfig) -> None:
        self._config = config
        self._targets = [Target.parse(one, config.ca_cert_file is not None) for one in config.endpoints]
        self._connections: dict[int, Connection] = {}
        self._current = 0
        self._files_seen: tuple[tuple[int, int] | None, ...] = ()
        self._connecting = asyncio.Lock()
        self._metadata: Metadata | None = None if config.username else ()
        self._failure: str | None = None
        self._failed_at = 0.0
        self._closed = False

    async def acquire(self) -> Connection:
        """A connection that is ready; `DatastoreUnavailableError` when every endpoint failed."""
        connection = self._connections.get(self._current)
        if connection is not None and connection.is_ready():
            return connection
        asked_at = time.monotonic()
        async with self._connecting:
            if self._failure is not None and self._failed_at > asked_at:
                # Somebody tried in vain while we waited: the answer would be the same.
                raise DatastoreUnavailableError(self._failure)
            try:
                return await self._connect()
            except DatastoreUnavailableError as error:
                self._failure, self._failed_at = str(error), time.monotonic()
                raise

    async def _connect(self) -> Connection:
        if self._closed:
            raise DatastoreUnavailableError("the datastore has been closed")
        await self._drop_stale_certificates()
        deadline = time.monotonic() + self._config.timeout_s
        undecided = True
        while undecided and time.monotonic() < deadline:
            undecided = False
            for index in self._preferred():
                ready = await self._connection(index).wait_ready(min(CONNECT_S, self._config.timeout_s))
                if ready:
                    self._current = index
                    return self._connections[index]
                undecided = undecided or ready is None
        raise DatastoreUnavailableError(await self._why_not(), self._config.endpoints)

    def _preferred(self) -> list[int]:
        """The endpoint in use, then the others."""
        count = len(self._targets)
        return [(self._current + offset) % count for offset in range(count)]

    def _connection(self, index: int) -> Connection:
        if index not in self._connections:
            self._connections[index] = Connection(self._targets[index], self._credentials(index))
        return self._connections[index]

    async def _why_not(self) -> str:
        """Ask for nothing over each dead channel: gRPC's answer says what is wrong with it."""
        reasons = []
        for index, connection in sorted(self._connections.items()):
            try:
                await connection.kv.Range(rpc.RangeRequest(key=b"\0"), timeout=0.2)
            except grpc.aio.AioRpcError as error:
                reasons.append(f"{self._config.endpoints[index]}: {error.details()}")
        return "; ".join(reasons) or "no etcd endpoint can be reached"

    def rotate(self, failed: Connection) -> None:
        """Prefer the next endpoint: this one answered that it cannot serve."""
        if self._connections.get(self._current) is failed:
            self._current = (self._current + 1) % len(self._targets)

    async def metadata(self, connection: Connection) -> Metadata:
        """What to send with every call; logs in first where a user is configured."""
        if self._metadata is None:
            self._metadata = await self._login(connection)
        return self._metadata

    def forget_token(self, refused: Metadata) -> bool:
        """Log in again before the next call; whether that can help."""
        if not self._config.username:
            return False
        if self._metadata == refused:
            self._metadata = None
        return True

    async def _login(self, connection: Connection) -> Metadata:
        request = rpc.AuthenticateRequest(name=self._config.username, password=self._config.password)
        try:
            answer = await connection.auth.Authenticate(request, timeout=self._config.timeout_s)
        except grpc.aio.AioRpcError as error:
            if "authentication is not enabled" in (error.details() or ""):
                return ()
            raise DatastoreUnavailableError(
                f"{connection.target.name}: login as {self._config.username!r}: {error.details()}"
            ) from error
        return (("token", answer.token),)

    def _credentials(self, index: int) -> grpc.ChannelCredentials | None:
        if not self._targets[index].tls:
            return None
        self._files_seen = self._file_stamps()
        try:
            root, chain, key = (path.read_bytes() if path else None for path in self._files())
        except OSError as error:
            raise DatastoreUnavailableError(f"etcd certificates: {error}") from error
        return grpc.ssl_channel_credentials(root_certificates=root, private_key=key, certificate_chain=chain)

    def _files(self) -> Sequence[Path | None]:
        return self._config.ca_cert_file, self._config.cert_file, self._config.key_file

    def _file_stamps(self) -> tuple[tuple[int, int] | None, ...]:
        def stamp(path: Path | None) -> tuple[int, int] | None:
            if path is None or not path.exists():
                return None
            return path.stat().st_mtime_ns, path.stat().st_size

        return tuple(stamp(path) for path in self._files())

    async def _drop_stale_certificates(self) -> None:
        if self._files_seen and self._file_stamps() != self._files_seen:
            await self._close_all()

    async def _close_all(self) -> None:
        connections, self._connections = list(self._connections.values()), {}
        for connection in connections:
            await connection.channel.close()

    async def close(self) -> None:
        self._closed = True
        await self._close_all()
