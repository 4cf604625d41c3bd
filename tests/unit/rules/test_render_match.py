"""One computed rule as nft rules, as `nft list` would show them."""

from ipaddress import ip_network

import pytest

from felix.calc.ip_sets import SetKey, SetKind
from felix.rules import text
from felix.rules.render_actions import ActionSettings, Place, rule_endings
from felix.rules.render_match import render_rule
from weft.model.keys import ResourceKey
from weft.policy.values import Action, Direction, Entity, Icmp, PortRange, PortSet, Rule, SelectorSet, ServiceSet
from weft.selector import parse

BOTH, NETS, V6, NONE = (SelectorSet(name, parse(f"x == '{name}'")) for name in ("both", "nets", "six", "none"))
HTTP, DNS, NO_PORT = (PortSet(name, parse("all()"), name) for name in ("http", "dns", "no-port"))
SERVICE, PEERS = (ServiceSet(name, "shop", name, with_ports=name == "web") for name in ("web", "peers"))
PLACE = Place(Direction.INGRESS, ResourceKey("NetworkPolicy", "p", "shop"))
KINDS = {
    SetKey("both", 4): SetKind.ADDRESSES,
    SetKey("both", 6): SetKind.ADDRESSES,
    SetKey("nets", 4): SetKind.NETWORKS,
    SetKey("six", 6): SetKind.ADDRESSES,
    SetKey("http", 4): SetKind.PORTS,
    SetKey("http", 6): SetKind.PORTS,
    SetKey("dns", 4): SetKind.PORTS,
    SetKey("web", 4): SetKind.PORTS,
    SetKey("peers", 6): SetKind.ADDRESSES,
}


def _nets(*texts: str) -> tuple[object, ...]:
    return tuple(map(ip_network, texts))


