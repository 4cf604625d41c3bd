"""What was asked on the way to a verdict, and why it was passed over.

Walks the same course as `weft.policy.verdict.follow` does, and stops where it stops."""

from collections.abc import Iterator

from msgspec import Struct

from weft.model.keys import ResourceKey
from weft.policy.cluster import Cluster
from weft.policy.ends import Party
from weft.policy.explainer import Side, Why
from weft.policy.host import STAGES, Path
from weft.policy.matching import Flow, Membership, Missed, mismatch
from weft.policy.values import Action, Direction, EndpointPolicy, Policies, Stage, is_staged
from weft.policy.verdict import Place, Step, course
from weft.policy.words import why_missed


class Visit(Struct, frozen=True):
    """A rule, a policy without rules, or an end that was asked.

    `passed_over` says why it did nothing, "" if it did. `would`: what a staged rule that matches would have done."""

    step: Step
    stage: Stage = Stage.NORMAL
    passed_over: str = ""
    would: Action | None = None


def visits(cluster: Cluster, party: Party, side: Side, flow: Flow, direction: Direction) -> tuple[Visit, ...]:
    """Everything that was asked at one end, in order; the last one decided. Nothing where no policy was asked."""
    if party.key is None or side.why is not Why.POLICY:
        return ()
    policies, members = cluster.policies, cluster.members
    if not party.is_host:
        return tuple(walk(cluster.endpoint_policy(party.key), policies, members, flow, direction))
    host = cluster.host_policy(party.key)
    stages = STAGES[direction, Path.LOCAL]
    asked = stages[: stages.index(side.stage) + 1]
    return tuple(visit for stage in asked for visit in walk(host.of(stage), policies, members, flow, direction, stage))


class OnTheWay(Struct, frozen=True):
    """A host endpoint with policies for what its node forwards. Whether a flow comes by its interface, nobody says."""

    endpoint: ResourceKey
    interface: str
    policies: tuple[ResourceKey, ...]


def on_the_way(cluster: Cluster, party: Party, other: Party, direction: Direction) -> tuple[OnTheWay, ...]:
    """Those of a workload's node, which no verdict knows of. Two workloads of one node have only that for all
    interfaces between them; its node and a workload have none."""
    if party.key is None or party.is_node or not party.node or (other.is_node and other.node == party.node):
        return ()
    found = []
    for key, endpoint in cluster.endpoints.items():
        if key.kind != "HostEndpoint" or endpoint.spec.node != party.node:
            continue
        interface = endpoint.spec.interface_name
        if other.node == party.node and interface != "*":
            continue
        host = cluster.host_policy(key)
        asked = (policy for stage in STAGES[direction, Path.FORWARDED] for policy in _asked(host.of(stage), direction))
        if policies := tuple(dict.fromkeys(asked)):
            found.append(OnTheWay(key, interface, policies))
    return tuple(sorted(found, key=lambda one: one.endpoint.name))


def _asked(policy: EndpointPolicy, direction: Direction) -> Iterator[ResourceKey]:
    for tier in policy.tiers:
        yield from tier.ingress if direction is Direction.INGRESS else tier.egress


def walk(
    endpoint: EndpointPolicy,
    policies: Policies,
    members: Membership,
    flow: Flow,
    direction: Direction,
    stage: Stage = Stage.NORMAL,
) -> Iterator[Visit]:
    """What is asked of one course, up to what decides."""
    places = course(endpoint, policies, direction, stage).places
    answered: ResourceKey | None = None
    number = 0
    while number < len(places):
        place = places[number]
        number += 1
        if place.step.policy is not None and place.step.policy == answered:
            continue  # a staged policy has said what it would do
        missed = None if place.rule is None else mismatch(place.rule, flow, members)
        if missed is not None or not place.acts:
            visit = _passed_over(place, stage, missed, flow, members)
            if visit.would not in (None, Action.LOG):
                answered = place.step.policy
            yield visit
            continue
        yield Visit(place.step, stage)
        if place.step.action in (Action.ALLOW, Action.DENY):
            return
        if place.step.action is Action.PASS:
            number = place.after


def _passed_over(place: Place, stage: Stage, missed: Missed | None, flow: Flow, members: Membership) -> Visit:
    rule, step = place.rule, place.step
    if rule is None:
        return Visit(step, stage, "has no rules for this direction")
    if missed is not None:
        return Visit(step, stage, why_missed(missed, rule, flow, members))
    if step.policy is not None and is_staged(step.policy) and rule.effect is not None:
        return Visit(step, stage, f"staged: would {step.action.value}", step.action)
    return Visit(step, stage, f"matches, but cannot be enforced and so does nothing: {'; '.join(rule.unenforced)}")
