"""What policies of the cluster become; ClusterNetworkPolicy as Calico 3.32.1 has it, its forerunners as 3.30 did."""

from __future__ import annotations

from ipaddress import ip_network
from typing import Any

import pytest

from tests.unit.kubernetes.documents import Tree, admin_policy, baseline_policy, cluster_policy, document, one
from weft.model.policy import EntityRule, GlobalNetworkPolicy, Rule, RuleMetadata
from weft.model.values import Port, Protocol

PODS = "projectcalico.org/orchestrator == 'k8s'"
TCP, UDP, SCTP = Protocol(6, "TCP"), Protocol(17, "UDP"), Protocol(132, "SCTP")
EVERYWHERE: Tree = {"namespaces": {}}


def subject(**found: Any) -> Tree:
    return cluster_policy({"tier": "Admin", "priority": 1, "subject": found})


PLACES = {
    "admin": (
        cluster_policy({"tier": "Admin", "priority": 30, "subject": EVERYWHERE}, "x.y"),
        ("kcnp.kube-admin.x.y", "kube-admin", 30),
    ),
    "baseline": (
        cluster_policy({"tier": "Baseline", "priority": 0, "subject": EVERYWHERE}),
        ("kcnp.kube-baseline.p", "kube-baseline", 0),
    ),
    "AdminNetworkPolicy": (
        admin_policy({"priority": 1000, "subject": EVERYWHERE}),
        ("kanp.adminnetworkpolicy.p", "kube-admin", 1000),
    ),
    "BaselineAdminNetworkPolicy": (
        baseline_policy({"subject": EVERYWHERE}),
        ("kbanp.baselineadminnetworkpolicy.default", "kube-baseline", 1000),
    ),
}


@pytest.mark.parametrize(("tree", "place"), PLACES.values(), ids=PLACES)
def test_kind_and_tier_say_where_a_policy_stands_and_what_it_is_called(tree: Tree, place: tuple[str, str, int]) -> None:
    found = one(tree)
    assert isinstance(found, GlobalNetworkPolicy)
    assert (found.name, found.spec.tier, found.spec.order) == place
    assert found.namespace == ""


SUBJECTS = {
    "all namespaces": ({"namespaces": {}}, "all()", PODS),
    "some namespaces": ({"namespaces": {"matchLabels": {"k": "v"}}}, "k == 'v'", PODS),
    "pods of namespaces": (
        {
            "pods": {
                "namespaceSelector": {"matchExpressions": [{"key": "k", "operator": "DoesNotExist"}]},
                "podSelector": {"matchLabels": {"k": "v"}},
            }
        },
        "! has(k)",
        f"{PODS} && k == 'v'",
    ),
    "all pods": ({"pods": {"namespaceSelector": {}, "podSelector": {}}}, "all()", PODS),
}


@pytest.mark.parametrize(("found", "namespaces", "pods"), SUBJECTS.values(), ids=SUBJECTS)
def test_the_subject_becomes_selectors_that_leave_hosts_out(found: Tree, namespaces: str, pods: str) -> None:
    spec = one(subject(**found)).spec
    assert (spec.namespace_selector, spec.selector) == (namespaces, pods)


RULES: dict[str, tuple[Tree, list[tuple[Protocol | None, tuple[Port, ...], dict[str, Any]]]]] = {
    "everything to some namespaces": (
        {"to": [{"namespaces": {"matchLabels": {"k": "v"}}}]},
        [(None, (), {"namespace_selector": "k == 'v'"})],
    ),
    "pods": (
        {"to": [{"pods": {"namespaceSelector": {}, "podSelector": {"matchLabels": {"k": "v"}}}}]},
        [(None, (), {"namespace_selector": "all()", "selector": f"{PODS} && k == 'v'"})],
    ),
    "networks of one family together": (
        {"to": [{"networks": ["10.0.0.1/8", "192.0.2.0/24"]}]},
        [(None, (), {"nets": (ip_network("10.0.0.0/8"), ip_network("192.0.2.0/24"))})],
    ),
    "networks of two families apart": (
        {"to": [{"networks": ["fd00::/8", "10.0.0.0/8"]}]},
        [(None, (), {"nets": (ip_network("10.0.0.0/8"),)}), (None, (), {"nets": (ip_network("fd00::/8"),)})],
    ),
    "ports by protocol, a named one of any, touching ones joined": (
        {
            "to": [EVERYWHERE],
            "protocols": [
                {"udp": {"destinationPort": {"number": 53}}},
                {"tcp": {"destinationPort": {"number": 80}}},
                {"destinationNamedPort": "web"},
                {"tcp": {"destinationPort": {"range": {"start": 81, "end": 90}}}},
                {"sctp": {}},
            ],
        },
        [
            (None, (Port(name="web"),), {"namespace_selector": "all()"}),
            (SCTP, (), {"namespace_selector": "all()"}),
            (TCP, (Port(80, 90),), {"namespace_selector": "all()"}),
            (UDP, (Port(53, 53),), {"namespace_selector": "all()"}),
        ],
    ),
}


