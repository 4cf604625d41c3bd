"""What a Kubernetes NetworkPolicy becomes; the tables are what Calico 3.32.1 makes of the same policies."""

from __future__ import annotations

from ipaddress import ip_network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.kubernetes.documents import Tree, one, policy
from weft.kubernetes.rules import simplify_ports
from weft.model.policy import EntityRule, NetworkPolicy, Rule
from weft.model.values import Port, Protocol

PODS = "projectcalico.org/orchestrator == 'k8s'"
TCP, UDP, SCTP = Protocol(6, "TCP"), Protocol(17, "UDP"), Protocol(132, "SCTP")


def ports(*found: int | str | tuple[int, int]) -> tuple[Port, ...]:
    return tuple(
        Port(name=one) if isinstance(one, str) else Port(*one) if isinstance(one, tuple) else Port(one, one)
        for one in found
    )


def allow(protocol: Protocol | None = None, to: tuple[Port, ...] = (), **source: Any) -> Rule:
    return Rule(action="Allow", protocol=protocol, source=EntityRule(**source), destination=EntityRule(ports=to))


def test_a_policy_is_found_in_the_default_tier_under_its_prefixed_name() -> None:
    found = one(policy({"podSelector": {}}, name="web", namespace="shop"))
    assert isinstance(found, NetworkPolicy)
    assert (found.name, found.namespace) == ("knp.default.web", "shop")
    assert (found.spec.tier, found.spec.order, found.spec.types) == ("default", 1000, ("Ingress",))
    assert found.metadata.labels == {"projectcalico.org/tier": "default"}
    assert not found.spec.ingress
    assert not found.spec.egress


SELECTORS = {
    "absent": ({}, PODS),
    "empty": ({"podSelector": {}}, PODS),
    "null": ({"podSelector": None}, PODS),
    "labels in order of their keys": (
        {"podSelector": {"matchLabels": {"b": "2", "a": "1"}}},
        f"{PODS} && a == '1' && b == '2'",
    ),
    "an empty value": ({"podSelector": {"matchLabels": {"a": ""}}}, f"{PODS} && a == ''"),
    "null for a value, which is empty": ({"podSelector": {"matchLabels": {"a": None}}}, f"{PODS} && a == ''"),
    "expressions in the order given, after the labels": (
        {
            "podSelector": {
                "matchLabels": {"a": "1"},
                "matchExpressions": [
                    {"key": "k", "operator": "In", "values": ["x", "y"]},
                    {"key": "k", "operator": "NotIn", "values": ["z"]},
                    {"key": "example.com/k", "operator": "Exists"},
                    {"key": "n", "operator": "DoesNotExist"},
                ],
            }
        },
        f"{PODS} && a == '1' && k in {{ 'x', 'y' }} && k not in {{ 'z' }} && has(example.com/k) && ! has(n)",
    ),
}


@pytest.mark.parametrize(("spec", "selector"), SELECTORS.values(), ids=SELECTORS)
def test_pods_are_chosen_by_calicos_selector(spec: Tree, selector: str) -> None:
    assert one(policy(spec)).spec.selector == selector


TYPES = {
    "nothing given": ({}, ("Ingress",)),
    "ingress rules": ({"ingress": [{}]}, ("Ingress",)),
    "egress rules": ({"egress": [{}]}, ("Ingress", "Egress")),
    "empty lists": ({"ingress": [], "egress": [], "policyTypes": []}, ("Ingress",)),
    "only egress": ({"policyTypes": ["Egress"], "egress": [{}]}, ("Egress",)),
    "egress without rules": ({"policyTypes": ["Egress"]}, ("Egress",)),
    "ingress although there are egress rules": ({"policyTypes": ["Ingress"], "egress": [{}]}, ("Ingress",)),
    "both, the other way round": ({"policyTypes": ["Egress", "Ingress"]}, ("Ingress", "Egress")),
}


@pytest.mark.parametrize(("spec", "types"), TYPES.values(), ids=TYPES)
def test_types_are_those_given_or_those_the_api_server_fills_in(spec: Tree, types: tuple[str, ...]) -> None:
    assert one(policy(spec)).spec.types == types


