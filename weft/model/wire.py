"""How our values look in JSON and YAML: the hooks msgspec needs, and the shape of each class.

A `Shape` knows which fields a class has, recursively; the codec uses it to find unknown fields in
manifests and to keep them in stored values. No resource is named here."""

from __future__ import annotations

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
    IPAddress,
    IPInterface,
    IPNetwork,
    parse_address,
    parse_interface,
    parse_network,
)
from weft.model.values import AsNumber, Dscp, Duration, Port, Protocol


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
    IPInterface: _only(parse_interface, IPInterface, "an address with a prefix length, such as 10.0.0.1/24"),
    IPv4Interface: _only(parse_interface, IPv4Interface, "an IPv4 address with a prefix length, such as 10.0.0.1/24"),
    IPv6Interface: _only(parse_interface, IPv6Interface, "an IPv6 address with a prefix length, such as fd00::1/64"),
    AsNumber: AsNumber.parse,
    Duration: Duration.parse,
    Protocol: Protocol.parse,
    Port: Port.parse,
    Dscp: Dscp.parse,
}


def dec_hook(cls: type, raw: object) -> Any:
    """Build a value that msgspec does not know from what JSON has for it."""
    parser = _PARSERS.get(cls)
    if parser is None:
        raise NotImplementedError(cls)
    return parser(raw)


def enc_hook(value: object) -> Any:
    """The JSON form of a value that msgspec does not know."""
    if isinstance(value, (AsNumber, Duration, Protocol, Port, Dscp)):
        return value.to_json()
    if isinstance(value, timedelta):
        return Duration(seconds=value.total_seconds()).to_json()
    return str(value)


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
