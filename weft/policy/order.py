"""In which order tiers and policies are asked.

Lower `order` first, none last; equal orders by name. Two policies of one order and name (in two
namespaces, or one global) are ordered by namespace and kind, so that the order is total and every node has the same."""

from collections.abc import Iterable
from math import inf

from msgspec import Struct

from weft.model.keys import ResourceKey
from weft.model.policy import DEFAULT_TIER, KUBE_ADMIN_TIER, KUBE_BASELINE_TIER, TIER_ORDERS
from weft.policy.values import Action, Direction, EndpointPolicy, HostPolicy, Stage, TierPolicies

TierRank = tuple[bool, float, str]
PolicyRank = tuple[float, str]


class TierOrder(Struct, frozen=True):
    """Where a tier stands and what happens at its end.

    A tier that policies name but that does not exist (`exists` False) comes after all that do."""

    name: str
    order: float | None = None
    default_action: Action = Action.DENY
    exists: bool = True

    @property
    def rank(self) -> TierRank:
        return (not self.exists, inf if self.order is None else self.order, self.name)


class PolicyOrder(Struct, frozen=True):
    """What of a policy decides where it stands at an endpoint: all but its selector and rules."""

    key: ResourceKey
    tier: str
    order: float | None
    directions: frozenset[Direction]
    stages: frozenset[Stage] = frozenset({Stage.NORMAL})

    @property
    def rank(self) -> PolicyRank:
        return (inf if self.order is None else self.order, f"{self.key.name}/{self.key.namespace}/{self.key.kind}")


BUILT_IN_TIERS = {
    tier.name: tier
    for tier in (
        TierOrder(KUBE_ADMIN_TIER, TIER_ORDERS[KUBE_ADMIN_TIER], Action.PASS),
        TierOrder(DEFAULT_TIER, TIER_ORDERS[DEFAULT_TIER], Action.DENY),
        TierOrder(KUBE_BASELINE_TIER, TIER_ORDERS[KUBE_BASELINE_TIER], Action.PASS),
    )
}
"""Tiers that every cluster has; what the datastore says about them goes first."""


def order_policies(
    matching: Iterable[PolicyOrder],
    tiers: Iterable[TierOrder],
    profiles: Iterable[ResourceKey],
    stage: Stage = Stage.NORMAL,
) -> EndpointPolicy:
    """`matching` are the policies that choose the endpoint, `tiers` at least those they name, both in any order. Those
    that are not for the stage are left out."""
    by_tier: dict[str, list[PolicyOrder]] = {}
    for policy in matching:
        if stage in policy.stages:
            by_tier.setdefault(policy.tier, []).append(policy)
    applying = []
    for tier in sorted((tier for tier in tiers if tier.name in by_tier), key=lambda tier: tier.rank):
        ordered = sorted(by_tier[tier.name], key=lambda policy: policy.rank)
        applying.append(
            TierPolicies(
                name=tier.name,
                default_action=tier.default_action,
                ingress=tuple(p.key for p in ordered if Direction.INGRESS in p.directions),
                egress=tuple(p.key for p in ordered if Direction.EGRESS in p.directions),
            )
        )
    return EndpointPolicy(tuple(applying), tuple(profiles))


def order_host_policies(
    matching: Iterable[PolicyOrder], tiers: Iterable[TierOrder], profiles: Iterable[ResourceKey]
) -> HostPolicy:
    """As `order_policies`, for a host endpoint: each policy in the stages it is for."""
    policies, known = tuple(matching), tuple(tiers)

    def of(stage: Stage, profiles: Iterable[ResourceKey] = ()) -> EndpointPolicy:
        return order_policies(policies, known, profiles, stage)

    return HostPolicy(
        normal=of(Stage.NORMAL, profiles),
        forward=of(Stage.FORWARD),
        pre_dnat=_deciding_nothing_at_the_end(of(Stage.PRE_DNAT), Direction.INGRESS),
        untracked=_deciding_nothing_at_the_end(of(Stage.UNTRACKED), *Direction),
    )


def _deciding_nothing_at_the_end(policy: EndpointPolicy, *directions: Direction) -> EndpointPolicy:
    """Its tiers in these directions, such that what no rule decides goes on to the next stage."""
    ingress, egress = (direction in directions for direction in (Direction.INGRESS, Direction.EGRESS))
    tiers = (
        TierPolicies(tier.name, Action.PASS, tier.ingress if ingress else (), tier.egress if egress else ())
        for tier in policy.tiers
    )
    return EndpointPolicy(tuple(tier for tier in tiers if tier.ingress or tier.egress), policy.profiles)
