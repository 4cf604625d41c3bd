"""The chains that endpoints with policy need, and what is in each.

A plan says what a chain is for; its name follows from it alone. Three kinds: the rules of one policy or profile,
the policies of one tier (only where one of them passes), and everything that applies to an endpoint in one
direction at one place. Workloads have one place; the policies of a host endpoint are asked in as many as it has
stages."""

from collections.abc import Iterable, Iterator, Mapping
from enum import Enum
from typing import Protocol

from msgspec import Struct

from felix.calc.ip_sets import SetKey, SetKind
from felix.rules import render_names as names
from felix.rules import values as nft
from felix.rules.render_actions import ActionSettings, Ending, Place, deny, drops_only, rule_endings
from felix.rules.render_match import render_rule
from felix.rules.render_pieces import DROP_INVALID
from weft.model.keys import ResourceKey
from weft.policy.values import Action, Direction, EndpointPolicy, Policies, Policy, TierPolicies, is_staged


class Context(Protocol):
    """What the content of a chain depends on besides its plan."""

    @property
    def policies(self) -> Policies: ...
    @property
    def actions(self) -> ActionSettings: ...
    @property
    def drop_invalid(self) -> bool: ...
    def kind_of(self, key: SetKey) -> SetKind | None: ...
    def passes(self, key: ResourceKey, direction: Direction) -> bool: ...
    def asked_once(self, plan: "PolicyPlan") -> bool:
        """Whether one endpoint chain asks the policy, and no other."""
        ...

    def rules_of(self, plan: "PolicyPlan") -> tuple[nft.Rule, ...]:
        """`render_policy` of the plan, remembered until something it depends on changes."""
        ...


class Where(Enum):
    """The places where the policies of an endpoint are asked, and what the names of chains there contain.

    DNATTED: what the node itself sends and was given another destination; asked after that, as Stage.NORMAL."""

    WORKLOAD = "endpoint"
    HOST = "host"
    DNATTED = "dnatted"
    FORWARD = "host-forward"
    PRE_DNAT = "pre-dnat"
    UNTRACKED = "untracked"

    @property
    def family(self) -> str:
        """Places with the same family share the chains of policies and tiers, since actions become the same there."""
        return f"{self.value}/" if self in (Where.DNATTED, Where.PRE_DNAT, Where.UNTRACKED) else ""

    @property
    def decides(self) -> bool:
        """Whether the end of a tier decides there; elsewhere, what no rule decides goes on to the next stage."""
        return self not in (Where.PRE_DNAT, Where.UNTRACKED)

    @property
    def denies_the_rest(self) -> bool:
        return self in (Where.WORKLOAD, Where.HOST, Where.DNATTED)


_MOST_INLINED = 4
"""Rules of a policy that is written into the one chain that asks it."""

_MARK_ALLOWED = nft.SetMark(names.ALLOWED_EARLY, names.ALLOWED_EARLY)
_ON_ALLOW: Mapping[Where, Ending] = {
    Where.PRE_DNAT: (_MARK_ALLOWED, nft.Accept()),
    Where.UNTRACKED: (nft.NoTrack(), _MARK_ALLOWED, nft.Accept()),
}
_FAILSAFES: Mapping[tuple[Where, Direction], str] = {
    (Where.HOST, Direction.INGRESS): names.FAILSAFE_IN,
    (Where.HOST, Direction.EGRESS): names.FAILSAFE_OUT,
    (Where.DNATTED, Direction.EGRESS): names.FAILSAFE_OUT,
    (Where.PRE_DNAT, Direction.INGRESS): names.FAILSAFE_IN,
    (Where.UNTRACKED, Direction.INGRESS): names.FAILSAFE_IN_RAW,
    (Where.UNTRACKED, Direction.EGRESS): names.FAILSAFE_OUT_RAW,
}


class PolicyPlan(Struct, frozen=True):
    direction: Direction
    key: ResourceKey
    where: Where = Where.WORKLOAD

    @property
    def name(self) -> str:
        return names.policy_chain(self.direction, self.key, self.where.family)


