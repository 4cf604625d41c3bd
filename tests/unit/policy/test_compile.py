"""From resources to computed rules; above all what happens to what cannot be enforced."""

from ipaddress import ip_network

import pytest

from weft.model import policy as m
from weft.model.base import Metadata
from weft.model.keys import ResourceKey
from weft.model.values import Port, Protocol
from weft.policy.compile import compile_policy, compile_rules
from weft.policy.values import Action, Direction, Icmp, PortRange

TCP, ICMP = Protocol.parse("TCP"), Protocol.parse("ICMP")
ALLOW = m.Rule(action="Allow")


@pytest.mark.parametrize(
    ("spec", "directions"),
    [
        (m.NetworkPolicySpec(), {Direction.INGRESS}),
        (m.NetworkPolicySpec(ingress=(ALLOW,)), {Direction.INGRESS}),
        (m.NetworkPolicySpec(egress=(ALLOW,)), {Direction.EGRESS}),
        (m.NetworkPolicySpec(ingress=(ALLOW,), egress=(ALLOW,)), {Direction.INGRESS, Direction.EGRESS}),
        (m.NetworkPolicySpec(egress=(ALLOW,), types=("Ingress",)), {Direction.INGRESS}),
        (m.NetworkPolicySpec(types=("Ingress", "Egress")), {Direction.INGRESS, Direction.EGRESS}),
    ],
)
def test_a_policy_speaks_about_its_types_or_the_rules_it_has(
    spec: m.NetworkPolicySpec, directions: set[Direction]
) -> None:
    resource = m.NetworkPolicy(metadata=Metadata(name="p", namespace="shop"), spec=spec)
    compiled = compile_policy(ResourceKey("NetworkPolicy", "p", "shop"), resource)
    assert {d for d in Direction if compiled.rules(d) is not None} == directions


def test_what_can_be_enforced_is_kept_whole() -> None:
    source = m.EntityRule(nets=(ip_network("10.0.0.0/8"),), selector="a == 'b'", not_selector="c == 'd'")
    destination = m.EntityRule(
        ports=(Port(80, 80), Port(90, 99)), not_ports=(Port(95, 95),), not_nets=(ip_network("10.1.0.0/16"),)
    )
    (rule,) = compile_rules((m.Rule(action="Deny", protocol=TCP, source=source, destination=destination),), "shop")
    assert rule.unenforced == ()
    assert (rule.effect, rule.protocol) == (Action.DENY, 6)
    assert rule.source.nets == (ip_network("10.0.0.0/8"),)
    assert [str(one.selector) for one in rule.source.sets] == ['(projectcalico.org/namespace == "shop" && a == "b")']
    assert [str(one.selector) for one in rule.source.not_sets] == ['c == "d"']
    assert rule.destination.ports == (PortRange(80, 80), PortRange(90, 99))
    assert rule.destination.not_ports == (PortRange(95, 95),)
    assert rule.destination.not_nets == (ip_network("10.1.0.0/16"),)


UNENFORCEABLE = {
    "http": (m.Rule(action="Allow", http=m.HttpMatch(methods=("GET",))), "http"),
    "services": (
        m.Rule(action="Allow", destination=m.EntityRule(services=m.ServiceMatch(name="dns"))),
        "destination.services",
    ),
    "named port": (
        m.Rule(action="Allow", protocol=TCP, destination=m.EntityRule(ports=(Port(80, 80), Port(name="web")))),
        "destination.ports",
    ),
    "not a named port": (
        m.Rule(action="Allow", protocol=TCP, source=m.EntityRule(not_ports=(Port(name="web"),))),
        "source.notPorts",
    ),
    "ports without protocol": (
        m.Rule(action="Allow", destination=m.EntityRule(ports=(Port(80, 80),))),
        "destination.ports",
    ),
    "icmp without protocol": (m.Rule(action="Allow", icmp=m.IcmpFields(type=8)), "icmp"),
    "unreadable selector": (m.Rule(action="Allow", source=m.EntityRule(selector="a = b")), "source"),
    "unreadable notSelector": (m.Rule(action="Allow", source=m.EntityRule(not_selector="a = b")), "source.notSelector"),
}
"""Rules, and how the reason they are not enforced begins."""


@pytest.mark.parametrize(("rule", "reason"), UNENFORCEABLE.values(), ids=UNENFORCEABLE)
def test_what_cannot_be_enforced_is_reported_and_only_ever_refuses(rule: m.Rule, reason: str) -> None:
    from msgspec.structs import replace

    effects = {}
    for action in Action:
        (compiled,) = compile_rules((replace(rule, action=action.value),), "shop")
        assert len(compiled.unenforced) == 1
        assert compiled.unenforced[0].startswith(f"{reason}:")
        effects[action] = compiled.effect
    assert effects == {Action.ALLOW: None, Action.LOG: None, Action.DENY: Action.DENY, Action.PASS: Action.DENY}


def test_a_policy_says_which_of_its_rules_is_not_enforced() -> None:
    spec = m.ProfileSpec(ingress=(ALLOW, UNENFORCEABLE["http"][0]))
    key = ResourceKey("Profile", "p")
    compiled = compile_policy(key, m.Profile(metadata=Metadata(name="p"), spec=spec))
    assert compiled.unenforced() == ("ingress rule 1: http: application layer matches are not supported",)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        (m.IcmpFields(), None),
        (m.IcmpFields(type=8), Icmp(8)),
        (m.IcmpFields(type=3, code=1), Icmp(3, 1)),
    ],
    ids=["none given", "type", "type and code"],
)
def test_icmp_fields(fields: m.IcmpFields, expected: Icmp | None) -> None:
    (rule,) = compile_rules((m.Rule(action="Allow", protocol=ICMP, icmp=fields, not_icmp=fields),), "")
    assert (rule.icmp, rule.not_icmp) == (expected, expected)
    assert rule.unenforced == ()