@pytest.mark.parametrize(("rule", "expected"), RULES.values(), ids=RULES)
def test_a_rule_becomes_one_for_each_protocol_and_peer(rule: Tree, expected: list[Any]) -> None:
    spec = {"tier": "Admin", "priority": 1, "subject": EVERYWHERE}
    egress = one(cluster_policy(spec | {"egress": [rule | {"action": "Deny"}]})).spec
    assert egress.types == ("Egress",)
    assert list(egress.egress) == [
        Rule(action="Deny", protocol=protocol, destination=EntityRule(ports=ports, **peer))
        for protocol, ports, peer in expected
    ]
    if any("networks" in peer for peer in rule["to"]):
        return
    turned = {{"to": "from"}.get(field, field): value for field, value in rule.items()}
    ingress = one(cluster_policy(spec | {"ingress": [turned | {"action": "Deny"}]})).spec
    assert ingress.types == ("Ingress",)
    assert list(ingress.ingress) == [
        Rule(action="Deny", protocol=protocol, source=EntityRule(**peer), destination=EntityRule(ports=ports))
        for protocol, ports, peer in expected
    ]


@pytest.mark.parametrize(("action", "expected"), [("Accept", "Allow"), ("Deny", "Deny"), ("Pass", "Pass")])
def test_actions_and_names_of_rules_are_kept(action: str, expected: str) -> None:
    rule = {"name": "why not", "action": action, "from": [EVERYWHERE]}
    spec = {"tier": "Admin", "priority": 1, "subject": EVERYWHERE, "ingress": [rule]}
    (found,) = one(cluster_policy(spec)).spec.ingress
    assert found.action == expected
    assert found.metadata == RuleMetadata(annotations={"name": "why not"})


def test_ports_of_the_older_version() -> None:
    ports = [
        {"portNumber": {"port": 80}},
        {"portRange": {"start": 1, "end": 9, "protocol": "UDP"}},
        {"namedPort": "web"},
    ]
    rule = {"action": "Pass", "from": [EVERYWHERE], "ports": ports}
    found = one(admin_policy({"priority": 1, "subject": EVERYWHERE, "ingress": [rule]})).spec.ingress
    assert [(one.protocol, one.destination.ports) for one in found] == [
        (None, (Port(name="web"),)),
        (TCP, (Port(80, 80),)),
        (UDP, (Port(1, 9),)),
    ]


def test_an_endpoint_slice_keeps_its_addresses_its_ports_and_its_service() -> None:
    found = one(
        document(
            "discovery.k8s.io/v1",
            "EndpointSlice",
            "dns-x",
            "kube-system",
            labels={"kubernetes.io/service-name": "dns"},
            addressType="IPv4",
            endpoints=[
                {"addresses": ["10.0.0.1"], "conditions": {"ready": False}, "nodeName": "n", "targetRef": {}},
                {"addresses": ["10.0.0.2"], "zone": "a", "hints": {"forZones": []}},
            ],
            ports=[{"name": "dns", "port": 53, "protocol": "UDP"}, {"port": None, "appProtocol": "http"}],
        )
    )  # fmt: skip
    assert (found.kind, found.name, found.namespace, found.service) == (
        "KubernetesEndpointSlice", "dns-x", "kube-system", "dns"
    )  # fmt: skip
    assert [one.addresses for one in found.endpoints] == [("10.0.0.1",), ("10.0.0.2",)]
    assert [(one.name, one.protocol, one.port) for one in found.ports] == [("dns", UDP, 53), ("", TCP, None)]
