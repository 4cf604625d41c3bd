"""Names, namespaces, labels and annotations."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from weft.model import kinds, names
from weft.model.base import Resource
from weft.model.errors import FieldError
from weft.model.validation import checks

_POLICY_WORDS: Final = "lower case letters, digits and '-', with at most one '.' (after a tier's name)"
_CONVERTED: Final = "|".join(map(re.escape, names.CLUSTER_POLICY_PREFIXES))
_NAMESPACED_POLICY: Final = (
    re.compile(rf"(?:(?:knp|ossg)\.default\.{checks.SUBDOMAIN}|{checks.LABEL}(?:\.{checks.LABEL})?)\Z"),
    253 + len(names.KUBERNETES_POLICY_PREFIX),
    _POLICY_WORDS,
)
_GLOBAL_POLICY: Final = (
    re.compile(rf"(?:(?:{_CONVERTED}){checks.SUBDOMAIN}|(?:{checks.LABEL}\.)?{checks.LABEL})\Z"),
    253 + max(map(len, names.CLUSTER_POLICY_PREFIXES)),
    _POLICY_WORDS,
)
_NAMES: Final = {
    "Tier": (
        re.compile(rf"{checks.LABEL}\Z"),
        63,
        "at most 63 lower case letters, digits and '-', a letter or digit at both ends",
    ),
    "NetworkPolicy": _NAMESPACED_POLICY,
    "StagedNetworkPolicy": _NAMESPACED_POLICY,
    "GlobalNetworkPolicy": _GLOBAL_POLICY,
    "StagedGlobalNetworkPolicy": _GLOBAL_POLICY,
}
_SUBDOMAIN: Final = (re.compile(rf"{checks.SUBDOMAIN}\Z"), 253, checks.SUBDOMAIN_WORDS)


def problems(resource: Resource) -> Iterator[FieldError]:
    """What holds for every kind."""
    metadata = resource.metadata
    pattern, length, words = _NAMES.get(resource.kind, _SUBDOMAIN)
    if not metadata.name:
        yield FieldError("metadata.name", metadata.name, "a name: it has none")
    elif len(metadata.name) > length or not pattern.match(metadata.name):
        yield FieldError("metadata.name", metadata.name, words)
    if kinds.KINDS[resource.kind].namespaced:
        yield from checks.name("metadata.namespace", metadata.namespace)
    elif metadata.namespace:
        yield FieldError("metadata.namespace", metadata.namespace, f"no namespace: {resource.kind} has none")
    yield from checks.label_map("metadata.labels", metadata.labels)
    yield from checks.annotation_map("metadata.annotations", metadata.annotations)


def only_default(resource: Resource) -> Iterator[FieldError]:
    """For kinds that there is one of."""
    if resource.metadata.name != "default":
        yield FieldError("metadata.name", resource.metadata.name, "default: there is only one")
