"""The nft driver against a kernel in memory: only the last desired state matters, and only what differs is written."""

import errno
from ipaddress import IPv4Network
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from felix.dataplane.nft import NftDriver, Report
from felix.dataplane.nft_stand_ins import fail_closed
from felix.dataplane.nft_state import KernelTable
from felix.rules import operations as op
from felix.rules import values as v
from felix.rules.changes import Changes, MemberChange
from felix.rules.members import members_of
from tests.fakes import nft_values
from tests.fakes.nft import FakeNft, named

ACCEPT, DROP = v.rule(v.Accept()), v.rule(v.Drop())
FORWARD = v.Hook("filter", "forward", 0)
LOOKED_UP = v.rule(v.AddressInSet(v.Side.SOURCE, "s1", 4), v.Accept())
NETS = v.Set("s1", v.KeyType.NETWORK_V4, frozenset({IPv4Network("10.0.0.0/8")}))


def table_of(*chains: v.Chain, sets: tuple[v.Set, ...] = (), **maps: dict[str, v.Verdict]) -> v.Table:
    return v.Table.of(chains, sets, [v.VerdictMap(name, entries) for name, entries in maps.items()])


def endpoint(number: int) -> v.Chain:
    return v.Chain(f"fw-{number}", (v.rule(v.Jump("pol")), DROP))


NODE = table_of(
    v.Chain("pol", (LOOKED_UP,)),
    endpoint(0),
    endpoint(1),
    v.Chain("forward", (v.rule(v.InterfaceVerdict(v.Way.IN, "ends")), DROP), FORWARD),
    sets=(NETS,),
    ends={"cali0": v.Goto("fw-0"), "cali1": v.Goto("fw-1")},
)


def held(table: v.Table) -> KernelTable:
    """What a kernel that was empty holds after this table."""
    kernel = FakeNft()
    assert NftDriver(kernel).start(table, 0.0).in_kernel
    return kernel.read()


def started(table: v.Table = NODE) -> tuple[FakeNft, NftDriver]:
    kernel = FakeNft()
    driver = NftDriver(kernel)
    assert driver.start(table, 0.0) == Report(True, {}, len(kernel.commits[0]))
    kernel.commits.clear()
    return kernel, driver


def between(before: v.Table, after: v.Table, by_members: bool) -> Changes:
    """The changes from one to the other, as the renderers would say them."""

    def changed(old: Any, new: Any) -> dict[str, Any]:
        return {name: new.get(name) for name in old.keys() | new.keys() if old.get(name) != new.get(name)}

    sets = changed(before.sets, after.sets)
    members = {}
    for name, new in list(sets.items()):
        old = before.sets.get(name)
        if by_members and new is not None and old is not None and old.key is new.key:
            members[name] = MemberChange(new.members - old.members, old.members - new.members)
            del sets[name]
    maps = changed(before.maps, after.maps)
    entries = {}
    for name, new_map in list(maps.items()):
        if new_map is not None and name in before.maps:
            entries[name] = changed(before.maps[name].entries, new_map.entries)
            del maps[name]
    return Changes(changed(before.chains, after.chains), sets, maps, members, entries)


@settings(max_examples=150)
@given(leftover=nft_values.tables(), history=st.lists(nft_values.tables(), max_size=3), by_members=st.booleans())
def test_only_the_last_desired_state_matters(leftover: v.Table, history: list[v.Table], by_members: bool) -> None:
    kernel = FakeNft()
    NftDriver(kernel).start(leftover, 0.0)
    driver = NftDriver(kernel)
    desired = history[0] if history else v.Table()
    assert driver.start(desired, 0.0).in_kernel
    for following in history[1:]:
        assert driver.apply(between(desired, following, by_members), 1.0).failed == {}
        desired = following
    assert comparable(kernel.read()) == comparable(held(desired))


def comparable(table: KernelTable) -> KernelTable:
    return KernelTable(True, table.chains, table.sets, table.maps)


@given(table=nft_values.tables())
def test_a_start_on_what_is_already_right_writes_nothing(table: v.Table) -> None:
    kernel = FakeNft()
    NftDriver(kernel).start(table, 0.0)
    kernel.commits.clear()
    assert NftDriver(kernel).start(table, 1.0) == Report(True, {}, 0)
    assert kernel.commits == []


