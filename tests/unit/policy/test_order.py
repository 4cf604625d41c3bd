"""Tiers by order and name, policies by order and name, whatever order they came in."""

from itertools import permutations

import pytest

from weft.model.keys import ResourceKey
from weft.policy.order import BUILT_IN_TIERS, PolicyOrder, TierOrder, order_host_policies, order_policies
from weft.policy.values import Action, Direction, EndpointPolicy, Stage

BOTH = frozenset(Direction)


NORMAL = frozenset({Stage.NORMAL})


def _policy(
    name: str,
    order: float | None = None,
    tier: str = "t",
    namespace: str = "",
    stages: frozenset[Stage] = NORMAL,
) -> PolicyOrder:
    kind = "NetworkPolicy" if namespace else "GlobalNetworkPolicy"
    return PolicyOrder(ResourceKey(kind, name, namespace), tier, order, BOTH, stages)


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


def _staged(*stages: Stage) -> PolicyOrder:
    return _policy("-".join(stage.value for stage in stages), stages=frozenset(stages))


EACH = (_staged(Stage.NORMAL), _staged(Stage.NORMAL, Stage.FORWARD), _staged(Stage.PRE_DNAT), _staged(Stage.UNTRACKED))


def test_a_workload_has_the_policies_of_the_normal_stage() -> None:
    found = order_policies(EACH, [TierOrder("t")], ())
    assert _names(found) == ["/normal-forward", "/normal"]


def test_a_host_endpoint_has_each_policy_in_its_stages_and_profiles_in_the_normal_one() -> None:
    profile = ResourceKey("Profile", "p")
    found = order_host_policies(EACH, [TierOrder("t")], [profile])
    assert {stage: _names(found.of(stage)) for stage in Stage} == {
        Stage.NORMAL: ["/normal-forward", "/normal"],
        Stage.FORWARD: ["/normal-forward"],
        Stage.PRE_DNAT: ["/preDNAT"],
        Stage.UNTRACKED: ["/untracked"],
    }
    assert {stage for stage in Stage if found.of(stage).profiles} == {Stage.NORMAL}


def test_what_no_rule_decides_before_connection_tracking_and_dnat_goes_on() -> None:
    found = order_host_policies(EACH, [TierOrder("t", default_action=Action.DENY)], ())
    ends = {stage: [tier.default_action for tier in found.of(stage).tiers] for stage in Stage}
    assert ends[Stage.PRE_DNAT] == ends[Stage.UNTRACKED] == [Action.PASS]
    assert ends[Stage.NORMAL] == ends[Stage.FORWARD] == [Action.DENY]


def test_before_dnat_is_about_what_comes_in() -> None:
    only_out = PolicyOrder(
        ResourceKey("GlobalNetworkPolicy", "out"), "t", 1, frozenset({Direction.EGRESS}), frozenset({Stage.PRE_DNAT})
    )
    found = order_host_policies([*EACH, only_out], [TierOrder("t")], ())
    assert [tier.egress for tier in found.pre_dnat.tiers] == [()]
    assert order_host_policies([only_out], [TierOrder("t")], ()).pre_dnat.tiers == ()
