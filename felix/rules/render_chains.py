"""The chains that endpoints with policy need, and what is in each.

A plan says what a chain is for; its name follows from it alone. Three kinds: the rules of one policy or profile,
the policies of one tier (only where one of them passes), and everything that applies to an endpoint in one
direction."""

from collections.abc import Iterable, Iterator
from typing import Protocol

from msgspec import Struct

from felix.calc.ip_sets import SetKey, SetKind
from felix.rules import render_names as names
from felix.rules import values as nft
from felix.rules.render_actions import ActionSettings, Place, deny, rule_endings
from felix.rules.render_base import DROP_INVALID
from felix.rules.render_match import render_rule
from weft.model.keys import ResourceKey
from weft.policy.values import Action, Direction, EndpointPolicy, Policies, Policy, TierPolicies, is_staged


class Context(Protocol):
    """What the content of a chain depends on besides its plan."""

    @property
    def policies(self) -> Policies: ...
    @property
    def actions(self) -> ActionSettings: ...
    def kind_of(self, key: SetKey) -> SetKind | None: ...
    def passes(self, key: ResourceKey, direction: Direction) -> bool: ...


class PolicyPlan(Struct, frozen=True):
    direction: Direction
    key: ResourceKey

    @property
    def name(self) -> str:
        return names.policy_chain(self.direction, self.key)


class TierPlan(Struct, frozen=True):
    direction: Direction
    tier: TierPolicies

    @property
    def name(self) -> str:
        return names.tier_chain(self.direction, self.tier)

    def asked(self) -> Iterator[ResourceKey]:
        yield from self.tier.policies(self.direction)


class EndpointPlan(Struct, frozen=True):
    """`tiers` are those with a policy for the direction."""

    direction: Direction
    tiers: tuple[TierPolicies, ...]
    profiles: tuple[ResourceKey, ...]

    @property
    def name(self) -> str:
        return names.endpoint_chain(self.direction, self.tiers, self.profiles)

    def asked(self) -> Iterator[ResourceKey]:
        """The policies whose Pass rules decide what the chain looks like."""
        for tier in self.tiers:
            yield from tier.policies(self.direction)

    def tier_plans(self) -> Iterator[TierPlan]:
        """Each has a chain only while a policy of it passes."""
        for tier in self.tiers:
            yield TierPlan(self.direction, tier)


SharedPlan = TierPlan | EndpointPlan


def endpoint_plan(direction: Direction, policy: EndpointPolicy) -> EndpointPlan:
    return EndpointPlan(direction, policy.tiers_of(direction), policy.profiles)


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
        case PolicyPlan(direction, key):
            return _policy_chain(plan.name, direction, key, context)
        case TierPlan(direction, tier):
            return _tier_chain(plan.name, direction, tier, context)
        case EndpointPlan():
            return _endpoint_chain(plan, context)


def _policy_chain(name: str, direction: Direction, key: ResourceKey, context: Context) -> nft.Chain | None:
    """Of a profile, passing means to go on with the next one."""
    policy = context.policies.get(key)
    if policy is None or policy.rules(direction) is None:
        return None
    if context.passes(key, direction) and key.kind != "Profile":
        return None
    rules = tuple(_rules(policy, direction, context))
    return nft.Chain(name, rules, keeps=_kept(_counters(policy, direction), rules))


def _tier_chain(name: str, direction: Direction, tier: TierPolicies, context: Context) -> nft.Chain | None:
    """`return` leaves the tier: by a Pass rule, or at its end if that is its default action."""
    keys = tier.policies(direction)
    if not any(context.passes(key, direction) for key in keys):
        return None
    rules: list[nft.Rule] = []
    counters: set[str] = set()
    for key in keys:
        if context.passes(key, direction):
            rules += _rules(context.policies[key], direction, context)
            counters |= _counters(context.policies[key], direction)
        else:
            rules.append(nft.rule(nft.Jump(names.policy_chain(direction, key))))
    rules += _end_of_tier(tier, direction, context.actions)
    return nft.Chain(name, tuple(rules), keeps=_kept(counters, rules))


def _endpoint_chain(plan: EndpointPlan, context: Context) -> nft.Chain:
    """Ends in drop, so that nothing falls back into the base chain. What no packet reaches is left out."""
    direction = plan.direction
    rules = [DROP_INVALID]
    for tier in plan.tiers:
        keys = tier.policies(direction)
        if any(context.passes(key, direction) for key in keys):
            rules.append(nft.rule(nft.Jump(names.tier_chain(direction, tier)), comment=_comment("tier", tier.name)))
            continue
        rules += [nft.rule(nft.Jump(names.policy_chain(direction, key))) for key in keys]
        end = _end_of_tier(tier, direction, context.actions)
        if end:
            return nft.Chain(plan.name, (*rules, *end))
    rules += [nft.rule(nft.Jump(names.policy_chain(direction, key))) for key in plan.profiles]
    return nft.Chain(
        plan.name, (*rules, nft.Rule(deny(names.final_counter(direction), context.actions), "nothing allowed it"))
    )


def _rules(policy: Policy, direction: Direction, context: Context) -> Iterator[nft.Rule]:
    place = Place(direction, policy.key)
    for rule in policy.rules(direction) or ():
        yield from render_rule(rule, context.kind_of, rule_endings(rule, place, context.actions))


def _counters(policy: Policy, direction: Direction) -> set[str]:
    """Of all its rules, also of those that can match nothing now: they keep what they have counted."""
    place = Place(direction, policy.key)
    return {place.counter(rule) for rule in policy.rules(direction) or () if rule.effect is not None}


def _kept(counters: set[str], rules: Iterable[nft.Rule]) -> frozenset[str]:
    """Those in which none of the rules counts."""
    used = {s.counter for rule in rules for s in rule.statements if isinstance(s, nft.CountIn)}
    return frozenset(counters - used)


def _end_of_tier(tier: TierPolicies, direction: Direction, actions: ActionSettings) -> tuple[nft.Rule, ...]:
    if tier.default_action is Action.PASS or not tier.decides(direction):
        return ()
    counter = names.tier_end_counter(direction, tier.name)
    return (nft.Rule(deny(counter, actions), _comment("end of tier", tier.name)),)


def _comment(what: str, name: str) -> str:
    printable = "".join(c for c in name if c.isprintable() and c not in '"\\' and c.isascii())
    return f"{what} {printable}"[:120]