CHANGES: dict[str, tuple[Changes, dict[str, int]]] = {
    "a policy": (Changes(chains={"pol": v.Chain("pol", (DROP,))}), {"FlushChain": 1, "AddRule": 1}),
    "the same policy again": (Changes(chains={"pol": v.Chain("pol", (LOOKED_UP,))}), {}),
    "one more member": (
        Changes(members={"s1": MemberChange(frozenset({IPv4Network("11.0.0.0/8")}))}),
        {"AddElements": 1},
    ),
    "a member that another covers": (
        Changes(members={"s1": MemberChange(frozenset({IPv4Network("10.1.0.0/16")}))}),
        {},
    ),
    "an endpoint that comes": (
        Changes(chains={"fw-2": endpoint(2)}, entries={"ends": {"cali2": v.Goto("fw-2")}}),
        {"CreateChain": 1, "AddRule": 2, "AddEntries": 1},
    ),
    "an endpoint that goes": (
        Changes(chains={"fw-1": None}, entries={"ends": {"cali1": None}}),
        {"RemoveEntries": 1, "FlushChain": 1, "DeleteChain": 1},
    ),
    "another verdict for an interface": (
        Changes(entries={"ends": {"cali1": v.Goto("fw-0")}}),
        {"RemoveEntries": 1, "AddEntries": 1},
    ),
}


@pytest.mark.parametrize(("changes", "expected"), CHANGES.values(), ids=CHANGES.keys())
def test_a_change_costs_what_it_changes(changes: Changes, expected: dict[str, int]) -> None:
    kernel, driver = started()
    assert driver.apply(changes, 1.0).in_kernel
    done = [type(operation).__name__ for commit in kernel.commits for operation in commit]
    assert {name: done.count(name) for name in done} == expected


def test_nothing_is_written_before_the_whole_state_is_known() -> None:
    kernel = FakeNft()
    driver = NftDriver(kernel)
    assert not driver.on_tick(10.0).in_kernel
    assert not driver.on_foreign_change(11.0).in_kernel
    with pytest.raises(AssertionError):
        driver.apply(Changes(), 12.0)
    assert kernel.commits == []


@pytest.mark.parametrize(
    ("before", "after"),
    [
        pytest.param(NETS, v.Set("s1", v.KeyType.ADDRESS_V4), id="a set of another kind"),
        pytest.param(v.Set("s1", v.KeyType.ADDRESS_V4), NETS, id="and back"),
    ],
)
def test_a_set_that_becomes_another_kind_is_replaced_under_the_rules_that_use_it(before: v.Set, after: v.Set) -> None:
    desired = table_of(v.Chain("pol", (LOOKED_UP,)), sets=(before,))
    kernel, driver = started(desired)
    assert driver.apply(Changes(sets={"s1": after}), 1.0).failed == {}
    assert kernel.read() == held(table_of(v.Chain("pol", (LOOKED_UP,)), sets=(after,)))


def test_a_map_where_a_set_was_is_replaced() -> None:
    kernel, driver = started(table_of(sets=(NETS,)))
    swap = Changes(sets={"s1": None}, maps={"s1": v.VerdictMap("s1", {"cali0": v.Drop()})})
    assert driver.apply(swap, 1.0).failed == {}
    assert kernel.read() == held(table_of(s1={"cali0": v.Drop()}))


def test_a_base_chain_of_another_priority_takes_the_place_of_the_old_one() -> None:
    kernel, driver = started()
    moved = v.Chain("forward", NODE.chains["forward"].rules, v.Hook("filter", "forward", 1))
    assert driver.apply(Changes(chains={"forward": moved}), 1.0).failed == {}
    assert kernel.read() == held(v.Table({**NODE.chains, "forward": moved}, NODE.sets, NODE.maps))


def test_one_lost_batch_is_repeated_from_a_fresh_read() -> None:
    kernel, driver = started()
    kernel.refuse["pol"] = [errno.ENOMEM]
    report = driver.apply(Changes(chains={"pol": v.Chain("pol", (DROP,))}), 1.0)
    assert report == Report(True, {}, 2)
    assert driver.retry_at_s is None


def test_a_chain_that_the_kernel_refuses_lets_nothing_through_and_its_neighbours_are_right() -> None:
    kernel, driver = started()
    policies = {"pol": v.Chain("pol", (ACCEPT, v.rule(v.Jump("missing")))), "other": v.Chain("other", (ACCEPT,))}
    report = driver.apply(Changes(chains=policies), 1.0)
    assert report.in_kernel
    assert list(report.failed) == ["pol"]
    assert kernel.rules()["pol"] == (DROP,)
    assert kernel.rules()["other"] == (ACCEPT,)


