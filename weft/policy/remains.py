"""What is left of a stored resource that cannot be read: it may refuse, it never allows.

Fields that cannot be read are taken out one by one until the rest can be. What they said is then assumed to be what
refuses most for those whom the resource is known to concern: rules that cannot be read deny in their place. Whom a
policy with an unreadable selector concerns is not known: nothing is left of it (docs/adr/0063).

The result depends on the stored bytes alone, not on what they were before: a restarted agent decides the same."""

from collections.abc import Iterator, Mapping
from math import inf
from typing import Any

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from weft.model import codec
from weft.model.base import Metadata, Resource
from weft.model.bgp import BGPConfiguration
from weft.model.endpoint import HostEndpoint
from weft.model.errors import ValidationError
from weft.model.felix_configuration import FAILSAFE_INBOUND, FAILSAFE_OUTBOUND, FelixConfiguration, ProtoPort
from weft.model.keys import ResourceKey
from weft.model.node import Node
from weft.model.policy import (
    GlobalNetworkPolicy,
    GlobalNetworkSet,
    NetworkPolicy,
    NetworkSet,
    Profile,
    Rule,
    Tier,
)
from weft.model.staged import StagedGlobalNetworkPolicy, StagedNetworkPolicy

AnyPolicy = NetworkPolicy | GlobalNetworkPolicy | StagedNetworkPolicy | StagedGlobalNetworkPolicy

_DENY = (Rule(action="Deny"),)
_CHOOSERS = {"selector", "namespaceSelector", "serviceAccountSelector"}
_ANYWHERE = {"types", "order", "tier", "doNotTrack", "preDNAT", "applyOnForward"}
_IN_ITS_PLACE = "denies in its place what it cannot say"
_COUNTS_AS_NOT_GIVEN = "counts as not given"
_FAILSAFES: Mapping[str, tuple[str, tuple[ProtoPort, ...]]] = {
    "failsafeInboundHostPorts": ("failsafe_inbound_host_ports", FAILSAFE_INBOUND),
    "failsafeOutboundHostPorts": ("failsafe_outbound_host_ports", FAILSAFE_OUTBOUND),
}
_CLOSED_WHOLE = "what closes most is taken, with the built-in failsafe ports open"
_CLOSED_SETTINGS: Mapping[str, tuple[str, object]] = {
    "defaultEndpointToHostAction": ("default_endpoint_to_host_action", "Drop"),
    "serviceLoopPrevention": ("service_loop_prevention", "Drop"),
    "workloadSourceSpoofing": ("workload_source_spoofing", "Disabled"),
    "allowVXLANPacketsFromWorkloads": ("allow_vxlan_packets_from_workloads", False),
    "allowIPIPPacketsFromWorkloads": ("allow_ipip_packets_from_workloads", False),
    "disableConntrackInvalidCheck": ("disable_conntrack_invalid_check", False),
}
"""Settings that close something: field -> attribute and value. Counting as not given, they might leave it to another
configuration that opens it."""

# kind -> the list of which single items may be missing, and what an item is
_LISTS = {
    "NetworkSet": ({"nets"}, "prefix"),
    "GlobalNetworkSet": ({"nets"}, "prefix"),
    "FelixConfiguration": (_FAILSAFES.keys(), "port"),
}


class Remains(Struct, frozen=True):
    """`value` None: nothing that could be enforced. `problems`: what cannot be read and what follows, in words."""

    value: Resource | None
    problems: tuple[str, ...]


def remains(key: ResourceKey, raw: bytes) -> Remains:
    """Of bytes that `codec.decode_stored(key, raw)` refuses."""
    wrong: dict[str, str] = {}
    value = _readable(key, raw, wrong)
    if value is None and key.kind == "FelixConfiguration":
        empty = FelixConfiguration(metadata=Metadata(name=key.name))
        closed, _ = _closed_configuration(empty, {*_CLOSED_SETTINGS, *_FAILSAFES})
        return Remains(closed, tuple(f"{why}: {_CLOSED_WHOLE}" for why in wrong.values()))
    value, consequence = _closed(value, set(wrong)) if value is not None else (None, _absent(key.kind))
    return Remains(value, tuple(f"{why}: {_consequence(field, consequence)}" for field, why in wrong.items()))


def _readable(key: ResourceKey, raw: bytes, wrong: dict[str, str]) -> Resource | None:
    """What can be read without its wrong fields, which are noted: field -> what is wrong with it. Each round takes
    one away, so there are no more rounds than fields."""
    while True:
        try:
            value = codec.decode_stored(key, raw)
        except ValidationError as error:
            section, _, path = error.field.partition(".")
            field = path.partition(".")[0].partition("[")[0]
            found = "" if error.value is None else f"{error.value!r} "
            wrong[field if section == "spec" else section] = f"{error.field}: {found}cannot be read ({error.expected})"
            smaller = _without(key, raw, section, field, wrong)
            if smaller is None:
                return None
            raw = smaller
        else:
            return value if isinstance(value, Resource) else None


