"""How the status of a node looks: calicoctl's BGP tables, then routes, endpoints and notices. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from weft.admin.status import EndpointStatus, NodeStatus, RouteStatus, SessionStatus, Severity
from weft.ctl.tables import columns, grid, plain

PEER_HEADINGS = ("PEER ADDRESS", "PEER TYPE", "STATE", "SINCE", "INFO")
WIDE_PEER_HEADINGS = (*PEER_HEADINGS, "PEER AS", "RECEIVED", "ANNOUNCED", "RESOURCE")
# Of a full routing table only the beginning is of use on a screen.
MOST_ROUTES = 50


def tables(statuses: Sequence[NodeStatus], missing: Mapping[str, str], now_s: float, wide: bool) -> str:
    if not statuses:
        return "weft is not running: no agent answers.\n"
    parts = [f"Node {next((one.node for one in statuses if one.node), '(unnamed)')}\n\n"]
    parts.append(_agents(statuses, missing, now_s))
    if any(one.agent.name == "bird-agent" for one in statuses):
        sessions = [session for one in statuses for session in one.sessions]
        parts += [_sessions(version, sessions, now_s, wide) for version in (4, 6)]
    parts.append(_routes([route for one in statuses for route in one.routes], wide))
    if any(one.agent.name == "felix" for one in statuses):
        endpoints = [endpoint for one in statuses for endpoint in one.endpoints]
        parts.append(_endpoints([one for one in endpoints if one.namespace], wide))
        parts.append(_host_endpoints([one for one in endpoints if not one.namespace], wide))
    parts.append(_notices(statuses))
    return "".join(parts)


def _agents(statuses: Sequence[NodeStatus], missing: Mapping[str, str], now_s: float) -> str:
    rows = [
        (one.agent.name, "running", since(one.agent.started_at_s, now_s), one.agent.version, datastore_state(one))
        for one in statuses
    ]
    rows += [(name, "not answering", "", "", failure) for name, failure in missing.items()]
    return columns(("AGENT", "STATE", "SINCE", "VERSION", "DATASTORE"), rows)


def datastore_state(status: NodeStatus) -> str:
    agent = status.agent
    if not agent.datastore_connected:
        return f"not connected: {agent.datastore_error}" if agent.datastore_error else "not connected"
    return "in sync" if agent.in_sync else "reading"


def since(at_s: float, now_s: float) -> str:
    """Time of day for the last day, the date before that; local time."""
    if not at_s:
        return "-"
    moment = datetime.fromtimestamp(at_s)
    return moment.strftime("%H:%M:%S") if now_s - at_s < 86400 else moment.strftime("%Y-%m-%d")


def _sessions(version: int, sessions: Sequence[SessionStatus], now_s: float, wide: bool) -> str:
    title = f"\nIPv{version} BGP status\n"
    mine = sorted((one for one in sessions if one.peer_ip.version == version), key=lambda one: int(one.peer_ip))
    if not mine:
        return f"{title}No IPv{version} peers found.\n"
    rows = []
    for one in mine:
        row = (
            str(one.peer_ip),
            one.type.value,
            "up" if one.established else "start",
            since(one.since_s, now_s),
            session_info(one),
        )
        extra = (str(one.peer_as), str(one.routes_received), str(one.routes_announced), one.resource)
        rows.append((*row, *extra) if wide else row)
    return title + grid(WIDE_PEER_HEADINGS if wide else PEER_HEADINGS, rows)


def session_info(session: SessionStatus) -> str:
    parts = [session.state]
    if session.restarting:
        parts.append("(peer away, its routes are kept)")
    if session.last_error and not session.established:
        parts.append(session.last_error)
    return " ".join(parts)


def _routes(routes: Sequence[RouteStatus], wide: bool) -> str:
    if not routes:
        return "\nNo routes.\n"
    ordered = sorted(routes, key=_route_order)
    shown = ordered if wide else ordered[:MOST_ROUTES]
    rows = [
        (
            str(route.destination),
            next_hops(route),
            route.origin.value,
            ", ".join(route.peers),
            route.as_path,
            "yes" if route.installed else "no",
        )
        for route in shown
    ]
    table = columns(("DESTINATION", "NEXT HOPS", "ORIGIN", "FROM", "AS PATH", "INSTALLED"), rows)
    left = len(ordered) - len(shown)
    return f"\nRoutes\n{table}" + (f"... and {left} more (-o wide shows all)\n" if left else "")


def _route_order(route: RouteStatus) -> tuple[int, int, int]:
    network = route.destination
    return network.version, int(network.network_address), network.prefixlen


def next_hops(route: RouteStatus) -> str:
    hops = []
    for hop in route.next_hops:
        via = [f"via {hop.gateway}"] if hop.gateway is not None else []
        hops.append(" ".join([*via, *([f"dev {hop.interface}"] if hop.interface else [])]) or "blackhole")
    return ", ".join(hops) or "blackhole"


def _endpoints(endpoints: Sequence[EndpointStatus], wide: bool) -> str:
    if not endpoints:
        return "\nNo endpoints.\n"
    headings: tuple[str, ...] = ("NAMESPACE", "WORKLOAD", "INTERFACE", "ADDRESSES", "STATE", "POLICIES")
    rows = []
    for one in sorted(endpoints, key=lambda one: (one.namespace, one.name)):
        row = (
            one.namespace,
            one.workload or one.name,
            one.interface,
            ",".join(map(str, one.addresses)),
            _state(one),
            ",".join(one.policies),
        )
        rows.append((*row, ",".join(one.profiles), one.name) if wide else row)
    return "\nEndpoints\n" + columns((*headings, "PROFILES", "NAME") if wide else headings, rows)


def _host_endpoints(endpoints: Sequence[EndpointStatus], wide: bool) -> str:
    """Nothing where there is none: few nodes have any."""
    if not endpoints:
        return ""
    headings: tuple[str, ...] = ("NAME", "INTERFACE", "STATE", "POLICIES")
    rows = []
    for one in sorted(endpoints, key=lambda one: (one.name, one.interface)):
        row = (one.name, one.interface, _state(one), ",".join(one.policies))
        rows.append((*row, ",".join(one.profiles)) if wide else row)
    return "\nHost endpoints\n" + columns((*headings, "PROFILES") if wide else headings, rows)


def _state(endpoint: EndpointStatus) -> str:
    return f"{endpoint.state}: {endpoint.detail}" if endpoint.detail else endpoint.state


def _notices(statuses: Sequence[NodeStatus]) -> str:
    notices = list(dict.fromkeys(notice for one in statuses for notice in one.notices))
    if not notices:
        return ""
    order = (Severity.NOT_ENFORCED, Severity.WARNING, Severity.INFO)
    lines = [
        f"{notice.severity.value.capitalize()}: {plain(notice.subject)}: {plain(notice.text)}"
        for notice in sorted(notices, key=lambda notice: (order.index(notice.severity), notice.subject))
    ]
    return "\n" + "\n".join(lines) + "\n"


def tree(statuses: Sequence[NodeStatus], missing: Mapping[str, str]) -> dict[str, Any]:
    """Everything, for programs; times are seconds since the epoch."""
    notices = dict.fromkeys(notice for one in statuses for notice in one.notices)
    return {
        "node": next((one.node for one in statuses if one.node), ""),
        "agents": [_agent_tree(one) for one in statuses],
        "notAnswering": [{"name": name, "reason": reason} for name, reason in missing.items()],
        "sessions": [_session_tree(session) for one in statuses for session in one.sessions],
        "routes": [_route_tree(route) for one in statuses for route in one.routes],
        "endpoints": [_endpoint_tree(endpoint) for one in statuses for endpoint in one.endpoints if endpoint.namespace],
        "hostEndpoints": [
            _host_endpoint_tree(endpoint) for one in statuses for endpoint in one.endpoints if not endpoint.namespace
        ],
        "notices": [
            {"severity": notice.severity.value, "subject": notice.subject, "text": notice.text} for notice in notices
        ],
    }


def _agent_tree(status: NodeStatus) -> dict[str, Any]:
    agent = status.agent
    return {
        "name": agent.name,
        "version": agent.version,
        "pid": agent.pid,
        "startedAt": agent.started_at_s,
        "datastoreConnected": agent.datastore_connected,
        "inSync": agent.in_sync,
        "datastoreError": agent.datastore_error,
    }


def _session_tree(session: SessionStatus) -> dict[str, Any]:
    return {
        "peerIP": str(session.peer_ip),
        "peerAS": session.peer_as,
        "localAS": session.local_as,
        "type": session.type.value,
        "state": session.state,
        "since": session.since_s,
        "lastError": session.last_error,
        "resource": session.resource,
        "routesReceived": session.routes_received,
        "routesAnnounced": session.routes_announced,
        "restarting": session.restarting,
    }


def _route_tree(route: RouteStatus) -> dict[str, Any]:
    return {
        "destination": str(route.destination),
        "nextHops": [
            {"gateway": "" if hop.gateway is None else str(hop.gateway), "interface": hop.interface}
            for hop in route.next_hops
        ],
        "origin": route.origin.value,
        "peers": list(route.peers),
        "asPath": route.as_path,
        "installed": route.installed,
    }


def _endpoint_tree(endpoint: EndpointStatus) -> dict[str, Any]:
    return {
        "namespace": endpoint.namespace,
        "name": endpoint.name,
        "workload": endpoint.workload,
        "interface": endpoint.interface,
        "addresses": list(map(str, endpoint.addresses)),
        "policies": list(endpoint.policies),
        "profiles": list(endpoint.profiles),
        "state": endpoint.state,
        "detail": endpoint.detail,
    }


def _host_endpoint_tree(endpoint: EndpointStatus) -> dict[str, Any]:
    shown = _endpoint_tree(endpoint)
    return {name: shown[name] for name in ("name", "interface", "policies", "profiles", "state", "detail")}
