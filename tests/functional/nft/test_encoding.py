"""Our messages and our text are two ways to say one thing: the kernel must hold the same after either."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

import pytest
from hypothesis import given, settings

from felix.rules import operations as op
from felix.rules import text
from felix.rules import values as v
from felix.rules.compiler import compile_rule
from felix.rules.members import members_of
from felix.rules.writer import write
from lab.netns import NetNs
from tests.fakes import nft_values
from weft.netlink.socket import NETLINK_NETFILTER, NetlinkSocket

pytestmark = pytest.mark.root

SOURCE, DESTINATION = v.Side.SOURCE, v.Side.DESTINATION
TCP_DPORT = (v.L4Protocol(v.TCP), v.Ports(DESTINATION, (v.PortRange(80),)))
SETS = [
    v.Set("a4", v.KeyType.ADDRESS_V4, frozenset({IPv4Address("10.0.0.1"), IPv4Address("255.255.255.255")})),
    v.Set("a6", v.KeyType.ADDRESS_V6, frozenset({IPv6Address("fd00::1")})),
    v.Set("n4", v.KeyType.NETWORK_V4, frozenset({IPv4Network("0.0.0.0/0"), IPv4Network("10.0.0.0/8")})),
    v.Set("n4b", v.KeyType.NETWORK_V4, frozenset({IPv4Network("10.0.0.0/9"), IPv4Network("10.128.0.0/9")})),
    v.Set("n6", v.KeyType.NETWORK_V6, frozenset({IPv6Network("fd00::/8"), IPv6Network("ff00::/8")})),
    v.Set("p", v.KeyType.PORT, frozenset({v.PortRange(80), v.PortRange(443, 500), v.PortRange(450, 65535)})),
    v.Set("v4", v.KeyType.SERVICE_V4, frozenset({v.AddressPort(IPv4Address("10.0.0.1"), v.TCP, 80)})),
    v.Set("v6", v.KeyType.SERVICE_V6, frozenset({v.AddressPort(IPv6Address("fd00::1"), v.UDP, 53)})),
]
MAP = v.VerdictMap("m", {"cali12345678901": v.Goto("target"), "eth0": v.Drop(), "eth1": v.Jump("target")})
FORWARD = v.Hook("filter", "forward", 1, "drop")
NAT = v.Hook("nat", "postrouting", 100)
RAW = v.Hook("filter", "prerouting", -300)

RULES = {
    "input interface": (FORWARD, v.Interface(v.Way.IN, "eth0"), v.Accept()),
    "not an output interface": (FORWARD, v.Interface(v.Way.OUT, "eth0", True), v.Accept()),
    "interfaces of one beginning": (FORWARD, v.Interface(v.Way.IN, "cali*"), v.Drop()),
    "one family": (FORWARD, v.NetworkProtocol(6), v.Drop()),
    "protocol": (FORWARD, v.L4Protocol(v.UDP), v.Return()),
    "not a protocol": (FORWARD, v.L4Protocol(v.UDP, True), v.Drop()),
    "prefix on a byte": (FORWARD, v.Address(SOURCE, (IPv4Network("10.0.0.0/8"),)), v.Accept()),
    "prefix inside a byte": (FORWARD, v.Address(SOURCE, (IPv4Network("10.0.0.0/12"),)), v.Accept()),
    "not an IPv6 prefix": (FORWARD, v.Address(DESTINATION, (IPv6Network("fd00::/65"),), True), v.Accept()),
    "one address": (FORWARD, v.Address(DESTINATION, (IPv6Network("fd00::1"),)), v.Accept()),
    "no IPv4 address": (FORWARD, v.Address(SOURCE, (IPv4Network("0.0.0.0/0"),), True), v.Accept()),
    "both sides": (
        FORWARD,
        v.Address(SOURCE, (IPv4Network("10.0.0.0/8"),)),
        v.Address(DESTINATION, (IPv4Network("10.0.0.1/32"), IPv4Network("10.9.0.0/16"))),
        v.Accept(),
    ),
    "addresses": (FORWARD, v.Address(SOURCE, (IPv4Network("1.1.1.1/32"), IPv4Network("1.1.1.3/32"))), v.Accept()),
    "networks that touch": (
        FORWARD,
        v.Address(SOURCE, (IPv4Network("10.0.0.0/9"), IPv4Network("10.128.0.0/10"))),
        v.Accept(),
    ),
    "not these that touch": (
        FORWARD,
        v.Address(SOURCE, (IPv6Network("fd00::/9"), IPv6Network("fd80::/10")), True),
        v.Accept(),
    ),
    "up to the last address": (
        FORWARD,
        v.Address(SOURCE, (IPv4Network("1.0.0.0/8"), IPv4Network("255.0.0.0/8"))),
        v.Drop(),
    ),
    "address in a set": (FORWARD, v.AddressInSet(SOURCE, "a4", 4), v.Accept()),
    "address not in an interval set": (FORWARD, v.AddressInSet(DESTINATION, "n6", 6, True), v.Accept()),
    "port": (FORWARD, *TCP_DPORT, v.Accept()),
    "not these ports": (
        FORWARD,
        v.L4Protocol(v.UDP),
        v.Ports(SOURCE, (v.PortRange(53), v.PortRange(100, 200)), True),
        v.Accept(),
    ),
    "single ports": (
        FORWARD,
        v.L4Protocol(v.SCTP),
        v.Ports(SOURCE, (v.PortRange(53), v.PortRange(100))),
        v.Accept(),
    ),
    "a range of ports": (FORWARD, v.L4Protocol(v.TCP), v.Ports(SOURCE, (v.PortRange(1, 99),)), v.Accept()),
    "not a range of ports": (FORWARD, v.L4Protocol(v.TCP), v.Ports(SOURCE, (v.PortRange(1, 99),), True), v.Accept()),
    "port in a set": (FORWARD, v.L4Protocol(v.TCP), v.PortInSet(DESTINATION, "p", True), v.Accept()),
    "IPv4 service": (FORWARD, v.ServiceInSet(DESTINATION, "v4", 4), v.Accept()),
    "no IPv6 service": (FORWARD, v.ServiceInSet(DESTINATION, "v6", 6, True), v.Accept()),
    "ICMP type": (FORWARD, v.L4Protocol(v.ICMP), v.IcmpType(8), v.Accept()),
    "ICMPv6 type and code": (FORWARD, v.L4Protocol(v.ICMPV6), v.IcmpType(128, 0), v.Accept()),
    "not an ICMP type and code": (FORWARD, v.L4Protocol(v.ICMP), v.IcmpType(3, 4, True), v.Accept()),
    "connection states": (FORWARD, v.ConntrackState(("established", "related")), v.Accept()),
    "not a connection state": (FORWARD, v.ConntrackState(("invalid", "untracked"), True), v.Accept()),
    "connection status": (FORWARD, v.ConntrackStatus(("dnat",)), v.Accept()),
    "mark": (FORWARD, v.Mark(0x10, 0xF0), v.ConntrackMark(0x1, negated=True), v.Accept()),
    "set marks": (FORWARD, v.SetMark(0x10, 0xF0), v.SetConntrackMark(0x80000000), v.SetConntrackMark(0, 1)),
    "anti-spoofing": (RAW, v.NetworkProtocol(6), v.Interface(v.Way.IN, "cali*"), v.ReversePath(False), v.Drop()),
    "reached by this interface": (RAW, v.ReversePath(True), v.NoTrack()),
    "to this host": (RAW, v.AddressType(DESTINATION, "local"), v.Accept()),
    "not from a unicast address": (RAW, v.AddressType(SOURCE, "unicast", True), v.Drop()),
    "counter and log": (FORWARD, v.Counter(), v.Log("denied: ", 3), v.Drop()),
    "named counter": (FORWARD, v.CountIn("ingress/np/shop/db/3f-2"), v.Accept()),
    "limit of an hour": (FORWARD, v.Limit(10, 5, seconds=3600), v.Log("x")),
    "limit and a part of the packet": (FORWARD, v.Limit(200, 400), v.Log("weft deny", 4517, 128)),
    "kernel log": (FORWARD, v.Log("denied: "), v.Log()),
    "reject": (FORWARD, v.Reject()),
    "TCP reset": (FORWARD, v.L4Protocol(v.TCP), v.Reject(tcp_reset=True)),
    "masquerade": (NAT, v.AddressInSet(SOURCE, "n4", 4), v.AddressInSet(DESTINATION, "n4b", 4, True), v.Masquerade()),
    "masquerade with random ports": (NAT, v.Masquerade(fully_random=True)),
    "source NAT": (NAT, v.NetworkProtocol(4), v.SourceNat(IPv4Address("192.0.2.1"))),
    "IPv6 source NAT": (NAT, v.NetworkProtocol(6), v.SourceNat(IPv6Address("2001:db8::1"))),
    "jump": (FORWARD, v.Jump("target")),
    "goto": (FORWARD, *TCP_DPORT, v.Goto("target")),
    "verdict map": (FORWARD, v.InterfaceVerdict(v.Way.OUT, "m")),
}


class Kernel:
    """An empty nf_tables to load things into, and nft to look at it."""

    def __init__(self, netns: NetNs) -> None:
        self.netns = netns
        with netns.enter():
            self.socket = NetlinkSocket(NETLINK_NETFILTER)

    def listing(self) -> str:
        return self.netns.run(["nft", "list", "ruleset"])

    def by_messages(self, operations: list[op.Operation]) -> str:
        messages = write(operations).messages
        answers = self.socket.exchange(messages, final=-2, fatal=0)
        assert answers.failures == []
        return self._taken()

    def by_text(self, operations: list[op.Operation]) -> str:
        self.netns.run(["nft", "-f", "-"], stdin=text.script(operations))
        return self._taken()

    def _taken(self) -> str:
        found = self.listing()
        self.netns.run(["nft", "flush", "ruleset"])
        return found


@contextmanager
def empty_kernel(make: Callable[[str], NetNs]) -> Iterator[Kernel]:
    kernel = Kernel(make("nft"))
    try:
        yield kernel
    finally:
        kernel.socket.close()


@pytest.fixture
def kernel(netns: Callable[[str], NetNs]) -> Iterator[Kernel]:
    with empty_kernel(netns) as made:
        yield made


def whole(table: v.Table) -> list[op.Operation]:
    """A table that is not there yet, in an order that works."""
    found: list[op.Operation] = [op.CreateTable()]
    counters = sorted({name for chain in table.chains.values() for name in chain.counters()})
    found += [op.CreateCounter(name, v.Count(3 * number, 1 << 40)) for number, name in enumerate(counters)]
    for one in table.sets.values():
        found.append(op.CreateSet(one.name, one.key))
        found.append(op.AddElements(one.name, one.key, sorted(members_of(one.key, one.members).keys())))
    found += [op.CreateMap(name) for name in table.maps]
    found += [op.CreateChain(chain.name, chain.hook) for chain in table.chains.values()]
    for chain in table.chains.values():
        found += [op.AddRule(chain.name, compile_rule(rule)) for rule in chain.rules]
    found += [op.AddEntries(one.name, one.entries) for one in table.maps.values() if one.entries]
    return found


def comparable(listing: str) -> str:
    """nft keeps no order of the elements of a hash."""
    return re.sub(r"\{([^{}]*)\}", lambda m: "{" + ",".join(sorted(re.split(r",\s*", m[1].strip()))) + "}", listing)


@pytest.mark.parametrize("case", RULES.values(), ids=RULES.keys())
def test_messages_and_text_of_a_rule_mean_the_same(kernel: Kernel, case: tuple[v.Hook, v.Statement]) -> None:
    hook, *statements = case
    target = v.Chain("target", (v.rule(v.Accept(), comment="here"),))
    table = v.Table.of([v.Chain("base", (v.rule(*statements),), hook), target], SETS, [MAP])
    operations = whole(table)
    assert comparable(kernel.by_messages(operations)) == comparable(kernel.by_text(operations))


def test_messages_and_text_of_any_table_mean_the_same(kernel: Kernel) -> None:
    @settings(max_examples=40)
    @given(nft_values.tables())
    def check(table: v.Table) -> None:
        operations = whole(table)
        assert comparable(kernel.by_messages(operations)) == comparable(kernel.by_text(operations))

    check()