def _without(key: ResourceKey, raw: bytes, section: str, field: str, wrong: dict[str, str]) -> bytes | None:
    """The document without a field, of a set's prefixes only without the wrong ones; None if the field is not there."""
    if section not in ("spec", "metadata"):
        return None
    document: Any = msgspec.json.decode(raw)
    fields = document.get(section)
    if not isinstance(fields, dict) or field not in fields:
        return None
    items = fields.pop(field)
    if field in _LISTS.get(key.kind, ((), ""))[0] and isinstance(items, list):
        del wrong[field]
        fields[field] = list(_usable_items(key, field, items, 0, wrong))
    return msgspec.json.encode(document)


def _usable_items(
    key: ResourceKey, field: str, items: list[object], first: int, wrong: dict[str, str]
) -> Iterator[object]:
    """Halves what cannot be read: a few wrong items among many are found with few attempts."""
    try:
        codec.decode_stored(key, msgspec.json.encode({"spec": {field: items}}))
    except ValidationError:
        if len(items) == 1:
            wrong[f"{field}[{first}]"] = f"spec.{field}[{first}]: {items[0]!r} is no {_LISTS[key.kind][1]}"
            return
        middle = len(items) // 2
        yield from _usable_items(key, field, items[:middle], first, wrong)
        yield from _usable_items(key, field, items[middle:], first + middle, wrong)
    else:
        yield from items


_ABSENT = {
    "WorkloadEndpoint": "no policy is computed for it, so nothing passes",
    "HostEndpoint": "it protects no interface",
    "KubernetesEndpointSlice": "its addresses are in no set",
    **dict.fromkeys(
        ("NetworkPolicy", "GlobalNetworkPolicy", "StagedNetworkPolicy", "StagedGlobalNetworkPolicy"),
        "whom it chooses is not known, so it chooses nobody",
    ),
}


def _absent(kind: str) -> str:
    return _ABSENT.get(kind, "it counts as missing")


def _consequence(field: str, of_the_rest: str) -> str:
    """Failsafe ports are not closed by mistake; of other fields what follows is the same for all that are wrong."""
    if field.partition("[")[0] in _FAILSAFES:
        return "the built-in failsafe ports are open besides those that can be read"
    return of_the_rest


def _closed(value: Resource, wrong: set[str]) -> tuple[Resource | None, str]:
    """With what refuses most in place of what was taken out, and that in words."""
    match value:
        case NetworkPolicy() | GlobalNetworkPolicy() | StagedNetworkPolicy() | StagedGlobalNetworkPolicy():
            return _closed_policy(value, wrong)
        case Profile():
            denials = _denials(wrong, every="labelsToApply" in wrong)
            return replace(value, spec=replace(value.spec, **denials)), _IN_ITS_PLACE
        case Tier() if "order" not in wrong:
            return value, "denies at its end"
        case NetworkSet() | GlobalNetworkSet() if "metadata" not in wrong:
            return value, "this prefix is in no set"
        case FelixConfiguration():
            return _closed_configuration(value, wrong)
        case HostEndpoint() if wrong == {"ports"}:
            return value, "its ports have no names"
        case BGPConfiguration():
            return value, _COUNTS_AS_NOT_GIVEN
        case Node() if "metadata" not in wrong:
            return value, _COUNTS_AS_NOT_GIVEN
        case _:
            return None, _absent(value.kind)


def _closed_policy(policy: AnyPolicy, wrong: set[str]) -> tuple[Resource | None, str]:
    if wrong & _CHOOSERS:
        return None, _absent(policy.kind)
    changes: dict[str, Any] = dict(_denials(wrong, every=bool(wrong & _ANYWHERE)))
    if wrong & _ANYWHERE:
        changes["types"] = ("Ingress", "Egress")
    if "order" in wrong:
        changes["order"] = -inf
    if "applyOnForward" in wrong:
        changes["apply_on_forward"] = True
    closed = replace(policy, spec=replace(policy.spec, **changes))
    return closed, _IN_ITS_PLACE if changes else _COUNTS_AS_NOT_GIVEN


def _closed_configuration(configuration: FelixConfiguration, wrong: set[str]) -> tuple[Resource, str]:
    closed = dict(attribute for field, attribute in _CLOSED_SETTINGS.items() if field in wrong)
    changes: dict[str, object] = {**closed}
    for field, (attribute, built_in) in _FAILSAFES.items():
        if any(one.partition("[")[0] == field for one in wrong):
            readable = getattr(configuration.spec, attribute) or ()
            changes[attribute] = tuple(dict.fromkeys((*readable, *built_in)))
    taken = ", ".join(f"{value} is taken" for value in dict.fromkeys(closed.values()))
    return replace(configuration, spec=replace(configuration.spec, **changes)), taken or _COUNTS_AS_NOT_GIVEN


def _denials(wrong: set[str], *, every: bool) -> Mapping[str, tuple[Rule, ...]]:
    return {field: _DENY for field in ("ingress", "egress") if every or field in wrong}
