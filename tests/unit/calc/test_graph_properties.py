"""The graph's output depends on the state alone; a naive calculation over the whole state agrees with it."""

from ipaddress import IPv4Network, IPv6Network
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from felix.calc.graph import Graph
from felix.calc.members import SetKey, as_member
from tests.unit.calc.naive import labels_of, members_of
from tests.unit.calc.world import NODE, START, NodeState, Update, final_state, histories
from weft.model.endpoint import WorkloadEndpoint
from weft.model.policy import GlobalNetworkPolicy, NetworkPolicy
from weft.policy.selectors import policy_selector
from weft.policy.values import Direction

NETWORKS = (IPv4Network, IPv6Network)


def calculate(updates: list[Update], flush_after: frozenset[int] = frozenset(), sync_after: int = 0) -> NodeState:
    graph, state = Graph(NODE), NodeState()
    for number, (key, value) in enumerate(updates):
        if number == sync_after:
            graph.on_in_sync()
        graph.on_update(key, value)
        if number in flush_after:
            state.add(graph.flush())
    graph.on_in_sync()
    state.add(graph.flush())
    assert not graph.flush(), "a second flush with nothing in between"
    return state


@given(
    history=histories,
    flush_after=st.frozensets(st.integers(0, 24)),
    sync_after=st.integers(0, START + 5),
    order=st.randoms(use_true_random=False),
)
@settings(max_examples=80)
def test_output_depends_on_the_state_alone(
    history: list[Update], flush_after: frozenset[int], sync_after: int, order: Any
) -> None:
    shuffled = list(final_state(history).items())
    order.shuffle(shuffled)
    duplicated = [update for update in shuffled for _ in range(order.randint(1, 2))]
    assert calculate(history, flush_after | {START - 1}, sync_after) == calculate(duplicated)


@given(history=histories, flush_after=st.frozensets(st.integers(0, 24)))
@settings(max_examples=50)
def test_removing_everything_frees_everything(history: list[Update], flush_after: frozenset[int]) -> None:
    removals: list[Update] = [(key, None) for key in final_state(history)]
    assert calculate(history + removals, flush_after) == calculate([])


@given(history=histories)
@settings(max_examples=80)
def test_a_naive_calculation_agrees(history: list[Update]) -> None:
    state = final_state(history)
    node = calculate(history)
    local = [(k, v) for k, v in state.items() if isinstance(v, WorkloadEndpoint) and v.spec.node == NODE]
    for endpoint in node.endpoints.values():
        value = dict(local)[endpoint.key]
        matching = {
            key
            for key, policy in state.items()
            if isinstance(policy, NetworkPolicy)
            or (isinstance(policy, GlobalNetworkPolicy) and not policy.spec.pre_dnat)
            if policy_selector(policy).matches(labels_of(state, value))
        }
        ordered = {key for tier in endpoint.policy.tiers for d in Direction for key in tier.policies(d)}
        assert ordered == matching
    used = {key for endpoint in node.endpoints.values() for key in endpoint.policy.asked()}
    assert used <= node.policies.keys()
    for policy in node.policies.values():
        for one in policy.address_sets().values():
            expected = members_of(one, state)
            for version in (4, 6):
                _, members = node.sets.get(SetKey(one.id, version), (None, frozenset()))
                plain = {member for member in expected if member.version == version}
                assert {as_member(m) if isinstance(m, NETWORKS) else m for m in members} == plain
