"""Which metric a learnt route has in the kernel: what its priority says, as Calico's BIRD has it.

Pure. A priority (less is better) travels as local preference: 2147483647 minus it. The normal one gives the metric that
all routes of ours have; another, which an import filter set or a peer of our AS sent, is the metric itself. A local
preference that is none (100, as everybody else uses it) says nothing about the kernel."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from bird_agent.bestpath import local_preference_of
from bird_agent.filters import MAX_PRIORITY
from bird_agent.rib import Best
from weft.model.address import IPNetwork
from weft.netlink.route import Target

LEAST_URGENT: Final = 1 << 30
"""A greater number is no priority: it is what a local preference of a million or less looks like."""


def priority_of(best: Best) -> int | None:
    """The priority of the paths that are used, which is the same for all of them; None: none."""
    priority = MAX_PRIORITY - local_preference_of(best[0]) if best else 0
    return priority if 0 < priority <= LEAST_URGENT else None


def metrics_of(
    routes: Mapping[IPNetwork, Target | None], best: Mapping[IPNetwork, Best], normal: tuple[int, int]
) -> dict[IPNetwork, int]:
    """Of those routes that are to have another metric than usual; `normal` is the priority of IPv4's and of IPv6's."""
    found: dict[IPNetwork, int] = {}
    last: Best = ()
    priority: int | None = None
    for prefix, target in routes.items():
        if target is None:
            continue
        paths = best.get(prefix, ())
        if paths is not last:  # prefixes with the same paths share them
            last, priority = paths, priority_of(paths)
        if priority is not None and priority != normal[prefix.version == 6]:
            found[prefix] = priority
    return found
