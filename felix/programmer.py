"""Bring what the graph computes into the kernel, in an order that never leaves a workload without its policy.

A change takes routes away first, then changes the policy, then adds routes; while the policy is not in the kernel no
route is added. Live connections that the new policy refuses are cut when it is in the kernel, by `cut_connections`,
which the owner calls between other work. What the CNI server programs ahead of the datastore's own notice of it is
held against notices that are older. No waiting, no clock: callers pass monotonic seconds, and call `on_tick` when
`due_s` has come."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol

from felix.ahead import Ahead
from felix.calc.delta import LocalEndpoint, LocalHostEndpoint, NodeDelta
from felix.calc.graph import Graph
from felix.dataplane.cutting import ConnectionCutter
from felix.dataplane.nft import NftDriver, Report
from felix.dataplane.sender_checks import SenderChecks
from felix.rules.changes import first_table
from felix.rules.render import Renderer
from weft.datastore.syncer import Deleted, InSync, SyncEvent, Unreadable, Upserted
from weft.model.address import IPAddress, IPNetwork
from weft.model.endpoint import WorkloadEndpoint
from weft.model.errors import WeftError
from weft.model.keys import Key, ResourceKey
from weft.netlink.message import Message
from weft.netlink.route import BLACKHOLE, RouteOwner, Target, device
from weft.netlink.routetable import RouteFailure, RouteTable
from weft.netlink.socket import DumpInterruptedError
from weft.policy.values import Policy

LOCAL_ROUTES = RouteOwner(protocol=80, metric_ipv4=0, metric_ipv6=512)

log = logging.getLogger(__name__)


class NotProgrammedError(WeftError):
    """The endpoint's policy or a route of it is not in the kernel: try again later."""


class NotReadyError(WeftError):
    """The datastore has not been read completely yet: try again."""


class Links(Protocol):
    def index(self, name: str) -> int | None:
        """The interface index now; None if there is no such interface."""


