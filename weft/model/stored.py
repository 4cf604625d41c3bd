"""Stored values: bytes in the datastore to values, and back without losing what we do not know.

Reading is lenient: unknown fields are skipped, null means unset. What cannot be understood at all (a
policy whose action we do not know) is refused as unusable; guessing would open something."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final

import msgspec

from weft.model import ipam, keys, questions, reflectors
from weft.model.base import API_VERSION, Metadata, Resource, Value
from weft.model.errors import FieldError, ValidationError
from weft.model.keys import (
    AffinityKey,
    BlockKey,
    HandleKey,
    IPAMConfigKey,
    Key,
    QuestionKey,
    ReflectorKey,
    ResourceKey,
)
from weft.model.policy import DEFAULT_TIER
from weft.model.pool import IPAMConfiguration
from weft.model.resources import CLASSES
from weft.model.wire import NO_JSON, Shape, dec_hook, enc_hook, expected_at, lenient_dec_hook, only_known, shape_of

StoredValue = (
    Resource
    | ipam.BlockValue
    | ipam.AffinityValue
    | ipam.HandleValue
    | ipam.IPAMConfigValue
    | reflectors.ReflectorValue
    | questions.Question
)

_ENCODER: Final = msgspec.json.Encoder(enc_hook=enc_hook)
_MISSING: Final = re.compile(r"Object missing required field `(.*)`")
_NAME_ANNOTATION: Final = "projectcalico.org/metadata"
_POLICIES: Final = ("NetworkPolicy", "GlobalNetworkPolicy", "StagedNetworkPolicy", "StagedGlobalNetworkPolicy")


def class_of(key: Key) -> type[StoredValue]:
    """The class of what is stored at a key."""
    match key:
        case ResourceKey(kind):
            return CLASSES[kind]
        case BlockKey():
            return ipam.BlockValue
        case AffinityKey():
            return ipam.AffinityValue
        case HandleKey():
            return ipam.HandleValue
        case IPAMConfigKey():
            return ipam.IPAMConfigValue
        case ReflectorKey(section):
            return reflectors.CLASSES[section]
        case QuestionKey():
            return questions.Question


@lru_cache(maxsize=64)
def _decoder(cls: type[StoredValue]) -> msgspec.json.Decoder[StoredValue]:
    return msgspec.json.Decoder(cls, dec_hook=dec_hook)


def decode_stored(key: Key, raw: bytes) -> StoredValue:
    """The value at a key. Raises ValidationError where it is unusable."""
    cls = class_of(key)
    if isinstance(key, AffinityKey) and not raw:
        raw = b"{}"
    try:
        try:
            value = _decoder(cls).decode(raw)
        except (msgspec.DecodeError, UnicodeDecodeError):
            value = _decode_slowly(key, cls, raw)
    except RecursionError:
        raise ValidationError(keys.path(key), 0, "$", raw[:80], "JSON that is nested less deeply") from None
    if isinstance(key, ResourceKey) and isinstance(value, Resource):
        return _with_names(key, value)
    if isinstance(key, BlockKey) and isinstance(value, ipam.BlockValue) and value.cidr != key.cidr:
        raise ValidationError(keys.path(key), 0, "cidr", str(value.cidr), f"{key.cidr}, as the key says")
    return value


def _decode_slowly(key: Key, cls: type[StoredValue], raw: bytes) -> StoredValue:
    """Again, with what Go's decoder forgives: null for anything, and "" for a value that is not a string."""
    try:
        tree = without_unset(msgspec.json.decode(raw), shape_of(cls))
        if isinstance(tree, dict) and isinstance(key, ResourceKey):
            tree.setdefault("metadata", {})
        return msgspec.convert(tree, cls, dec_hook=lenient_dec_hook, strict=False)
    except msgspec.ValidationError as error:
        raise as_validation_error(error, cls, keys.path(key), 0) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ValidationError(keys.path(key), 0, "$", raw[:80], f"JSON ({error})") from None


def without_unset(tree: Any, shape: Shape | None) -> Any:
    """A tree without the fields that are null or "" (Go's unset), as far as the shape reaches."""
    if isinstance(tree, list):
        return [without_unset(item, shape) for item in tree]
    if isinstance(tree, dict) and shape is not None:
        return {
            name: without_unset(item, shape.fields.get(name))
            for name, item in tree.items()
            if item is not None and item != ""
        }
    return tree


def as_validation_error(error: msgspec.ValidationError, cls: type, source: str, document: int) -> ValidationError:
    """msgspec's `<message> - at `$.spec.cidr`` as our error; `value` is left None where we do not know it."""
    message, _, place = str(error).rpartition(" - at `")
    if not message:
        message, place = str(error), "$`"
    field = place.rstrip("`").removeprefix("$").removeprefix(".")
    cause = error.__cause__
    if isinstance(cause, FieldError):
        return ValidationError(source, document, _join(field, cause.field), cause.value, cause.expected)
    if cause is not None:
        return ValidationError(source, document, field or "$", None, message)
    missing = _MISSING.match(message)
    if missing is not None:
        return ValidationError(source, document, _join(field, missing[1]), None, "a value: it must be given")
    return ValidationError(source, document, field or "$", None, expected_at(cls, field))


