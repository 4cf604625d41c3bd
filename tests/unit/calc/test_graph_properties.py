"""The graph's output depends on the state alone; a naive calculation over the whole state agrees with it."""

from ipaddress import IPv4Network, IPv6Network
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from felix.calc.graph import Graph
from felix.calc.members import SetKey, as_member
from tests.unit.calc.naive import chosen_by, host_endpoints, members_of, what_is_read
from tests.unit.calc.world import INTERFACES, NODE, START, NodeState, Update, feed, final_state, histories
from weft.model.keys import Key, ResourceKey
from weft.policy.values import Direction, EndpointPolicy, Stage

NETWORKS = (IPv4Network, IPv6Network)


def calculate(updates: list[Update], flush_after: frozenset[int] = frozenset(), sync_after: int = 0) -> NodeState:
    graph, state = Graph(NODE), NodeState()
    for number, (key, value) in enumerate(updates):
        if number == sync_after:
            graph.on_in_sync()
        feed(graph, key, value)
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
    state = what_is_read(final_state(history))
    node = calculate(history)
    for endpoint in node.endpoints.values():
        assert _asked(endpoint.policy) == chosen_by(state, state[endpoint.key], Stage.NORMAL)
    hosts = host_endpoints(state, final_state(history).get(INTERFACES, {}), NODE)
    assert {name: one.key.name for name, one in node.host_endpoints.items()} == {n: h.name for n, h in hosts.items()}
    for name, one in node.host_endpoints.items():
        for stage in Stage:
            outwards = chosen_by(state, hosts[name], stage) if stage is not Stage.PRE_DNAT else set()
            assert outwards <= _asked(one.policy.of(stage)) <= chosen_by(state, hosts[name], stage)
    _check_sets(state, node)


def _check_sets(state: dict[Key, Any], node: NodeState) -> None:
    used = {key for one in (*node.endpoints.values(), *node.host_endpoints.values()) for key in one.policy.asked()}
    assert used <= node.policies.keys()
    wanted = {one.id: one for policy in node.policies.values() for one in policy.address_sets().values()}
    assert {key.id for key in node.sets} <= wanted.keys()
    for one in wanted.values():
        expected = members_of(one, state)
        for version in (4, 6):
            _, members = node.sets.get(SetKey(one.id, version), (None, frozenset()))
            plain = {member for member in expected if member.version == version}
            assert {as_member(m) if isinstance(m, NETWORKS) else m for m in members} == plain


def _asked(policy: EndpointPolicy) -> set[ResourceKey]:
    return {key for tier in policy.tiers for direction in Direction for key in tier.policies(direction)}