class NodeProgrammer:
    """The one owner of graph, renderer and drivers."""

    def __init__(
        self,
        graph: Graph,
        nft: NftDriver,
        routes: RouteTable,
        links: Links,
        now_s: Callable[[], float],
        connections: ConnectionCutter | None = None,
    ) -> None:
        """`connections` None: live connections are left alone. `sender_checks`, set before the first event: None
        leaves the kernel's check of senders as it is."""
        self._graph = graph
        self._renderer = Renderer()
        self._nft = nft
        self._routes = routes
        self._links = links
        self._now_s = now_s
        self._connections = connections
        self.sender_checks: SenderChecks | None = None
        self._ahead = Ahead()
        self._started = False
        self._retiring = False
        self._report = Report(False, {})
        self._local: dict[IPNetwork, str] = {}
        self._by_interface: dict[str, set[IPNetwork]] = {}
        self._held_back: dict[IPNetwork, str] = {}
        self._table_taken_over = False
        self.endpoints: dict[str, LocalEndpoint] = {}
        self.host_endpoints: dict[str, LocalHostEndpoint] = {}
        self.blackholes: set[IPNetwork] = set()
        self.not_enforced: dict[ResourceKey, tuple[str, ...]] = {}

    # --- what the datastore says --------------------------------------------------------------------------------

    def on_events(self, events: Sequence[SyncEvent]) -> None:
        """Take in a batch; the kernel follows before this returns, once the first snapshot is complete."""
        self._finish_retirements()
        for event in events:
            match event:
                case Upserted(key, value, _):
                    if self._ahead.passes(key, value):
                        self._graph.on_update(key, value)
                case Unreadable(key, raw, _):
                    if self._ahead.passes(key, None):
                        self._graph.on_unreadable(key, raw)
                case Deleted(key):
                    if self._ahead.passes(key, None):
                        self._graph.on_update(key, None)
                case InSync():
                    self._graph.on_in_sync()
                    self._started = True
        if self._started:
            self.flush()

    def overdue(self) -> list[Key]:
        """Endpoints whose notice did not come: ask the datastore for them and pass the answer to `settle`."""
        return self._ahead.overdue(self._now_s())

    def settle(self, key: Key, value: WorkloadEndpoint | None) -> None:
        """The datastore's own word on an endpoint."""
        self._ahead.forget(key)
        self._graph.on_update(key, value)
        self.flush()

    # --- what the CNI server asks -------------------------------------------------------------------------------

    async def program(self, endpoint: WorkloadEndpoint) -> None:
        """As `felix.cni.ports.Programmer.program`."""
        key = key_of(endpoint)
        self._require_started()
        self._finish_retirements()
        self._ahead.note(key, endpoint, self._now_s())
        self._graph.on_update(key, endpoint)
        self.flush()
        self._require_programmed(endpoint)

    async def remove(self, key: ResourceKey) -> None:
        """As `felix.cni.ports.Programmer.remove`."""
        self.retire(key)
        self._finish_retirements()

    def retire(self, key: ResourceKey) -> None:
        """As `felix.cni.ports.Programmer.retire`: the kernel follows with the datastore's notice of it."""
        self._require_started()
        self._ahead.note(key, None, self._now_s())
        self._graph.on_update(key, None)
        self._retiring = True

    def _finish_retirements(self) -> None:
        """Before an interface of the same name can be programmed: the graph alone would see no difference."""
        if self._retiring:
            self.flush()

    def _require_started(self) -> None:
        if not self._started:
            raise NotReadyError("the datastore has not been read completely yet")

    def _require_programmed(self, endpoint: WorkloadEndpoint) -> None:
        interface = endpoint.spec.interface_name
        problems = self._nft.problems_of(interface)
        if problems:
            raise NotProgrammedError(f"policy of {interface}: {'; '.join(problems)}")
        wanted = set(endpoint.spec.ip_networks)
        if wanted & self._held_back.keys() or self._by_interface.get(interface, set()) != wanted:
            raise NotProgrammedError(f"routes of {interface}: there is no such interface, or another has its address")
        for failure in self._routes.failures:
            if failure.prefix in wanted:
                raise NotProgrammedError(f"route {failure.prefix}: {failure.text}")

    # --- what the kernel says -----------------------------------------------------------------------------------

    def on_links(self, changed: Mapping[str, int | None]) -> None:
        """Links came, went, or changed state: name -> index, None: it is gone."""
        touched = False
        for name, index in changed.items():
            if index is not None and self.sender_checks is not None:
                self.sender_checks.on_link(name, index, self._is_programmed)
            prefixes = self._by_interface.get(name)
            if not prefixes:
                continue
            touched = True
            target = device(index) if index is not None else None
            for prefix in prefixes:
                self._aim(prefix, name, target)
            if index is not None:
                self._routes.on_link_change(index)
        if touched and self._started:
            self._apply_routes()

    def on_interfaces(self, addresses: Mapping[str, frozenset[IPAddress]]) -> None:
        """The node's own interfaces with their addresses, all of them: host endpoints are found by these."""
        self._graph.on_interfaces(addresses)
        if self._started:
            self.flush()

    def on_route_notifications(self, notifications: Iterable[Message]) -> None:
        self._routes.on_notifications(notifications)
        if self._started:
            self._apply_routes()

    def on_foreign_table_change(self) -> None:
        if self._started:
            log.warning("somebody else changed our nft table: reading it again")
            self._note_report(self._nft.on_foreign_change(self._now_s()))

    def resync_routes(self) -> None:
        """Notifications were lost."""
        self._routes.resync()
        if self._started:
            for prefix, interface in self._local.items():
                self._aim(prefix, interface, self._target(interface))
            self._apply_routes()

    def due_s(self) -> float | None:
        """When `on_tick` has something to do."""
        times = [self._nft.retry_at_s, self._routes.retry_at_s(), *self._ahead.until_s.values()]
        if self._connections is not None:
            times.append(self._connections.retry_at_s)
        return min((one for one in times if one is not None), default=None)

    def on_tick(self) -> None:
        """Try again what is due."""
        if not self._started:
            return
        self._finish_retirements()
        self._note_report(self._nft.on_tick(self._now_s()))
        self._release_held_back()
        self._apply_routes()

    def cut_connections(self) -> bool:
        """A bounded piece of work on live connections that policy refuses now; True: there is more to do at once.

        Nothing while the policy is not in the kernel: it could not be kept from making new ones."""
        if self._connections is None or not self._report.in_kernel:
            return False
        return self._connections.step(self._now_s())

    # --- into the kernel ----------------------------------------------------------------------------------------

    def flush(self) -> None:
        self._retiring = False
        delta = self._graph.flush()
        if not delta and self._table_taken_over:
            return
        self._note(delta)
        self._withdraw_routes(delta)
        if self.sender_checks is not None:
            self.sender_checks.before_policy(delta.endpoints, take_over=not self._table_taken_over)
        self._apply_policy(delta)
        if self.sender_checks is not None:
            self.sender_checks.after_policy(delta.endpoints, self._is_programmed)
        if self._connections is not None:
            self._connections.on_delta(delta)
        self._add_routes(delta)
        self._apply_routes()

    @property
    def ready(self) -> bool:
        """The snapshot was complete and the kernel has followed it."""
        return self._started and self._report.in_kernel

    @property
    def failures(self) -> dict[str, str]:
        """What is not as desired, in words."""
        routes = {f"route {one.prefix}": one.text for one in self._routes.failures}
        connections = self._connections.failures if self._connections is not None else {}
        senders = self.sender_checks.failures if self.sender_checks is not None else {}
        return {**self._report.failed, **routes, **connections, **senders}

    def policy_problems(self, interface: str) -> list[str]:
        """Why the policy of an interface is not in the kernel as it should be; empty if it is."""
        return self._nft.problems_of(interface)

    @property
    def waiting_for_interface(self) -> frozenset[IPNetwork]:
        """Prefixes of endpoints whose host interface does not exist."""
        return frozenset(self._held_back)

    @property
    def policies(self) -> Mapping[ResourceKey, Policy]:
        """Those that local endpoints use."""
        return self._renderer.policies

    def holders(self, addresses: set[IPAddress]) -> Mapping[IPAddress, ResourceKey]:
        """Endpoints of the whole cluster that have these addresses."""
        return self._graph.holders(addresses)

    def local_routes(self) -> dict[IPNetwork, str]:
        """Prefix -> host interface, of the local workloads."""
        return dict(self._local)

    def _note(self, delta: NodeDelta) -> None:
        for interface, endpoint in delta.endpoints.items():
            if endpoint is None:
                self.endpoints.pop(interface, None)
            else:
                self.endpoints[interface] = endpoint
        for interface, host_endpoint in delta.host_endpoints.items():
            if host_endpoint is None:
                self.host_endpoints.pop(interface, None)
            else:
                self.host_endpoints[interface] = host_endpoint
        for key, why in delta.not_enforced.items():
            if why is None:
                self.not_enforced.pop(key, None)
            else:
                log.warning("%s %s: not enforced: %s", key.kind, key.name, "; ".join(why))
                self.not_enforced[key] = why

    def _withdraw_routes(self, delta: NodeDelta) -> None:
        gone = {prefix: None for prefix, interface in delta.routes.items() if interface is None}
        gone |= {cidr: None for cidr, mine in delta.blackholes.items() if mine is None and cidr not in delta.routes}
        for prefix in gone:
            self._forget_route(prefix)
            self.blackholes.discard(prefix)
        if gone:
            self._routes.desire(gone)
            self._apply_routes()

    def _apply_policy(self, delta: NodeDelta) -> None:
        changes = self._renderer.render(delta)
        if not self._table_taken_over:
            self._table_taken_over = True
            self._note_report(self._nft.start(first_table(changes), self._now_s()))
        elif changes:
            self._note_report(self._nft.apply(changes, self._now_s()))

    def _is_programmed(self, interface: str) -> bool:
        return self._report.in_kernel and not self._nft.problems_of(interface)

    def _add_routes(self, delta: NodeDelta) -> None:
        for cidr, mine in delta.blackholes.items():
            if mine:
                self.blackholes.add(cidr)
                self._routes.desire({cidr: BLACKHOLE})
        for prefix, interface in delta.routes.items():
            if interface is not None:
                self._forget_route(prefix)
                self._local[prefix] = interface
                self._by_interface.setdefault(interface, set()).add(prefix)
                self._held_back[prefix] = interface
        self._release_held_back()

    def _release_held_back(self) -> None:
        """Routes wait until the policy is in the kernel and their interface is there."""
        if not self._report.in_kernel:
            return
        for prefix, interface in list(self._held_back.items()):
            self._aim(prefix, interface, self._target(interface))

    def _aim(self, prefix: IPNetwork, interface: str, target: Target | None) -> None:
        if target is None or not self._report.in_kernel:
            self._held_back[prefix] = interface
            self._routes.desire({prefix: None})
        else:
            self._held_back.pop(prefix, None)
            self._routes.desire({prefix: target})

    def _target(self, interface: str) -> Target | None:
        index = self._links.index(interface)
        return device(index) if index is not None else None

    def _forget_route(self, prefix: IPNetwork) -> None:
        self._held_back.pop(prefix, None)
        interface = self._local.pop(prefix, None)
        if interface is not None:
            self._by_interface[interface].discard(prefix)
            if not self._by_interface[interface]:
                del self._by_interface[interface]

    def _apply_routes(self) -> None:
        try:
            failures = self._routes.apply(self._now_s())
        except (OSError, DumpInterruptedError) as error:
            log.warning("cannot read the kernel's routes, trying again: %s", error)
            return
        for failure in failures:
            self._log_route(failure)

    def _log_route(self, failure: RouteFailure) -> None:
        if failure.attempts == 1:
            log.warning("route %s: %s; trying again", failure.prefix, failure.text)

    def _note_report(self, report: Report) -> None:
        if report.failed != self._report.failed:
            for name, why in report.failed.items():
                log.error("nft: %s: %s; trying again", name, why)
            if report.in_kernel and not report.failed and self._report.failed:
                log.info("nft: everything is in the kernel again")
        self._report = report


def key_of(endpoint: WorkloadEndpoint) -> ResourceKey:
    return ResourceKey("WorkloadEndpoint", endpoint.metadata.name, endpoint.metadata.namespace)
