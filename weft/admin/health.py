"""grpc.health.v1.Health for an admin server.

The messages are our own copies with the same fields; the service goes by its well-known name, so kubelet and
grpc_health_probe work. It says what the agent says of itself and checks nothing on its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import grpc

from weft.admin.v1 import health_pb2 as pb

SERVICE_NAME = "grpc.health.v1.Health"


class HealthService:
    """Answers for the server as a whole ("") and for each service by its full name."""

    name = SERVICE_NAME

    def __init__(self, service_names: Sequence[str], ready: Callable[[], bool]) -> None:
        self._known = {"", *service_names}
        self._ready = ready

    def register(self, server: grpc.aio.Server) -> None:
        check = grpc.unary_unary_rpc_method_handler(
            self.check,
            request_deserializer=pb.HealthCheckRequest.FromString,
            response_serializer=pb.HealthCheckResponse.SerializeToString,
        )
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE_NAME, {"Check": check}),))

    async def check(
        self,
        request: pb.HealthCheckRequest,
        context: grpc.aio.ServicerContext[pb.HealthCheckRequest, pb.HealthCheckResponse],
    ) -> pb.HealthCheckResponse:
        if request.service not in self._known:
            await context.abort(grpc.StatusCode.NOT_FOUND, f"no service {request.service!r} here")
        status = pb.HealthCheckResponse.SERVING if self._ready() else pb.HealthCheckResponse.NOT_SERVING
        return pb.HealthCheckResponse(status=status)
