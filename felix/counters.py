"""What policies and the ends of tiers have counted, from what the kernel's counters hold. Pure.

A policy's number is the sum of its rules' and of those of its rules that are no more (docs/design/counters.md)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from felix.rules import render_names as names
from felix.rules.values import Count
from weft.admin import policy as admin
from weft.model.keys import ResourceKey
from weft.policy.values import Action, Direction, EndpointPolicy, Policy

_NOTHING = Count()


def policy_count(policy: Policy, held: Mapping[str, Count]) -> admin.PolicyCount:
    """A rule without effect is not in the kernel and has counted nothing."""
    rules: list[admin.RuleCount] = []
    totals = {direction: Count() for direction in Direction}
    for direction in Direction:
        totals[direction] = sum(action_counts(policy, direction, held).values(), Count())
        for index, rule in enumerate(policy.rules(direction) or ()):
            counted = held.get(names.rule_counter(direction, policy.key, rule), _NOTHING)
            rules.append(admin.RuleCount(direction, index, rule.id, rule.effect or rule.action, _value(counted)))
    ingress, egress = _value(totals[Direction.INGRESS]), _value(totals[Direction.EGRESS])
    return admin.PolicyCount(policy.key, tuple(rules), ingress, egress)


def action_counts(policy: Policy, direction: Direction, held: Mapping[str, Count]) -> dict[Action, Count]:
    """What its rules of each action have counted in a direction, those that are no more among them."""
    group = names.counter_group(direction, policy.key)
    retired = zip(Action, names.retired_counters(group), strict=False)
    totals = {action: held.get(name, _NOTHING) for action, name in retired}
    for rule in policy.rules(direction) or ():
        action = rule.effect or rule.action
        totals[action] += held.get(names.rule_counter(direction, policy.key, rule), _NOTHING)
    return totals


def end_counts(asked: Iterable[EndpointPolicy], held: Mapping[str, Count]) -> tuple[admin.EndCount, ...]:
    """Of every tier that one of the endpoints' policies has, where its end denies; and behind all tiers."""
    tiers = sorted({tier.name for policy in asked for tier in policy.tiers})
    found = []
    for direction in Direction:
        ends = [(tier, names.tier_end_counter(direction, tier)) for tier in tiers]
        for tier, counter in (*ends, ("", names.final_counter(direction))):
            if counter in held:
                found.append(admin.EndCount(direction, tier, _value(held[counter])))
    return tuple(found)


def ended(held: Mapping[str, Count]) -> dict[Direction, Count]:
    """What ends have denied by direction: those of tiers, those behind all tiers, and those that are no more."""
    totals = dict.fromkeys(Direction, _NOTHING)
    for name, count in held.items():
        direction, _, rest = name.partition("/")
        if rest.endswith(("/end", "/retired-end")):
            totals[Direction(direction)] += count
    return totals


def in_order(policies: Iterable[ResourceKey]) -> list[ResourceKey]:
    return sorted(policies, key=lambda key: (key.kind, key.namespace, key.name))


def _value(count: Count) -> admin.Count:
    return admin.Count(count.packets, count.bytes)
