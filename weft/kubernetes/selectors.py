"""Kubernetes' label selectors in the words of Calico's selector language.

Both say the same of a missing label: `not in` holds, `==` does not, not even with the empty value. Spelling and order
of the parts are Calico's (libcalico-go/lib/backend/k8s/conversion, 3.32.1), so that equal policies compare equal."""

from __future__ import annotations

from weft.model.defaults import ORCHESTRATOR_LABEL
from weft.model.kubernetes import LabelSelector, LabelSelectorRequirement

IS_POD = f"{ORCHESTRATOR_LABEL} == 'k8s'"
"""What keeps host endpoints and endpoints of other orchestrators out of a Kubernetes policy."""


def pod_selector(selector: LabelSelector | None) -> str:
    """Pods that the selector chooses; None and the empty one choose all."""
    return " && ".join((IS_POD, *_parts(selector))) if selector is not None else IS_POD


def namespace_selector(selector: LabelSelector | None) -> str:
    """Namespaces that the selector chooses, over their own labels; "" for None, which asks for no other namespace."""
    if selector is None:
        return ""
    return " && ".join(_parts(selector)) or "all()"


def _parts(selector: LabelSelector) -> list[str]:
    labels = [f"{key} == '{value}'" for key, value in sorted(selector.match_labels.items())]
    return labels + [_requirement(one) for one in selector.match_expressions]


def _requirement(one: LabelSelectorRequirement) -> str:
    values = "', '".join(one.values)
    match one.operator:
        case "In":
            return f"{one.key} in {{ '{values}' }}"
        case "NotIn":
            return f"{one.key} not in {{ '{values}' }}"
        case "Exists":
            return f"has({one.key})"
        case "DoesNotExist":
            return f"! has({one.key})"
