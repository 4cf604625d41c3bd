"""What every value of the v3 API is built from: the struct base, JSON names, metadata.

Attribute names are the snake_case of Calico's JSON names. A field equal to its default is left out of
the JSON, as Go's `omitempty` does; a default made with `written` is always put in."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, ClassVar, Final, TypeVar

import msgspec

T = TypeVar("T")

API_VERSION: Final = "projectcalico.org/v3"

_ACRONYMS: Final = {
    word.lower(): word
    for word in (
        *("AS", "BGP", "CA", "CIDR", "CIDRs", "CTLB", "DNAT", "DSCP", "DSR", "GC", "GRO", "GUID", "ICMP", "ID"),
        *("IP", "IPs", "IPIP", "IPv4", "IPv6", "JIT", "L3", "MAC", "MB", "MTU", "NAT", "NATs", "PSNAT", "RPF"),
        *("TTL", "V4", "V6", "VM", "VNI", "VXLAN", "XDP"),
    )
}


def json_name(attribute: str) -> str:
    """`peer_ip` -> `peerIP`; the first word stays lower case."""
    first, *rest = attribute.split("_")
    return first + "".join(_ACRONYMS.get(word, word.capitalize()) for word in rest)


def written(value: T) -> T:
    """A default that appears in the JSON. (msgspec leaves out only defaults it can compare.)"""
    default: T = msgspec.field(default_factory=lambda: value)
    return default


def written_map() -> Any:
    """An empty map that appears in the JSON."""
    return msgspec.field(default_factory=_new_map)


def _new_map() -> dict[Any, Any]:
    return {}


class Value(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename=json_name):
    """Base of everything with named fields. Maps inside are read-only by convention."""


class Metadata(Value, frozen=True, kw_only=True):
    """Kubernetes' object metadata, without what only an API server needs (managedFields)."""

    name: str = ""
    namespace: str = ""
    uid: str = ""
    resource_version: str = ""
    generation: int = 0
    creation_timestamp: datetime | None = None
    deletion_timestamp: datetime | None = None
    deletion_grace_period_seconds: int | None = None
    labels: Mapping[str, str] = msgspec.field(default_factory=dict)
    annotations: Mapping[str, str] = msgspec.field(default_factory=dict)
    finalizers: tuple[str, ...] = ()
    owner_references: tuple[Mapping[str, Any], ...] = ()


class Resource(Value, frozen=True, kw_only=True):
    """A v3 resource: `kind`, `metadata` and, in each subclass, `spec`."""

    kind: ClassVar[str]
    metadata: Metadata

    @property
    def name(self) -> str:
        return self.metadata.name

    @property
    def namespace(self) -> str:
        return self.metadata.namespace
