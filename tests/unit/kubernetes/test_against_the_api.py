"""A policy means through the conversion what Kubernetes' API says it means, for every connection of a small cluster.

The oracle is held to verdicts written by hand first; then it is the measure for policies nobody wrote."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import HealthCheck, given, settings

from tests.unit.kubernetes import strategies
from tests.unit.kubernetes.documents import Tree, policy
from tests.unit.kubernetes.oracle import End, Oracle
from tests.unit.kubernetes.worlds import Ours, cluster_documents, differences

A = {"podSelector": {"matchLabels": {"pod": "a"}}}
IN_X = {"policyTypes": ["Ingress"], "podSelector": {}}
OUT_OF_X = {"policyTypes": ["Egress"], "podSelector": {}}


def end(name: str) -> End:
    """`x/a`, with the first of its addresses, or an address."""
    namespace, slash, pod = name.partition("/")
    if not slash:
        return End(name)
    for tree in cluster_documents():
        metadata = tree["metadata"]
        if tree["kind"] == "Pod" and (metadata["namespace"], metadata["name"]) == (namespace, pod):
            return End(tree["status"]["podIPs"][0]["ip"], tree)
    raise KeyError(name)


# Policies of namespace x, and whom they let in (or out) at which port; everybody not named is not.
INGRESS: dict[str, tuple[list[Tree], str, str, int, set[str]]] = {
    "nothing selects the pod": ([], "x/a", "TCP", 80, {"x/b", "x/c", "y/a", "z/a", "10.0.9.9", "192.0.2.7"}),
    "deny all": ([IN_X], "x/a", "TCP", 80, set()),
    "allow all": ([IN_X | {"ingress": [{}]}], "x/a", "SCTP", 1, {"x/b", "x/c", "y/a", "z/a", "10.0.9.9", "192.0.2.7"}),
    "one pod of the namespace": ([IN_X | {"ingress": [{"from": [A]}]}], "x/b", "TCP", 80, {"x/a"}),
    "pods of another namespace by its name": (
        [
            IN_X
            | {"ingress": [{"from": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "z"}}}]}]}
        ],
        "x/b",
        "TCP",
        80,
        {"z/a"},
    ),
    "a namespace and a pod of it": (
        [IN_X | {"ingress": [{"from": [A | {"namespaceSelector": {"matchLabels": {"ns": "y"}}}]}]}],
        "x/b",
        "TCP",
        80,
        {"y/a"},
    ),
    "a namespace or a pod": (
        [IN_X | {"ingress": [{"from": [A, {"namespaceSelector": {"matchLabels": {"ns": "y"}}}]}]}],
        "x/b",
        "TCP",
        80,
        {"x/a", "y/a"},
    ),
    "an absent label is not in any values": (
        [
            IN_X
            | {
                "ingress": [
                    {
                        "from": [
                            {
                                "podSelector": {
                                    "matchExpressions": [{"key": "tier", "operator": "NotIn", "values": ["front"]}]
                                }
                            }
                        ]
                    }
                ]
            }
        ],
        "x/b",
        "TCP",
        80,
        {"x/c"},
    ),
    "an absent label is not empty": (
        [IN_X | {"ingress": [{"from": [{"podSelector": {"matchLabels": {"tier": ""}}}]}]}],
        "x/a",
        "TCP",
        80,
        {"x/b"},
    ),
    "a block with a hole": (
        [IN_X | {"ingress": [{"from": [{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.0.2.0/24"]}}]}]}],
        "x/a",
        "UDP",
        9,
        {"x/b", "x/c", "z/a", "10.0.9.9"},
    ),
    "a named port is the pod's own": (
        [IN_X | {"ingress": [{"ports": [{"port": "web"}]}]}],
        "x/b",
        "TCP",
        81,
        {"x/a", "x/c", "y/a", "z/a", "10.0.9.9", "192.0.2.7"},
    ),
    "and not another pod's": ([IN_X | {"ingress": [{"ports": [{"port": "web"}]}]}], "x/b", "TCP", 80, set()),
    "a port is TCP's": ([IN_X | {"ingress": [{"ports": [{"port": 80}]}]}], "x/a", "UDP", 80, set()),
    "the end of a range is inside": (
        [IN_X | {"ingress": [{"from": [A], "ports": [{"port": 70, "endPort": 80}]}]}],
        "x/b",
        "TCP",
        80,
        {"x/a"},
    ),
    "policies add up": ([IN_X, IN_X | {"ingress": [{"from": [A]}]}], "x/b", "TCP", 80, {"x/a"}),
    "egress rules do not isolate ingress": (
        [OUT_OF_X],
        "x/a",
        "TCP",
        80,
        {"x/b", "x/c", "y/a", "z/a", "10.0.9.9", "192.0.2.7"},
    ),
}


@pytest.mark.parametrize("answers", [Oracle, Ours])
@pytest.mark.parametrize(("specs", "at", "protocol", "port", "let_in"), INGRESS.values(), ids=INGRESS)
def test_who_is_let_in(
    specs: list[Tree], at: str, protocol: str, port: int, let_in: set[str], answers: type[Oracle] | type[Ours]
) -> None:
    documents = [*cluster_documents(), *(policy(spec, f"p{n}", "x") for n, spec in enumerate(specs))]
    everybody = {"x/a", "x/b", "x/c", "y/a", "z/a", "10.0.9.9", "192.0.2.7"} - {at}
    found = answers(documents)
    assert {one for one in everybody if found.ingress(end(one), end(at), protocol, port)} == let_in - {at}


TO_Y = {"namespaceSelector": {"matchLabels": {"ns": "y"}}}
EGRESS: dict[str, tuple[Tree, str, int, set[str]]] = {
    "deny all": (OUT_OF_X, "TCP", 80, set()),
    "a namespace": (OUT_OF_X | {"egress": [{"to": [TO_Y]}]}, "TCP", 80, {"y/a"}),
    "the named port of whoever is reached": (
        OUT_OF_X | {"egress": [{"ports": [{"port": "web"}]}]},
        "TCP",
        81,
        {"x/b", "y/a"},
    ),
    "egress although no type names it": ({"podSelector": {}, "egress": [{"to": [A]}]}, "TCP", 80, {"x/a"}),
    "a block": (OUT_OF_X | {"egress": [{"to": [{"ipBlock": {"cidr": "192.0.2.0/24"}}]}]}, "TCP", 80, {"192.0.2.7"}),
}


@pytest.mark.parametrize("answers", [Oracle, Ours])
@pytest.mark.parametrize(("spec", "protocol", "port", "let_out"), EGRESS.values(), ids=EGRESS)
def test_whom_a_pod_may_reach(
    spec: Tree, protocol: str, port: int, let_out: set[str], answers: type[Oracle] | type[Ours]
) -> None:
    documents = [*cluster_documents(), policy(spec, "p", "x")]
    everybody = {"x/a", "x/b", "y/a", "z/a", "10.0.9.9", "192.0.2.7"}
    found = answers(documents)
    assert {one for one in everybody if found.egress(end("x/c"), end(one), protocol, port)} == let_out


def expression(key: str, operator: str, *values: str) -> Tree:
    return {"matchExpressions": [{"key": key, "operator": operator} | ({"values": list(values)} if values else {})]}


PEERS: list[list[Tree] | None] = [
    None,
    [],
    [{"podSelector": {}}],
    [{"namespaceSelector": {}}],
    [A],
    [A | {"namespaceSelector": {}}],
    [A | {"namespaceSelector": {"matchLabels": {"team": ""}}}],
    [{"podSelector": expression("tier", "DoesNotExist")}],
    [{"namespaceSelector": expression("team", "NotIn", "red")}],
    [{"namespaceSelector": expression("kubernetes.io/metadata.name", "In", "z")}],
    [{"ipBlock": {"cidr": "0.0.0.0/0", "except": ["10.0.1.0/24"]}}],
    [{"ipBlock": {"cidr": "fd00::/16"}}, {"podSelector": {"matchLabels": {"pod": "b"}}}],
]
PORT_LISTS: list[list[Tree] | None] = [
    None,
    [],
    [{}],
    [{"protocol": "UDP"}],
    [{"port": 80}],
    [{"port": 81, "endPort": 443}],
    [{"port": "web"}],
    [{"port": "web", "protocol": "SCTP"}],
    [{"port": "dns", "protocol": "UDP"}, {"port": 443}],
    [{"port": 80, "protocol": p} for p in ("TCP", "UDP", "SCTP")],
    [{"port": 82}, {"port": "dns"}, {"port": 80}],
]


@pytest.mark.parametrize("direction", ["ingress", "egress"])
@pytest.mark.parametrize("peers", PEERS, ids=str)
def test_every_peer_with_every_list_of_ports(direction: str, peers: list[Tree] | None) -> None:
    field, types = ("from", ["Ingress"]) if direction == "ingress" else ("to", ["Egress"])
    compared = 0
    for ports in PORT_LISTS:
        rule = {name: value for name, value in ((field, peers), ("ports", ports)) if value is not None}
        one = policy({"podSelector": {}, direction: [rule], "policyTypes": types}, "p", "x")
        count, wrong = differences([one], ("TCP", "UDP", "SCTP"), (80, 81))
        assert wrong == []
        compared += count
    assert compared > 8_000


def test_every_way_to_name_types_with_every_direction_of_rules() -> None:
    lists: list[list[Tree] | None] = [None, [], [{}], [{"ports": [{"port": 80}]}]]
    types: list[list[str] | None] = [None, [], ["Ingress"], ["Egress"], ["Ingress", "Egress"]]
    for ingress, egress, given_types in itertools.product(lists, lists, types):
        fields = {"ingress": ingress, "egress": egress, "policyTypes": given_types}
        spec: Tree = {"podSelector": {}, **{field: value for field, value in fields.items() if value is not None}}
        assert differences([policy(spec, "p", "x")], ("TCP",), (80, 81))[1] == []


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(strategies.policies())
def test_policies_nobody_wrote(policies: list[Tree]) -> None:
    assert differences(policies)[1] == []


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(strategies.policies_of_the_cluster())
def test_policies_of_the_cluster_nobody_wrote(policies: list[Tree]) -> None:
    assert differences(policies)[1] == []


@pytest.mark.soak
@pytest.mark.timeout(900)
@settings(max_examples=2000, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(strategies.policies_of_the_cluster())
def test_many_policies_of_the_cluster_nobody_wrote(policies: list[Tree]) -> None:
    assert differences(policies)[1] == []


@pytest.mark.soak
@pytest.mark.timeout(900)
@settings(max_examples=2000, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(strategies.policies(most=8))
def test_many_policies_nobody_wrote(policies: list[Tree]) -> None:
    assert differences(policies)[1] == []