class TierPlan(Struct, frozen=True):
    direction: Direction
    tier: TierPolicies
    where: Where = Where.WORKLOAD

    @property
    def name(self) -> str:
        return names.tier_chain(self.direction, self.tier, self.where.family)

    def asked(self) -> Iterator[PolicyPlan]:
        for key in self.tier.policies(self.direction):
            yield PolicyPlan(self.direction, key, self.where)


class EndpointPlan(Struct, frozen=True):
    """`tiers` are those with a policy for the direction."""

    direction: Direction
    tiers: tuple[TierPolicies, ...]
    profiles: tuple[ResourceKey, ...]
    where: Where = Where.WORKLOAD

    @property
    def name(self) -> str:
        return names.endpoint_chain(self.direction, self.tiers, self.profiles, self.where.value)

    def asked(self) -> Iterator[PolicyPlan]:
        for tier in self.tiers:
            for key in tier.policies(self.direction):
                yield PolicyPlan(self.direction, key, self.where)
        for key in self.profiles:
            yield PolicyPlan(self.direction, key, self.where)

    def tier_plans(self) -> Iterator[TierPlan]:
        """Each has a chain only while a policy of it passes."""
        for tier in self.tiers:
            yield TierPlan(self.direction, tier, self.where)


SharedPlan = TierPlan | EndpointPlan


def endpoint_plan(direction: Direction, policy: EndpointPolicy, where: Where = Where.WORKLOAD) -> EndpointPlan:
    return EndpointPlan(direction, policy.tiers_of(direction), policy.profiles, where)


def passing_directions(policy: Policy) -> tuple[Direction, ...]:
    """Those in which one of its rules leaves the tier: none for a staged policy."""
    if is_staged(policy.key):
        return ()
    return tuple(
        direction
        for direction in Direction
        if any(rule.effect is Action.PASS for rule in policy.rules(direction) or ())
    )


def render_plan(plan: PolicyPlan | SharedPlan, context: Context) -> nft.Chain | None:
    """None: the plan needs no chain now."""
    match plan:
        case PolicyPlan():
            return _policy_chain(plan, context)
        case TierPlan():
            return _tier_chain(plan, context)
        case EndpointPlan():
            return _endpoint_chain(plan, context)


def _policy_chain(plan: PolicyPlan, context: Context) -> nft.Chain | None:
    """Of a profile, passing means to go on with the next one."""
    policy = context.policies.get(plan.key)
    if policy is None or policy.rules(plan.direction) is None:
        return None
    if _passes(plan, context) or _inlined(plan, context):
        return None
    rules = context.rules_of(plan)
    return nft.Chain(plan.name, rules, keeps=_kept(_counters(plan, context), rules))


def _tier_chain(plan: TierPlan, context: Context) -> nft.Chain | None:
    """`return` leaves the tier: by a Pass rule, or at its end if that is its default action."""
    asked = tuple(plan.asked())
    if not any(_passes(one, context) for one in asked):
        return None
    rules: list[nft.Rule] = []
    counters: set[str] = set()
    for one in asked:
        if _passes(one, context) or _inlined(one, context):
            rules += context.rules_of(one)
            counters |= _counters(one, context)
        else:
            rules.append(nft.rule(nft.Jump(one.name)))
    rules += _end_of_tier(plan, context)
    return nft.Chain(plan.name, tuple(rules), keeps=_kept(counters, rules))


