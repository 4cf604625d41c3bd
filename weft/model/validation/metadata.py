"""Names, namespaces, labels and annotations."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from weft.model import kinds
from weft.model.base import Resource
from weft.model.errors import FieldError
from weft.model.validation import checks

_NAMES: Final = {
    "Tier": (
        re.compile(rf"{checks.LABEL}\Z"),
        63,
        "at most 63 lower case letters, digits and '-', a letter or digit at both ends",
    ),
    "NetworkPolicy": (
        re.compile(rf"(?:(?:knp|ossg)\.default\.{checks.SUBDOMAIN}|{checks.LABEL}(?:\.{checks.LABEL})?)\Z"),
        253,
        "lower case letters, digits and '-', with at most one '.' (after a tier's name)",
    ),
    "GlobalNetworkPolicy": (
        re.compile(rf"(?:{checks.LABEL}\.)?{checks.LABEL}\Z"),
        253,
        "lower case letters, digits and '-', with at most one '.' (after a tier's name)",
    ),
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
