"""What felix tells the administrator of its node: endpoints, local routes, and what is not enforced."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from importlib.metadata import version
from ipaddress import ip_interface

from felix.calc.delta import LocalEndpoint, LocalHostEndpoint
from felix.programmer import NodeProgrammer
from weft.admin.status import (
    AgentStatus,
    EndpointStatus,
    NextHop,
    NodeStatus,
    Notice,
    RouteOrigin,
    RouteStatus,
    Severity,
)
from weft.datastore.syncer import SyncStatus
from weft.model import keys
from weft.model.keys import ResourceKey
from weft.policy.values import EndpointPolicy, Stage


class FelixStatus:
    """A `StatusProvider`: answers from memory."""

    def __init__(
        self,
        node: str,
        started_at_s: float,
        programmer: NodeProgrammer,
        workload_name: Callable[[ResourceKey], str],
        sync_status: Callable[[], SyncStatus],
        notices: Callable[[], list[Notice]],
    ) -> None:
        self._node = node
        self._started_at_s = started_at_s
        self._programmer = programmer
        self._workload_name = workload_name
        self._sync_status = sync_status
        self._more_notices = notices

    def node_status(self) -> NodeStatus:
        sync = self._sync_status()
        return NodeStatus(
            node=self._node,
            agent=AgentStatus(
                name="felix",
                version=version("weft"),
                pid=os.getpid(),
                started_at_s=self._started_at_s,
                datastore_connected=sync.connected,
                in_sync=sync.in_sync and self._programmer.ready,
                datastore_error=sync.last_error or "",
            ),
            routes=tuple(self._routes()),
            endpoints=(
                *(self._endpoint(one) for _, one in sorted(self._programmer.endpoints.items())),
                *(self._host_endpoint(one) for _, one in sorted(self._programmer.host_endpoints.items())),
            ),
            notices=tuple(self._notices(sync)),
        )

    def _routes(self) -> list[RouteStatus]:
        waiting = self._programmer.waiting_for_interface
        failing = self._programmer.failures
        local = [
            RouteStatus(
                prefix,
                (NextHop(None, interface),),
                RouteOrigin.WORKLOAD,
                installed=prefix not in waiting and f"route {prefix}" not in failing,
            )
            for prefix, interface in self._programmer.local_routes().items()
        ]
        blocks = [
            RouteStatus(cidr, (), RouteOrigin.BLOCK, installed=f"route {cidr}" not in failing)
            for cidr in self._programmer.blackholes
        ]
        return sorted([*local, *blocks], key=lambda one: (one.destination.version, one.destination))

    def _endpoint(self, endpoint: LocalEndpoint) -> EndpointStatus:
        state, detail = "up", ""
        waiting = self._programmer.waiting_for_interface.intersection(endpoint.addresses)
        failing = self._programmer.policy_problems(endpoint.interface)
        if failing:
            state, detail = "error", "; ".join(failing)
        elif waiting:
            state, detail = "pending", f"there is no interface {endpoint.interface} yet"
        return EndpointStatus(
            namespace=endpoint.key.namespace,
            name=endpoint.key.name,
            workload=self._workload_name(endpoint.key) or endpoint.key.name,
            interface=endpoint.interface,
            addresses=tuple(ip_interface(str(network)).ip for network in endpoint.addresses),
            policies=_policies([endpoint.policy]),
            profiles=tuple(key.name for key in endpoint.policy.profiles),
            state=state,
            detail=detail,
        )

    def _host_endpoint(self, endpoint: LocalHostEndpoint) -> EndpointStatus:
        failing = self._programmer.policy_problems(endpoint.interface)
        return EndpointStatus(
            namespace="",
            name=endpoint.key.name,
            workload="",
            interface=endpoint.interface,
            addresses=(),
            policies=_policies(endpoint.policy.of(stage) for stage in Stage),
            profiles=tuple(key.name for key in endpoint.policy.normal.profiles),
            state="error" if failing else "up",
            detail="; ".join(failing),
        )

    def _notices(self, sync: SyncStatus) -> list[Notice]:
        found = [
            Notice(Severity.NOT_ENFORCED, _subject(key.kind, key.namespace, key.name), "; ".join(why))
            for key, why in self._programmer.not_enforced.items()
        ]
        found += [
            Notice(Severity.WARNING, "kernel", f"{name}: {why}") for name, why in self._programmer.failures.items()
        ]
        told = {keys.path(key) for key in self._programmer.not_enforced}
        found += [Notice(Severity.WARNING, path, why) for path, why in sync.undecodable.items() if path not in told]
        return found + self._more_notices()


def _subject(kind: str, namespace: str, name: str) -> str:
    return f"{kind}/{namespace}/{name}" if namespace else f"{kind}/{name}"


def _policies(asked: Iterable[EndpointPolicy]) -> tuple[str, ...]:
    """In the order in which they are asked, each once."""
    found = (key for policy in asked for tier in policy.tiers for key in (*tier.ingress, *tier.egress))
    return tuple(f"{key.namespace}/{key.name}" if key.namespace else key.name for key in dict.fromkeys(found))
