"""The datastore port over etcd's v3 API, on aetcd's protobuf stubs.

A request costs one gRPC call and little more. It is sent only over a connection that is ready; reads that fail on the
way are tried again on the next endpoint, writes are not, because nobody knows whether they happened. Reconnecting a
broken watch is the syncer's: a watch here ends with the error that says how to go on.
"""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from typing import Any

import grpc
import grpc.aio
from aetcd import rpc
from msgspec import Struct

from weft.config import EtcdConfig
from weft.datastore.base import (
    MAX_GROUP,
    Changed,
    CommitResult,
    Create,
    Delete,
    Event,
    KeyValue,
    Plan,
    Progress,
    Removed,
    Snapshot,
    Update,
    Write,
)
from weft.datastore.channels import Connection, ConnectionPool
from weft.model.errors import (
    AlreadyExistsError,
    CompactedError,
    ConflictError,
    DatastoreUnavailableError,
    LeaseGoneError,
    NotFoundError,
)

# gRPC status codes after which another endpoint may do better.
_TRY_ELSEWHERE = {
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.CANCELLED,
    grpc.StatusCode.UNKNOWN,
    grpc.StatusCode.INTERNAL,
}
# How etcd says that a token has expired, was lost in a restart, or predates a change of users and roles.
_STALE_TOKEN = ("invalid auth token", "revision of auth store is old", "auth revision in header is old")
_NO_LEASE = "requested lease not found"
_COMPACTED = "required revision has been compacted"
_READ_ATTEMPTS = 3
KEYS_IN_A_PIECE = 5000


