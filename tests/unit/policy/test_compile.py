"""From resources to computed rules; above all what happens to what cannot be enforced."""

from ipaddress import ip_network
from typing import Any

import pytest

from weft.model import policy as m
from weft.model.base import Metadata
from weft.model.keys import ResourceKey
from weft.model.values import Port, Protocol
from weft.policy.compile import compile_policy, compile_rules
from weft.policy.values import Action, Direction, Entity, Icmp, PortRange, SelectorSet, ServiceSet

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
    source = m.EntityRule(nets=(ip_network("10.0.0.0/8"),), selector="a == 'b'")
    destination = m.EntityRule(
        ports=(Port(80, 80), Port(90, 99)), not_ports=(Port(95, 95),), not_nets=(ip_network("10.1.0.0/16"),)
    )
    (rule,) = compile_rules((m.Rule(action="Deny", protocol=TCP, source=source, destination=destination),), "shop")
    assert rule.unenforced == ()
    assert (rule.effect, rule.protocol) == (Action.DENY, 6)
    assert rule.source.nets == (ip_network("10.0.0.0/8"),)
    assert [str(one.selector) for one in rule.source.sets] == ['(projectcalico.org/namespace == "shop" && a == "b")']
    assert rule.destination.ports == (PortRange(80, 80), PortRange(90, 99))
    assert rule.destination.not_ports == (PortRange(95, 95),)
    assert rule.destination.not_nets == (ip_network("10.1.0.0/16"),)


@pytest.mark.parametrize(
    ("entity", "namespace", "chosen", "excluded"),
    [
        (m.EntityRule(selector="a == 'b'", not_selector="c == 'd'"), "", ['(a == "b" && !c == "d")'], []),
        (
            m.EntityRule(not_selector="c == 'd'"),
            "shop",
            ['(projectcalico.org/namespace == "shop" && !c == "d")'],
            [],
        ),
        (m.EntityRule(not_selector="c == 'd'"), "", [], ['c == "d"']),
    ],
    ids=["beside a selector", "in a namespace", "alone: of anybody"],
)
def test_one_and_the_same_must_be_chosen_and_not_be_excluded(
    entity: m.EntityRule, namespace: str, chosen: list[str], excluded: list[str]
) -> None:
    """An excluded network set around a chosen endpoint does not take it away, as in Calico."""
    (rule,) = compile_rules((m.Rule(action="Allow", source=entity),), namespace)
    assert [str(one.selector) for one in rule.source.sets if isinstance(one, SelectorSet)] == chosen
    assert [str(one.selector) for one in rule.source.not_sets] == excluded


UNENFORCEABLE = {
    "http": (m.Rule(action="Allow", http=m.HttpMatch(methods=("GET",))), "http"),
    "ports without protocol": (
        m.Rule(action="Allow", destination=m.EntityRule(ports=(Port(80, 80),))),
        "destination.ports",
    ),
    "named ports of a protocol that has none": (
        m.Rule(action="Allow", protocol=ICMP, destination=m.EntityRule(ports=(Port(name="web"),))),
        "destination.ports",
    ),
    "numbered ports without protocol beside a named one": (
        m.Rule(action="Allow", source=m.EntityRule(not_ports=(Port(80, 80), Port(name="web")))),
        "source.notPorts",
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


def _destination(**fields: Any) -> Entity:
    (rule,) = compile_rules((m.Rule(action="Allow", destination=m.EntityRule(**fields), **PROTOCOL),), "shop")
    assert rule.unenforced == ()
    return rule.destination


PROTOCOL: dict[str, Any] = {"protocol": TCP}
WEB, OF_DB = Port(name="web"), "app == 'db'"


def test_named_ports_are_looked_for_among_what_the_selector_of_the_same_end_chooses() -> None:
    found = _destination(ports=(WEB,), not_ports=(Port(name="admin"),), selector=OF_DB)
    assert [(str(one.selector), one.port, one.protocol) for one in found.named_ports] == [
        ('(projectcalico.org/namespace == "shop" && app == "db")', "web", 6)
    ]
    assert [one.port for one in found.not_named_ports] == ["admin"]
    assert found.sets == (), "that the selector chooses it is said by the port already"


def test_where_a_number_would_do_the_selector_is_asked_too() -> None:
    found = _destination(ports=(WEB, Port(80, 90)), selector=OF_DB)
    assert (found.ports, len(found.named_ports), len(found.sets)) == ((PortRange(80, 90),), 1, 1)


def test_a_named_port_without_selector_is_anybodys() -> None:
    (found,) = _destination(ports=(WEB,)).named_ports
    assert found.selector.is_all


def test_a_named_port_without_protocol_has_its_own() -> None:
    (rule,) = compile_rules((m.Rule(action="Allow", destination=m.EntityRule(ports=(WEB,))),), "")
    assert rule.unenforced == ()
    assert [one.protocol for one in rule.destination.named_ports] == [None]


def test_a_service_as_destination_is_addresses_with_ports_and_as_source_addresses() -> None:
    match = m.ServiceMatch(name="dns")
    there, here = m.EntityRule(services=match), m.EntityRule(services=match, ports=(Port(80, 80),))
    (to, of) = compile_rules(
        (m.Rule(action="Allow", destination=there), m.Rule(action="Allow", protocol=TCP, source=here)), "shop"
    )
    assert to.destination.service is not None
    assert (to.destination.service.namespace, to.destination.service.name) == ("shop", "dns")
    (source,) = of.source.sets
    assert isinstance(source, ServiceSet)
    assert not source.with_ports
    assert of.source.ports == (PortRange(80, 80),)
    assert source.id != to.destination.service.id


def test_what_stands_beside_a_service_is_asked_too() -> None:
    """Named ports of a source are accepted by Calico; the others could only have been written by another tool."""
    service = m.ServiceMatch(name="dns", namespace="kube-system")
    net = ip_network("10.0.0.0/8")
    entity = m.EntityRule(services=service, ports=(Port(name="web"),), selector="a == 'b'", nets=(net,))
    (rule,) = compile_rules((m.Rule(action="Allow", protocol=TCP, source=entity, destination=entity),), "")
    assert rule.unenforced == ()
    assert [type(one) for one in rule.source.sets] == [ServiceSet]
    assert rule.destination.service is not None
    for end in (rule.source, rule.destination):
        assert end.nets == (net,)
        assert [(one.port, str(one.selector)) for one in end.named_ports] == [("web", 'a == "b"')]


def test_a_rule_keeps_its_id_where_others_come_and_go() -> None:
    one, two = m.Rule(action="Allow", protocol=TCP), m.Rule(action="Deny")
    ids = [[rule.id for rule in compile_rules(rules, "")] for rules in ((one,), (two, one), (two, one, one))]
    assert ids[1][1] == ids[0][0] == ids[2][1]
    assert len(set(ids[2])) == 3, "two rules that say the same are told apart"
