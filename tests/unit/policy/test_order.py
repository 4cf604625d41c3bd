"""Tiers by order and name, policies by order and name, whatever order they came in."""

from itertools import permutations

import pytest

from weft.model.keys import ResourceKey
from weft.policy.order import BUILT_IN_TIERS, PolicyOrder, TierOrder, order_policies
from weft.policy.values import Action, Direction, EndpointPolicy

BOTH = frozenset(Direction)


def _policy(name: str, order: float | None = None, tier: str = "t", namespace: str = "") -> PolicyOrder:
    kind = "NetworkPolicy" if namespace else "GlobalNetworkPolicy"
    return PolicyOrder(ResourceKey(kind, name, namespace), tier, order, BOTH)


def _names(policy: EndpointPolicy) -> list[str]:
    return [f"{key.namespace}/{key.name}" for tier in policy.tiers for key in tier.ingress]


@pytest.mark.parametrize(
    "ordered",
    [
        [_policy("z", 1), _policy("y", 2), _policy("x")],
        [_policy("a", 1), _policy("b", 1), _policy("c", 1)],
        [_policy("a"), _policy("b")],
        [_policy("b", -1), _policy("a", 0)],
        [_policy("a", 1, namespace="one"), _policy("a", 1, namespace="two"), _policy("b", 1, namespace="one")],
        [_policy("a", 1), _policy("a", 1, namespace="one")],
    ],
    ids=["none is last", "equal orders", "no orders", "negative", "namespaces", "a global one and one in a namespace"],
)
def test_policies_of_a_tier_have_one_order(ordered: list[PolicyOrder]) -> None:
    expected = [f"{one.key.namespace}/{one.key.name}" for one in ordered]
    for shuffled in permutations(ordered):
        assert _names(order_policies(shuffled, [TierOrder("t")], ())) == expected


@pytest.mark.parametrize(
    "ordered",
    [
        [TierOrder("z", 1), TierOrder("y", 2), TierOrder("x")],
        [TierOrder("a", 1), TierOrder("b", 1)],
        [TierOrder("z"), TierOrder("a", 1, exists=False)],
        list(BUILT_IN_TIERS.values()),
    ],
    ids=["none is last", "equal orders", "what does not exist is last", "built in"],
)
def test_tiers_have_one_order(ordered: list[TierOrder]) -> None:
    policies = [_policy("p", tier=tier.name) for tier in ordered]
    for shuffled in permutations(ordered):
        found = order_policies(policies, shuffled, ())
        assert [tier.name for tier in found.tiers] == [tier.name for tier in ordered]


def test_a_policy_stands_only_in_its_directions() -> None:
    ingress = PolicyOrder(ResourceKey("GlobalNetworkPolicy", "in"), "t", 1, frozenset({Direction.INGRESS}))
    egress = PolicyOrder(ResourceKey("GlobalNetworkPolicy", "out"), "u", 1, frozenset({Direction.EGRESS}))
    found = order_policies([ingress, egress], [TierOrder("t"), TierOrder("u", default_action=Action.PASS)], ())
    assert [tier.name for tier in found.tiers_of(Direction.INGRESS)] == ["t"]
    assert [tier.name for tier in found.tiers_of(Direction.EGRESS)] == ["u"]
