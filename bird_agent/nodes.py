"""What a Node resource says of a node as a BGP speaker: addresses, router id, and the cluster it reflects for. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from ipaddress import IPv4Address
from typing import Literal

from weft.model.address import IPAddress
from weft.model.node import Node


def addresses_of(node: Node) -> Iterable[IPAddress]:
    if node.spec.bgp is None:
        return []
    both = (node.spec.bgp.ipv4_address, node.spec.bgp.ipv6_address)
    return [interface.ip for interface in both if interface is not None]


def cluster_of(node: Node) -> IPv4Address | None:
    """Of a node that is a route reflector."""
    return None if node.spec.bgp is None else node.spec.bgp.route_reflector_cluster_id


def router_id_of(node: Node, wanted: IPv4Address | Literal["hash"] | None) -> IPv4Address:
    """As asked for; else the node's IPv4 address; without one, a number made of the node's name."""
    if isinstance(wanted, IPv4Address):
        return wanted
    bgp = node.spec.bgp
    if wanted is None and bgp is not None and bgp.ipv4_address is not None:
        return bgp.ipv4_address.ip
    return router_id_from(node.name)


def router_id_from(name: str) -> IPv4Address:
    """Of a speaker without an IPv4 address."""
    number = int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big")
    return IPv4Address(max(1, number % 0xE0000000))  # below the multicast range, and not zero
