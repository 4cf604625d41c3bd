"""One policy changed: our path into the kernel beside `nft -f` and libnftables doing the same.

The change goes the whole way of the agent: Graph, Renderer, NftDriver, one committed batch. Two loads, both with 10,000
policies of one ingress rule in the cluster: 250 local workloads with ten policies each, where the others belong to
workloads elsewhere, and 1,000 local workloads with ten each, so that all 10,000 are in the kernel and packets can reach
them (the kernel walks what they can reach whenever a batch adds a rule, docs/design/nft.md). The change gives a policy
a second rule and another port. All contenders work on the same table in one network namespace, on policies of their
own; each call is timed until the kernel has committed, and afterwards nft must show what was asked for."""

from __future__ import annotations

import itertools
from collections.abc import Callable

from felix.rules import operations as op
from felix.rules import text
from felix.rules.changes import Changes
from felix.rules.compiler import compile_rule
from tests.bench.cluster import Node, policy, workload
from tests.bench.nft_rivals import Contenders, contenders, listed, milliseconds
from tests.bench.result import Result, pairs

POLICIES, EACH = 10_000, 10
BAR_MS = 3


def _node(local: int) -> Node:
    policies = (policy(number, EACH, 1000) for number in range(POLICIES))
    workloads = (workload(number, here=number < local) for number in range(POLICIES // EACH))
    node = Node(itertools.chain(policies, workloads))
    assert sum(name.startswith("ingress/endpoint/") for name in node.first.chains) == local
    return node


class _Changes:
    """Each policy in reach is changed once; two in a row are far from each other."""

    def __init__(self, node: Node, local: int) -> None:
        self._node = node
        self._numbers = (number * 37 % (local * EACH) for number in itertools.count())
        self.changed: list[int] = []

    def next(self) -> Changes:
        self.changed.append(next(self._numbers))
        return self._node.change(policy(self.changed[-1], EACH, 2000, 2001))


def _script(changes: Changes) -> str:
    """The same as text: chains emptied and filled, counters made for the rules that are new."""
    operations: list[op.Operation] = []
    for name, chain in changes.chains.items():
        assert chain is not None
        operations += [op.CreateCounter(counter) for counter in sorted(chain.counters())]
        operations.append(op.FlushChain(name))
        operations += [op.AddRule(name, compile_rule(rule)) for rule in chain.rules]
    return text.script(operations)


def policy_change() -> list[Result]:
    results: list[Result] = []
    for local in (250, 1000):
        node = _node(local)
        with contenders(f"policies{local}", node.first) as all_of_them:
            results += _compare(all_of_them, _Changes(node, local), local)
    return results


def _compare(all_of_them: Contenders, changes: _Changes, local: int) -> list[Result]:
    def ours() -> None:
        report = all_of_them.driver.apply(changes.next(), 0.0)
        assert report.in_kernel
        assert report.operations

    results = []
    name = f"one policy change among {POLICIES:,}, {local:,} local workloads with {EACH} each"
    for rival, run in all_of_them.rivals.items():

        def theirs(run: Callable[[str], None] = run) -> float:
            script = _script(changes.next())
            return milliseconds(lambda: run(script))

        measured = pairs(lambda: milliseconds(ours), theirs)
        goal = f"median under {BAR_MS} ms"
        results.append(measured.result(name, rival, "ms", goal, lambda ms, _: ms < BAR_MS))
    rules = listed("table", "inet", "weft")
    assert rules.count("dport 2000 ") == rules.count("dport 2001 ") == len(changes.changed)
    return results


BENCHMARKS = {"policy-change": policy_change}