def _endpoint_chain(plan: EndpointPlan, context: Context) -> nft.Chain:
    """What no packet reaches is left out. Of a workload, and where a host endpoint has its last word, it ends in a
    verdict, so that nothing falls back into the base chain."""
    rules = list(_before_policy(plan, context))
    counters: set[str] = set()

    def ask(asked: Iterable[PolicyPlan]) -> None:
        for one in asked:
            if _inlined(one, context):
                rules.extend(context.rules_of(one))
                counters.update(_counters(one, context))
            else:
                rules.append(nft.rule(nft.Jump(one.name)))

    for tier in plan.tier_plans():
        if any(_passes(one, context) for one in tier.asked()):
            rules.append(nft.rule(nft.Jump(tier.name), comment=_comment("tier", tier.tier.name)))
            continue
        ask(tier.asked())
        end = _end_of_tier(tier, context)
        if end:
            rules += end
            break
    else:
        if plan.where.denies_the_rest:
            ask(PolicyPlan(plan.direction, key, plan.where) for key in plan.profiles)
            rules.append(nft.Rule(_deny(plan, names.final_counter(plan.direction), context), "nothing allowed it"))
    return nft.Chain(plan.name, tuple(rules), keeps=_kept(counters, rules))


def _before_policy(plan: EndpointPlan, context: Context) -> Iterator[nft.Rule]:
    failsafes = _FAILSAFES.get((plan.where, plan.direction))
    if failsafes is not None:
        yield nft.rule(nft.Jump(failsafes))
    if context.drop_invalid and plan.where is not Where.UNTRACKED:
        yield DROP_INVALID


def _counters(plan: PolicyPlan, context: Context) -> set[str]:
    """Of all its rules, also of those that can match nothing now: they keep what they have counted."""
    place = Place(plan.direction, plan.key)
    rules = context.policies[plan.key].rules(plan.direction) or ()
    return {place.counter(rule) for rule in rules if rule.effect is not None}


def _kept(counters: set[str], rules: Iterable[nft.Rule]) -> frozenset[str]:
    """Those in which none of the rules counts."""
    used = {s.counter for rule in rules for s in rule.statements if isinstance(s, nft.CountIn)}
    return frozenset(counters - used)


def _passes(plan: PolicyPlan, context: Context) -> bool:
    """Whether its rules are written into the tier's chain."""
    return plan.key.kind != "Profile" and context.passes(plan.key, plan.direction)


def _inlined(plan: PolicyPlan, context: Context) -> bool:
    """Whether its rules are written where it is asked, which saves packets the jump and the kernel's check a visit.

    Only where one endpoint chain asks it and it is short, so that a change writes little; and where no rule returns,
    which would leave more than the policy."""
    if is_staged(plan.key) or not context.asked_once(plan):
        return False
    policy = context.policies.get(plan.key)
    rules = policy.rules(plan.direction) if policy is not None else None
    return rules is not None and len(rules) <= _MOST_INLINED and all(one.effect is not Action.PASS for one in rules)


def render_policy(plan: PolicyPlan, context: Context) -> Iterator[nft.Rule]:
    """The rules of a policy, wherever they are written."""
    place = Place(plan.direction, plan.key, _ON_ALLOW.get(plan.where, (nft.Accept(),)))
    actions = _actions(plan.where, context)
    for rule in context.policies[plan.key].rules(plan.direction) or ():
        yield from render_rule(rule, context.kind_of, rule_endings(rule, place, actions))


def _actions(where: Where, context: Context) -> ActionSettings:
    """The kernel rejects neither before connection tracking nor after routing."""
    return drops_only(context.actions) if where.family else context.actions


def _deny(plan: SharedPlan, counter: str, context: Context) -> Ending:
    return deny(counter, _actions(plan.where, context))


def _end_of_tier(plan: TierPlan, context: Context) -> tuple[nft.Rule, ...]:
    tier = plan.tier
    if tier.default_action is Action.PASS or not tier.decides(plan.direction) or not plan.where.decides:
        return ()
    counter = names.tier_end_counter(plan.direction, tier.name)
    return (nft.Rule(_deny(plan, counter, context), _comment("end of tier", tier.name)),)


def _comment(what: str, name: str) -> str:
    printable = "".join(c for c in name if c.isprintable() and c not in '"\\' and c.isascii())
    return f"{what} {printable}"[:120]
