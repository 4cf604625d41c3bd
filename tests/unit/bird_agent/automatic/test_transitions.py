"""From mesh to reflectors, to other reflectors and back: in no order of events do two nodes lose all paths."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.bird_agent.automatic.simulation import CLIENT, MESH, PEER, World, world
from weft.reflectors.plan import plan

SCHEDULES = st.integers(0, 1 << 32).map(random.Random)
CHANGES = ("mode", "mode", "replace", "per domain", "add", "label")


def events(order: random.Random, names: list[str], count: int) -> Iterator[tuple[str, int]]:
    """A long schedule: nodes of different speed, sessions that come up early or late, and a change now and then."""
    what = ["step"] * 6 + ["deliver"] * order.randint(2, 10) + ["connect"] * order.randint(1, 12) + ["turn"]
    busy = [order.randrange(len(names)) for _ in range(order.randint(2, 3))]
    for _ in range(count):
        if order.random() < 0.03:
            yield order.choice(CHANGES), order.randrange(1 << 16)
        elif order.random() < 0.01:
            yield "rest", 0
        else:
            who = order.choice(busy) if order.random() < 0.3 else order.randrange(len(names))
            yield order.choice(what), who + len(names) * order.randrange(5)


def apply(made: World, what: str, number: int) -> None:
    living = sorted(made.actors.keys() - made.dead)
    name = living[number % len(living)]
    match what:
        case "step":
            made.step(name)
        case "deliver":
            made.deliver(name, 1 + number // len(made.actors) % 5)
        case "connect":
            made.connect(number)
        case "turn":
            made.turn(name)
        case "mode":
            made.configure(above_nodes=(3, 100)[number % 2])
        case "replace":
            made.replace(number)
        case "miss":
            made.miss(number)
        case "replace dead":
            made.replace_dead()
        case "per domain":
            made.configure(per_domain=1 + number % 2)
        case "add":
            made.add(1 + number % 8, "ab"[number % 2])
        case "label":
            made.configure(domain_label=("topology.kubernetes.io/zone", "other")[number % 2])
        case "rest":
            made.settle()
    made.check()


def at_rest_as_planned(made: World) -> None:
    view = made.latest()
    chosen = plan(view.fabric(), view.settings(), view.state())
    names = sorted(made.actors)
    if chosen.mode == "mesh":
        assert made.up == {(MESH, one, other) for one in names for other in names if one < other}
        return
    clients = {(CLIENT, name, there) for name in names for there in chosen.reflectors_for(name)}
    peers = {(PEER, one, other) for one in chosen.chosen for other in chosen.chosen if one < other}
    assert made.up == clients | peers


def run(made: World, order: random.Random, count: int) -> None:
    made.silent = {name for name in made.actors if order.random() < 0.3}
    made.strangers = {name for name in made.actors if order.random() < 0.2}
    for what, number in events(order, sorted(made.actors), count):
        apply(made, what, number)
    made.settle()
    at_rest_as_planned(made)


@settings(max_examples=60)
@given(SCHEDULES)
def test_no_two_nodes_lose_all_paths_in_any_order_of_events_and_in_the_end_all_is_as_planned(
    order: random.Random,
) -> None:
    run(world(5, "a", "b", above=(3, 100)[order.randrange(2)]), order, 300)


@pytest.mark.soak
@pytest.mark.timeout(1800)
@settings(max_examples=3000)
@given(SCHEDULES)
def test_so_it_is_for_many_schedules_and_larger_fabrics(order: random.Random) -> None:
    run(world(order.randint(3, 8), "a", "b", "c", above=(3, 100)[order.randrange(2)]), order, 500)


def test_a_node_that_hears_nothing_keeps_the_others_sessions_with_it() -> None:
    made = world(6, "a", "b", above=3)
    deaf = "n3"
    made.strangers = {deaf}
    made.turn("n1")
    for _ in range(10):
        for name in made.actors:
            if name != deaf:
                made.deliver(name, 1000)
                made.step(name)
        made.connect_all()
        made.check()
    assert sum(kind == MESH and deaf in (one, other) for kind, one, other in made.up) == 5
    assert sum(kind == MESH for kind, _, _ in made.up) == 5
    made.settle()
    at_rest_as_planned(made)


def test_a_node_that_joins_costs_no_session_of_any_other() -> None:
    made = world(6, "a", "b", above=3)
    made.settle()
    before = set(made.up)
    made.add(40, "a")
    made.settle()
    chosen_now = {there for kind, _, there in made.up if kind == CLIENT}
    if "n40" not in chosen_now:
        assert before <= made.up
        assert all("n40" in session for session in made.up - before)
    assert not any(kind == MESH for kind, _, _ in made.up)


def test_what_is_said_of_a_reflector_that_has_ended_is_not_taken_for_true_of_its_successor() -> None:
    made = world(4, "a", above=3)
    made.configure(per_domain=2)
    made.turn("n1")
    view = made.latest()
    stays, comes_back = plan(view.fabric(), view.settings(), view.state()).reflectors_for("n1")
    made.silent = made.actors.keys() - {comes_back}

    def hears_and_steps(name: str) -> None:
        made.deliver(name, 1000)
        made.step(name)
        made.check()

    def come_up(*sessions: tuple[str, str, str]) -> None:
        made.up.update({*sessions} & {*made.wanted()})
        made.check()

    for name in 2 * (stays, comes_back):
        hears_and_steps(name)
    come_up((PEER, *sorted((stays, comes_back))))
    come_up((CLIENT, stays, stays), (CLIENT, comes_back, stays))
    made.configure(per_domain=1)
    for name in (stays, comes_back):
        hears_and_steps(name)
    assert comes_back in made.latest().of("serving")[stays].meshed  # type: ignore[union-attr]
    hears_and_steps(comes_back)
    assert comes_back not in made.latest().of("serving"), "it has no clients"
    made.replace(0)
    for _ in range(2):
        hears_and_steps(comes_back)
        come_up((CLIENT, comes_back, comes_back))
    hears_and_steps(comes_back)
    assert comes_back in made.latest().of("serving")[stays].meshed, "it has not looked again"  # type: ignore[union-attr]
    assert (CLIENT, comes_back, stays) in made.up, "its own reflector is yet to be meshed with that one"
    made.settle()
    at_rest_as_planned(made)


def reflectors_of_a_domain_lose_power(order: random.Random) -> None:
    """At any moment of the fabric's peace. Who misses which session when, and when the dead are replaced, is open."""
    made = world(order.randint(5, 8), *"abc"[: order.randint(1, 3)], above=3)
    made.settle()
    view = made.latest()
    reflectors = plan(view.fabric(), view.settings(), view.state()).reflectors
    made.lose_power(set(reflectors[order.choice(sorted(reflectors))]))
    in_time = len(reflectors) == 1 or order.random() < 0.5  # else the reserve has to do
    for what, number in events(order, sorted(made.actors), 300):
        if what == "rest" or what in CHANGES:
            what = "replace dead" if in_time else "turn"
        apply(made, what, number)
        if order.random() < 0.3:
            apply(made, "miss", order.randrange(1 << 16))
    while made.up_to_dead():
        apply(made, "miss", 0)
    made.settle()
    if in_time:
        made.replace_dead()
        made.settle()
    made.restart_times_are_over()
    made.check()
    made.replace_dead()
    made.settle()
    living = made.actors.keys() - made.dead
    assert made.connected == {(one, other) for one in living for other in living if one != other}


@settings(max_examples=40)
@given(SCHEDULES)
def test_the_living_lose_no_path_when_all_reflectors_of_a_domain_lose_power(order: random.Random) -> None:
    reflectors_of_a_domain_lose_power(order)


@pytest.mark.soak
@pytest.mark.timeout(1800)
@settings(max_examples=1000)
@given(SCHEDULES)
def test_nor_do_they_in_many_schedules(order: random.Random) -> None:
    reflectors_of_a_domain_lose_power(order)
