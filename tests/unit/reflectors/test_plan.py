"""Who becomes a reflector, and for whom."""

from __future__ import annotations

import random
from datetime import UTC, datetime
from ipaddress import IPv4Address

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.reflectors.fabrics import ON, SETTINGS, fabric, node, zones
from weft.model.errors import FieldError
from weft.model.node import Node
from weft.model.reflectors import ReflectorSettings, ReflectorState, Replacement
from weft.model.values import AsNumber
from weft.reflectors.changes import Writer, change_mode, replace, welcome_back
from weft.reflectors.plan import Plan, plan, wanted_mode

NOW = datetime(2026, 1, 31, tzinfo=UTC)
WRITER = Writer("n1", NOW)
NODES = st.dictionaries(st.integers(1, 60), st.sampled_from(["a", "b", "c", None]), min_size=1).map(
    lambda found: [node(number, zone) for number, zone in found.items()]
)


def chosen(nodes: list[Node], state: ReflectorState = ON, **settings: object) -> Plan:
    return plan(fabric(nodes), msgspec.structs.replace(SETTINGS, **settings), state)


def test_each_domain_has_two_reflectors_of_its_own_and_nodes_without_the_label_are_one_domain() -> None:
    made = chosen([*zones(20, "a", "b"), node(21), node(22), node(23)])
    assert {domain: len(names) for domain, names in made.reflectors.items()} == {"a": 2, "b": 2, "": 2}
    assert all(made.domain_of[name] == domain for domain, names in made.reflectors.items() for name in names)
    assert made.reflectors_for("n2") == made.reflectors["a"]


@given(NODES, st.randoms())
def test_the_set_is_the_same_whatever_the_order_in_which_nodes_became_known(
    nodes: list[Node], order: random.Random
) -> None:
    shuffled = list(nodes)
    order.shuffle(shuffled)
    assert chosen(nodes).reflectors == chosen(shuffled).reflectors


@given(NODES, st.sampled_from(["a", "b", "c", None]))
def test_a_node_that_joins_or_leaves_moves_at_most_one_reflector_of_its_own_domain(
    nodes: list[Node], zone: str | None
) -> None:
    before, after = chosen(nodes), chosen([*nodes, node(99, zone)])
    for domain in after.reflectors:
        old, new = set(before.reflectors.get(domain, ())), set(after.reflectors[domain])
        assert new - old <= {"n99"}
        assert len(old - new) <= 1
        assert old == new or domain == (zone or "")


@given(NODES, st.data())
def test_a_node_that_is_no_reflector_leaves_without_a_trace(nodes: list[Node], data: st.DataObject) -> None:
    made = chosen(nodes)
    others = [each for each in nodes if each.name not in made.chosen]
    if others:
        gone = data.draw(st.sampled_from(others))
        assert chosen([each for each in nodes if each is not gone]).chosen == made.chosen


@pytest.mark.parametrize(
    "unfit",
    [
        pytest.param(node(9, "a", route_reflector_cluster_id=IPv4Address("1.1.1.1")), id="Calico's own reflector"),
        pytest.param(node(9, "a", as_number=AsNumber(65001)), id="another AS"),
        pytest.param(node(9, "a", ipv4_address=None), id="without an address"),
        pytest.param(node(9, "a", {"weft/reflector": "never"}), id="kept out by its annotation"),
        pytest.param(node(9, "a", {"weft/drain": "5s"}), id="being drained"),
    ],
)
def test_some_nodes_are_no_candidates(unfit: Node) -> None:
    assert chosen([unfit, node(1, "a")]).reflectors == {"a": ("n1",)}


def test_the_nodes_of_a_domain_without_candidates_use_the_next_one() -> None:
    nodes = [*zones(6, "a", "b"), node(7, "c", {"weft/reflector": "never"}), node(8, "d", {"weft/reflector": "never"})]
    made = chosen(nodes)
    for name in ("n7", "n8"):
        assert made.reflectors_for(name) in (made.reflectors["a"], made.reflectors["b"])
        assert made.reserve_for(name) in (made.reflectors["a"], made.reflectors["b"])
        assert made.reserve_for(name) != made.reflectors_for(name)
    assert made.reserve_for("n2") == made.reflectors["b"]


