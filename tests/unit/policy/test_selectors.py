"""What the selectors of policies and rules choose: Calico's rules, case by case."""

import pytest

from weft.model.base import Metadata
from weft.model.endpoint import WorkloadEndpoint, WorkloadEndpointSpec
from weft.model.policy import (
    EntityRule,
    GlobalNetworkPolicy,
    GlobalNetworkPolicySpec,
    GlobalNetworkSet,
    NetworkPolicy,
    NetworkPolicySpec,
    NetworkSet,
    ServiceAccountMatch,
)
from weft.policy.selectors import (
    endpoint_labels,
    entity_selector,
    network_set_labels,
    policy_selector,
    selector_set,
)
from weft.selector import parse

NS = "projectcalico.org/namespace"
SA = "projectcalico.org/serviceaccount"


@pytest.mark.parametrize(
    ("entity", "namespace", "expected"),
    [
        (EntityRule(), "", None),
        (EntityRule(), "shop", None),
        (EntityRule(selector="a == 'b'"), "", "a == 'b'"),
        (EntityRule(selector="a == 'b'"), "shop", f"{NS} == 'shop' && a == 'b'"),
        (EntityRule(selector="all()"), "", "all()"),
        (EntityRule(selector="all()"), "shop", f"{NS} == 'shop'"),
        (EntityRule(not_selector="a == 'b'"), "", None),
        (EntityRule(not_selector="a == 'b'"), "shop", f"{NS} == 'shop'"),
        (EntityRule(namespace_selector="team == 'x'"), "shop", "pcns.team == 'x'"),
        (EntityRule(namespace_selector="team == 'x'", selector="a == 'b'"), "", "pcns.team == 'x' && a == 'b'"),
        (EntityRule(namespace_selector="all()"), "shop", f"has({NS})"),
        (EntityRule(namespace_selector="global()"), "shop", f"!has({NS})"),
        (EntityRule(namespace_selector="global() || team == 'x'"), "shop", f"!has({NS}) || pcns.team == 'x'"),
        (EntityRule(namespace_selector="!all()"), "", f"!has({NS})"),
        (
            EntityRule(service_accounts=ServiceAccountMatch(names=("b", "a"))), "shop",
            f"{NS} == 'shop' && {SA} in {{'a','b'}}",
        ),
        (EntityRule(service_accounts=ServiceAccountMatch(selector="r == 'w'")), "", "pcsa.r == 'w'"),
    ],
)  # fmt: skip
def test_one_end_of_a_rule_chooses(entity: EntityRule, namespace: str, expected: str | None) -> None:
    found = entity_selector(entity, namespace)
    assert found == (None if expected is None else parse(expected))


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        (NetworkPolicySpec(), f"{NS} == 'shop'"),
        (NetworkPolicySpec(selector="a == 'b'"), f"{NS} == 'shop' && a == 'b'"),
        (NetworkPolicySpec(service_account_selector="r == 'w'"), f"{NS} == 'shop' && pcsa.r == 'w'"),
        (NetworkPolicySpec(service_account_selector="all()"), f"{NS} == 'shop'"),
        (GlobalNetworkPolicySpec(), "all()"),
        (GlobalNetworkPolicySpec(selector="a == 'b'"), "a == 'b'"),
        (GlobalNetworkPolicySpec(selector="a == 'b'", namespace_selector="t == 'x'"), "pcns.t == 'x' && a == 'b'"),
        (GlobalNetworkPolicySpec(namespace_selector="all()"), f"has({NS})"),
        # Calico's rule that keeps `all()` outside of `kube-system` away from host endpoints
        (
            GlobalNetworkPolicySpec(selector="all()", namespace_selector="t not in {'x'}"),
            f"pcns.t not in {{'x'}} && has({NS})",
        ),
        (GlobalNetworkPolicySpec(namespace_selector="!has(t)"), "!has(pcns.t)"),
        (GlobalNetworkPolicySpec(selector="all()", service_account_selector="!has(t)"), f"has({SA}) && !has(pcsa.t)"),
        (GlobalNetworkPolicySpec(service_account_selector="all()"), f"has({SA})"),
    ],
)
def test_a_policy_chooses(policy: NetworkPolicySpec | GlobalNetworkPolicySpec, expected: str) -> None:
    resource = (
        NetworkPolicy(metadata=Metadata(name="p", namespace="shop"), spec=policy)
        if isinstance(policy, NetworkPolicySpec)
        else GlobalNetworkPolicy(metadata=Metadata(name="p"), spec=policy)
    )
    assert policy_selector(resource) == parse(expected)


def test_an_endpoint_has_the_labels_that_follow_from_what_it_is() -> None:
    spec = WorkloadEndpointSpec(orchestrator="k8s", service_account_name="web")
    endpoint = WorkloadEndpoint(metadata=Metadata(name="w", namespace="shop", labels={"a": "b", NS: "lie"}), spec=spec)
    assert endpoint_labels(endpoint) == {"a": "b", NS: "shop", "projectcalico.org/orchestrator": "k8s", SA: "web"}


def test_a_workload_cannot_pretend_to_be_in_another_namespace_or_to_have_another_account() -> None:
    lies = {"pcns.projectcalico.org/name": "kube-system", "pcns.env": "prod", "pcsa.role": "admin"}
    endpoint = WorkloadEndpoint(metadata=Metadata(name="w", namespace="shop", labels={"pcn": "b", **lies}))
    assert endpoint_labels(endpoint).keys() & lies.keys() == set()
    assert endpoint_labels(endpoint)["pcn"] == "b"


def test_a_network_set_is_in_its_namespace_and_a_global_one_in_none() -> None:
    own = {"a": "b"}
    assert network_set_labels(NetworkSet(metadata=Metadata(name="n", namespace="shop", labels=own))) == own | {
        NS: "shop"
    }
    assert network_set_labels(GlobalNetworkSet(metadata=Metadata(name="n", labels=own))) == own


def test_the_same_selector_written_otherwise_shares_a_set() -> None:
    assert selector_set(parse("a=='b'&&has(c)")).id == selector_set(parse('(a == "b") && has( c )')).id
    assert selector_set(parse("a == 'b'")).id != selector_set(parse("a == 'c'")).id
