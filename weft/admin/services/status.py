"""StatusService: an agent's part of the node status, as messages and back.

Decides nothing; the agent's provider does."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from ipaddress import ip_address, ip_network
from typing import TypeVar

import grpc

from weft.admin import status as values
from weft.admin.v1 import status_pb2 as pb
from weft.admin.v1 import status_pb2_grpc as pb_grpc

E = TypeVar("E", bound=Enum)
M = TypeVar("M", bound=int)

SESSION_TYPES = {
    values.SessionType.NODE_TO_NODE_MESH: pb.Session.NODE_TO_NODE_MESH,
    values.SessionType.NODE_SPECIFIC: pb.Session.NODE_SPECIFIC,
    values.SessionType.GLOBAL: pb.Session.GLOBAL,
}
ORIGINS = {
    values.RouteOrigin.BGP: pb.Route.BGP,
    values.RouteOrigin.WORKLOAD: pb.Route.WORKLOAD,
    values.RouteOrigin.BLOCK: pb.Route.BLOCK,
}
SEVERITIES = {
    values.Severity.INFO: pb.Notice.INFO,
    values.Severity.WARNING: pb.Notice.WARNING,
    values.Severity.NOT_ENFORCED: pb.Notice.NOT_ENFORCED,
}


class StatusServer(pb_grpc.StatusServiceServicer):
    """Serves what `provider` answers."""

    name = "weft.admin.v1.StatusService"

    def __init__(self, provider: values.StatusProvider) -> None:
        self._provider = provider

    def register(self, server: grpc.aio.Server) -> None:
        pb_grpc.add_StatusServiceServicer_to_server(self, server)

    async def GetNodeStatus(self, request: pb.GetNodeStatusRequest, context: object) -> pb.NodeStatus:
        return to_message(self._provider.node_status())


def to_message(status: values.NodeStatus) -> pb.NodeStatus:
    agent = status.agent
    return pb.NodeStatus(
        node=status.node,
        agent=pb.Agent(
            name=agent.name,
            version=agent.version,
            pid=agent.pid,
            started_at_s=agent.started_at_s,
            datastore_connected=agent.datastore_connected,
            in_sync=agent.in_sync,
            datastore_error=agent.datastore_error,
        ),
        sessions=[_session_message(session) for session in status.sessions],
        routes=[_route_message(route) for route in status.routes],
        endpoints=[_endpoint_message(endpoint) for endpoint in status.endpoints],
        notices=[
            pb.Notice(severity=SEVERITIES[notice.severity], subject=notice.subject, text=notice.text)
            for notice in status.notices
        ],
    )


def from_message(message: pb.NodeStatus) -> values.NodeStatus:
    """The value again. Raises ValueError for an address that is none."""
    agent = message.agent
    return values.NodeStatus(
        node=message.node,
        agent=values.AgentStatus(
            name=agent.name,
            version=agent.version,
            pid=agent.pid,
            started_at_s=agent.started_at_s,
            datastore_connected=agent.datastore_connected,
            in_sync=agent.in_sync,
            datastore_error=agent.datastore_error,
        ),
        sessions=tuple(_session_value(session) for session in message.sessions),
        routes=tuple(_route_value(route) for route in message.routes),
        endpoints=tuple(_endpoint_value(endpoint) for endpoint in message.endpoints),
        notices=tuple(
            values.Notice(_key_of(SEVERITIES, notice.severity), notice.subject, notice.text)
            for notice in message.notices
        ),
    )


def _key_of(table: Mapping[E, M], code: int) -> E:
    for value, known in table.items():
        if known == code:
            return value
    raise ValueError(f"{code} is none of {sorted(table.values())}")


def _session_message(session: values.SessionStatus) -> pb.Session:
    return pb.Session(
        peer_ip=str(session.peer_ip),
        peer_as=session.peer_as,
        local_as=session.local_as,
        type=SESSION_TYPES[session.type],
        state=session.state,
        since_s=session.since_s,
        last_error=session.last_error,
        resource=session.resource,
        routes_received=session.routes_received,
        routes_announced=session.routes_announced,
        restarting=session.restarting,
    )


def _session_value(session: pb.Session) -> values.SessionStatus:
    return values.SessionStatus(
        peer_ip=ip_address(session.peer_ip),
        peer_as=session.peer_as,
        local_as=session.local_as,
        type=_key_of(SESSION_TYPES, session.type),
        state=session.state,
        since_s=session.since_s,
        last_error=session.last_error,
        resource=session.resource,
        routes_received=session.routes_received,
        routes_announced=session.routes_announced,
        restarting=session.restarting,
    )


def _route_message(route: values.RouteStatus) -> pb.Route:
    return pb.Route(
        destination=str(route.destination),
        next_hops=[
            pb.NextHop(gateway="" if hop.gateway is None else str(hop.gateway), interface=hop.interface)
            for hop in route.next_hops
        ],
        origin=ORIGINS[route.origin],
        peers=route.peers,
        as_path=route.as_path,
        installed=route.installed,
    )


def _route_value(route: pb.Route) -> values.RouteStatus:
    return values.RouteStatus(
        destination=ip_network(route.destination),
        next_hops=tuple(
            values.NextHop(ip_address(hop.gateway) if hop.gateway else None, hop.interface) for hop in route.next_hops
        ),
        origin=_key_of(ORIGINS, route.origin),
        peers=tuple(route.peers),
        as_path=route.as_path,
        installed=route.installed,
    )


def _endpoint_message(endpoint: values.EndpointStatus) -> pb.Endpoint:
    return pb.Endpoint(
        namespace=endpoint.namespace,
        name=endpoint.name,
        workload=endpoint.workload,
        interface=endpoint.interface,
        addresses=[str(address) for address in endpoint.addresses],
        policies=endpoint.policies,
        profiles=endpoint.profiles,
        state=endpoint.state,
        detail=endpoint.detail,
    )


def _endpoint_value(endpoint: pb.Endpoint) -> values.EndpointStatus:
    return values.EndpointStatus(
        namespace=endpoint.namespace,
        name=endpoint.name,
        workload=endpoint.workload,
        interface=endpoint.interface,
        addresses=tuple(ip_address(address) for address in endpoint.addresses),
        policies=tuple(endpoint.policies),
        profiles=tuple(endpoint.profiles),
        state=endpoint.state,
        detail=endpoint.detail,
    )
