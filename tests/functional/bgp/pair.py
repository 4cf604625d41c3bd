"""Our node and a BIRD, with routes both ways: what most tests start from."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from tempfile import TemporaryFile

from lab.netns import NetNs
from tests.functional.bgp.fabric import AgentNode, Bird, Store, bird_configuration

BODY = "local 10.1.0.254 as 65001; neighbor 10.1.0.1 as 64512; hold time 30;"
BLOCK = "10.65.0.0/26"
FIRST = {"203.0.113.0/24", "198.51.100.0/24"}


def configuration(routes: set[str]) -> str:
    return bird_configuration("10.1.0.254", [BODY], sorted(routes))


@dataclass
class Pair:
    """Our node and a BIRD, with routes both ways."""

    node: AgentNode
    bird: Bird
    store: Store

    def routes(self) -> set[str]:
        return set(self.node.routes())


@contextmanager
def nothing_deleted(netns: NetNs) -> Iterator[list[str]]:
    """Every BGP route that goes from the namespace's kernel meanwhile, in the end."""
    deleted: list[str] = []
    with TemporaryFile("w+") as seen:  # a pipe would be full after a thousand routes, and the monitor blind from there
        watch = netns.popen(["ip", "monitor", "route"], stdout=seen, text=True)
        time.sleep(0.2)
        try:
            yield deleted
        finally:
            time.sleep(0.2)
            watch.terminate()
            watch.wait()
            seen.seek(0)
            deleted += [line for line in seen.read().splitlines() if re.match(r"Deleted .* proto (bgp|186) ", line)]
