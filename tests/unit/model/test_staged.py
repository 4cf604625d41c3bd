"""Staged policies: checked like those they stage, or, standing for a deletion, saying nothing else."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml

from weft.model.codec import decode_manifests, decode_stored, encode_stored
from weft.model.errors import ValidationError
from weft.model.keys import ResourceKey, of
from weft.model.kinds import find

NAMESPACED, GLOBAL, KUBERNETES = "StagedNetworkPolicy", "StagedGlobalNetworkPolicy", "StagedKubernetesNetworkPolicy"


def manifest(kind: str, spec: dict[str, Any], name: str = "x") -> str:
    api = {"apiVersion": "projectcalico.org/v3", "kind": kind, "metadata": {"name": name}}
    return yaml.safe_dump(api | {"spec": spec})


def one(text: str) -> Any:
    (resource,) = decode_manifests(text, "staged.yaml")
    return resource


WRONG = {
    "a selector": (NAMESPACED, {"selector": "a ="}, "spec.selector"),
    "a rule": (
        NAMESPACED,
        {"ingress": [{"action": "Allow", "destination": {"ports": [1]}}]},
        "spec.ingress[0].protocol",
    ),
    "preDNAT with egress": (
        GLOBAL,
        {"preDNAT": True, "applyOnForward": True, "egress": [{"action": "Deny"}]},
        "spec.egress",
    ),
    "an unknown action": (GLOBAL, {"stagedAction": "Enforce"}, "spec.stagedAction"),
    "a peer": (KUBERNETES, {"ingress": [{"from": [{}]}]}, "spec.ingress[0].from[0]"),
    "a range": (KUBERNETES, {"egress": [{"ports": [{"port": 9, "endPort": 8}]}]}, "spec.egress[0].ports[0].endPort"),
    "a field of the other API": (KUBERNETES, {"selector": "all()"}, "spec.selector"),
    "a deletion with a selector": (NAMESPACED, {"stagedAction": "Delete", "selector": "all()"}, "spec.selector"),
    "a deletion with an order": (GLOBAL, {"stagedAction": "Delete", "order": 1}, "spec.order"),
    "a deletion with rules": (NAMESPACED, {"stagedAction": "Delete", "ingress": [{"action": "Deny"}]}, "spec.ingress"),
    "a deletion with pods": (
        KUBERNETES,
        {"stagedAction": "Delete", "podSelector": {"matchLabels": {"a": "b"}}},
        "spec.podSelector",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("kind", "spec", "field"), WRONG.values(), ids=WRONG)
def test_what_is_wrong_is_refused_with_its_field(kind: str, spec: dict[str, Any], field: str) -> None:
    with pytest.raises(ValidationError) as caught:
        one(manifest(kind, spec))
    assert caught.value.field == field


@pytest.mark.parametrize("kind", [NAMESPACED, GLOBAL])
def test_types_and_the_tiers_label_are_filled_in_but_a_deletion_has_no_types(kind: str) -> None:
    found = one(manifest(kind, {"tier": "t", "egress": [{"action": "Deny"}]}))
    assert (found.spec.staged_action, found.spec.types) == ("Set", ("Egress",))
    assert found.metadata.labels == {"projectcalico.org/tier": "t"}
    deletion = one(manifest(kind, {"tier": "t", "stagedAction": "Delete", "types": ["Ingress"]}))
    assert (deletion.spec.staged_action, deletion.spec.types) == ("Delete", ())


@pytest.mark.parametrize("kind", [NAMESPACED, GLOBAL])
def test_a_stored_name_has_no_prefix_of_the_default_tier_unless_its_author_wrote_it(kind: str) -> None:
    namespace = "default" if kind == NAMESPACED else ""
    key = ResourceKey(kind, "default.x", namespace)
    raw = json.dumps({"metadata": {"name": "default.x"}, "spec": {"tier": "default"}}).encode()
    assert decode_stored(key, raw).metadata.name == "x"  # type: ignore[union-attr]
    written = one(manifest(kind, {}, "default.x"))
    assert decode_stored(of(written), encode_stored(written)) == written


def test_a_stored_kubernetes_policy_whose_ports_end_before_they_begin_is_unreadable() -> None:
    raw = b'{"spec": {"ingress": [{"ports": [{"port": 9, "endPort": 8}]}]}}'
    with pytest.raises(ValidationError) as caught:
        decode_stored(ResourceKey(KUBERNETES, "x", "shop"), raw)
    assert caught.value.field == "spec.ingress[0].ports[0].endPort"


@pytest.mark.parametrize(
    ("word", "kind"), [("spol", NAMESPACED), ("StagedPolicies", NAMESPACED), ("sgnp", GLOBAL), ("skpols", KUBERNETES)]
)
def test_people_name_them_as_in_calicoctl(word: str, kind: str) -> None:
    found = find(word)
    assert found is not None
    assert found.name == kind