class EtcdDatastore:
    """`weft.datastore.base.Datastore` on an etcd cluster. Belongs to the event loop it is first used on."""

    def __init__(self, config: EtcdConfig) -> None:
        self._config = config
        self._pool = ConnectionPool(config)

    async def get(self, key: str) -> KeyValue | None:
        answer = await self._read(rpc.RangeRequest(key=key.encode()))
        return _key_value(answer.kvs[0]) if answer.kvs else None

    async def get_many(self, keys: Sequence[str]) -> list[KeyValue | None]:
        if len(keys) >= MAX_GROUP:
            raise ValueError(f"at most {MAX_GROUP - 1} keys at a time, not {len(keys)}")
        if not keys:
            return []
        reads = [_read_op(key, keys_only=False) for key in keys]
        answer = await self._read(rpc.TxnRequest(success=reads))
        return [_first(response.response_range) for response in answer.responses]

    async def list(self, prefix: str) -> Snapshot:
        start = prefix.encode()
        answer = await self._read(rpc.RangeRequest(key=start, range_end=prefix_end(start)))
        return Snapshot(tuple(_key_value(kv) for kv in answer.kvs), answer.header.revision)

    async def pieces(self, prefix: str) -> AsyncGenerator[Snapshot, None]:
        start, end = prefix.encode(), prefix_end(prefix.encode())
        revision, more = 0, True
        while more:
            request = rpc.RangeRequest(key=start, range_end=end, limit=KEYS_IN_A_PIECE, revision=revision)
            try:
                answer = await self._read(request)
            except DatastoreUnavailableError as error:
                if revision and _COMPACTED in str(error):
                    raise CompactedError(revision, revision) from error
                raise
            revision = revision or answer.header.revision
            more = answer.more
            if more:
                start = answer.kvs[-1].key + b"\0"
            yield Snapshot(tuple(_key_value(kv) for kv in answer.kvs), revision)

    async def create(self, key: str, value: bytes, lease: int = 0) -> int:
        revision, lost = await self._transact((Create(key, value, lease),))
        if lost is not None:
            raise AlreadyExistsError(key)
        return revision

    async def update(self, key: str, value: bytes, revision: int) -> int:
        new_revision, lost = await self._transact((Update(key, value, revision),))
        if lost is not None:
            raise ConflictError(key) if lost.exists else NotFoundError(key)
        return new_revision

    async def delete(self, key: str, revision: int | None = None) -> None:
        if revision is None:
            answer = await self._write("DeleteRange", rpc.DeleteRangeRequest(key=key.encode()))
            if not answer.deleted:
                raise NotFoundError(key)
            return
        _, lost = await self._transact((Delete(key, revision),))
        if lost is not None:
            raise ConflictError(key) if lost.exists else NotFoundError(key)

    async def commit(self, plan: Plan) -> CommitResult:
        revisions: dict[str, int] = {}
        for group in plan.groups:
            revision, lost = await self._transact(group)
            if lost is not None:
                raise ConflictError(lost.key)
            revisions.update((write.key, revision) for write in group)
        return CommitResult(revisions)

    async def watch(self, prefix: str, from_revision: int) -> AsyncGenerator[Sequence[Event], None]:
        start = prefix.encode()
        request = rpc.WatchRequest(
            create_request=rpc.WatchCreateRequest(
                key=start, range_end=prefix_end(start), start_revision=from_revision, progress_notify=True
            )
        )
        for attempt in (1, 2):
            connection = await self._pool.acquire()
            metadata = await self._pool.metadata(connection)
            # "hasleader": end the watch when this member has lost its cluster instead of going silent.
            call = connection.watch.Watch(metadata=(*metadata, ("hasleader", "true")))
            try:
                await call.write(request)
                async for answer in call:
                    if answer.created and answer.header.revision < from_revision - 1:
                        await self._check_not_restored(from_revision)
                    if answer.canceled or answer.compact_revision:
                        if attempt == 1 and not answer.compact_revision and self._pool.forget_token(metadata):
                            break
                        raise _watch_ended(prefix, from_revision, answer)
                    yield (Progress(from_revision - 1),) if answer.created else _events(answer)
                else:
                    raise DatastoreUnavailableError(f"{connection.target.name}: the watch ended")
            except (grpc.aio.AioRpcError, asyncio.InvalidStateError) as error:
                self._pool.rotate(connection)
                raise _unavailable(connection, error) from error
            except asyncio.CancelledError as error:
                _raise_if_not_ours(connection, error)
                raise
            finally:
                call.cancel()

    async def grant(self, time_s: int) -> int:
        answer = await self._write("LeaseGrant", rpc.LeaseGrantRequest(TTL=time_s))
        lease: int = answer.ID
        return lease

    async def revoke(self, lease: int) -> None:
        try:
            await self._write("LeaseRevoke", rpc.LeaseRevokeRequest(ID=lease))
        except DatastoreUnavailableError as error:
            if _NO_LEASE not in str(error):
                raise

    async def close(self) -> None:
        await self._pool.close()

    async def _check_not_restored(self, from_revision: int) -> None:
        """A member that only lags behind catches up for this read; a store restored or wiped stays behind."""
        answer = await self._read(rpc.RangeRequest(key=b"\0", keys_only=True))
        if answer.header.revision < from_revision - 1:
            raise CompactedError(from_revision, answer.header.revision)

    async def _transact(self, group: Sequence[Write]) -> "tuple[int, _Lost | None]":
        """One transaction: the store's revision after it, and the key that lost (then nothing was written)."""
        expected = [(write.key, expectation) for write in group if (expectation := _expected(write)) is not None]
        request = rpc.TxnRequest(
            compare=[
                rpc.Compare(key=key.encode(), target=_MOD, result=_EQUAL, mod_revision=revision)
                for key, revision in expected
            ],
            success=[_write_op(write) for write in group],
            failure=[_read_op(key, keys_only=True) for key, _ in expected],
        )
        try:
            answer = await self._write("Txn", request)
        except DatastoreUnavailableError as error:
            if _NO_LEASE in str(error):
                raise LeaseGoneError(next((lease for write in group if (lease := _lease(write))), 0)) from error
            raise
        if answer.succeeded:
            return answer.header.revision, None
        for (key, revision), response in zip(expected, answer.responses, strict=True):
            found = response.response_range.kvs
            if (found[0].mod_revision if found else 0) != revision:
                return answer.header.revision, _Lost(key, exists=bool(found))
        raise AssertionError("etcd refused a transaction whose comparisons all hold")

    async def _read(self, request: Any) -> Any:
        """Range, or a transaction of reads; tried again on the next endpoint when one cannot serve."""
        return await self._call("Range" if isinstance(request, rpc.RangeRequest) else "Txn", request, _READ_ATTEMPTS)

    async def _write(self, method: str, request: Any) -> Any:
        return await self._call(method, request, attempts=1)

    async def _call(self, method: str, request: Any, attempts: int) -> Any:
        """One call on the key-value or the lease service, with a fresh login when etcd no longer knows the token."""
        logins = 1
        while True:
            connection = await self._pool.acquire()
            metadata = await self._pool.metadata(connection)
            try:
                return await getattr(_service(connection, method), method)(
                    request, timeout=self._config.timeout_s, metadata=metadata
                )
            except grpc.aio.AioRpcError as error:
                attempts -= 1
                if logins and _token_is_stale(error) and self._pool.forget_token(metadata):
                    # A refused token means that nothing was done, so even a write may be sent again.
                    logins, attempts = 0, attempts + 1
                    continue
                if error.code() in _TRY_ELSEWHERE:
                    self._pool.rotate(connection)
                    if attempts > 0:
                        continue
                raise _unavailable(connection, error) from error
            except asyncio.CancelledError as error:
                _raise_if_not_ours(connection, error)
                raise