def _join(parent: str, field: str) -> str:
    return f"{parent}.{field}" if parent else field


def _with_names(key: ResourceKey, value: Resource) -> Resource:
    """Name and namespace are the key's; a policy loses the prefix of the default tier that
    older releases gave it."""
    metadata = value.metadata
    name, annotations = key.name, metadata.annotations
    if key.kind in _POLICIES:
        name, annotations = _policy_name(key.name, getattr(value, "spec").tier, annotations)  # noqa: B009
    same = metadata.name == name and metadata.namespace == key.namespace
    if same and annotations is metadata.annotations:
        return value
    changed: Metadata = msgspec.structs.replace(metadata, name=name, namespace=key.namespace, annotations=annotations)
    return msgspec.structs.replace(value, metadata=changed)


def _policy_name(stored: str, tier: str, annotations: Mapping[str, str]) -> tuple[str, Mapping[str, str]]:
    """The name as its author wrote it: since 3.30 Calico keeps it in an annotation."""
    original = annotations.get(_NAME_ANNOTATION)
    if original is not None:
        try:
            name = msgspec.json.decode(original, type=Metadata).name or stored
        except NO_JSON:
            name = stored
        return name, {field: text for field, text in annotations.items() if field != _NAME_ANNOTATION}
    if tier in ("", DEFAULT_TIER):
        return stored.removeprefix(f"{DEFAULT_TIER}."), annotations
    return stored, annotations


def encode_stored(value: StoredValue, previous: bytes | None = None) -> bytes:
    """Calico's JSON. Fields of `previous` (what is stored now) that we do not know are kept, also inside
    objects, and inside those list elements that are recognisably the same."""
    if isinstance(value, IPAMConfiguration):
        return encode_stored(ipam.to_stored(value), previous)
    encoded = _ENCODER.encode(_for_storage(value) if isinstance(value, Resource) else value)
    if isinstance(value, Resource):
        head = f'{{"kind":"{value.kind}","apiVersion":"{API_VERSION}",'.encode()
        encoded = head + encoded[1:]
    if not previous:
        return encoded
    try:
        old = msgspec.json.decode(previous)
    except NO_JSON:
        return encoded
    shape = shape_of(type(value))
    if isinstance(value, Resource):
        shape = Shape({**shape.fields, "kind": None, "apiVersion": None})
    if not isinstance(old, dict) or not _has_unknown(old, shape):
        return encoded
    return msgspec.json.encode(_merge(msgspec.json.decode(encoded), old, shape))


def _for_storage(value: Resource) -> Resource:
    """Without the resource version, which is the datastore's revision; a policy with its name once more, so that
    readers since Calico 3.30 take no part of it for a tier."""
    metadata = value.metadata
    annotations = metadata.annotations
    if value.kind in _POLICIES:
        name = msgspec.json.encode({"name": metadata.name}).decode()
        annotations = {**annotations, _NAME_ANNOTATION: name}
    elif not metadata.resource_version:
        return value
    stored: Metadata = msgspec.structs.replace(metadata, resource_version="", annotations=annotations)
    return msgspec.structs.replace(value, metadata=stored)


def _has_unknown(tree: Any, shape: Shape | None) -> bool:
    if isinstance(tree, list):
        return any(_has_unknown(item, shape) for item in tree)
    if not isinstance(tree, dict) or shape is None:
        return False
    return any(name not in shape.fields or _has_unknown(item, shape.fields[name]) for name, item in tree.items())


def _merge(new: Any, old: Any, shape: Shape | None) -> Any:
    """`new`, with what only `old` has and the shape does not know."""
    if shape is None:
        return new
    if isinstance(new, dict) and isinstance(old, dict):
        merged = {
            name: _merge(item, old[name], shape.fields.get(name)) if name in old else item for name, item in new.items()
        }
        return merged | {name: item for name, item in old.items() if name not in shape.fields}
    if isinstance(new, list) and isinstance(old, list):
        return _merge_lists(new, old, shape)
    return new


def _merge_lists(new: list[Any], old: list[Any], shape: Shape) -> list[Any]:
    """Elements match that have the same known fields, or else the same name; each old one once."""
    left = [(item, only_known(item, shape)) for item in old]
    merged = []
    for item in new:
        index = next((i for i, (_, known) in enumerate(left) if known == item), None)
        if index is None and isinstance(item, dict) and "name" in item:
            index = next((i for i, (_, known) in enumerate(left) if known.get("name") == item["name"]), None)
        merged.append(item if index is None else _merge(item, left.pop(index)[0], shape))
    return merged


def to_builtins(value: Value) -> dict[str, Any]:
    """A value as plain dicts, lists, numbers and strings."""
    tree: dict[str, Any] = msgspec.json.decode(_ENCODER.encode(value))
    return tree
