"""Live connections cut after a policy change, in a table of 100,000, beside conntrack(8).

Ours goes the whole way, from the changed resource through the graph and the commit of the rules to the last marked
entry, and judges every connection by policy; what is refused is UDP to one port of a workload from as many clients,
in the first load all entries of the table, in the second 100 of them. Every run counts the marked entries afterwards,
and a real connection beside them must have fallen silent.

The rival, `conntrack -D`, is told an address and judges nothing. It deletes the entries, and cuts nothing: that is
checked, too. (`conntrack -U` marks as we do, but with 100,000 entries in the table version 1.4.7 gives up: ENOBUFS.)"""

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

from felix.rules.render_names import CUT_CONNECTION
from lab.netns import NetNs
from tests.bench.result import Result, pairs
from tests.fakes.conntrack_entries import batches, many
from tests.functional.conntrack.live import ADDRESSES, Live, Node, policy, speaking, workload
from weft.netlink.socket import NETLINK_NETFILTER, NetlinkSocket

ENTRIES = 100_000
KEPT, REFUSED = 80, 81
_CLIENTS, _OTHER_CLIENTS, _ELSEWHERE = 0x0B000000, 0x0C000000, "10.99.0.1"
_CHOSEN = ("-f", "ipv4", "--reply-src", ADDRESSES["w1"][4])


@contextmanager
def _node(refused: int) -> Iterator[tuple[Node, Live]]:
    made: list[NetNs] = []

    def netns(name: str) -> NetNs:
        made.append(NetNs(f"weft-{os.getpid()}-bench-{name}").create())
        return made[-1]

    node = Node(netns)
    try:
        node.start(workload("w1", {}), policy("p", "ingress", KEPT, REFUSED))
        live = node.connect("udp", "out", "w1", REFUSED, 4)
        _fill(node, _CLIENTS, refused, ADDRESSES["w1"][4])
        _fill(node, _OTHER_CLIENTS, ENTRIES - refused, _ELSEWHERE)
        yield node, live
    finally:
        node.close()
        for one in made:
            one.delete()


def _fill(node: Node, first_client: int, count: int, address: str) -> None:
    with node.host.enter(), NetlinkSocket(NETLINK_NETFILTER) as kernel:
        for batch in batches(many(count, first_client, address, REFUSED)):
            assert kernel.request(batch) == []


def _ms(work: Callable[[], object]) -> float:
    begin = time.perf_counter()
    work()
    return (time.perf_counter() - begin) * 1000


def _conntrack(node: Node, *arguments: str) -> None:
    subprocess.run(node.host.command(["conntrack", *arguments]), capture_output=True, check=True)


def _check_cut(node: Node, live: Live, refused: int) -> None:
    assert sum(mark & CUT_CONNECTION != 0 for mark in node.marks_of_all()) == refused + 1
    assert speaking([live], 0.02) == []


def _ours(node: Node, live: Live, refused: int) -> float:
    took = _ms(lambda: node.apply([policy("p", "ingress", KEPT)]))
    _check_cut(node, live, refused)
    node.apply([policy("p", "ingress", KEPT, REFUSED)])
    assert live.passes_both_ways(1)
    return took


def _rivals(node: Node, live: Live, refused: int) -> float:
    took = _ms(lambda: _conntrack(node, "-D", *_CHOSEN))
    assert node.marks_of_all() == []
    assert live.client_pushes(1), "it is not cut: its next packet makes a new entry"
    _fill(node, _CLIENTS, refused, ADDRESSES["w1"][4])
    return took


def cut_connections() -> list[Result]:
    results = []
    for refused in (ENTRIES, 100):
        with _node(refused) as (node, live):
            measured = pairs(partial(_ours, node, live, refused), partial(_rivals, node, live, refused), 6)
        name = f"a policy change that cuts {refused:,} of {ENTRIES:,} connections"
        results.append(measured.result(name, "conntrack -D", "ms", "under 1 s", lambda ms, _: ms < 1000))
    return results


BENCHMARKS = {"cut-connections": cut_connections}