class _Lost(Struct, frozen=True):
    """The key whose comparison failed, and whether there is such a key."""

    key: str
    exists: bool


_MOD = rpc.Compare.MOD
_EQUAL = rpc.Compare.EQUAL
_DELETE_EVENT = rpc.Event.DELETE


def _service(connection: Connection, method: str) -> Any:
    """The stub that has the method."""
    return connection.lease if method.startswith("Lease") else connection.kv


def prefix_end(prefix: bytes) -> bytes:
    """The first key behind all that start with `prefix` (etcd's range_end); zero byte: no end."""
    stem = prefix.rstrip(b"\xff")
    return stem[:-1] + bytes((stem[-1] + 1,)) if stem else b"\0"


def _expected(write: Write) -> int | None:
    """The revision a write insists on: 0 is "absent"."""
    return 0 if isinstance(write, Create) else write.revision


def _write_op(write: Write) -> Any:
    if isinstance(write, Delete):
        return rpc.RequestOp(request_delete_range=rpc.DeleteRangeRequest(key=write.key.encode()))
    put = rpc.PutRequest(key=write.key.encode(), value=write.value, lease=_lease(write))
    return rpc.RequestOp(request_put=put)


def _lease(write: Write) -> int:
    return write.lease if isinstance(write, Create) else 0


def _read_op(key: str, keys_only: bool) -> Any:
    return rpc.RequestOp(request_range=rpc.RangeRequest(key=key.encode(), keys_only=keys_only))


def _key_value(kv: Any) -> KeyValue:
    return KeyValue(_key(kv), kv.value, kv.mod_revision, kv.lease)


def _key(kv: Any) -> str:
    """Keys are text; a stray one of another's making that is none is told apart from all others, and nothing more."""
    text: str = kv.key.decode(errors="backslashreplace")
    return text


def _first(answer: Any) -> KeyValue | None:
    return _key_value(answer.kvs[0]) if answer.kvs else None


def _events(answer: Any) -> Sequence[Event]:
    if not answer.events:
        return (Progress(answer.header.revision),)
    return tuple(
        Removed(_key(event.kv), event.kv.mod_revision) if event.type == _DELETE_EVENT else Changed(_key_value(event.kv))
        for event in answer.events
    )


def _watch_ended(prefix: str, from_revision: int, answer: Any) -> Exception:
    if answer.compact_revision:
        return CompactedError(from_revision, answer.compact_revision)
    return DatastoreUnavailableError(f"watch of {prefix}: {answer.cancel_reason or 'cancelled by etcd'}")


def _token_is_stale(error: grpc.aio.AioRpcError) -> bool:
    details = error.details() or ""
    return error.code() is grpc.StatusCode.UNAUTHENTICATED or any(text in details for text in _STALE_TOKEN)


def _raise_if_not_ours(connection: Connection, error: asyncio.CancelledError) -> None:
    """gRPC "cancels" the calls of a channel that is closed; only our own task's cancellation is one."""
    task = asyncio.current_task()
    if task is None or not task.cancelling():
        raise DatastoreUnavailableError(f"{connection.target.name}: the connection was closed") from error


def _unavailable(connection: Connection, error: Exception) -> DatastoreUnavailableError:
    if isinstance(error, grpc.aio.AioRpcError):
        return DatastoreUnavailableError(f"{connection.target.name}: {error.code().name}: {error.details()}")
    return DatastoreUnavailableError(f"{connection.target.name}: {error}")
