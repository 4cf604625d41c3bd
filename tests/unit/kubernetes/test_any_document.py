"""Whatever stands in a document of Kubernetes, it is read or refused."""

from __future__ import annotations

import copy
from typing import Any

import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.kubernetes.documents import (
    Tree,
    pod,
    policy,
    read,
)
from tests.unit.kubernetes.pieces import admin_rule, cluster_rule
from weft.kubernetes import decode_manifests
from weft.model.base import Resource
from weft.model.errors import ValidationError

GOOD: list[Tree] = [
    policy(
        {
            "podSelector": {
                "matchLabels": {"a": "b"},
                "matchExpressions": [{"key": "k", "operator": "In", "values": ["v"]}],
            },
            "policyTypes": ["Ingress", "Egress"],
            "ingress": [
                {
                    "from": [{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]}}, {"podSelector": {}}],
                    "ports": [{"protocol": "TCP", "port": 80, "endPort": 90}, {"port": "web"}],
                }
            ],
            "egress": [{"to": [{"namespaceSelector": {"matchLabels": {"x": ""}}}]}],
        }
    ),
    pod("a", "shop", "10.0.0.1", spec={"containers": [{"name": "c", "ports": [{"containerPort": 80, "name": "web"}]}]}),
    cluster_rule(protocols=[{"tcp": {"destinationPort": {"range": {"start": 1, "end": 2}}}}]),
    admin_rule(ports=[{"portNumber": {"port": 1}}]),
]  # fmt: skip


junk = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-1, 70000), st.floats(), st.text(max_size=5)),
    lambda inner: st.one_of(st.lists(inner, max_size=2), st.dictionaries(st.text(max_size=4), inner, max_size=2)),
    max_leaves=4,
)


@settings(max_examples=300, deadline=None)
@given(st.data(), st.sampled_from(GOOD), junk)
def test_whatever_stands_in_a_field_is_read_or_refused_and_never_a_crash(
    data: st.DataObject, tree: Tree, new: Any
) -> None:
    tree = copy.deepcopy(tree)
    place: Any = tree
    while True:
        choices = list(place) if isinstance(place, dict) else list(range(len(place)))
        step = data.draw(st.sampled_from(choices))
        if not place[step] or not isinstance(place[step], dict | list) or data.draw(st.booleans()):
            place[step] = new
            break
        place = place[step]
    outcome = outcome_of(yaml.safe_dump(tree, allow_unicode=True))
    if isinstance(outcome, ValidationError):
        assert outcome.field
        assert outcome.expected
    else:
        assert all(isinstance(resource, Resource) for resource in outcome)


def outcome_of(text: str) -> ValidationError | list[Resource]:
    try:
        return decode_manifests(text, "k8s.yaml")
    except ValidationError as error:
        return error


def test_good_documents_are_read() -> None:
    assert len(read(*GOOD)) == len(GOOD)
