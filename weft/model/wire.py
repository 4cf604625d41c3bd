"""How our values look in JSON and YAML: the hooks msgspec needs, and the shape of each class.

A `Shape` knows which fields a class has, recursively; the codec uses it to find unknown fields in
manifests and to keep them in stored values. No resource is named here."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import timedelta
from functools import lru_cache
from ipaddress import (
    IPv4Address,
    IPv4Interface,
    IPv4Network,
    IPv6Address,
    IPv6Interface,
    IPv6Network,
)
from typing import Any, Final

import msgspec
from msgspec import inspect

from weft.model.address import (
    CidrNetwork,
    IPAddress,
    IPInterface,
    IPNetwork,
    MaskedNetwork,
    parse_address,
    parse_cidr,
    parse_interface,
    parse_masked_network,
    parse_network,
)
from weft.model.values import AsNumber, Dscp, Duration, KubernetesPort, Number, Port, Protocol

_STEP: Final = re.compile(r"([^.\[\]]+)|\[(\d+)\]")


def _only(parse: Callable[[str], Any], cls: Any, expected: str) -> Callable[[object], Any]:
    """A parser for one family."""

    def parse_one(raw: object) -> Any:
        if isinstance(raw, str):
            value = parse(raw)
            if isinstance(value, cls):
                return value
        raise ValueError(expected)

    return parse_one


_PARSERS: Final[Mapping[Any, Callable[[Any], Any]]] = {
    IPAddress: _only(parse_address, IPAddress, "an IPv4 or IPv6 address, such as 10.65.0.1"),
    IPv4Address: _only(parse_address, IPv4Address, "an IPv4 address, such as 10.65.0.1"),
    IPv6Address: _only(parse_address, IPv6Address, "an IPv6 address, such as fd00::1"),
    IPNetwork: _only(parse_network, IPNetwork, "a prefix, such as 10.65.0.0/16 or fd00::/64"),
    IPv4Network: _only(parse_network, IPv4Network, "an IPv4 prefix, such as 10.65.0.0/16"),
    IPv6Network: _only(parse_network, IPv6Network, "an IPv6 prefix, such as fd00::/64"),
    MaskedNetwork: _only(parse_masked_network, MaskedNetwork, "a prefix, such as 10.65.0.0/16 or fd00::/64"),
    CidrNetwork: _only(parse_cidr, CidrNetwork, "a prefix with its length, such as 10.65.0.0/16 or fd00::/64"),
    IPInterface: _only(parse_interface, IPInterface, "an address with a prefix length, such as 10.0.0.1/24"),
    IPv4Interface: _only(parse_interface, IPv4Interface, "an IPv4 address with a prefix length, such as 10.0.0.1/24"),
    IPv6Interface: _only(parse_interface, IPv6Interface, "an IPv6 address with a prefix length, such as fd00::1/64"),
    AsNumber: AsNumber.parse,
    Number: Number.parse,  # type: ignore[attr-defined]
    Duration: Duration.parse,
    Protocol: Protocol.parse,
    Port: Port.parse,
    KubernetesPort: KubernetesPort.parse,
    Dscp: Dscp.parse,
}


def dec_hook(cls: type, raw: object) -> Any:
    """Build a value that msgspec does not know from what JSON has for it."""
    parser = _PARSERS.get(cls)
    if parser is None:
        raise NotImplementedError(cls)
    return parser(raw)


_LENIENT_PARSERS: Final[Mapping[Any, Callable[[Any], Any]]] = {
    **_PARSERS,
    IPNetwork: _only(parse_masked_network, IPNetwork, "a prefix"),
    IPv4Network: _only(parse_masked_network, IPv4Network, "an IPv4 prefix"),
    IPv6Network: _only(parse_masked_network, IPv6Network, "an IPv6 prefix"),
}


def lenient_dec_hook(cls: type, raw: object) -> Any:
    """As `dec_hook`, but host bits are masked off."""
    return _LENIENT_PARSERS[cls](raw)


def enc_hook(value: object) -> Any:
    """The JSON form of a value that msgspec does not know."""
    to_json = getattr(value, "to_json", None)
    if to_json is not None:
        return to_json()
    if isinstance(value, timedelta):
        return Duration(seconds=value.total_seconds()).to_json()
    return str(value)


NO_JSON: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What msgspec raises for bytes that are no JSON; text that is no UTF-8 and deep nesting are not among its own errors.
The first has msgspec.ValidationError under it."""


