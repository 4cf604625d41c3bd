"""One policy changed, one member added: our path into the kernel beside `nft -f` doing the same.

The policy change goes the whole way of the agent: Graph, Renderer, NftDriver, one committed batch. Two loads, both
with 10,000 policies of one ingress rule, and 250 local workloads: in one each workload has ten of its own and the
others belong to workloads elsewhere, in the other each has forty, so that all 10,000 are in the kernel and packets can
reach them (the kernel walks what they can reach whenever a batch adds a rule, docs/design/nft.md). The change gives a
policy a second rule and another port. For members a set of 100,000. Both contenders work on the same table in one
network namespace, on policies of their own; each call is timed until the kernel has committed, and afterwards nft must
show what was asked for."""

import itertools
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ipaddress import IPv4Address, IPv4Network

from felix.calc.graph import Graph
from felix.dataplane.nft import NftDriver
from felix.dataplane.nft_kernel import NftSocket
from felix.rules import operations as op
from felix.rules import text
from felix.rules import values as v
from felix.rules.changes import Changes, MemberChange, first_table
from felix.rules.compiler import compile_rule
from felix.rules.render import Renderer
from lab.netns import NetNs
from tests.bench.result import Result, pairs
from weft.model import keys
from weft.model.base import Metadata, Resource
from weft.model.endpoint import WorkloadEndpoint, WorkloadEndpointSpec
from weft.model.policy import EntityRule, GlobalNetworkPolicy, GlobalNetworkPolicySpec, Rule
from weft.model.values import Port, Protocol

POLICIES, LOCAL, ROLES, MEMBERS = 10_000, 250, 100, 100_000
TCP = Protocol.parse("TCP")


def policy(number: int, each: int, *ports: int) -> GlobalNetworkPolicy:
    """One of the `each` policies of a workload: these ports, from one of the roles."""
    source = EntityRule(selector=f"role == 'r{number % ROLES}'")
    rules = (
        Rule(action="Allow", protocol=TCP, source=source, destination=EntityRule(ports=(Port(port, port),)))
        for port in ports
    )
    spec = GlobalNetworkPolicySpec(selector=f"app == 'a{number // each}'", ingress=tuple(rules))
    return GlobalNetworkPolicy(metadata=Metadata(name=f"pol-{number}"), spec=spec)


def workload(number: int) -> WorkloadEndpoint:
    """The first LOCAL of them are here."""
    labels = {"app": f"a{number}", "role": f"r{number % ROLES}"}
    return WorkloadEndpoint(
        metadata=Metadata(name=f"w{number}", namespace="default", labels=labels),
        spec=WorkloadEndpointSpec(
            node="here" if number < LOCAL else "there",
            ip_networks=(IPv4Network(0x0A000000 + number),),
            interface_name=f"cali{number}",
        ),
    )


class Node:
    """The agent's path from a changed resource to the kernel, after its first start."""

    def __init__(self, each: int) -> None:
        self.each = each
        self._graph, self._renderer = Graph("here"), Renderer()
        for number in range(POLICIES):
            self._put(policy(number, each, 1000))
        for number in range(POLICIES // each):
            self._put(workload(number))
        self._graph.on_in_sync()
        self.first = first_table(self.changes())
        assert sum(name.startswith("ingress/gnp/") for name in self.first.chains) == LOCAL * each

    def _put(self, resource: Resource) -> None:
        self._graph.on_update(keys.of(resource), resource)

    def changes(self) -> Changes:
        return self._renderer.render(self._graph.flush())

    def change(self, number: int) -> Changes:
        """What follows from new rules for a policy."""
        self._put(policy(number, self.each, 2000, 2001))
        return self.changes()


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


def _ours(node: Node, driver: NftDriver, number: int) -> float:
    def change() -> None:
        assert driver.apply(node.change(number), 0.0).operations == 3

    return _ms(change)


def _rivals(node: Node, number: int) -> float:
    """The same change of another policy, as a script that empties and fills its chain."""
    [(name, chain)] = node.change(number).chains.items()
    assert chain is not None
    script = text.script([op.FlushChain(name), *(op.AddRule(name, compile_rule(rule)) for rule in chain.rules)])
    return _ms(lambda: _nft(script))


def policy_change() -> list[Result]:
    loads = {
        10: f"in the cluster, {LOCAL} workloads here with 10 each",
        40: f"all of them in the kernel and reachable ({LOCAL} workloads here with 40 each)",
    }
    return [_policy_change(each, f"one policy change among {POLICIES:,} {load}") for each, load in loads.items()]


def _policy_change(each: int, name: str) -> Result:
    node = Node(each)
    numbers = itertools.count()
    half = LOCAL * each // 2
    with started(f"policies{each}", node.first) as driver:
        measured = pairs(
            lambda: _ours(node, driver, next(numbers) * 37 % half),
            lambda: _rivals(node, half + next(numbers) * 37 % half),
        )
        for count in range(next(numbers)):
            changed = count * 37 % half + (half if count % 2 else 0)
            shown = _listed("chain", "inet", "weft", f"ingress/gnp/pol-{changed}")
            assert "dport 2000" in shown
            assert "dport 2001" in shown
            assert "dport 1000" not in shown
    return measured.result(name, "nft -f", "ms", "under 3 ms", lambda ms, _: ms < 3)


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