def test_a_refused_chain_is_tried_again_and_then_as_desired() -> None:
    kernel, driver = started()
    driver.apply(Changes(chains={"pol": v.Chain("pol", (v.rule(v.Jump("late")),))}), 1.0)
    due = driver.retry_at_s
    assert due is not None
    assert driver.on_tick(due - 0.01).failed != {}
    driver.apply(Changes(chains={"late": v.Chain("late", (ACCEPT,))}), due - 0.01)
    assert driver.on_tick(due) == Report(True, {}, 2)
    assert kernel.rules()["pol"] == (v.rule(v.Jump("late")),)
    assert driver.retry_at_s is None


def test_a_refused_set_closes_the_chains_that_look_into_it() -> None:
    kernel, driver = started()
    kernel.always_refuse["s2"] = errno.ENOSPC
    other = v.rule(v.AddressInSet(v.Side.SOURCE, "s2", 4, negated=True), v.Accept())
    changes = Changes(
        chains={"open": v.Chain("open", (other,))},
        sets={"s2": v.Set("s2", v.KeyType.NETWORK_V4, frozenset({IPv4Network("1.0.0.0/8")}))},
    )
    kernel.always_refuse.pop("s2")
    kernel.refuse["s2"] = [errno.ENOSPC] * 3
    report = driver.apply(changes, 1.0)
    assert list(report.failed) == ["set s2"]
    assert kernel.rules()["open"] == (DROP,)
    due = driver.retry_at_s
    assert due is not None
    assert driver.on_tick(due).failed == {}
    assert kernel.rules()["open"] == (other,)


def test_a_chain_removed_while_something_still_jumps_to_it_closes_what_jumps() -> None:
    kernel, driver = started()
    report = driver.apply(Changes(chains={"fw-1": None, "pol": None}), 1.0)
    assert set(report.failed) == {"fw-0", "entry cali1 of ends"}
    assert kernel.rules()["fw-0"] == (DROP,)
    assert kernel.read().maps["ends"] == {"cali0": v.Goto("fw-0"), "cali1": v.Drop()}


def test_a_kernel_that_refuses_everything_is_asked_again_with_back_off() -> None:
    kernel, driver = started()
    kernel.always_refuse["pol"] = errno.EPERM
    times = []
    now = 1.0
    driver.apply(Changes(chains={"pol": v.Chain("pol", (DROP,))}), now)
    for _ in range(4):
        assert driver.retry_at_s is not None
        times.append(driver.retry_at_s - now)
        now = driver.retry_at_s
        assert not driver.on_tick(now).in_kernel
    assert times == [0.5, 1.0, 2.0, 4.0]
    kernel.always_refuse.clear()
    assert driver.retry_at_s is not None
    assert driver.on_tick(driver.retry_at_s).in_kernel


def test_what_somebody_else_changed_is_repaired_at_once() -> None:
    kernel, driver = started()
    right = kernel.read()
    kernel.commit([op.RemoveEntries("ends", ["cali0"]), op.FlushChain("fw-0"), op.CreateChain("theirs")])
    assert driver.on_foreign_change(100.0).in_kernel
    assert kernel.read() == right


def test_a_table_that_somebody_deleted_is_written_whole() -> None:
    kernel, driver = started()
    right = kernel.read()
    kernel.commit([op.DeleteTable()])
    assert driver.on_foreign_change(100.0).in_kernel
    assert kernel.read() == right


def test_against_one_who_keeps_on_editing_the_repair_waits_but_a_change_of_ours_does_not() -> None:
    kernel, driver = started()
    driver.on_foreign_change(100.0)
    kernel.commit([op.FlushChain("pol")])
    assert not driver.on_foreign_change(101.0).in_kernel
    assert driver.retry_at_s == 101.5
    assert driver.apply(Changes(chains={"fw-1": v.Chain("fw-1", (ACCEPT,))}), 101.1).in_kernel
    assert kernel.rules()["pol"] == (LOOKED_UP,)


@pytest.mark.parametrize("hook", ["prerouting", "input", "forward", "output", "postrouting"])
def test_a_refused_base_chain_never_cuts_the_host_off(hook: Any) -> None:
    closed = fail_closed(v.Chain("base", (DROP,), v.Hook("filter", hook, 0, "drop")))
    assert closed.hook == v.Hook("filter", hook, 0, "accept")
    for one in closed.rules:
        assert isinstance(one.statements[0], v.Interface)
        assert one.statements[0].name in ("cali*", "weftdel*")


def test_an_interval_set_holds_only_outermost_prefixes() -> None:
    found = members_of(v.KeyType.NETWORK_V4, [IPv4Network("0.0.0.0/0"), IPv4Network("10.0.0.0/8")])
    assert found.keys() == {b"\0\0\0\0\xff\xff\xff\xff"}


def test_every_operation_names_what_it_touches() -> None:
    assert named(op.AddRule("c", None)) == "c"  # type: ignore[arg-type]
