"""BgpService: the BGP agent's answers as messages and back.

Decides nothing; the agent's provider does. Messages and values have the same field names, so one pair of functions
converts them all: addresses and prefixes travel as text, and what there is none of as an empty one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields
from ipaddress import IPv4Address, ip_address, ip_network
from typing import Any, Final, TypeVar

import grpc

from weft.admin import bgp as values
from weft.admin.v1 import bgp_pb2 as pb
from weft.admin.v1 import bgp_pb2_grpc as pb_grpc
from weft.model.address import IPAddress, IPNetwork, parse_address, parse_network
from weft.model.errors import ValidationError

T = TypeVar("T")

VIEWS: Final = {
    values.PathView.ALL: pb.ListBgpPathsRequest.ALL,
    values.PathView.BEST: pb.ListBgpPathsRequest.BEST,
    values.PathView.RECEIVED: pb.ListBgpPathsRequest.RECEIVED,
    values.PathView.ADVERTISED: pb.ListBgpPathsRequest.ADVERTISED,
}
_VIEWS: Final = {code: view for view, code in VIEWS.items()}
OF_ONE_PEER: Final = frozenset({values.PathView.RECEIVED, values.PathView.ADVERTISED})

_PARSERS: Final[Mapping[str, Callable[[str], Any]]] = {
    "address": ip_address,
    "addresses": ip_address,
    "local_address": ip_address,
    "peer": ip_address,
    "next_hop": ip_address,
    "router_id": IPv4Address,
    "cluster_id": IPv4Address,
    "originator_id": IPv4Address,
    "cluster_list": IPv4Address,
    "prefix": ip_network,
}
_PRESENCE: Final = frozenset({"local_preference", "med"})


class BgpServer(pb_grpc.BgpServiceServicer):
    """Serves what `provider` answers."""

    name = "weft.admin.v1.BgpService"

    def __init__(self, provider: values.BgpProvider) -> None:
        self._provider = provider

    def register(self, server: grpc.aio.Server) -> None:
        pb_grpc.add_BgpServiceServicer_to_server(self, server)

    async def ListBgpPeers(self, request: pb.ListBgpPeersRequest, context: object) -> pb.BgpPeers:
        return pb.BgpPeers(peers=[to_message(pb.BgpPeer, one) for one in self._provider.peers()])

    async def ListBgpPaths(self, request: pb.ListBgpPathsRequest, context: object) -> pb.BgpPaths:
        view = _VIEWS[request.view]
        peer = _address("peer", request.peer) if view in OF_ONE_PEER else None
        return pb.BgpPaths(paths=[to_message(pb.BgpPath, one) for one in self._provider.paths(view, peer)])

    async def TraceBgp(self, request: pb.TraceBgpRequest, context: object) -> pb.BgpTrace:
        found = self._provider.trace(_network("destination", request.destination))
        return pb.BgpTrace(
            prefix="" if found.prefix is None else str(found.prefix),
            paths=[to_message(pb.BgpPath, one) for one in found.paths],
            announcements=[to_message(pb.BgpPath, one) for one in found.announcements],
            kernel=found.kernel,
        )

    async def GetBgpConfig(self, request: pb.GetBgpConfigRequest, context: object) -> pb.BgpConfig:
        return to_message(pb.BgpConfig, self._provider.config())


def to_message(cls: Callable[..., T], value: Any) -> T:
    """A value of this module's kinds as its message."""
    present = {field.name: getattr(value, field.name) for field in fields(value)}
    return cls(**{name: _plain(one) for name, one in present.items() if one is not None})


def to_value(cls: Callable[..., T], message: Any) -> T:
    """The value again. Raises ValueError for an address that is none."""
    return cls(**{field.name: _parsed(field.name, message) for field in fields(cls)})  # type: ignore[arg-type]


def trace_value(message: pb.BgpTrace) -> values.TraceReport:
    return values.TraceReport(
        ip_network(message.prefix) if message.prefix else None,
        tuple(to_value(values.PathReport, one) for one in message.paths),
        tuple(to_value(values.PathReport, one) for one in message.announcements),
        tuple(message.kernel),
    )


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_plain(one) for one in value]
    return value if isinstance(value, (str, int, float)) else str(value)


def _parsed(name: str, message: Any) -> Any:
    if name in _PRESENCE and not message.HasField(name):
        return None
    raw = getattr(message, name)
    parse = _PARSERS.get(name)
    if not isinstance(raw, (str, int, float)):
        return tuple(raw) if parse is None else tuple(map(parse, raw))
    if parse is None:
        return raw
    return parse(raw) if raw else None  # type: ignore[arg-type]


def _address(field: str, text: str) -> IPAddress:
    try:
        return parse_address(text)
    except ValueError as error:
        raise ValidationError(source="", document=0, field=field, value=text, expected=str(error)) from error


def _network(field: str, text: str) -> IPNetwork:
    try:
        return parse_network(text)
    except ValueError as error:
        raise ValidationError(source="", document=0, field=field, value=text, expected=str(error)) from error
