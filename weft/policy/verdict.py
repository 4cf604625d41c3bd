"""The verdict of a flow at one endpoint.

Evaluates exactly the values that the renderer turns into kernel rules. It does not look at connection tracking: it
is the verdict of a connection's first packet.

What applies to an endpoint in one direction is laid out once as a `Course`: its rules and tier ends in the order in
which they are asked. Following the course is all there is to a verdict; `weft.policy.trace` says what was passed
over."""

from msgspec import Struct

from weft.model.keys import ResourceKey
from weft.policy.matching import Flow, Membership, mismatch
from weft.policy.values import Action, Direction, EndpointPolicy, Policies, Policy, Rule, Stage, is_staged

__all__ = ["Course", "Flow", "Membership", "Place", "Step", "Verdict", "course", "follow", "verdict"]


class Step(Struct, frozen=True):
    """A place where something was decided.

    `rule` None: not a rule but what follows the last one: the end of the tier, or, with no tier either, the end of
    everything. `policy` None with a tier: the tier's default action."""

    action: Action
    tier: str | None = None
    policy: ResourceKey | None = None
    rule: int | None = None


class Verdict(Struct, frozen=True):
    """`decided` is the step that allowed or denied; `before` the matching Log and Pass steps on the way."""

    allowed: bool
    decided: Step
    before: tuple[Step, ...] = ()


class Place(Struct, frozen=True):
    """A rule or an end in its place. `rule` None: an end, which holds for every flow that gets there, or a policy
    without rules.

    `step`: what it does. `acts` False: nothing, whatever the step says (a rule that cannot be enforced, or of a staged
    policy; a policy without rules). `after`: where asking goes on after a Pass."""

    rule: Rule | None
    step: Step
    after: int
    acts: bool = True


class Course(Struct, frozen=True):
    """The places of one endpoint in one direction, in order.

    `acting`: a bit for each place that acts, the lowest for the first."""

    places: tuple[Place, ...]
    acting: int


def verdict(
    endpoint: EndpointPolicy, policies: Policies, members: Membership, flow: Flow, direction: Direction
) -> Verdict:
    """Tiers in order, then profiles, then deny. `policies` must hold every policy the endpoint names."""
    found = follow(course(endpoint, policies, direction), flow, members)
    assert found is not None  # the last place of a course of Stage.NORMAL denies
    return found


def course(endpoint: EndpointPolicy, policies: Policies, direction: Direction, stage: Stage = Stage.NORMAL) -> Course:
    """What is asked, in order. The stages differ in their ends: NORMAL denies what nothing allows, FORWARD allows it,
    before these, what no rule decides goes on to the next stage, at the end of a tier, too."""
    places: list[Place] = []
    for tier in endpoint.tiers_of(direction):
        end = (
            Step(tier.default_action, tier.name)
            if tier.decides(direction) and stage in (Stage.NORMAL, Stage.FORWARD)
            else None
        )
        asked = [(key, *one) for key in tier.policies(direction) for one in _numbered(policies[key], direction)]
        after = len(places) + len(asked) + (end is not None)
        places += [_place(rule, tier.name, key, number, after) for key, number, rule in asked]
        if end is not None:
            places.append(Place(None, end, after))
    if stage is Stage.NORMAL:
        for key in endpoint.profiles:
            rules = _numbered(policies[key], direction)
            after = len(places) + len(rules)
            places += [_place(rule, None, key, number, after) for number, rule in rules]
        places.append(Place(None, Step(Action.DENY), len(places) + 1))
    elif stage is Stage.FORWARD:
        places.append(Place(None, Step(Action.ALLOW), len(places) + 1))
    return Course(tuple(places), sum(1 << number for number, place in enumerate(places) if place.acts))


def _numbered(policy: Policy, direction: Direction) -> list[tuple[int | None, Rule | None]]:
    """A policy without rules has one place, too: it was asked."""
    return list(enumerate(policy.rules(direction) or ())) or [(None, None)]


def _place(rule: Rule | None, tier: str | None, key: ResourceKey, number: int | None, after: int) -> Place:
    if rule is None:
        return Place(None, Step(Action.PASS, tier, key), after, acts=False)
    effect = rule.effect
    return Place(rule, Step(effect or rule.action, tier, key, number), after, effect is not None and not is_staged(key))


def follow(
    course: Course, flow: Flow, members: Membership, possible: int | None = None, certain: int = 0
) -> Verdict | None:
    """What becomes of the flow; None: it gets to the end of a course that has none of its own.

    What is known about the flow needs no test: it fits none but the `possible` places, and certainly the `certain` ones
    of these (bits as those of `Course.acting`)."""
    left = course.acting if possible is None else course.acting & possible
    before: list[Step] = []
    while left:
        lowest = left & -left
        left ^= lowest
        place = course.places[lowest.bit_length() - 1]
        if not certain & lowest and place.rule is not None and mismatch(place.rule, flow, members) is not None:
            continue
        step = place.step
        if step.action is Action.ALLOW or step.action is Action.DENY:
            return Verdict(step.action is Action.ALLOW, step, tuple(before))
        before.append(step)
        if step.action is Action.PASS:
            left = left >> place.after << place.after
    return None
