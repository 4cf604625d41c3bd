"""Which BGPConfiguration says what: `default` for every node, `node.<name>` for one.

Pure. Only a few fields may be set for one node, as in Calico; all others are the default configuration's."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, TypeVar

from weft.model.bgp import BGPConfiguration, BGPConfigurationSpec

DEFAULT_CONFIGURATION: Final = "default"
NODE_CONFIGURATION: Final = "node."
NODE_FIELDS: Final = frozenset({"listen_port", "communities", "prefix_advertisements", "log_severity_screen"})

T = TypeVar("T")


def has_fields_without_effect(spec: BGPConfigurationSpec) -> bool:
    """Whether a node's own configuration sets what only the default one can; the log level concerns BIRD alone."""
    untouched = BGPConfigurationSpec()
    return any(
        getattr(spec, name) != getattr(untouched, name) for name in spec.__struct_fields__ if name not in NODE_FIELDS
    )


def default_configuration(configurations: Mapping[str, BGPConfiguration]) -> BGPConfigurationSpec:
    found = configurations.get(DEFAULT_CONFIGURATION)
    return BGPConfigurationSpec() if found is None else found.spec


def setting(
    configurations: Mapping[str, BGPConfiguration], node: str, read: Callable[[BGPConfigurationSpec], T | None]
) -> T | None:
    """What the node's own configuration says, or else the default one: for the fields that a node may have."""
    for name in (f"{NODE_CONFIGURATION}{node}", DEFAULT_CONFIGURATION):
        found = configurations.get(name)
        value = None if found is None else read(found.spec)
        if value is not None:
            return value
    return None