INGRESS: dict[str, tuple[Tree, list[Rule]]] = {
    "an empty rule allows everything": ({}, [allow()]),
    "empty lists allow everything": ({"from": [], "ports": []}, [allow()]),
    "absent lists allow everything": ({"from": None, "ports": None}, [allow()]),
    "pods of the policy's own namespace": (
        {"from": [{"podSelector": {"matchLabels": {"k": "v"}}}]},
        [allow(selector=f"{PODS} && k == 'v'")],
    ),
    "all pods of some namespaces": (
        {"from": [{"namespaceSelector": {"matchLabels": {"k": "v"}}}]},
        [allow(selector=PODS, namespace_selector="k == 'v'")],
    ),
    "all pods of all namespaces": (
        {"from": [{"namespaceSelector": {}}]},
        [allow(selector=PODS, namespace_selector="all()")],
    ),
    "some pods of some namespaces": (
        {
            "from": [
                {
                    "namespaceSelector": {"matchExpressions": [{"key": "k", "operator": "NotIn", "values": ["v"]}]},
                    "podSelector": {"matchExpressions": [{"key": "p", "operator": "Exists"}]},
                }
            ]
        },
        [allow(selector=f"{PODS} && has(p)", namespace_selector="k not in { 'v' }")],
    ),
    "a block with holes, its host bits masked": (
        {"from": [{"ipBlock": {"cidr": "192.168.3.7/16", "except": ["192.168.3.0/24", "192.168.4.9/24"]}}]},
        [
            allow(
                nets=(ip_network("192.168.0.0/16"),),
                not_nets=(ip_network("192.168.3.0/24"), ip_network("192.168.4.0/24")),
            )
        ],
    ),
    "TCP unless said otherwise": ({"ports": [{"port": 80}]}, [allow(TCP, ports(80))]),
    "every port of TCP": ({"ports": [{}]}, [allow(TCP)]),
    "every port of SCTP": ({"ports": [{"protocol": "SCTP"}]}, [allow(SCTP)]),
    "a named port": ({"ports": [{"port": "dns", "protocol": "UDP"}]}, [allow(UDP, ports("dns"))]),
    "a range": ({"ports": [{"port": 80, "endPort": 90}]}, [allow(TCP, ports((80, 90)))]),
    "a range of one": ({"ports": [{"port": 80, "endPort": 80}]}, [allow(TCP, ports(80))]),
    "a rule for each protocol, in order of their names": (
        {"ports": [{"port": 1, "protocol": p} for p in ("UDP", "TCP", "SCTP")] + [{"port": 9, "protocol": "UDP"}]},
        [allow(SCTP, ports(1)), allow(TCP, ports(1)), allow(UDP, ports(1, 9))],
    ),
    "every port of a protocol beside one of its ports": (
        {"ports": [{"port": 80}, {"protocol": "TCP"}, {"port": 81}, {"port": 5, "protocol": "UDP"}]},
        [allow(TCP), allow(UDP, ports(5))],
    ),
    "touching ports joined, after the named ones": (
        {"ports": [{"port": 82}, {"port": "web"}, {"port": 80}, {"port": 81}, {"port": 90, "endPort": 95}]},
        [allow(TCP, ports("web", (80, 82), (90, 95)))],
    ),
    "each peer with each protocol": (
        {
            "from": [{"podSelector": {}}, {"ipBlock": {"cidr": "10.0.0.0/8"}}],
            "ports": [{"port": 53, "protocol": "UDP"}, {"port": 53}],
        },
        [
            allow(TCP, ports(53), selector=PODS),
            allow(TCP, ports(53), nets=(ip_network("10.0.0.0/8"),)),
            allow(UDP, ports(53), selector=PODS),
            allow(UDP, ports(53), nets=(ip_network("10.0.0.0/8"),)),
        ],
    ),
}


@pytest.mark.parametrize(("rule", "expected"), INGRESS.values(), ids=INGRESS)
def test_an_ingress_rule_becomes_a_rule_for_each_protocol_and_peer(rule: Tree, expected: list[Rule]) -> None:
    assert list(one(policy({"ingress": [rule]})).spec.ingress) == expected


@pytest.mark.parametrize(("rule", "expected"), INGRESS.values(), ids=INGRESS)
def test_an_egress_rule_has_peer_and_ports_at_the_destination(rule: Tree, expected: list[Rule]) -> None:
    turned = {{"from": "to"}.get(field, field): value for field, value in rule.items()}
    found = one(policy({"egress": [turned], "policyTypes": ["Egress"]})).spec.egress
    for got, ingress in zip(found, expected, strict=True):
        assert got.protocol == ingress.protocol
        assert got.source == EntityRule()
        assert got.destination.ports == ingress.destination.ports
        for field in ("selector", "namespace_selector", "nets", "not_nets"):
            assert getattr(got.destination, field) == getattr(ingress.source, field)


@given(st.lists(st.one_of(st.sampled_from(["a", "b"]), st.tuples(st.integers(1, 60), st.integers(0, 6))), max_size=12))
def test_simplified_ports_cover_what_they_covered(found: list[str | tuple[int, int]]) -> None:
    given_ports = ports(*(one if isinstance(one, str) else (one[0], one[0] + one[1]) for one in found))

    def covered(these: tuple[Port, ...]) -> set[int | str]:
        return {one.name for one in these if one.is_named} | {
            number for one in these if not one.is_named for number in range(one.first, one.last + 1)
        }

    simplified = simplify_ports(given_ports)
    assert covered(simplified) == covered(given_ports)
    assert len(simplified) <= len(given_ports)
