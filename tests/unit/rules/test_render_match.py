"""One computed rule as nft rules, as `nft list` would show them."""

from ipaddress import ip_network

import pytest

from felix.calc.ip_sets import SetKey, SetKind
from felix.rules import text
from felix.rules.render_actions import ActionSettings, Place, rule_endings
from felix.rules.render_match import render_rule
from weft.model.keys import ResourceKey
from weft.policy.values import Action, Direction, Entity, Icmp, PortRange, Rule, SelectorSet
from weft.selector import parse

BOTH, NETS, V6, NONE = (SelectorSet(name, parse(f"x == '{name}'")) for name in ("both", "nets", "six", "none"))
PLACE = Place(Direction.INGRESS, ResourceKey("NetworkPolicy", "p", "shop"))
KINDS = {
    SetKey("both", 4): SetKind.ADDRESSES,
    SetKey("both", 6): SetKind.ADDRESSES,
    SetKey("nets", 4): SetKind.NETWORKS,
    SetKey("six", 6): SetKind.ADDRESSES,
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
    "one family of a set": ({"ip_version": 4, "source": Entity(sets=(BOTH,))}, ["ip saddr @both-addresses4 accept"]),
}  # fmt: skip


@pytest.mark.parametrize(("matched", "expected"), CASES.values(), ids=CASES)
def test_a_rule_becomes(matched: dict[str, object], expected: list[str]) -> None:
    rule = Rule(**({"action": Action.ALLOW} | matched))  # type: ignore[arg-type]
    rendered = render_rule(rule, KINDS.get, rule_endings(rule, PLACE, ActionSettings("x: ")))
    assert [text.rule(one) for one in rendered] == expected
