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
from weft.model.errors import ValidationError
from weft.model.felix_configuration import FelixConfiguration
from weft.model.keys import ResourceKey
from weft.model.policy import (
    GlobalNetworkPolicy,
    GlobalNetworkSet,
    NetworkPolicy,
    NetworkSet,
    Profile,
    Rule,
    Tier,
)

_DENY = (Rule(action="Deny"),)
_CHOOSERS = {"selector", "namespaceSelector", "serviceAccountSelector"}
_ANYWHERE = {"types", "order", "tier", "doNotTrack", "preDNAT", "applyOnForward"}
_IN_ITS_PLACE = "denies in its place what it cannot say"
_SETS = ("NetworkSet", "GlobalNetworkSet")


class Remains(Struct, frozen=True):
    """`value` None: nothing that could be enforced. `problems`: what cannot be read and what follows, in words."""

    value: Resource | None
    problems: tuple[str, ...]


def remains(key: ResourceKey, raw: bytes) -> Remains:
    """Of bytes that `codec.decode_stored(key, raw)` refuses."""
    wrong: dict[str, str] = {}
    value = _readable(key, raw, wrong)
    if value is None and key.kind == "FelixConfiguration":  # without it, another one might open what it closed
        value = FelixConfiguration(metadata=Metadata(name=key.name))
        wrong = {"defaultEndpointToHostAction": "; ".join(wrong.values())}
    value, consequence = _closed(value, set(wrong)) if value is not None else (None, _absent(key.kind))
    return Remains(value, tuple(f"{why}: {consequence}" for why in wrong.values()))


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
    nets = fields.pop(field)
    if key.kind in _SETS and field == "nets" and isinstance(nets, list):
        del wrong["nets"]
        fields["nets"] = list(_usable_nets(key, nets, 0, wrong))
    return msgspec.json.encode(document)


def _usable_nets(key: ResourceKey, nets: list[object], first: int, wrong: dict[str, str]) -> Iterator[object]:
    """Halves what cannot be read: a few wrong prefixes among many are found with few attempts."""
    try:
        codec.decode_stored(key, msgspec.json.encode({"spec": {"nets": nets}}))
    except ValidationError:
        if len(nets) == 1:
            wrong[f"nets[{first}]"] = f"spec.nets[{first}]: {nets[0]!r} is no prefix"
            return
        middle = len(nets) // 2
        yield from _usable_nets(key, nets[:middle], first, wrong)
        yield from _usable_nets(key, nets[middle:], first + middle, wrong)
    else:
        yield from nets


def _absent(kind: str) -> str:
    if kind == "WorkloadEndpoint":
        return "no policy is computed for it, so nothing passes"
    if kind in ("NetworkPolicy", "GlobalNetworkPolicy"):
        return "whom it chooses is not known, so it chooses nobody"
    return "it counts as missing"


def _closed(value: Resource, wrong: set[str]) -> tuple[Resource | None, str]:
    """With what refuses most in place of what was taken out, and that in words."""
    match value:
        case NetworkPolicy() | GlobalNetworkPolicy():
            return _closed_policy(value, wrong)
        case Profile():
            denials = _denials(wrong, every="labelsToApply" in wrong)
            return replace(value, spec=replace(value.spec, **denials)), _IN_ITS_PLACE
        case Tier() if "order" not in wrong:
            return value, "denies at its end"
        case NetworkSet() | GlobalNetworkSet() if "metadata" not in wrong:
            return value, "this prefix is in no set"
        case FelixConfiguration() if "defaultEndpointToHostAction" in wrong:
            return replace(value, spec=replace(value.spec, default_endpoint_to_host_action="Drop")), "Drop is taken"
        case FelixConfiguration():
            return value, "counts as not given"
        case _:
            return None, _absent(value.kind)


def _closed_policy(policy: NetworkPolicy | GlobalNetworkPolicy, wrong: set[str]) -> tuple[Resource | None, str]:
    if wrong & _CHOOSERS:
        return None, _absent(policy.kind)
    changes: dict[str, Any] = dict(_denials(wrong, every=bool(wrong & _ANYWHERE)))
    if wrong & _ANYWHERE:
        changes["types"] = ("Ingress", "Egress")
    if "order" in wrong:
        changes["order"] = -inf
    closed = replace(policy, spec=replace(policy.spec, **changes))
    return closed, _IN_ITS_PLACE if changes else "counts as not given"


def _denials(wrong: set[str], *, every: bool) -> Mapping[str, tuple[Rule, ...]]:
    return {field: _DENY for field in ("ingress", "egress") if every or field in wrong}
