"""A policy's number is that of its rules, and of those it no longer has."""

from felix.counters import end_counts, policy_count
from felix.rules.values import Count
from weft.admin import policy as admin
from weft.model.keys import ResourceKey
from weft.policy.values import Action, Direction, EndpointPolicy, Policy, Rule, TierPolicies

KEY = ResourceKey("NetworkPolicy", "db", "shop")
POLICY = Policy(
    key=KEY,
    ingress=(
        Rule(action=Action.ALLOW, id="a"),
        Rule(action=Action.DENY, id="b"),
        Rule(action=Action.PASS, id="c", unenforced=("http",)),
    ),
    egress=None,
)


def test_rules_have_their_counts_and_the_total_what_retired_ones_counted_too() -> None:
    held = {
        "ingress/np/shop/db/allow-a": Count(3, 300),
        "ingress/np/shop/db/retired-pass": Count(10, 1000),
        "ingress/np/shop/dbx/allow-a": Count(99, 99),
        "egress/np/shop/db/retired-deny": Count(1, 1),
    }
    found = policy_count(POLICY, held)
    assert found.total(Direction.INGRESS) == admin.Count(13, 1300)
    assert found.total(Direction.EGRESS) == admin.Count(1, 1)
    assert [(one.index, one.id, one.action, one.count.packets) for one in found.rules] == [
        (0, "a", Action.ALLOW, 3),
        (1, "b", Action.DENY, 0),
        (2, "c", Action.DENY, 0),
    ]


def test_ends_are_told_where_they_are_in_the_kernel() -> None:
    tier = TierPolicies("security", Action.DENY, ingress=(KEY,))
    held = {"ingress/tier/security/end": Count(2, 20), "egress/final/end": Count(4, 40), "ingress/tier/x/end": Count(9)}
    assert end_counts([EndpointPolicy((tier,))], held) == (
        admin.EndCount(Direction.INGRESS, "security", admin.Count(2, 20)),
        admin.EndCount(Direction.EGRESS, "", admin.Count(4, 40)),
    )
