"""Nodes, peers and configurations, and the sessions that come of them: what the tests of peering are made of."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Interface
from typing import Any

from bird_agent.peering import peering
from bird_agent.session_config import Peering, SessionConfig
from bird_agent.survey import BgpResources
from weft.model.base import Metadata
from weft.model.bgp import (
    BGPConfiguration,
    BGPConfigurationSpec,
    BGPPeer,
    BGPPeerSpec,
)
from weft.model.node import Node, NodeBGPSpec, NodeSpec
from weft.model.values import AsNumber


def node(number: int, labels: dict[str, str] | None = None, **bgp: Any) -> Node:
    bgp.setdefault("ipv4_address", IPv4Interface(f"10.0.0.{number}/24"))
    return Node(metadata=Metadata(name=f"n{number}", labels=labels or {}), spec=NodeSpec(bgp=NodeBGPSpec(**bgp)))


def peer(name: str = "p", **spec: Any) -> BGPPeer:
    if "as_number" in spec:
        spec["as_number"] = AsNumber(spec["as_number"])
    return BGPPeer(metadata=Metadata(name=name), spec=BGPPeerSpec(**spec))


def configuration(name: str = "default", **spec: Any) -> BGPConfiguration:
    return BGPConfiguration(metadata=Metadata(name=name), spec=BGPConfigurationSpec(**spec))


def plan(own: int, *resources: Node | BGPPeer | BGPConfiguration, **more: Any) -> Peering:
    nodes = {each.name: each for each in resources if isinstance(each, Node)}
    peers = {each.name: each for each in resources if isinstance(each, BGPPeer)}
    configurations = {each.name: each for each in resources if isinstance(each, BGPConfiguration)}
    made = peering(f"n{own}", BgpResources(nodes, configurations, peers), **more)
    assert made is not None
    return made


def sessions(made: Peering) -> dict[str, tuple[int, str]]:
    """peer -> (its AS, why)."""
    return {str(each.peer): (each.peer_as, each.resource) for each in made.sessions.values()}


NO_MESH = configuration(node_to_node_mesh_enabled=False)


THREE = [node(1), node(2), node(3)]


REFLECTOR = node(9, {"role": "rr"}, route_reflector_cluster_id=IPv4Address("244.0.0.1"))


def only(made: Peering) -> SessionConfig:
    (session,) = made.sessions.values()
    return session
