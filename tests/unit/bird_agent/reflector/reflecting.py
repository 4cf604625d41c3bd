"""A plan with three peers, and what a scripted reflector has said to them."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

from bird_agent.reflector.framing import Message
from bird_agent.reflector.outputs import Updates
from bird_agent.reflector.plan import ReflectorPlan
from bird_agent.reflector.prefixes import Nlri, nlri_of
from tests.unit.bird_agent.reflector.world import Script, plan, session
from weft.model.base import Metadata
from weft.model.bgp import (
    BGPFilter,
    BGPFilterRuleV4,
    BGPFilterSpec,
)

A, B, C, X = "10.0.0.11", "10.0.0.12", "10.0.0.13", "10.0.0.31"


P, Q, R = "10.65.0.0/26", "10.65.1.0/26", "10.66.0.0/24"


def nlri(prefix: str) -> Nlri:
    return nlri_of(ip_network(prefix))


def three(**fields: object) -> ReflectorPlan:
    return plan(session(A), session(B), session(C), **fields)


def prefixes(script: Script) -> set[str]:
    return {f"{ip_address(each[1:].ljust(4, bytes(1)))}/{each[0]}" for each in script.prefixes()}


def updates(script: Script) -> list[Updates]:
    return [each for each in script.heard if isinstance(each, Updates)]


def a_filter(name: str, **rules: BGPFilterRuleV4) -> BGPFilter:
    spec = BGPFilterSpec(**{direction: (rule,) for direction, rule in rules.items()})
    return BGPFilter(metadata=Metadata(name=name), spec=spec)


def words(script: Script) -> list[tuple[Message, bytes]]:
    return [each for each in script.heard if isinstance(each, tuple)]
