"""Resources in, a reflector's plan out: for one that is a Node of its own with a `routeReflectorClusterID`.

Pure. Its sessions are those of any node of that name (bird_agent/peering.py); among them the internal peers that are
not reflectors of the same cluster are its clients, as in Calico."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec.structs import replace

from bird_agent.reflector.plan import ReflectorPlan, ReflectorSession
from bird_agent.session_config import Peering, Problem
from weft.model.address import IPNetwork
from weft.model.node import Node


def reflector_plan(name: str, planned: Peering | None, nodes: Mapping[str, Node]) -> ReflectorPlan | None:
    """None while the Node is not there or has no address. One without a cluster id is no reflector: no sessions."""
    own = nodes.get(name)
    if planned is None or own is None:
        return None
    subject = f"Node/{name}"
    problems = tuple(each for each in planned.problems if each.subject != subject)
    plan = ReflectorPlan(
        name=name,
        asn=planned.asn,
        router_id=planned.router_id,
        cluster_id=planned.cluster_id or planned.router_id,
        addresses=planned.addresses,
        port=planned.port,
        networks=_networks(own),
        problems=problems,
    )
    if planned.cluster_id is None:
        missing = Problem(subject, "no routeReflectorClusterID: a reflector of no cluster has no sessions")
        return replace(plan, problems=(*problems, missing))
    sessions = {
        peer: ReflectorSession(config, client=config.client, passive=config.passive)
        for peer, config in planned.sessions.items()
    }
    return replace(plan, sessions=sessions)


def _networks(own: Node) -> tuple[IPNetwork, ...]:
    bgp = own.spec.bgp
    both = () if bgp is None else (bgp.ipv4_address, bgp.ipv6_address)
    return tuple(interface.network for interface in both if interface is not None)
