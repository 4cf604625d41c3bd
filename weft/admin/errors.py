"""Carry a WeftError over gRPC: its class and data go as ErrorDetail in the trailing metadata.

A client gets the same class with the same data back, so it decides as if the core had run in its own process.
Only WeftErrors travel; anything else is a defect, which gRPC logs and answers as UNKNOWN."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc

from weft.admin.v1 import errors_pb2 as pb
from weft.model import errors

DETAIL_KEY = "weft-error-bin"
STATUS_CODES: dict[type[errors.WeftError], grpc.StatusCode] = {
    errors.ValidationError: grpc.StatusCode.INVALID_ARGUMENT,
    errors.NotFoundError: grpc.StatusCode.NOT_FOUND,
    errors.AlreadyExistsError: grpc.StatusCode.ALREADY_EXISTS,
    errors.ConflictError: grpc.StatusCode.ABORTED,
    errors.DatastoreUnavailableError: grpc.StatusCode.UNAVAILABLE,
    errors.CompactedError: grpc.StatusCode.OUT_OF_RANGE,
    errors.NoFreeAddressError: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.AddressInUseError: grpc.StatusCode.ALREADY_EXISTS,
}


class RemoteError(errors.WeftError):
    """A refusal whose class this program does not know, or a failed connection: the text is all there is."""


def to_detail(error: errors.WeftError) -> pb.ErrorDetail:
    detail = pb.ErrorDetail(type=type(error).__name__, message=str(error))
    match error:
        case errors.ValidationError():
            detail.source = error.source
            detail.document = error.document
            detail.field = error.field
            detail.value = str(error.value)
            detail.expected = error.expected
        case errors.NotFoundError() | errors.AlreadyExistsError() | errors.ConflictError():
            detail.key = error.key
        case errors.DatastoreUnavailableError():
            detail.message = error.reason
        case _:
            pass
    return detail


def from_detail(detail: pb.ErrorDetail) -> errors.WeftError:
    match detail.type:
        case "ValidationError":
            return errors.ValidationError(
                source=detail.source,
                document=detail.document,
                field=detail.field,
                value=detail.value,
                expected=detail.expected,
            )
        case "NotFoundError":
            return errors.NotFoundError(detail.key)
        case "AlreadyExistsError":
            return errors.AlreadyExistsError(detail.key)
        case "ConflictError":
            return errors.ConflictError(detail.key)
        case "DatastoreUnavailableError":
            return errors.DatastoreUnavailableError(detail.message)
        case _:
            return RemoteError(detail.message)


class ErrorInterceptor(grpc.aio.ServerInterceptor):
    """Turns a WeftError raised by any service into its status, message and detail."""

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        handler = await continuation(handler_call_details)
        if handler is None:
            return None
        if handler.unary_stream is not None:
            return grpc.unary_stream_rpc_method_handler(
                _guarded_stream(handler.unary_stream),
                request_deserializer=handler.request_deserializer,
                response_serializer=handler.response_serializer,
            )
        return grpc.unary_unary_rpc_method_handler(
            _guarded(handler.unary_unary),
            request_deserializer=handler.request_deserializer,
            response_serializer=handler.response_serializer,
        )


def _guarded(method: Callable[[Any, Any], Awaitable[Any]]) -> Callable[[Any, Any], Awaitable[Any]]:
    async def call(request: Any, context: Any) -> Any:
        try:
            return await method(request, context)
        except errors.WeftError as error:
            await _abort(context, error)

    return call


def _guarded_stream(method: Callable[[Any, Any], AsyncIterator[Any]]) -> Callable[[Any, Any], AsyncIterator[Any]]:
    async def call(request: Any, context: Any) -> AsyncIterator[Any]:
        try:
            async for message in method(request, context):
                yield message
        except errors.WeftError as error:
            await _abort(context, error)

    return call


async def _abort(context: Any, error: errors.WeftError) -> None:
    code = next(
        (code for known, code in STATUS_CODES.items() if isinstance(error, known)),
        grpc.StatusCode.FAILED_PRECONDITION,
    )
    metadata = ((DETAIL_KEY, to_detail(error).SerializeToString()),)
    await context.abort(code, str(error), metadata)


def from_rpc_error(error: grpc.aio.AioRpcError) -> errors.WeftError:
    """What the other side raised. UNAVAILABLE without a detail is our own connection's failure."""
    for key, value in error.trailing_metadata() or ():
        if key == DETAIL_KEY and isinstance(value, bytes):
            return from_detail(pb.ErrorDetail.FromString(value))
    return RemoteError(f"{error.code().name}: {error.details()}")
