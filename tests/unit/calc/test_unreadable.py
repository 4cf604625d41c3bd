"""A resource that cannot be read refuses what it was about, on every node and after every restart alike."""

import itertools
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from felix.calc.graph import Graph
from tests.unit.calc.test_graph import A1, PROFILE, policy, workload
from tests.unit.calc.world import NodeState, Update, damaged_at, feed, readable
from weft.model import codec, keys
from weft.model.base import Resource
from weft.model.keys import ResourceKey
from weft.model.policy import Rule
from weft.policy.values import Direction
from weft.policy.verdict import Flow, verdict

GOOD = policy("deny-some", Rule(action="Deny"), selector="app == 'web'", order=1)
KEY = ResourceKey(GOOD.kind, GOOD.metadata.name)
BAD = codec.encode_stored(GOOD).replace(b'"Deny"', b'"Refuse"')
ALLOW = policy("then-allow", Rule(action="Allow"), order=2)
WORLD: tuple[Resource, ...] = (PROFILE, workload("1"), ALLOW)

Step = tuple[keys.Key, Any]


class _Nobody:
    def contains(self, set_id: str, address: object) -> bool:
        return False

    def contains_port(self, set_id: str, address: object, protocol: int, port: int) -> bool:
        return False


def state_after(*steps: Step, flush_each: bool = True) -> NodeState:
    """`bytes` are a value that cannot be read, None is a deletion."""
    graph, state = Graph("here"), NodeState()
    graph.on_in_sync()
    for key, value in (*((keys.of(one), one) for one in WORLD), *steps):
        if isinstance(value, bytes):
            graph.on_unreadable(key, value)
        else:
            graph.on_update(key, value)
        if flush_each:
            state.add(graph.flush())
    state.add(graph.flush())
    return state


def is_allowed(state: NodeState) -> bool:
    flow = Flow(source=A1, destination=A1, protocol=6, source_port=1000, destination_port=80)
    return verdict(state.endpoints["cali1"].policy, state.policies, _Nobody(), flow, Direction.INGRESS).allowed


def test_a_deny_that_cannot_be_read_any_more_still_denies() -> None:
    assert is_allowed(state_after())
    state = state_after((KEY, GOOD), (KEY, BAD))
    assert not is_allowed(state)
    assert KEY in {*state.endpoints["cali1"].policy.asked()}
    assert state.not_enforced[KEY] == (
        "spec.ingress[0].action: cannot be read (one of Allow, Deny, Log, Pass): "
        "denies in its place what it cannot say",
    )


def test_an_allow_that_cannot_be_read_denies_only_those_it_chooses() -> None:
    unreadable = codec.encode_stored(policy("x", Rule(action="Allow"), selector="app == 'db'"))
    state = state_after((ResourceKey(GOOD.kind, "x"), unreadable.replace(b'"Allow"', b"5")))
    assert is_allowed(state)
    assert ResourceKey(GOOD.kind, "x") in state.not_enforced


def test_a_policy_whose_selector_cannot_be_read_is_reported_and_chooses_nobody() -> None:
    state = state_after((KEY, b'{"spec": {"selector": 5, "ingress": [{"action": "Deny"}]}}'))
    assert is_allowed(state)
    assert state.not_enforced[KEY][0].endswith("whom it chooses is not known, so it chooses nobody")


def test_an_endpoint_that_cannot_be_read_has_no_policy_and_no_route() -> None:
    key = ResourceKey("WorkloadEndpoint", "1", "one")
    state = state_after((key, b'{"spec": {"ipNetworks": ["nonsense"]}}'))
    assert state.endpoints == {}
    assert state.routes == {}
    assert state.not_enforced[key][0].endswith("nothing passes")


@pytest.mark.parametrize("last", [GOOD, BAD, None], ids=["readable", "unreadable", "deleted"])
def test_what_was_there_before_does_not_matter(last: Any) -> None:
    expected = state_after((KEY, last)) if last is not None else state_after()
    for history in itertools.product([GOOD, BAD, None], repeat=2):
        for flush_each in (False, True):
            steps = [(KEY, value) for value in (*history, last)]
            assert state_after(*steps, flush_each=flush_each) == expected


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=5,
)


@given(
    updates=st.lists(readable, min_size=1, max_size=6),
    damage=st.lists(st.tuples(st.integers(0, 500), anything), max_size=4),
)
@settings(max_examples=60)
def test_whatever_is_stored_the_graph_goes_on_and_names_its_field(
    updates: list[Update], damage: list[tuple[int, Any]]
) -> None:
    graph, state = Graph("here"), NodeState()
    graph.on_in_sync()
    graph.on_interfaces({"eth0": frozenset({A1})})
    for key, value in updates:
        for place, thing in damage:
            _, value = damaged_at((key, value), place, thing)
        feed(graph, key, value)
    state.add(graph.flush())
    for key, problems in state.not_enforced.items():
        assert problems
        assert all(problem for problem in problems), key


@pytest.mark.parametrize("kind", ["NetworkPolicy", "StagedNetworkPolicy", "KubernetesEndpointSlice"])
@pytest.mark.parametrize(
    "raw",
    [
        b"[" * 100_000,
        b'{"spec": ' + b"[" * 600 + b"]" * 600 + b"}",
        b"\xff",
        b'{"sp\x80c": {}}',
        b'{"metadata": {"labels": {"a": "\x80"}}}',
        b"",
        b"null",
    ],
)
def test_bytes_that_are_hardly_json_are_reported(kind: str, raw: bytes) -> None:
    state = NodeState()
    graph = Graph("here")
    graph.on_in_sync()
    feed(graph, ResourceKey(kind, "x", "one"), raw)
    state.add(graph.flush())
    assert ResourceKey(kind, "x", "one") in state.not_enforced
