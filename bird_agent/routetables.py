"""The kernel's BGP routes: one table for the usual metrics, and one for each other metric of a family that a priority
asks for, as long as it has routes.

A prefix is in one of them. When its metric changes, the new route is there before the old one goes; of what an agent
left that died in between, the one that counts is kept. What writes, retries and repairs is the shared route table, of
which this keeps several; which metric a route has, it is told."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterable, Mapping
from typing import Final

from weft.model.address import IPNetwork
from weft.netlink.message import AF_INET, AF_INET6, Message
from weft.netlink.route import RouteOwner, Target, decode_route, dump_routes
from weft.netlink.routetable import RouteFailure, RouteTable
from weft.netlink.socket import NetlinkSocket

Make = Callable[[RouteOwner], tuple[RouteTable, Mapping[IPNetwork, Target]]]
"""A table for an owner, and the routes that are there already."""

Metric = tuple[int, int]
"""Of a family: its version and the number."""

_NO_METRIC: Final = 0xFFFFFFFF
"""No route of ours has it: what is usual in one family may be asked for in the other, whose table must not see it."""


class RouteTables:
    """See the module. `metrics` are those, beside the usual ones, that the kernel has routes of ours with."""

    def __init__(self, owner: RouteOwner, make: Make, metrics: Iterable[Metric] = ()) -> None:
        self._owner = owner
        self._make = make
        self._usual, found = make(owner)
        self.left_over = dict(found)
        self._usual.desire_only(self.left_over)
        self._others: dict[Metric, RouteTable] = {}
        self._metrics: dict[IPNetwork, int] = {}
        self._leaving: list[tuple[RouteTable, IPNetwork]] = []
        for metric in sorted(metrics):
            table, routes = self._with(metric)
            table.desire_only(routes)
            for prefix, target in routes.items():
                self._take_over(prefix, metric[1], target)

    def _take_over(self, prefix: IPNetwork, metric: int, target: Target) -> None:
        """A route that an earlier run left; of several to one prefix the kernel uses the one with the lowest metric."""
        before = self._metrics.get(prefix, self._usual_metric(prefix)) if prefix in self.left_over else None
        if before is not None and before < metric:
            self._leaving.append((self._others[prefix.version, metric], prefix))
            return
        if before is not None:
            self._leaving.append((self._of(prefix), prefix))
        self._metrics[prefix] = metric
        self.left_over[prefix] = target

    @property
    def failures(self) -> list[RouteFailure]:
        return [failure for table in self._all() for failure in table.failures]

    def actual(self) -> dict[IPNetwork, Target]:
        found: dict[IPNetwork, Target] = {}
        for table in self._all():
            found.update(table.actual())
        return found

    def desire(self, routes: Mapping[IPNetwork, Target | None], metrics: Mapping[IPNetwork, int]) -> None:
        """New targets, those in `metrics` with another metric than usual. Raises ValueError as the tables do."""
        if not metrics and not self._metrics:  # nearly always
            self._usual.desire(routes)
            return
        usual: dict[IPNetwork, Target | None] = {}
        for prefix, target in routes.items():
            wanted = metrics.get(prefix) if target is not None else None
            if wanted == self._usual_metric(prefix):
                wanted = None
            before = self._metrics.pop(prefix, None)
            if before is not None and before != wanted:
                self._leave(self._others[prefix.version, before], prefix, at_once=target is None)
            if wanted is None:
                usual[prefix] = target
            else:
                if before is None:
                    self._leave(self._usual, prefix, at_once=False)
                self._with((prefix.version, wanted))[0].desire({prefix: target})
                self._metrics[prefix] = wanted
        self._usual.desire(usual)

    def on_notifications(self, notifications: list[Message]) -> None:
        for table in self._all():
            table.on_notifications(notifications)

    def resync(self) -> None:
        for table in self._all():
            table.resync()

    def apply(self, now_s: float) -> list[RouteFailure]:
        """Write what differs. Raises OSError or DumpInterruptedError if the kernel cannot be read."""
        failures = [failure for table in self._all() for failure in table.apply(now_s)]
        leaving, self._leaving = self._leaving, []
        for table, prefix in leaving:
            if table is not self._of(prefix):  # it has not come back meanwhile
                table.desire({prefix: None})
        for table in {id(table): table for table, _ in leaving}.values():
            failures += table.apply(now_s)
        self._others = {metric: table for metric, table in self._others.items() if not table.has_nothing}
        return failures

    def _leave(self, table: RouteTable, prefix: IPNetwork, at_once: bool) -> None:
        if at_once:
            table.desire({prefix: None})
        else:
            self._leaving.append((table, prefix))

    def _with(self, metric: Metric) -> tuple[RouteTable, Mapping[IPNetwork, Target]]:
        if metric in self._others:
            return self._others[metric], {}
        version, number = metric
        owner = self._owner._replace(
            metric_ipv4=number if version == 4 else _NO_METRIC, metric_ipv6=number if version == 6 else _NO_METRIC
        )
        self._others[metric], found = self._make(owner)
        return self._others[metric], found

    def _of(self, prefix: IPNetwork) -> RouteTable:
        metric = self._metrics.get(prefix)
        return self._usual if metric is None else self._others[prefix.version, metric]

    def _usual_metric(self, prefix: IPNetwork) -> int:
        return self._owner.metric(AF_INET if prefix.version == 4 else AF_INET6)

    def _all(self) -> list[RouteTable]:
        return [self._usual, *self._others.values()]


def other_metrics(requests: NetlinkSocket, owner: RouteOwner) -> set[Metric]:
    """Those, beside the usual ones, of the routes of this protocol and table. Raises OSError, DumpInterruptedError."""
    found: set[Metric] = set()
    for version, family in ((4, AF_INET), (6, AF_INET6)):
        try:
            answers = requests.dump(dump_routes(family, owner))
        except OSError as error:
            if error.errno != errno.ENOENT:  # a table that nobody has used yet
                raise
            continue
        for answer in answers:
            route = decode_route(answer)
            if route is not None and route.metric != owner.metric(family):
                found.add((version, route.metric))
    return found
