"""What the kernel would refuse cannot be built as a value."""

from collections.abc import Callable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

import pytest

from felix.rules import values as v

NET4, NET6 = IPv4Network("10.0.0.0/8"), IPv6Network("fd00::/8")
PORTS = v.Ports(v.Side.DESTINATION, (v.PortRange(80),))

IMPOSSIBLE: dict[str, Callable[[], object]] = {
    "a chain name with a space": lambda: v.Chain("a b"),
    "a jump to nowhere": lambda: v.Jump(""),
    "an interface name of 16 characters": lambda: v.Interface(v.Way.IN, "a" * 16),
    "an address match of both families": lambda: v.Address(v.Side.SOURCE, (NET4, NET6)),
    "an address match without a network": lambda: v.Address(v.Side.SOURCE, ()),
    "a range of ports that runs backwards": lambda: v.PortRange(2, 1),
    "a port of more than 16 bits": lambda: v.PortRange(65536),
    "a port without a protocol": lambda: v.rule(PORTS),
    "a port of a protocol that has none": lambda: v.rule(v.L4Protocol(v.ICMP), PORTS),
    "a port of any protocol but TCP": lambda: v.rule(v.L4Protocol(v.TCP, negated=True), PORTS),
    "an ICMP type without the protocol": lambda: v.rule(v.IcmpType(8)),
    "a TCP reset of UDP": lambda: v.rule(v.L4Protocol(v.UDP), v.Reject(tcp_reset=True)),
    "a rule of two families": lambda: v.rule(v.NetworkProtocol(4), v.Address(v.Side.SOURCE, (NET6,))),
    "something behind a verdict": lambda: v.rule(v.Accept(), v.Counter()),
    "an empty rule": lambda: v.rule(),
    "a mark outside its mask": lambda: v.SetMark(3, 1),
    "a comment with a quote": lambda: v.rule(v.Accept(), comment='"'),
    "a log prefix of 128 bytes": lambda: v.Log("x" * 128),
    "a prefix in a set of addresses": lambda: v.Set("s", v.KeyType.ADDRESS_V4, frozenset({NET4})),
    "an IPv6 service in a set of IPv4": lambda: v.Set(
        "s", v.KeyType.SERVICE_V4, frozenset({v.AddressPort(IPv6Address(1), v.TCP, 80)})
    ),
    "a port of ICMP as a service": lambda: v.Set(
        "s", v.KeyType.SERVICE_V4, frozenset({v.AddressPort(IPv4Address(1), v.ICMP, 80)})
    ),
    "a map of interface patterns": lambda: v.VerdictMap("m", {"cali*": v.Drop()}),
}


@pytest.mark.parametrize("build", IMPOSSIBLE.values(), ids=IMPOSSIBLE.keys())
def test_what_the_kernel_would_refuse_cannot_be_built(build: Callable[[], object]) -> None:
    with pytest.raises(v.InvalidValueError):
        build()


def test_values_of_the_same_content_are_equal_and_hash_alike() -> None:
    assert v.rule(v.L4Protocol(v.TCP), PORTS) == v.rule(v.L4Protocol(6), PORTS)
    assert hash(v.rule(v.L4Protocol(v.TCP), PORTS)) == hash(v.rule(v.L4Protocol(6), PORTS))


def test_a_table_knows_what_it_refers_to_and_has_not() -> None:
    chain = v.Chain("c", (v.rule(v.Jump("gone")), v.rule(v.AddressInSet(v.Side.SOURCE, "lost", 4), v.Accept())))
    table = v.Table.of([chain], maps=[v.VerdictMap("m", {"cali0": v.Goto("away"), "cali1": v.Goto("c")})])
    assert table.missing_references() == {"gone", "lost", "away"}
