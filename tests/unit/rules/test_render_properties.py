"""The rendered table does what the evaluator says, and depends on the node's state alone."""

from ipaddress import ip_address
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from felix.calc.delta import NodeDelta
from felix.calc.graph import Graph
from felix.rules import values as v
from felix.rules.render import Renderer
from tests.fakes import computed_policies as computed
from tests.fakes.nft_packets import Chains, Packet, passes_hook
from tests.unit.calc.world import NODE, START, NodeState, Update, feed, final_state, histories
from weft.model.keys import ResourceKey
from weft.policy.values import Direction
from weft.policy.verdict import Flow, verdict


def render(updates: list[Update], flush_after: frozenset[int] = frozenset()) -> tuple[NodeState, v.Table]:
    graph, renderer, state, chains = Graph(NODE), Renderer(), NodeState(), Chains()
    graph.on_in_sync()
    for number, (key, value) in enumerate(updates):
        feed(graph, key, value)
        if number in flush_after or number == len(updates) - 1:
            delta = graph.flush()
            state.add(delta)
            chains.apply(renderer.render(delta))
    assert not renderer.render(graph.flush())
    return state, chains.table


@given(history=histories, flush_after=st.frozensets(st.integers(0, 24)), order=st.randoms(use_true_random=False))
@settings(max_examples=60)
def test_the_table_depends_on_the_state_alone(history: list[Update], flush_after: frozenset[int], order: Any) -> None:
    shuffled = list(final_state(history).items())
    order.shuffle(shuffled)
    assert render(history, flush_after | {START - 1})[1] == render(shuffled)[1]


@given(desired=st.lists(computed.deltas(), min_size=1, max_size=2), flows=computed.flows)
@settings(max_examples=120)
def test_the_table_decides_as_the_evaluator(desired: list[NodeDelta], flows: list[Flow]) -> None:
    """The second delta finds the chains of the first: only what it changes is rendered again."""
    renderer, chains, state = Renderer(), Chains(), NodeState()
    for following in desired:
        delta = computed.difference(state, following)
        state.add(delta)
        chains.apply(renderer.render(delta))
    endpoint = state.endpoints["cali1"]
    for flow in flows:
        for direction, packet in (
            (Direction.EGRESS, Packet(flow, "cali1", "eth0")),
            (Direction.INGRESS, Packet(flow, "eth0", "cali1")),
        ):
            expected = verdict(endpoint.policy, state.policies, computed.Members(state), flow, direction)
            assert passes_hook(chains.table, "forward", packet) == expected.allowed, (packet, expected)


@pytest.mark.parametrize(
    ("iif", "oif"),
    [("cali9", "eth0"), ("eth0", "cali9"), ("weftdel7", "eth0"), ("eth0", "weftdel7"), ("cali9", "cali8")],
)
def test_interfaces_of_ours_without_policy_pass_nothing(iif: str, oif: str) -> None:
    _, table = render([(ResourceKey("Tier", "default"), None)])
    flow = Flow(source=ip_address("10.0.0.1"), destination=ip_address("10.0.0.2"), protocol=17)
    assert not passes_hook(table, "forward", Packet(flow, iif, oif))
    assert passes_hook(table, "input", Packet(flow, iif, "")) == (iif == "eth0")
    assert passes_hook(table, "output", Packet(flow, "", oif)) == (oif == "eth0")


def test_interfaces_of_others_pass_everything() -> None:
    _, table = render([(ResourceKey("Tier", "default"), None)])
    flow = Flow(source=ip_address("10.0.0.1"), destination=ip_address("10.0.0.2"), protocol=17)
    for state in ("new", "established", "invalid"):
        assert passes_hook(table, "forward", Packet(flow, "eth0", "docker0", state))
