"""What felix tells the administrator of its node: endpoints, local routes, and what is not enforced."""

from __future__ import annotations

import os
from collections.abc import Callable
from importlib.metadata import version
from ipaddress import ip_interface

from felix.calc.delta import LocalEndpoint
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
            endpoints=tuple(self._endpoint(one) for _, one in sorted(self._programmer.endpoints.items())),
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
        policies = [
            f"{key.namespace}/{key.name}" if key.namespace else key.name
            for tier in endpoint.policy.tiers
            for key in dict.fromkeys((*tier.ingress, *tier.egress))
        ]
        return EndpointStatus(
            namespace=endpoint.key.namespace,
            name=endpoint.key.name,
            workload=self._workload_name(endpoint.key) or endpoint.key.name,
            interface=endpoint.interface,
            addresses=tuple(ip_interface(str(network)).ip for network in endpoint.addresses),
            policies=tuple(policies),
            profiles=tuple(key.name for key in endpoint.policy.profiles),
            state=state,
            detail=detail,
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
