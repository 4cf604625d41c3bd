"""What a forwarded packet pays: new flows and established ones, at 10, 100 and 1,000 local endpoints.

Load: each endpoint has five policies of its own, each lets one UDP port in and out, from and to the 50 endpoints of a
role; the packets are allowed by the third. Ours is the table that Graph, Renderer and NftDriver make of these
resources. Beside it: no rules, connection tracking alone (one chain that accepts what is established), and the rules
that Calico makes for iptables with linear dispatch and with its shallow tree (`calico_tables`); the two workloads are
in the middle of both. Every contender has namespaces of its own, filled before; in each of ten rounds each is measured
once. New flows: every packet a flow of its own, connections forgotten before. Established: 64 flows that have seen both
directions. Every packet must arrive (`forwarding`), and one to a port that no policy names must not."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from ipaddress import IPv4Address, IPv4Network

from felix.dataplane.nft import NftDriver
from felix.dataplane.nft_kernel import NftSocket
from lab.netns import CommandError, NetNs
from tests.bench import calico_tables
from tests.bench.calico_tables import Dispatch
from tests.bench.cluster import Node
from tests.bench.forwarding import Fabric, pinned_sender
from tests.bench.result import Pairs, Result
from weft.model.base import Metadata, Resource
from weft.model.endpoint import WorkloadEndpoint, WorkloadEndpointSpec
from weft.model.policy import EntityRule, GlobalNetworkPolicy, GlobalNetworkPolicySpec, Rule
from weft.model.values import Port, Protocol

SIZES = (10, 100, 1000)
EACH, ROLES, ALL = 5, 20, 1000
FIRST_PORT, PORT, CLOSED_PORT = 1000, 1002, 2000
NEW_FLOWS, PACKETS, ESTABLISHED = 50_000, 100_000, 64
ROUNDS = 10
UDP = Protocol.parse("UDP")
NONE, TRACKING, LINEAR, TREE = "no rules", "connection tracking alone", "iptables, linear", "iptables, tree"
ALONE = "table inet alone { chain forward { type filter hook forward priority 0; ct state established accept; }; }"


def _interface(number: int) -> str:
    """As Calico names them: the prefix and eleven digits of a hash."""
    return "cali" + hashlib.sha256(str(number).encode()).hexdigest()[:11]


def _address(number: int) -> IPv4Address:
    return IPv4Address(0x0A000001 + number)


class Load:
    """The resources of a node with so many endpoints, and which two of them are in the middle."""

    def __init__(self, local: int) -> None:
        self._numbers = {_interface(number): number for number in range(local)}
        self.sender, self.receiver = calico_tables.middle(list(self._numbers))[:2]

    def address(self, interface: str) -> IPv4Address:
        return _address(self._numbers[interface])

    def resources(self) -> Iterator[Resource]:
        for number in range(ALL):
            here = number < len(self._numbers)
            spec = WorkloadEndpointSpec(
                node="here" if here else "there",
                ip_networks=(IPv4Network(_address(number)),),
                interface_name=_interface(number),
            )
            labels = {"app": f"a{number}", "role": f"r{number % ROLES}"}
            yield WorkloadEndpoint(metadata=Metadata(name=f"w{number}", namespace="ns", labels=labels), spec=spec)
            for which in range(EACH) if here else ():
                yield self._policy(number, which)

    def _policy(self, number: int, which: int) -> GlobalNetworkPolicy:
        selector = f"role == 'r{self._role(number, which)}'"
        ports = (Port(FIRST_PORT + which, FIRST_PORT + which),)
        peers, at_ports = EntityRule(selector=selector), EntityRule(ports=ports)
        spec = GlobalNetworkPolicySpec(
            selector=f"app == 'a{number}'",
            ingress=(Rule(action="Allow", protocol=UDP, source=peers, destination=at_ports),),
            egress=(Rule(action="Allow", protocol=UDP, destination=EntityRule(selector=selector, ports=ports)),),
        )
        return GlobalNetworkPolicy(metadata=Metadata(name=f"p{number}-{which}"), spec=spec)

    def _role(self, number: int, which: int) -> int:
        """Whom a policy lets in and out: the third of the two in the middle lets in the other of them."""
        pair = [self._numbers[self.sender], self._numbers[self.receiver]]
        if number in pair and FIRST_PORT + which == PORT:
            return pair[1 - pair.index(number)] % ROLES
        return (number + which + 1) % ROLES

    def calico_endpoints(self) -> Mapping[str, Sequence[calico_tables.Policy]]:
        return {
            name: [
                calico_tables.Policy(f"p{number}-{which}", f"role{self._role(number, which)}", FIRST_PORT + which)
                for which in range(EACH)
            ]
            for name, number in self._numbers.items()
        }

    @staticmethod
    def calico_sets() -> Mapping[str, Sequence[IPv4Address]]:
        return {f"role{role}": [_address(number) for number in range(role, ALL, ROLES)] for role in range(ROLES)}


class Contender:
    """Namespaces with one kind of rules in them."""

    def __init__(self, name: str, load: Load) -> None:
        interfaces = (load.sender, load.receiver)
        self.fabric = Fabric(name, interfaces, (load.address(load.sender), load.address(load.receiver)))
        self._new = self.fabric.frames(range(10_000, 10_000 + NEW_FLOWS), PORT)
        self._established = self.fabric.frames([*range(5_000, 5_000 + ESTABLISHED)] * 64, PORT)

    def new_flows(self) -> float:
        """Thousands a second."""
        self.fabric.forget_connections()
        return self.fabric.rate(self._new, NEW_FLOWS) / 1000

    def established(self) -> float:
        """Thousands of packets a second."""
        self.fabric.forget_connections()
        self.fabric.establish(range(5_000, 5_000 + ESTABLISHED), PORT)
        return self.fabric.rate(self._established, PACKETS) / 1000

    def close(self) -> None:
        self.fabric.close()

    def refuses(self) -> bool:
        return not self.fabric.passes(9_999, CLOSED_PORT)


def _program_ours(host: NetNs, load: Load) -> None:
    with host.enter():
        kernel = NftSocket()
    report = NftDriver(kernel).start(Node(load.resources()).first, 0.0)
    assert report.in_kernel, report
    assert not report.failed, report
    kernel.close()


def _program_calico(host: NetNs, load: Load, dispatch: Dispatch) -> None:
    host.run(["ipset", "restore"], stdin=calico_tables.ipset_script(load.calico_sets()))
    script = calico_tables.iptables_script(load.calico_endpoints(), dispatch)
    try:
        host.run(["iptables-legacy-restore"], stdin=script)
    except CommandError:  # a kernel without it: what Calico then uses
        host.run(["iptables-nft-restore"], stdin=script)


def _contenders(stack: ExitStack) -> dict[tuple[str, int], Contender]:
    found: dict[tuple[str, int], Contender] = {}

    def add(kind: str, size: int, load: Load) -> Contender:
        return found.setdefault((kind, size), stack.enter_context(closing(Contender(f"b{len(found)}", load))))

    for size in SIZES:
        load = Load(size)
        _program_ours(add("weft", size, load).fabric.host, load)
        _program_calico(add(LINEAR, size, load).fabric.host, load, "linear")
        _program_calico(add(TREE, size, load).fabric.host, load, "tree")
    for kind, contender in found.items():
        assert contender.refuses(), kind
    add(NONE, 0, load)
    add(TRACKING, 0, load).fabric.host.run(["nft", "-f", "-"], stdin=ALONE)
    return found


def packets() -> list[Result]:
    new: dict[tuple[str, int], list[float]] = {}
    established: dict[tuple[str, int], list[float]] = {}
    with ExitStack() as stack:
        contenders = _contenders(stack)
        stack.enter_context(pinned_sender())
        for number in range(-1, ROUNDS):  # the first warms up
            order = list(contenders.items())
            for kind, contender in reversed(order) if number % 2 else order:
                rates = contender.new_flows(), contender.established()
                if number >= 0:
                    new.setdefault(kind, []).append(rates[0])
                    established.setdefault(kind, []).append(rates[1])
    return [*_new_flows(new), *_established(established)]


def _new_flows(rates: Mapping[tuple[str, int], list[float]]) -> Iterator[Result]:
    for size in SIZES:
        name, ours = f"new flows, {size:,} endpoints", rates["weft", size]
        yield _reported(name, Pairs(ours, rates[NONE, 0]), NONE)
        yield _reported(name, Pairs(ours, rates[TRACKING, 0]), TRACKING)
        for rival, bar in ((LINEAR, 2.5), (TREE, 1.3)):
            measured = Pairs(ours, rates[rival, size])
            yield _at_least(name, measured, rival, bar) if size == SIZES[-1] else _reported(name, measured, rival)
    yield _flat("new flows", rates)


def _established(rates: Mapping[tuple[str, int], list[float]]) -> Iterator[Result]:
    for size in SIZES:
        name, ours = f"established, {size:,} endpoints", rates["weft", size]
        yield _reported(name, Pairs(ours, rates[NONE, 0]), NONE)
        yield _at_least(name, Pairs(ours, rates[TRACKING, 0]), TRACKING, 0.95)
        for rival in (LINEAR, TREE):
            yield _reported(name, Pairs(ours, rates[rival, size]), rival)
    yield _flat("established", rates)


def _flat(name: str, rates: Mapping[tuple[str, int], list[float]]) -> Result:
    most, fewest = SIZES[-1], SIZES[0]
    measured = Pairs(rates["weft", most], rates["weft", fewest])
    return _at_least(f"{name}, {most:,} endpoints", measured, f"weft with {fewest}", 0.95)


def _reported(name: str, measured: Pairs, rival: str) -> Result:
    return measured.result(name, rival, "thousand/s", "reported", lambda _ours, _ratio: True)


def _at_least(name: str, measured: Pairs, rival: str, bar: float) -> Result:
    goal = f"ratio at least {bar} within the 95 % interval"
    return measured.result(name, rival, "thousand/s", goal, lambda _ours, _ratio: measured.interval[1] >= bar)


BENCHMARKS = {"packets": packets}
