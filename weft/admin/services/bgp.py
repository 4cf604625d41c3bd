"""BgpService: the BGP agent's answers as messages and back.

Decides nothing; the agent's provider does. Messages and values have the same field names, so one pair of functions
converts them all: addresses and prefixes travel as text, and what there is none of as an empty one."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from functools import lru_cache
from ipaddress import IPv4Address, ip_address, ip_network
from typing import Any, Final, TypeVar

import grpc
from msgspec import Struct

from weft.admin import bgp as values
from weft.admin.v1 import bgp_pb2 as pb
from weft.admin.v1 import bgp_pb2_grpc as pb_grpc
from weft.model.address import IPAddress, IPNetwork, parse_address, parse_network
from weft.model.errors import ValidationError

T = TypeVar("T")
S = TypeVar("S", bound=Struct)

VIEWS: Final = {
    values.PathView.ALL: pb.ListBgpPathsRequest.ALL,
    values.PathView.BEST: pb.ListBgpPathsRequest.BEST,
    values.PathView.RECEIVED: pb.ListBgpPathsRequest.RECEIVED,
    values.PathView.ADVERTISED: pb.ListBgpPathsRequest.ADVERTISED,
}
_VIEWS: Final = {code: view for view, code in VIEWS.items()}
GIVE_WAY_AFTER: Final = 100
"""Prefixes, of which a thousand take some 50 ms: a reflector has its keepalives to send."""
OF_ONE_PEER: Final = frozenset({values.PathView.RECEIVED, values.PathView.ADVERTISED})

# Few addresses occur in a large table, each of them often.
_parse_ip: Final = lru_cache(maxsize=4096)(ip_address)
_PARSERS: Final[Mapping[str, Callable[[str], Any]]] = {
    "address": _parse_ip,
    "addresses": _parse_ip,
    "local_address": _parse_ip,
    "peer": _parse_ip,
    "next_hop": _parse_ip,
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

    def methods(self) -> Mapping[str, Callable[[bytes], Awaitable[bytes]]]:
        """What may be asked from another node, by full name, on serialized messages; every one only reads."""
        return {
            f"{self.name}/ListBgpPeers": _serialized(pb.ListBgpPeersRequest, self.ListBgpPeers),
            f"{self.name}/ListBgpPaths": _serialized(pb.ListBgpPathsRequest, self.ListBgpPaths),
            f"{self.name}/TraceBgp": _serialized(pb.TraceBgpRequest, self.TraceBgp),
            f"{self.name}/GetBgpConfig": _serialized(pb.GetBgpConfigRequest, self.GetBgpConfig),
        }

    def register(self, server: grpc.aio.Server) -> None:
        pb_grpc.add_BgpServiceServicer_to_server(self, server)

    async def ListBgpPeers(self, request: pb.ListBgpPeersRequest, context: object) -> pb.BgpPeers:
        peers = [to_message(pb.BgpPeer, one) for one in self._provider.peers()]
        return pb.BgpPeers(peers=peers, not_enforced=self._provider.not_enforced())

    async def ListBgpPaths(self, request: pb.ListBgpPathsRequest, context: object) -> pb.BgpPaths:
        view = _VIEWS.get(request.view)
        if view is None:
            raise ValidationError("", 0, "view", request.view, f"one of {', '.join(map(str, _VIEWS))}")
        peer = _address("peer", request.peer) if view in OF_ONE_PEER else None
        found: list[pb.BgpPath] = []
        for number, paths in enumerate(self._provider.paths(view, peer), start=1):
            found += [to_message(pb.BgpPath, one) for one in paths]
            if number % GIVE_WAY_AFTER == 0:
                await asyncio.sleep(0)
        return pb.BgpPaths(paths=found)

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


def _serialized(request: Any, method: Callable[[Any, object], Awaitable[Any]]) -> Callable[[bytes], Awaitable[bytes]]:
    async def call(raw: bytes) -> bytes:
        answer: bytes = (await method(request.FromString(raw), None)).SerializeToString()
        return answer

    return call


class BgpClient:
    """Asks a BgpServer. `exchange` takes a method's full name and its message, and brings the answer's message.

    Raises what the other side refuses, and what `exchange` raises."""

    def __init__(self, exchange: Callable[[str, bytes], Awaitable[bytes]]) -> None:
        self._exchange = exchange

    async def peers(self) -> tuple[list[values.PeerReport], list[str]]:
        """Also what is asked for and has no effect."""
        found = pb.BgpPeers.FromString(await self._ask("ListBgpPeers", pb.ListBgpPeersRequest()))
        return [to_value(values.PeerReport, one) for one in found.peers], list(found.not_enforced)

    async def paths(self, view: values.PathView, peer: str = "") -> list[values.PathReport]:
        """`peer` for what is received from or advertised to one."""
        request = pb.ListBgpPathsRequest(view=VIEWS[view], peer=peer)
        found = pb.BgpPaths.FromString(await self._ask("ListBgpPaths", request))
        return [to_value(values.PathReport, one) for one in found.paths]

    async def trace(self, destination: str) -> values.TraceReport:
        request = pb.TraceBgpRequest(destination=destination)
        return trace_value(pb.BgpTrace.FromString(await self._ask("TraceBgp", request)))

    async def config(self) -> values.ConfigReport:
        found = pb.BgpConfig.FromString(await self._ask("GetBgpConfig", pb.GetBgpConfigRequest()))
        return to_value(values.ConfigReport, found)

    async def _ask(self, method: str, request: Any) -> bytes:
        return await self._exchange(f"{BgpServer.name}/{method}", request.SerializeToString())


def to_message(cls: Callable[..., T], value: Any) -> T:
    """A value of this module's kinds as its message."""
    present = {name: getattr(value, name) for name in value.__struct_fields__}
    return cls(**{name: _plain(one) for name, one in present.items() if one is not None and one != ""})


def to_value(cls: type[S], message: Any) -> S:
    """The value again. Raises ValueError for an address that is none."""
    return cls(**{name: _parsed(name, message) for name in cls.__struct_fields__})


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
