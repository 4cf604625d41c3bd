"""Best paths as kernel routes: main table, protocol 186, metric 1024 (IPv6: 2048) unless their priority is another.

`Fib` holds on to the routes that an earlier run left in the kernel until `sweep`, so that a restart never takes one
away that is about to be learnt again. Writing, retrying and repairing is the shared route table's; whether a path is
best is the RIB's."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import IPv4Network
from typing import Final

from bird_agent.bestpath import Path
from bird_agent.nexthops import NextHops
from bird_agent.rib import Best
from bird_agent.routetables import RouteTables, other_metrics
from weft.model.address import IPAddress, IPNetwork
from weft.netlink.route import Hop, RouteOwner, Target, unpack, via
from weft.netlink.routetable import KernelRoutes, RouteFailure, RouteTable
from weft.netlink.socket import NetlinkSocket

_ANYWHERE: Final = IPv4Network("0.0.0.0/0")
_WIDTHS: Final = {4: 32, 6: 128}

OWNER: Final = RouteOwner(protocol=186, metric_ipv4=1024, metric_ipv6=2048)


def target_of(prefix: IPNetwork, best: Best, next_hops: NextHops) -> Target | None:
    """Where the kernel should send packets to `prefix`: to every equally good path. None: nowhere of ours.

    A gateway has no route through itself: it is a neighbour already, and IPv6 refuses every other route by way of a
    gateway that has a gateway."""
    hops: dict[Hop, None] = {}
    for path in best:
        reach = next_hops.reach(path.next_hop)
        if reach is None or (reach.through is not None and reach.through == prefix):
            continue  # a route that would lead to itself
        hops.update(dict.fromkeys(hop for hop in reach.hops if not _is_only(prefix, hop.gateway)))
    return via(*hops) if hops else None


def targets_of(bests: Mapping[IPNetwork, Best], next_hops: NextHops) -> dict[IPNetwork, Target | None]:
    """`target_of` each of many prefixes. What is the same for all prefixes with the same paths is worked out once."""
    shared: dict[int, Target | None] = {0: None}  # by the identity of the paths, which `bests` keeps
    found: dict[IPNetwork, Target | None] = {}
    last: Best = ()
    which = 0
    for prefix, best in bests.items():
        if best is not last:
            last, which = best, id(best) if best else 0
            if which not in shared and not any(_leads_through_a_prefix(path, next_hops) for path in best):
                shared[which] = target_of(_ANYWHERE, best, next_hops)
        if which in shared and prefix.prefixlen != _WIDTHS[prefix.version]:
            found[prefix] = shared[which]
        else:
            found[prefix] = target_of(prefix, best, next_hops)
    return found


def _leads_through_a_prefix(path: Path, next_hops: NextHops) -> bool:
    reach = next_hops.reach(path.next_hop)
    return reach is not None and reach.through is not None


def _is_only(prefix: IPNetwork, address: IPAddress | None) -> bool:
    return prefix.prefixlen == prefix.max_prefixlen and prefix.network_address == address


class Fib:
    """The kernel's side of the RIB. `tables` are of `OWNER`, and hold what an earlier run left."""

    def __init__(self, tables: RouteTables) -> None:
        self._tables = tables
        self._held = dict(tables.left_over)

    def change(self, routes: Mapping[IPNetwork, Target | None], metrics: Mapping[IPNetwork, int]) -> None:
        """New targets, and the metrics of those that have not the usual one; None for prefixes that have no path any
        more. While leftovers are held, only a route that was learnt and is lost again goes."""
        for prefix in routes if self._held else ():
            self._held.pop(prefix, None)
        self._tables.desire(routes, metrics)

    def sweep(self) -> int:
        """Everything has been learnt: leftovers that nobody announced go. How many those are."""
        gone = dict.fromkeys(self._held)
        self._tables.desire(gone, {})
        self._held.clear()
        return len(gone)

    def apply(self, now_s: float) -> list[RouteFailure]:
        """Write what differs. Raises OSError or DumpInterruptedError if the kernel cannot be read."""
        return self._tables.apply(now_s)


def kernel_tables(requests: NetlinkSocket) -> RouteTables:
    """Those of the socket's network namespace, with what is there. Raises OSError, DumpInterruptedError."""

    def make(owner: RouteOwner) -> tuple[RouteTable, dict[IPNetwork, Target]]:
        kernel = KernelRoutes(requests, owner)
        return RouteTable(kernel, owner), {unpack(packed): target for packed, target in kernel.read().items()}

    return RouteTables(OWNER, make, other_metrics(requests, OWNER))