def test_the_fabric_turns_above_one_number_and_back_below_another() -> None:
    settings = ReflectorSettings(enabled=True, above_nodes=10)
    mesh, reflectors = ReflectorState(), ON

    def mode(count: int, state: ReflectorState) -> str:
        return wanted_mode(fabric(zones(count, "a")), settings, state)[0]

    assert [mode(count, mesh) for count in (7, 8, 10, 11)] == ["mesh", "mesh", "mesh", "reflectors"]
    assert [mode(count, reflectors) for count in (7, 8, 10, 11)] == ["mesh", "reflectors", "reflectors", "reflectors"]


@given(st.lists(st.integers(1, 30), min_size=1))
def test_a_fabric_whose_size_stays_between_the_numbers_never_turns(counts: list[int]) -> None:
    settings, state, turns = ReflectorSettings(enabled=True, above_nodes=20, back_below=10), ReflectorState(), 0
    for count in counts:
        changed = change_mode(fabric(zones(count, "a", "b")), settings, state, WRITER)
        turns += changed is not None
        state = changed or state
        assert state.mode == ("mesh" if count < 10 else "reflectors" if count > 20 else state.mode)
    assert state.epoch == turns
    if all(10 <= count <= 20 for count in counts):
        assert turns == 0


def test_without_candidates_without_a_mesh_or_disabled_the_fabric_is_a_mesh() -> None:
    nodes = [node(number, "a", {"weft/reflector": "never"}) for number in range(9)]
    assert wanted_mode(fabric(nodes), SETTINGS, ON) == ("mesh", "no node may be a reflector")
    assert wanted_mode(fabric(zones(9, "a"), has_mesh=False), SETTINGS, ON)[0] == "mesh"
    assert wanted_mode(fabric(zones(9, "a")), ReflectorSettings(), ON)[0] == "mesh"


def test_a_dead_reflector_is_replaced_by_the_next_of_its_domain_and_no_other_moves() -> None:
    whole = fabric(zones(12, "a", "b"))
    before = plan(whole, SETTINGS, ON)
    dead, kept = before.reflectors["a"]
    state = replace(whole, SETTINGS, ON, {dead: "it is silent", "n99": "unknown"}, WRITER)
    assert state is not None
    assert state.replaced == (Replacement(node=dead, domain="a", why="it is silent", by="n1", at=NOW),)
    after = plan(whole, SETTINGS, state)
    assert after.reflectors["b"] == before.reflectors["b"]
    assert after.reflectors["a"][0] == kept
    assert dead not in after.chosen
    assert len(after.reflectors["a"]) == 2
    assert replace(whole, SETTINGS, state, {dead: "again"}, WRITER) is None


def test_the_last_reflector_of_all_stays_although_it_is_dead() -> None:
    assert replace(fabric([node(1)]), SETTINGS, ON, {"n1": "silent"}, WRITER) is None


def test_a_node_that_returned_is_a_candidate_behind_the_others_and_forgotten_when_that_makes_no_difference() -> None:
    whole = fabric(zones(4, "a"))
    first = plan(whole, SETTINGS, ON).reflectors["a"][0]
    dead = replace(whole, SETTINGS, ON, {first: "silent"}, WRITER)
    assert dead is not None
    before = plan(whole, SETTINGS, dead)
    back = welcome_back(whole, SETTINGS, dead, Writer(first, NOW))
    assert back is not None
    assert plan(whole, SETTINGS, back).reflectors == before.reflectors
    assert welcome_back(whole, SETTINGS, back, Writer(first, NOW)) is None
    only = fabric([each for each in whole.nodes.values() if each.name in (first, before.reflectors["a"][0])])
    assert first in plan(only, SETTINGS, back).chosen
    second = before.reflectors["a"][1]
    last = replace(only, SETTINGS, back, {before.reflectors["a"][0]: "silent"}, WRITER)
    assert last is not None
    assert [each.node for each in last.replaced] == [before.reflectors["a"][0]]
    assert second not in plan(only, SETTINGS, last).chosen


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("above_nodes", 0, "a number of nodes"),
        ("back_below", 105, "1 to 101"),
        ("domain_label", "no label!", "the name of a label"),
        ("per_domain", 9, "1 to 8"),
        ("replace_after_seconds", 0, "a number of seconds"),
    ],
)
def test_settings_that_make_no_sense_name_the_field_the_value_and_what_is_right(
    field: str, value: object, expected: str
) -> None:
    with pytest.raises(FieldError) as refused:
        ReflectorSettings(**{field: value})  # type: ignore[arg-type]
    assert refused.value.value == value
    assert expected in refused.value.expected
