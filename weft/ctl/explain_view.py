"""What decided a flow, as JSON values. Pure."""

from __future__ import annotations

from typing import Any

from weft.model.keys import ResourceKey
from weft.policy.explainer import Side
from weft.policy.values import Action
from weft.policy.verdict import Step

END_OF_TIER = "the end of the tier"
NOTHING_ALLOWS = "no policy and no profile allows it"


def policy_name(key: ResourceKey) -> str:
    return f"{key.namespace}/{key.name}" if key.namespace else key.name


def rule_of(side: Side) -> dict[str, Any]:
    """Always the same fields; `reason` is there where it was no rule that decided."""
    if side.verdict is None:
        return _rule(Step(Action.ALLOW if side.allowed else Action.DENY), side.why.value)
    step = side.verdict.decided
    if step.policy is None:
        return _rule(step, END_OF_TIER if step.tier is not None else NOTHING_ALLOWS)
    return _rule(step, None)


def _rule(step: Step, reason: str | None) -> dict[str, Any]:
    return {
        "tier": step.tier,
        "kind": step.policy.kind if step.policy else None,
        "policy": policy_name(step.policy) if step.policy else None,
        "rule": step.rule,
        "action": step.action.value,
        "reason": reason,
    }
