"""ReflectorService: reports and settings of automatic reflectors as messages. What they mean is weft.reflectors'."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import grpc
import msgspec

from weft.admin.reflectors import ReflectorAPI
from weft.admin.v1 import reflectors_pb2 as pb
from weft.admin.v1 import reflectors_pb2_grpc as pb_grpc
from weft.model.errors import ValidationError
from weft.model.reflectors import ReflectorSettings
from weft.model.wire import NO_JSON, dec_hook, enc_hook, shape_of
from weft.reflectors.report import ReflectorReport


class ReflectorServer(pb_grpc.ReflectorServiceServicer):
    """Serves `reflectors` to everybody who may open the socket."""

    name = "weft.admin.v1.ReflectorService"

    def __init__(self, reflectors: ReflectorAPI) -> None:
        self._reflectors = reflectors

    def register(self, server: grpc.aio.Server) -> None:
        pb_grpc.add_ReflectorServiceServicer_to_server(self, server)

    async def GetReflectors(self, request: pb.GetReflectorsRequest, context: object) -> pb.ReflectorDocument:
        changes = _changes(request.changes.json) if request.HasField("changes") else None
        return pb.ReflectorDocument(json=encode(await self._reflectors.report(changes)))

    async def ConfigureReflectors(self, request: pb.ReflectorChanges, context: object) -> pb.ReflectorDocument:
        return pb.ReflectorDocument(json=encode(await self._reflectors.configure(_changes(request.json))))


def encode(value: ReflectorReport | ReflectorSettings | Mapping[str, object]) -> bytes:
    return msgspec.json.encode(value, enc_hook=enc_hook)


def report_value(message: pb.ReflectorDocument) -> ReflectorReport:
    return msgspec.json.decode(message.json, type=ReflectorReport, dec_hook=dec_hook)


def settings_value(message: pb.ReflectorDocument) -> ReflectorSettings:
    return msgspec.json.decode(message.json, type=ReflectorSettings, dec_hook=dec_hook)


def _changes(raw: bytes) -> Mapping[str, Any]:
    """By attribute. Raises ValidationError for what is no field of the settings."""
    try:
        tree = msgspec.json.decode(raw, type=dict[str, Any])
    except NO_JSON as error:
        raise ValidationError("", 0, "$", raw[:80], f"a JSON object ({error})") from None
    fields = ReflectorSettings.__struct_fields__
    for name in tree:
        if name not in fields:
            raise ValidationError("", 0, name, tree[name], f"one of {', '.join(shape_of(ReflectorSettings).fields)}")
    return {name: tuple(value) if isinstance(value, list) else value for name, value in tree.items()}
