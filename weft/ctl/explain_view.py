"""What decided a flow and what was passed over, as JSON values and as tables. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from msgspec import Struct

from weft.ctl import tables
from weft.model.keys import ResourceKey
from weft.policy.cluster import Cluster
from weft.policy.ends import Party
from weft.policy.explainer import Answer, Packet, Side, Why
from weft.policy.matching import Flow
from weft.policy.trace import OnTheWay, Visit, on_the_way, visits
from weft.policy.values import Action, Direction, Stage
from weft.policy.verdict import Step
from weft.policy.words import protocol_name, rule_text

END_OF_TIER = "the end of the tier"
NOTHING_ALLOWS = "no policy and no profile allows it"
VERDICTS = {True: "allow", False: "deny"}

Count = tuple[int, int]
"""Packets and bytes."""


class Counts(Struct, frozen=True):
    """What this node has counted, whichever of its endpoints it was. `rules`: by direction, policy and `Rule.id`; what
    the agent does not have yet, or has no more, is not there. `ends`: by direction and tier, "" behind everything."""

    rules: Mapping[tuple[Direction, ResourceKey, str], Count]
    ends: Mapping[tuple[Direction, str], Count]


@dataclass(frozen=True, slots=True)
class Explanation:
    """One flow, and what became of it. `counts` None: nobody was there to ask."""

    cluster: Cluster
    source: Party
    destination: Party
    packet: Packet
    flow: Flow
    answer: Answer
    counts: Counts | None = None
    ends: tuple[tuple[Direction, Party, Side], ...] = field(init=False)

    def __post_init__(self) -> None:
        ends = (
            (Direction.EGRESS, self.source, self.answer.egress),
            (Direction.INGRESS, self.destination, self.answer.ingress),
        )
        object.__setattr__(self, "ends", ends)

    def visits(self, direction: Direction, party: Party, side: Side) -> tuple[Visit, ...]:
        return visits(self.cluster, party, side, self.flow, direction)

    def on_the_way(self, direction: Direction) -> tuple[OnTheWay, ...]:
        """Host endpoints that the flow may pass at one end, and that nobody asked."""
        parties = (self.source, self.destination) if direction is Direction.EGRESS else (self.destination, self.source)
        return on_the_way(self.cluster, *parties, direction)

    def text_of(self, step: Step, direction: Direction) -> str:
        """A rule as it is written; "" where the step is no rule of a resource."""
        resource = self.cluster.resources.get(step.policy) if step.policy else None
        if resource is None or step.rule is None:
            return ""
        rules = resource.spec.ingress if direction is Direction.INGRESS else resource.spec.egress
        return rule_text(rules[step.rule])

    def count_of(self, step: Step, direction: Direction) -> Count | None:
        if self.counts is None:
            return None
        if step.policy is None:
            return self.counts.ends.get((direction, step.tier or ""))
        rules = self.cluster.policies[step.policy].rules(direction)
        if step.rule is None or not rules:
            return None
        return self.counts.rules.get((direction, step.policy, rules[step.rule].id))


def policy_name(key: ResourceKey) -> str:
    return f"{key.namespace}/{key.name}" if key.namespace else key.name


# --- as values ------------------------------------------------------------------------------------------------------


def rule_of(side: Side) -> dict[str, Any]:
    """Always the same fields; `reason` is there where it was no rule that decided."""
    if side.verdict is None:
        return _rule(Step(Action.ALLOW if side.allowed else Action.DENY), side.why.value)
    return _rule(side.verdict.decided, _end_in_words(side.verdict.decided))


def _rule(step: Step, reason: str | None) -> dict[str, Any]:
    return {
        "tier": step.tier,
        "kind": step.policy.kind if step.policy else None,
        "policy": policy_name(step.policy) if step.policy else None,
        "rule": step.rule,
        "action": step.action.value,
        "reason": reason,
    }


def _end_in_words(step: Step) -> str | None:
    if step.policy is not None:
        return None
    if step.tier is not None:
        return END_OF_TIER
    return NOTHING_ALLOWS if step.action is Action.DENY else "the end of what is forwarded"


_AS_ASKED = {"destination_port": "port"}


def document(explained: Explanation) -> dict[str, Any]:
    """The whole explanation. Each end has what decided (`rule`), and everything that was asked before, in order."""
    packet = explained.packet
    return {
        "from": explained.source.text,
        "to": explained.destination.text,
        **{_AS_ASKED.get(name, name): value for name, value in packet._asdict().items() if value is not None},
        "protocol": protocol_name(packet.protocol),
        "source": str(explained.flow.source),
        "destination": str(explained.flow.destination),
        "verdict": VERDICTS[explained.answer.allowed],
        **{direction.value: _end(explained, direction, party, side) for direction, party, side in explained.ends},
    }


def _end(explained: Explanation, direction: Direction, party: Party, side: Side) -> dict[str, Any]:
    seen = explained.visits(direction, party, side)
    return {
        "verdict": VERDICTS[side.allowed],
        "endpoint": {"kind": party.key.kind, "name": policy_name(party.key)} if party.key else None,
        **({"stage": side.stage.value} if party.is_host and side.why in (Why.POLICY, Why.FAILSAFE) else {}),
        "rule": rule_of(side) | (_details(explained, seen[-1], direction) if seen else {}),
        "before": [_visit(explained, visit, direction) for visit in seen[:-1]],
        "not_choosing": [{"kind": key.kind, "policy": policy_name(key)} for key in _not_choosing(explained, party)],
        "on_the_way": [
            {
                "host_endpoint": one.endpoint.name,
                "interface": one.interface,
                "policies": [policy_name(key) for key in one.policies],
            }
            for one in explained.on_the_way(direction)
        ],
    }


def _visit(explained: Explanation, visit: Visit, direction: Direction) -> dict[str, Any]:
    return {
        **_rule(visit.step, None),
        "reason": visit.passed_over or _end_in_words(visit.step),
        "passed_over": bool(visit.passed_over),
        **({"would": visit.would.value} if visit.would else {}),
        **({"stage": visit.stage.value} if visit.stage is not Stage.NORMAL else {}),
        **_details(explained, visit, direction),
    }


def _details(explained: Explanation, visit: Visit, direction: Direction) -> dict[str, Any]:
    text = explained.text_of(visit.step, direction)
    count = explained.count_of(visit.step, direction)
    return {
        **({"text": text} if text else {}),
        **({"packets": count[0], "bytes": count[1]} if count is not None else {}),
    }


def _not_choosing(explained: Explanation, party: Party) -> list[ResourceKey]:
    """Policies that do not apply to this endpoint at all."""
    if party.key is None:
        return []
    choosing = explained.cluster.policies_choosing(party.key)
    others = (key for key in explained.cluster.resources if key.kind != "Profile" and key not in choosing)
    return sorted(others, key=lambda key: (key.kind, key.namespace, key.name))


# --- as text --------------------------------------------------------------------------------------------------------


def text(explained: Explanation) -> str:
    flow = explained.flow
    where = "" if flow.destination_port is None else f" port {flow.destination_port}"
    parts = [
        f"{_named(explained.source, str(flow.source))} to {_named(explained.destination, str(flow.destination))}, "
        f"{_protocol(flow)}{where}: {VERDICTS[explained.answer.allowed]}\n"
    ]
    for direction, party, side in explained.ends:
        parts.append(f"\n{direction.value.capitalize()} at {party.text}: {_why(side)}\n")
        rows = list(_rows(explained, direction, explained.visits(direction, party, side)))
        if rows:
            parts.append(tables.columns(_headings(explained), rows))
        others = len(_not_choosing(explained, party))
        if others:
            parts.append(
                f"{others} other {'policy does' if others == 1 else 'policies do'} not choose this endpoint.\n"
            )
        parts += [
            f"Not asked: host endpoint {one.endpoint.name}, by which this may pass, has policies for what is "
            f"forwarded: {', '.join(map(policy_name, one.policies))}.\n"
            for one in explained.on_the_way(direction)
        ]
    return "".join(parts)


def _named(party: Party, address: str) -> str:
    return party.text if party.text == address else f"{party.text} ({address})"


def _protocol(flow: Flow) -> str:
    name = protocol_name(flow.protocol)
    return name if flow.icmp_type is None else f"{name} type {flow.icmp_type} code {flow.icmp_code}"


def _why(side: Side) -> str:
    if side.verdict is None:
        return f"{VERDICTS[side.allowed]} ({side.why.value})"
    return f"{VERDICTS[side.allowed]}, by {said_by(side)}"


def said_by(side: Side) -> str:
    """What decided, in words."""
    if side.verdict is None:
        return side.why.value
    step = side.verdict.decided
    if step.policy is None:
        return f"{_end_in_words(step)}{f' {step.tier}' if step.tier else ''}"
    return f"rule {step.rule} of {step.policy.kind} {policy_name(step.policy)}"


def _headings(explained: Explanation) -> Sequence[str]:
    counters = ("PACKETS", "BYTES") if explained.counts is not None else ()
    return ("TIER", "POLICY", "RULE", "ACTION", *counters, "RESULT", "TEXT")


def _rows(explained: Explanation, direction: Direction, seen: Sequence[Visit]) -> Iterator[tuple[str, ...]]:
    for number, visit in enumerate(seen):
        step = visit.step
        count = explained.count_of(step, direction)
        counters = () if explained.counts is None else tuple(map(str, count)) if count is not None else ("-", "-")
        last = number == len(seen) - 1
        yield (
            step.tier or "-",
            f"{step.policy.kind} {policy_name(step.policy)}" if step.policy else "-",
            "-" if step.rule is None else str(step.rule),
            "-" if step.policy and step.rule is None else step.action.value,
            *counters,
            visit.passed_over or ("decides" if last else _goes_on(step)),
            explained.text_of(step, direction) or _end_in_words(step) or "",
        )


def _goes_on(step: Step) -> str:
    return "logs" if step.action is Action.LOG else "matches: on to the next tier"