class Shape(msgspec.Struct, frozen=True):
    """The fields of a class by JSON name; the value is the shape inside, or None for a leaf.

    Lists are looked through: the shape of `tuple[Rule, ...]` is Rule's."""

    fields: Mapping[str, Shape | None]


@lru_cache(maxsize=256)
def shape_of(cls: type) -> Shape:
    """The shape of a struct class."""
    info = inspect.type_info(cls)
    assert isinstance(info, inspect.StructType)
    return _struct_shape(info)


def _struct_shape(info: inspect.StructType) -> Shape:
    return Shape({field.encode_name: _inner_shape(field.type) for field in info.fields})


def _inner_shape(info: inspect.Type) -> Shape | None:
    match info:
        case inspect.StructType():
            return _struct_shape(info)
        case inspect.VarTupleType() | inspect.ListType():
            return _inner_shape(info.item_type)
        case inspect.UnionType():
            shapes = [_inner_shape(member) for member in info.types]
            return next((shape for shape in shapes if shape is not None), None)
    return None


def only_known(tree: Any, shape: Shape | None) -> Any:
    """A tree without what the shape does not know."""
    if shape is None:
        return tree
    if isinstance(tree, list):
        return [only_known(item, shape) for item in tree]
    if isinstance(tree, dict):
        return {name: only_known(item, shape.fields[name]) for name, item in tree.items() if name in shape.fields}
    return tree


def with_text(tree: Any, cls: type) -> Any:
    """The tree with true, false and whole numbers turned to text where the class has text, as Calico's client reads
    `labels: {rack: 1}`. A fraction stays what it is, and so is refused: 1.10 would silently become 1.1."""
    return _with_text(tree, _type_info(cls))


@lru_cache(maxsize=64)
def _type_info(cls: type) -> inspect.Type:
    """Looking it up takes longer than reading a resource."""
    return inspect.type_info(cls)


def _with_text(tree: Any, info: inspect.Type) -> Any:
    match _plain(info):
        case inspect.StrType() if isinstance(tree, bool):
            return "true" if tree else "false"
        case inspect.StrType() if isinstance(tree, int):
            return str(tree)
        case inspect.StructType(fields=fields) if isinstance(tree, dict):
            types = {field.encode_name: field.type for field in fields}
            return {name: _with_text(item, types[name]) if name in types else item for name, item in tree.items()}
        case inspect.DictType(value_type=value_type) if isinstance(tree, dict):
            return {name: _with_text(item, value_type) for name, item in tree.items()}
        case inspect.VarTupleType(item_type=item_type) | inspect.ListType(item_type=item_type) if isinstance(
            tree, list
        ):
            return [_with_text(item, item_type) for item in tree]
    return tree


def expected_at(cls: type, field: str) -> str:
    """What belongs at a path such as `spec.ingress[0].action` of a class, in words."""
    info: inspect.Type = inspect.type_info(cls)
    for name, index in _STEP.findall(field):
        info = _step_into(_plain(info), name, index)
    return _in_words(_plain(info))


def _plain(info: inspect.Type) -> inspect.Type:
    """A type without its None."""
    if isinstance(info, inspect.UnionType):
        return next((member for member in info.types if not isinstance(member, inspect.NoneType)), info)
    return info


def _step_into(info: inspect.Type, name: str, index: str) -> inspect.Type:
    match info:
        case inspect.StructType() if name:
            return next((field.type for field in info.fields if field.encode_name == name), inspect.AnyType())
        case inspect.VarTupleType() if index:
            return info.item_type
        case inspect.DictType():
            return info.value_type
    return inspect.AnyType()


def _in_words(info: inspect.Type) -> str:
    match info:
        case inspect.LiteralType(values):
            return f"one of {', '.join(map(str, values))}"
        case inspect.StrType():
            return "text (in quotes where it is no plain word or whole number)"
        case inspect.BoolType():
            return "true or false"
        case inspect.IntType():
            return "a whole number"
        case inspect.FloatType():
            return "a number"
        case inspect.VarTupleType():
            return "a list"
        case inspect.DictType():
            return "a map of names to text"
        case inspect.DateTimeType():
            return "a time such as 2026-01-31T12:00:00Z"
        case inspect.StructType():
            return f"an object with {', '.join(field.encode_name for field in info.fields)}"
    return "a value of another type"
