"""Counters are there while a chain wants them, keep what they counted, and leave it to a sum when they go."""

from collections import Counter
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from felix.dataplane.nft import NftDriver
from felix.rules import operations as op
from felix.rules import values as v
from felix.rules.changes import Changes
from tests.fakes.nft import FakeNft

A, B, SUM = "ingress/np/shop/db/allow-a", "ingress/np/shop/db/allow-b", "ingress/np/shop/db/retired-allow"
DENY, SUM_DENIED = "ingress/np/shop/db/deny-c", "ingress/np/shop/db/retired-deny"
OTHER = "egress/gnp/all/allow-c"


def counting(name: str, *counters: str, keeps: frozenset[str] = frozenset()) -> v.Chain:
    return v.Chain(name, tuple(v.rule(v.CountIn(one), v.Accept()) for one in counters), keeps=keeps)


def started(*chains: v.Chain, kernel: FakeNft | None = None) -> tuple[FakeNft, NftDriver]:
    kernel = kernel or FakeNft()
    driver = NftDriver(kernel)
    assert driver.start(v.Table.of(chains), 0.0).failed == {}
    return kernel, driver


def counts(kernel: FakeNft) -> dict[str, int]:
    return {name: count.packets for name, count in kernel.read().counters.items()}


def change(driver: NftDriver, *chains: v.Chain, gone: tuple[str, ...] = ()) -> None:
    report = driver.apply(Changes({**{one.name: one for one in chains}, **dict.fromkeys(gone)}), 1.0)
    assert report.in_kernel
    assert not report.failed


def test_a_counter_is_there_with_the_chain_that_counts_in_it() -> None:
    kernel, _ = started(counting("p", A, B), counting("q", A))
    assert counts(kernel) == {A: 0, B: 0}


def test_one_changed_rule_leaves_the_other_counters_alone() -> None:
    kernel, driver = started(counting("p", A, B), counting("q", OTHER))
    for name in (A, B, OTHER):
        kernel.count(name, 7)
    change(driver, counting("p", A, "ingress/np/shop/db/allow-new"))
    assert counts(kernel) == {A: 7, OTHER: 7, "ingress/np/shop/db/allow-new": 0, SUM: 7}
    touched = [one for one in kernel.commits[-1] if isinstance(one, (op.CreateCounter, op.DeleteCounter))]
    assert sorted(one.name for one in touched) == [B, "ingress/np/shop/db/allow-new", SUM]


def test_a_counter_stays_while_another_chain_counts_in_it() -> None:
    kernel, driver = started(counting("p", A), counting("q", A))
    kernel.count(A, 3)
    change(driver, gone=("p",))
    assert counts(kernel) == {A: 3}


def test_a_counter_stays_while_its_rule_can_match_nothing() -> None:
    kernel, driver = started(counting("p", A))
    kernel.count(A, 3)
    change(driver, counting("p", keeps=frozenset({A})))
    assert counts(kernel) == {A: 3}


def test_retired_counters_add_up_and_go_with_the_last_of_their_policy() -> None:
    kernel, driver = started(counting("p", A, B), counting("q", OTHER))
    kernel.count(A, 3)
    change(driver, counting("p", B))
    kernel.count(B, 4)
    change(driver, counting("p", A))
    assert counts(kernel) == {A: 0, SUM: 7, OTHER: 0}
    change(driver, gone=("p",))
    assert counts(kernel) == {OTHER: 0}


def test_what_an_action_counted_stays_while_its_policy_has_any_rule() -> None:
    kernel, driver = started(counting("p", A, DENY))
    kernel.count(DENY, 5)
    change(driver, counting("p", A))
    change(driver, counting("p", B))
    assert counts(kernel) == {B: 0, SUM_DENIED: 5}


def test_a_counter_that_counted_nothing_leaves_no_sum() -> None:
    kernel, driver = started(counting("p", A, B))
    change(driver, counting("p", A))
    assert counts(kernel) == {A: 0}


