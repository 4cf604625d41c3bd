"""One policy change among 10,000, one member among 100,000: our driver beside `nft -f` doing the same.

Load: 250 endpoints behind a verdict map, each with its own 40 of 10,000 policy chains of one rule, and 100 shared
sets; the change gives a policy two rules. Again with five rules a policy: the kernel walks every rule that packets
can reach whenever a batch adds one (docs/design/nft.md), and this shows it. For members a set of 100,000. Both
contenders work on the same table in one network namespace, on chains of their own; each call is timed until the
kernel has committed, and afterwards nft must show what was asked for."""

import itertools
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ipaddress import IPv4Address, IPv4Network

from felix.dataplane.nft import NftDriver
from felix.dataplane.nft_kernel import NftSocket
from felix.rules import operations as op
from felix.rules import text
from felix.rules import values as v
from felix.rules.changes import Changes, MemberChange
from felix.rules.compiler import compile_rule
from felix.rules.writer import write
from lab.netns import NetNs
from tests.bench.result import Result, pairs

POLICIES, ENDPOINTS, SETS, MEMBERS = 10_000, 250, 100, 100_000
_ESTABLISHED = v.rule(v.ConntrackState(("established", "related")), v.Accept())


def policy(number: int, port: int, rules: int) -> v.Chain:
    tcp = v.L4Protocol(v.TCP)
    named = v.AddressInSet(v.Side.SOURCE, f"set-{number % SETS}", 4)
    allow = (
        v.rule(tcp, v.Ports(v.Side.DESTINATION, (v.PortRange(port + i),)), named, v.Accept()) for i in range(rules)
    )
    return v.Chain(f"pol-{number}", tuple(allow))


def node(policies: int, endpoints: int, rules: int) -> v.Table:
    sets = [v.Set(f"set-{i}", v.KeyType.ADDRESS_V4, frozenset({IPv4Address(0x0A000000 + i)})) for i in range(SETS)]
    each = policies // endpoints
    ends = [
        v.Chain(f"fw-{i}", (*(v.rule(v.Jump(f"pol-{i * each + k}")) for k in range(each)), v.rule(v.Drop())))
        for i in range(endpoints)
    ]
    known = v.VerdictMap("ends", {f"cali{i}": v.Goto(f"fw-{i}") for i in range(endpoints)})
    forward = (_ESTABLISHED, v.rule(v.InterfaceVerdict(v.Way.IN, "ends")))
    base = v.Chain("forward", forward, v.Hook("filter", "forward", 0))
    return v.Table.of([*(policy(i, 1000, rules) for i in range(policies)), *ends, base], sets, [known])


@contextmanager
def started(name: str, table: v.Table) -> Iterator[NftDriver]:
    """A driver in a namespace of its own, with the calling thread and its children in there too."""
    netns = NetNs(f"weft-{os.getpid()}-bench-{name}").create()
    try:
        with netns.enter():
            kernel = NftSocket()
            try:
                driver = NftDriver(kernel)
                report = driver.start(table, 0.0)
                assert report.in_kernel, report
                assert not report.failed, report
                yield driver
            finally:
                kernel.close()
    finally:
        netns.delete()


def _ms(work: Callable[[], object]) -> float:
    begin = time.perf_counter()
    work()
    return (time.perf_counter() - begin) * 1000


def _nft(script: str) -> None:
    subprocess.run(["nft", "-f", "-"], input=script, text=True, check=True)


def _listed(*what: str) -> str:
    return subprocess.run(["nft", "list", *what], capture_output=True, text=True, check=True).stdout


def _rewrite(chain: v.Chain) -> list[op.Operation]:
    return [op.FlushChain(chain.name), *(op.AddRule(chain.name, compile_rule(rule)) for rule in chain.rules)]


def _change(driver: NftDriver, chain: v.Chain) -> float:
    def change() -> None:
        assert driver.apply(Changes(chains={chain.name: chain}), 0.0).operations == 1 + len(chain.rules)

    return _ms(change)


def policy_change() -> list[Result]:
    among = f"one policy change among {POLICIES:,}"
    results = []
    for rules, goal in ((1, 3.0), (5, None)):
        numbers = itertools.count()
        with started(f"policies{rules}", node(POLICIES, ENDPOINTS, rules)) as driver:

            def ours(driver: NftDriver = driver, numbers: Iterator[int] = numbers, rules: int = rules) -> float:
                return _change(driver, policy(next(numbers), 2000, rules + 1))

            def rival(numbers: Iterator[int] = numbers, rules: int = rules) -> float:
                script = text.script(_rewrite(policy(POLICIES // 2 + next(numbers), 2000, rules + 1)))
                return _ms(lambda: _nft(script))

            def encode(numbers: Iterator[int] = numbers, rules: int = rules) -> float:
                chain = policy(next(numbers), 3000, rules + 1)
                return _ms(lambda: write(_rewrite(chain)))

            measured = pairs(ours, rival)
            for number in range(next(numbers)):
                chain = f"pol-{number if number % 2 == 0 else POLICIES // 2 + number}"
                assert f"dport {2000 + rules}" in _listed("chain", "inet", "weft", chain)
            encoded = pairs(encode, ours)
        name = f"{among}, {rules} rule{'s' if rules > 1 else ''} each"
        if goal is not None:
            results.append(measured.result(name, "nft -f", "ms", "ours under 3 ms", lambda ms, _: ms < 3))
        else:
            results.append(measured.result(name, "nft -f", "ms", "ratio under 1", lambda _, ratio: ratio < 1))
        results.append(
            encoded.result(f"encoding it, {rules} each", "the whole change", "ms", "under 1 ms", lambda ms, _: ms < 1)
        )
    return results


def member_change() -> list[Result]:
    first = 0x0A000000
    addresses = frozenset(IPv4Address(first + i) for i in range(MEMBERS))
    networks = frozenset(IPv4Network((first + 2 * i, 32)) for i in range(MEMBERS))
    numbers = itertools.count(0x0B000000, 2)
    table = v.Table.of(sets=[v.Set("a", v.KeyType.ADDRESS_V4, addresses), v.Set("n", v.KeyType.NETWORK_V4, networks)])
    results = []
    with started("members", table) as driver:
        for name, kind in (("a", IPv4Address), ("n", IPv4Network)):

            def ours(name: str = name, kind: type[IPv4Address] | type[IPv4Network] = kind) -> float:
                added: frozenset[v.Member] = frozenset({kind(next(numbers))})
                return _ms(lambda: driver.apply(Changes(members={name: MemberChange(added)}), 0.0))

            def rival(name: str = name) -> float:
                script = f"add element inet weft {name} {{ {IPv4Address(next(numbers))} }}"
                return _ms(lambda: _nft(script))

            measured = pairs(ours, rival)
            unused = IPv4Address(next(numbers))
            assert _found(name, unused - 2)
            assert not _found(name, unused)
            what = f"one more of {MEMBERS:,} {'addresses' if name == 'a' else 'prefixes'} in a set"
            results.append(measured.result(what, "nft -f", "ms", "ratio under 0.1", lambda _, ratio: ratio < 0.1))
    return results


def _found(name: str, address: IPv4Address) -> bool:
    asked = ["nft", "get", "element", "inet", "weft", name, f"{{ {address} }}"]
    return subprocess.run(asked, capture_output=True, check=False).returncode == 0


BENCHMARKS = {"policy-change": policy_change, "set-member": member_change}