CASES: dict[str, tuple[dict[str, object], list[str]]] = {
    "everything": ({}, ["accept"]),
    "deny": ({"action": Action.DENY}, ["drop"]),
    "pass": ({"action": Action.PASS}, ["return"]),
    "log": ({"action": Action.LOG}, ['log prefix "x: "']),
    "without effect": ({"unenforced": ("http",)}, []),
    "one family": ({"ip_version": 6}, ["meta nfproto ipv6 accept"]),
    "protocol": ({"protocol": 6}, ["meta l4proto 6 accept"]),
    "not protocol": ({"not_protocol": 17}, ["meta l4proto != 17 accept"]),
    "icmp type and code": ({"protocol": 1, "icmp": Icmp(3, 1)}, ["meta l4proto 1 @th,0,16 0x301 accept"]),
    "ports are merged": (
        {"protocol": 6, "destination": Entity(ports=(PortRange(80, 90), PortRange(85, 99), PortRange(100, 100)))},
        ["meta l4proto 6 th dport 80-100 accept"],
    ),
    "ports before prefixes": (
        {"protocol": 6, "source": Entity(nets=_nets("10.0.0.0/8")), "destination": Entity(ports=(PortRange(80, 80),))},
        ["meta l4proto 6 th dport 80 ip saddr 10.0.0.0/8 accept"],
    ),
    "a prefix": ({"source": Entity(nets=_nets("10.0.0.0/8"))}, ["ip saddr 10.0.0.0/8 accept"]),
    "prefixes that overlap": (
        {"source": Entity(nets=_nets("10.1.0.0/16", "10.0.0.0/8"))}, ["ip saddr 10.0.0.0/8 accept"],
    ),
    "prefixes of both families": (
        {"source": Entity(nets=_nets("10.0.0.0/8", "fd00::/8"))},
        ["ip saddr 10.0.0.0/8 accept", "ip6 saddr fd00::/8 accept"],
    ),
    "prefixes of two families at two ends": (
        {"source": Entity(nets=_nets("10.0.0.0/8")), "destination": Entity(nets=_nets("fd00::/8"))}, [],
    ),
    "every address of a family": ({"source": Entity(nets=_nets("0.0.0.0/0"))}, ["meta nfproto ipv4 accept"]),
    "no address of a family": ({"source": Entity(not_nets=_nets("0.0.0.0/0"))}, ["meta nfproto ipv6 accept"]),
    "not a prefix": (
        {"source": Entity(not_nets=_nets("10.0.0.0/8"))}, ["ip saddr != 10.0.0.0/8 accept", "meta nfproto ipv6 accept"],
    ),
    "a set of both families": (
        {"source": Entity(sets=(BOTH,))}, ["ip saddr @both-addresses4 accept", "ip6 saddr @both-addresses6 accept"],
    ),
    "a set of networks": ({"destination": Entity(sets=(NETS,))}, ["ip daddr @nets-networks4 accept"]),
    "a set of one family": ({"source": Entity(sets=(V6,))}, ["ip6 saddr @six-addresses6 accept"]),
    "two sets without a family in common": (
        {"source": Entity(sets=(V6,)), "destination": Entity(sets=(NETS,))}, [],
    ),
    "an empty set": ({"source": Entity(sets=(NONE,))}, []),
    "not in an empty set": ({"source": Entity(not_sets=(NONE,))}, ["accept"]),
    "not in a set of one family": (
        {"source": Entity(not_sets=(V6,))}, ["meta nfproto ipv4 accept", "ip6 saddr != @six-addresses6 accept"],
    ),
    "prefixes before sets": (
        {"source": Entity(sets=(NETS,)), "destination": Entity(nets=_nets("10.0.0.0/8"))},
        ["ip daddr 10.0.0.0/8 ip saddr @nets-networks4 accept"],
    ),
    "not this ICMP type": (
        {"protocol": 1, "not_icmp": Icmp(8)}, ["meta l4proto 1 @th,0,8 != 8 accept"],
    ),
    "not this ICMP type and code, but the type with other codes": (
        {"protocol": 1, "not_icmp": Icmp(3, 1)}, ["meta l4proto 1 @th,0,16 != 0x301 accept"],
    ),
    "a named port of any protocol": (
        {"destination": Entity(named_ports=(HTTP,))},
        [
            "ip daddr . meta l4proto . th dport @http-ports4 accept",
            "ip6 daddr . meta l4proto . th dport @http-ports6 accept",
        ],
    ),
    "numbered ports or named ones, after prefixes and before sets": (
        {
            "protocol": 6,
            "destination": Entity(
                ports=(PortRange(80, 80),), named_ports=(DNS,), sets=(BOTH,), nets=_nets("10.0.0.0/8")
            ),
        },
        [
            "meta l4proto 6 th dport 80 ip daddr 10.0.0.0/8 ip daddr @both-addresses4 accept",
            "meta l4proto 6 ip daddr 10.0.0.0/8 ip daddr . meta l4proto . th dport @dns-ports4 "
            "ip daddr @both-addresses4 accept",
        ],
    ),
    "neither numbered ports nor named ones": (
        {"protocol": 6, "ip_version": 4, "source": Entity(not_ports=(PortRange(80, 80),), not_named_ports=(HTTP, DNS))},
        [
            "meta l4proto 6 th sport != 80 ip saddr . meta l4proto . th sport != @http-ports4 "
            "ip saddr . meta l4proto . th sport != @dns-ports4 accept",
        ],
    ),
    "a name that nobody has": ({"destination": Entity(named_ports=(NO_PORT,))}, []),
    "a number or a name that nobody has": (
        {"protocol": 6, "destination": Entity(ports=(PortRange(80, 80),), named_ports=(NO_PORT,))},
        ["meta l4proto 6 th dport 80 accept"],
    ),
    "not a name that nobody has": ({"destination": Entity(not_named_ports=(NO_PORT,))}, ["accept"]),
    "what is logged by number or by name is logged once": (
        {
            "action": Action.LOG,
            "protocol": 6,
            "ip_version": 4,
            "destination": Entity(ports=(PortRange(80, 80),), named_ports=(HTTP, DNS)),
        },
        [
            'meta l4proto 6 th dport 80 meta nfproto ipv4 log prefix "x: "',
            "meta l4proto 6 th dport != 80 ip daddr . meta l4proto . th dport @http-ports4 "
            'log prefix "x: "',
            "meta l4proto 6 th dport != 80 ip daddr . meta l4proto . th dport @dns-ports4 "
            'ip daddr . meta l4proto . th dport != @http-ports4 log prefix "x: "',
        ],
    ),
    "a service as destination": (
        {"destination": Entity(service=SERVICE)}, ["ip daddr . meta l4proto . th dport @web-ports4 accept"],
    ),
    "a service as source": ({"source": Entity(sets=(PEERS,))}, ["ip6 saddr @peers-addresses6 accept"]),
    "one family of a set": ({"ip_version": 4, "source": Entity(sets=(BOTH,))}, ["ip saddr @both-addresses4 accept"]),
}  # fmt: skip


@pytest.mark.parametrize(("matched", "expected"), CASES.values(), ids=CASES)
def test_a_rule_becomes(matched: dict[str, object], expected: list[str]) -> None:
    rule = Rule(**({"action": Action.ALLOW} | matched))  # type: ignore[arg-type]
    rendered = render_rule(rule, KINDS.get, rule_endings(rule, PLACE, ActionSettings("x: ", flow_logs="Disabled")))
    counter = f'counter name "{PLACE.counter(rule)}" '
    assert [text.rule(one).replace(counter, "") for one in rendered] == expected