def test_a_restarted_agent_finds_its_counters_and_writes_nothing() -> None:
    kernel, driver = started(counting("p", A, B))
    kernel.count(A, 3)
    kernel.count(B, 2)
    change(driver, counting("p", A))
    commits = len(kernel.commits)
    started(counting("p", A), kernel=kernel)
    assert len(kernel.commits) == commits
    assert counts(kernel) == {A: 3, SUM: 2}


def test_a_rule_that_changed_while_no_agent_ran_goes_into_the_sum() -> None:
    kernel, _ = started(counting("p", A))
    kernel.count(A, 3)
    started(counting("p", B), kernel=kernel)
    assert counts(kernel) == {B: 0, SUM: 3}


def test_a_table_that_has_to_be_written_anew_keeps_what_was_counted() -> None:
    key = v.KeyType
    looking = v.Chain("p", (v.rule(v.AddressInSet(v.Side.SOURCE, "s", 4), v.CountIn(A), v.Accept()),))
    kernel, driver = FakeNft(), None
    driver = NftDriver(kernel)
    driver.start(v.Table.of([looking, counting("q", B)], [v.Set("s", key.ADDRESS_V4)]), 0.0)
    kernel.count(A, 3)
    kernel.count(B, 4)
    report = driver.apply(Changes({"q": counting("q", A)}, sets={"s": v.Set("s", key.NETWORK_V4)}, members={}), 1.0)
    assert report.in_kernel
    assert any(isinstance(one, op.DeleteTable) for one in kernel.commits[-1])
    assert counts(kernel) == {A: 3, SUM: 4}


def test_a_refused_batch_leaves_counters_as_they_were_until_it_is_through() -> None:
    kernel, driver = started(counting("p", A, B))
    kernel.count(B, 4)
    kernel.refuse["p"] = [12, 12, 12]
    change_to = counting("p", A, OTHER)
    driver.apply(Changes({"p": change_to}), 1.0)
    driver.on_tick(100.0)
    assert counts(kernel) == {A: 0, OTHER: 0, SUM: 4}


def test_where_the_kernel_refuses_a_counter_the_rule_holds_without_it() -> None:
    kernel = FakeNft()
    kernel.always_refuse[A] = 12
    driver = NftDriver(kernel)
    report = driver.start(v.Table.of([counting("p", A, B)]), 0.0)
    assert report.in_kernel
    assert report.failed.keys() == {f"counter {A}"}
    assert kernel.rules()["p"] == (v.rule(v.Accept()), v.rule(v.CountIn(B), v.Accept()))
    del kernel.always_refuse[A]
    assert driver.on_tick(1000.0).failed == {}
    assert kernel.rules()["p"][0] == v.rule(v.CountIn(A), v.Accept())


NAMES = st.sampled_from([A, B, OTHER, DENY, "egress/gnp/all/deny-d"])
PLANS = st.dictionaries(st.sampled_from(["p", "q"]), st.lists(NAMES, max_size=3, unique=True), max_size=2)


@given(steps=st.lists(st.tuples(PLANS, st.booleans()), min_size=1, max_size=6))
@settings(max_examples=80)
def test_nothing_that_was_counted_is_lost_while_a_policy_is_there(steps: list[tuple[Any, bool]]) -> None:
    kernel, driver = started()
    counted: Counter[str] = Counter()
    before: dict[str, v.Chain] = {}
    for plan, restart in steps:
        chains = {name: counting(name, *counters) for name, counters in plan.items()}
        if restart:
            _, driver = started(*chains.values(), kernel=kernel)
        else:
            change(driver, *chains.values(), gone=tuple(before.keys() - chains.keys()))
        before = chains
        wanted = {name for chain in chains.values() for name in chain.counters()}
        families = {name.rpartition("/")[0] for name in wanted}
        counted = Counter({family: number for family, number in counted.items() if family in families})
        held = counts(kernel)
        assert {name for name in held if "/retired-" not in name} == wanted
        for family in families:
            total = sum(number for name, number in held.items() if name.rpartition("/")[0] == family)
            assert total == counted[family]
        for number, name in enumerate(sorted(wanted), 1):
            kernel.count(name, number)
            counted[name.rpartition("/")[0]] += number
