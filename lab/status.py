"""What a running lab looks like: sessions, routes and workloads, read from the agents and the routers themselves."""

from __future__ import annotations

from typing import Any

import grpc

from lab import routers
from lab.netns import CommandError
from lab.state import Lab
from lab.topology import Host, Role
from weft.admin.v1 import status_pb2, status_pb2_grpc

AGENT_TIMEOUT_S = 3.0
ESTABLISHED = "Established"


def collect(lab: Lab) -> dict[str, Any]:
    """`sessions` (host, peer, address, state, info), `routes` (host, destination, next hops, origin), `workloads`,
    `processes` and `errors` (an agent or router that did not answer)."""
    sessions: list[dict[str, Any]] = []
    routes: list[dict[str, Any]] = []
    errors: list[str] = []
    for host in lab.topology.hosts:
        try:
            if host.role is Role.NODE:
                _of_node(lab, host, sessions, routes)
            elif host in lab.topology.routers:
                _of_router(lab, host, sessions, routes)
        except (grpc.RpcError, CommandError, OSError) as error:
            errors.append(f"{host.name}: {_words(error)}")
    return {
        "name": lab.name,
        "topology": lab.topology.kind,
        "hosts": [_host(lab, host) for host in lab.topology.hosts],
        "sessions": sessions,
        "routes": routes,
        "workloads": [
            {
                "node": one.node,
                "name": one.name,
                "namespace": one.namespace,
                "labels": one.labels,
                "addresses": one.addresses,
                "netns": lab.workload_netns(one.node, one.name).name,
            }
            for one in lab.state.workloads
        ],
        "errors": errors,
    }


def sessions(lab: Lab) -> list[dict[str, Any]]:
    """Those that `collect` has; what does not answer has none."""
    found: list[dict[str, Any]] = collect(lab)["sessions"]
    return found


def pending_sessions(lab: Lab) -> list[str]:
    """The sessions that the topology calls for and that are not established on both sides, in words."""
    up = {(one["host"], one["address"]) for one in sessions(lab) if one["state"] == ESTABLISHED}
    return [f"{host} -> {peer} ({address})" for host, peer, address in _wanted(lab) if (host, address) not in up]


def _wanted(lab: Lab) -> list[tuple[str, str, str]]:
    wanted = []
    for host in lab.topology.hosts:
        for peer in lab.topology.neighbours(host.name):
            segments = {interface.segment for interface in host.interfaces} - {"mgmt"}
            for interface in peer.interfaces:
                if interface.segment in segments:
                    wanted.append((host.name, peer.name, str(interface.ipv4.ip)))
                    if interface.ipv6 is not None:
                        wanted.append((host.name, peer.name, str(interface.ipv6.ip)))
    return wanted


def _host(lab: Lab, host: Host) -> dict[str, Any]:
    return {
        "name": host.name,
        "role": host.role.value,
        "netns": lab.netns(host.name).name,
        "addresses": [str(address) for one in host.interfaces for address in (one.ipv4, one.ipv6) if address],
        "processes": [
            {"name": one.name, "pid": one.pid, "alive": one.alive()} for one in lab.state.processes.get(host.name, [])
        ],
    }


def _of_node(lab: Lab, node: Host, sessions: list[dict[str, Any]], routes: list[dict[str, Any]]) -> None:
    for agent in ("bird-agent", "felix"):
        answer = agent_status(lab, node, agent)
        for session in answer.sessions:
            sessions.append(
                {
                    "host": node.name,
                    "peer": _name_of(lab, session.peer_ip),
                    "address": session.peer_ip,
                    "state": session.state,
                    "info": session.last_error,
                }
            )
        for route in answer.routes:
            routes.append(
                {
                    "host": node.name,
                    "destination": route.destination,
                    "next_hops": [hop.gateway or hop.interface for hop in route.next_hops],
                    "origin": status_pb2.Route.Origin.Name(route.origin),
                }
            )


def agent_status(lab: Lab, node: Host, agent: str) -> status_pb2.NodeStatus:
    """One agent's answer; `grpc.RpcError` when it does not give one in time."""
    socket = lab.host_directory(node.name) / f"{agent}.sock"
    with grpc.insecure_channel(f"unix:{socket}") as channel:
        stub = status_pb2_grpc.StatusServiceStub(channel)
        return stub.GetNodeStatus(status_pb2.GetNodeStatusRequest(), timeout=AGENT_TIMEOUT_S)


def _of_router(lab: Lab, router: Host, sessions: list[dict[str, Any]], routes: list[dict[str, Any]]) -> None:
    netns = lab.netns(router.name)
    for session in routers.sessions(netns, router, lab.host_directory(router.name)):
        sessions.append(
            {
                "host": router.name,
                "peer": session.peer,
                "address": session.address,
                "state": session.state,
                "info": session.info,
            }
        )
    for destination, next_hops in routers.routes(netns):
        routes.append(
            {
                "host": router.name,
                "destination": destination,
                "next_hops": next_hops.split(", ") if next_hops else [],
                "origin": "BGP",
            }
        )


def _name_of(lab: Lab, address: str) -> str:
    for host in lab.topology.hosts:
        for interface in host.interfaces:
            if address in (str(interface.ipv4.ip), str(interface.ipv6.ip) if interface.ipv6 else ""):
                return host.name
    return address


def _words(error: Exception) -> str:
    if isinstance(error, grpc.RpcError):
        return f"{error.code().name}: {error.details()}"
    return str(error).splitlines()[0]


def tables(found: dict[str, Any]) -> str:
    """The status as text for a terminal."""
    parts = [
        _table(
            "SESSIONS",
            ("HOST", "PEER", "ADDRESS", "STATE", "INFO"),
            [(one["host"], one["peer"], one["address"], one["state"], one["info"]) for one in found["sessions"]],
        ),
        _table(
            "ROUTES",
            ("HOST", "DESTINATION", "NEXT HOPS", "ORIGIN"),
            [
                (one["host"], one["destination"], ", ".join(one["next_hops"]), one["origin"].lower())
                for one in found["routes"]
            ],
        ),
        _table(
            "WORKLOADS",
            ("NODE", "NAME", "NAMESPACE", "ADDRESSES", "LABELS"),
            [
                (
                    one["node"],
                    one["name"],
                    one["namespace"],
                    ", ".join(one["addresses"]),
                    ",".join(f"{key}={value}" for key, value in sorted(one["labels"].items())),
                )
                for one in found["workloads"]
            ],
        ),
    ]
    parts += [f"not answering: {error}" for error in found["errors"]]
    return "\n\n".join(parts)


def _table(title: str, headings: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    widths = [max(len(row[column]) for row in [headings, *rows]) for column in range(len(headings))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in [headings, *rows]]
    return "\n".join([title, *(f"  {line.rstrip()}" for line in lines)])
