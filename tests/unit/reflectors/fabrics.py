"""Fabrics of a few nodes or many, for the tests of automatic reflectors."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Interface
from typing import Any

from weft.model.base import Metadata
from weft.model.node import Node, NodeBGPSpec, NodeSpec
from weft.model.reflectors import ReflectorSettings, ReflectorState
from weft.reflectors.plan import Fabric

ZONE = "topology.kubernetes.io/zone"
SETTINGS = ReflectorSettings(enabled=True, above_nodes=3)
ON = ReflectorState(mode="reflectors", epoch=1)


def node(number: int, zone: str | None = None, annotations: dict[str, str] | None = None, **bgp: Any) -> Node:
    bgp.setdefault("ipv4_address", IPv4Interface((IPv4Address("10.0.0.0") + number, 16)))
    labels = {} if zone is None else {ZONE: zone}
    metadata = Metadata(name=f"n{number}", labels=labels, annotations=annotations or {})
    return Node(metadata=metadata, spec=NodeSpec(bgp=NodeBGPSpec(**bgp)))


def fabric(nodes: Iterable[Node], **more: Any) -> Fabric:
    return Fabric({each.name: each for each in nodes}, **more)


def zones(count: int, *names: str) -> list[Node]:
    """`count` nodes, spread over the zones."""
    return [node(number, names[number % len(names)]) for number in range(1, count + 1)]
