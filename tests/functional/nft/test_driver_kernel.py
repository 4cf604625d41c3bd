"""The nft driver on a real kernel: the same properties as with the fake, and what only a kernel can show."""

import json
from collections.abc import Callable, Iterator
from ipaddress import IPv4Address, IPv4Network
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from felix.dataplane.nft import NftDriver
from felix.dataplane.nft_kernel import NftSocket, NftWatch
from felix.dataplane.nft_state import KernelTable
from felix.rules import values as v
from felix.rules.changes import Changes, MemberChange
from lab.netns import NetNs
from tests.fakes import nft_values
from tests.fakes.nft import FakeNft
from tests.unit.dataplane.test_nft_driver import NODE, between, endpoint

pytestmark = pytest.mark.root


class Node:
    """A network namespace with the driver's two sockets in it."""

    def __init__(self, netns: NetNs) -> None:
        self.netns = netns
        with netns.enter():
            self.kernel = NftSocket()
            self.watch = NftWatch([self.kernel.port])

    def nft(self, *command: str) -> str:
        return self.netns.run(["nft", *command])

    def listed(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(self.nft("-j", "list", "ruleset"))["nftables"]
        return found


@pytest.fixture
def node(netns: Callable[[str], NetNs]) -> Iterator[Node]:
    made = Node(netns("driver"))
    yield made
    made.watch.close()
    made.kernel.close()


def expected(table: v.Table) -> KernelTable:
    kernel = FakeNft()
    assert NftDriver(kernel).start(table, 0.0).failed == {}
    return kernel.read()


def without_existence(table: KernelTable) -> KernelTable:
    return KernelTable(True, table.chains, table.sets, table.maps)


def test_only_the_last_desired_state_matters_to_the_kernel(node: Node) -> None:
    @settings(max_examples=50)
    @given(
        leftover=nft_values.tables(),
        history=st.lists(nft_values.tables(), min_size=1, max_size=4),
        by_members=st.booleans(),
    )
    def check(leftover: v.Table, history: list[v.Table], by_members: bool) -> None:
        NftDriver(node.kernel).start(leftover, 0.0)
        driver = NftDriver(node.kernel)
        desired = history[0]
        assert driver.start(desired, 0.0).failed == {}
        for following in history[1:]:
            assert driver.apply(between(desired, following, by_members), 1.0).failed == {}
            desired = following
        assert without_existence(node.kernel.read()) == without_existence(expected(desired))

    check()
    assert not node.watch.touched()


def test_prefixes_that_cover_each_other_come_and_go_one_by_one(node: Node) -> None:
    @settings(max_examples=40)
    @given(
        key=st.sampled_from([v.KeyType.NETWORK_V4, v.KeyType.NETWORK_V6, v.KeyType.PORT]),
        data=st.data(),
    )
    def check(key: v.KeyType, data: st.DataObject) -> None:
        driver = NftDriver(node.kernel)
        driver.start(v.Table.of(sets=[v.Set("s", key)]), 0.0)
        held: frozenset[v.Member] = frozenset()
        for wanted in data.draw(st.lists(st.frozensets(nft_values.members(key), max_size=6), max_size=6)):
            change = Changes(members={"s": MemberChange(wanted - held, held - wanted)})
            assert driver.apply(change, 1.0).in_kernel
            assert driver.retry_at_s is None
            held = wanted
            desired = expected(v.Table.of(sets=[v.Set("s", key, held)]))
            assert node.kernel.read().sets == desired.sets

    check()


def test_nft_shows_the_members_that_we_meant(node: Node) -> None:
    addresses = frozenset(map(IPv4Address, range(1, 10_001)))
    networks = frozenset({IPv4Network("10.0.0.0/8"), IPv4Network("10.1.0.0/16"), IPv4Network("192.0.2.0/24")})
    table = v.Table.of(sets=[v.Set("a", v.KeyType.ADDRESS_V4, addresses), v.Set("n", v.KeyType.NETWORK_V4, networks)])
    assert NftDriver(node.kernel).start(table, 0.0).in_kernel
    sets = {entry["set"]["name"]: entry["set"]["elem"] for entry in node.listed() if "set" in entry}
    assert {IPv4Address(address) for address in sets["a"]} == addresses
    prefixes = {f"{entry['prefix']['addr']}/{entry['prefix']['len']}" for entry in sets["n"]}
    assert prefixes == {"10.0.0.0/8", "192.0.2.0/24"}


def test_a_start_among_leftovers_changes_only_what_differs(node: Node) -> None:
    NftDriver(node.kernel).start(NODE, 0.0)
    before = {entry["chain"]["name"]: entry["chain"]["handle"] for entry in node.listed() if "chain" in entry}
    changed = v.Table({**NODE.chains, "fw-1": v.Chain("fw-1", (v.rule(v.Drop()),))}, NODE.sets, NODE.maps)
    assert NftDriver(node.kernel).start(changed, 1.0).operations == 2
    assert NftDriver(node.kernel).start(changed, 2.0).operations == 0
    after = {entry["chain"]["name"]: entry["chain"]["handle"] for entry in node.listed() if "chain" in entry}
    assert before == after


def test_other_tables_are_not_touched(node: Node) -> None:
    node.nft("add table inet weft2")
    node.nft("add chain inet weft2 c { type filter hook forward priority 0; }")
    node.nft("add table ip weft")
    theirs = node.nft("list", "table", "inet", "weft2") + node.nft("list", "table", "ip", "weft")
    driver = NftDriver(node.kernel)
    driver.start(NODE, 0.0)
    driver.start(v.Table(), 0.0)
    assert node.nft("list", "table", "inet", "weft2") + node.nft("list", "table", "ip", "weft") == theirs


EDITS = {
    "a rule inserted": "insert rule inet weft fw-0 accept",
    "a rule removed": "flush chain inet weft fw-0",
    "a member removed": "delete element inet weft s1 { 10.0.0.0/8 }",
    "a member added": "add element inet weft s1 { 11.0.0.0/8 }",
    "an entry removed": "delete element inet weft ends { cali0 }",
    "an entry of a kind we never make": "add element inet weft ends { eth7 : continue }",
    "a chain added": "add chain inet weft theirs",
    "a set added": "add set inet weft theirs { type mark; elements = { 1, 2 }; }",
    "a map added": "add map inet weft theirs { type ipv4_addr : ipv4_addr; elements = { 1.1.1.1 : 2.2.2.2 }; }",
    "the policy of a base chain": "add chain inet weft forward { policy drop; }",
    "the table deleted": "delete table inet weft",
    "everything deleted": "flush ruleset",
}


@pytest.mark.parametrize("edit", EDITS.values(), ids=EDITS.keys())
def test_somebody_elses_edit_is_noticed_and_repaired(node: Node, edit: str) -> None:
    driver = NftDriver(node.kernel)
    driver.start(NODE, 0.0)
    right = node.kernel.read()
    assert not node.watch.touched()
    node.nft(*edit.split(" "))
    assert node.watch.touched()
    assert node.kernel.read() != right
    assert driver.on_foreign_change(100.0).failed == {}
    assert node.kernel.read() == right
    assert not node.watch.touched()


def test_a_rule_replaced_by_another_is_noticed_although_their_number_is_the_same(node: Node) -> None:
    driver = NftDriver(node.kernel)
    driver.start(NODE, 0.0)
    handle = next(e["rule"]["handle"] for e in node.listed() if e.get("rule", {}).get("chain") == "fw-1")
    node.nft("replace", "rule", "inet", "weft", "fw-1", "handle", str(handle), "accept")
    assert node.watch.touched()
    driver.on_foreign_change(100.0)
    assert "accept" not in node.nft("list", "chain", "inet", "weft", "fw-1")


def test_changes_of_other_tables_are_none_of_our_business(node: Node) -> None:
    NftDriver(node.kernel).start(NODE, 0.0)
    node.nft("add table inet other")
    assert not node.watch.touched()


def test_ruleset_saved_and_restored_by_an_operator_is_taken_over(node: Node) -> None:
    NftDriver(node.kernel).start(NODE, 0.0)
    right = node.kernel.read()
    saved = node.nft("list", "ruleset")
    node.nft("flush", "ruleset")
    node.netns.run(["nft", "-f", "-"], stdin=saved)
    assert NftDriver(node.kernel).start(NODE, 0.0).failed == {}
    assert node.kernel.read() == right


def test_a_chain_that_the_kernel_refuses_is_closed_and_the_others_are_programmed(node: Node) -> None:
    driver = NftDriver(node.kernel)
    driver.start(NODE, 0.0)
    dangling = v.Chain("pol", (v.rule(v.Jump("nowhere")),))
    report = driver.apply(Changes(chains={"pol": dangling, "fw-2": endpoint(2)}), 1.0)
    assert list(report.failed) == ["pol"]
    assert (
        " ".join(node.nft("list", "chain", "inet", "weft", "pol").split()) == "table inet weft { chain pol { drop } }"
    )
    assert "jump pol" in node.nft("list", "chain", "inet", "weft", "fw-2")


def test_a_large_set_is_written_and_read_back(node: Node) -> None:
    addresses = frozenset(map(IPv4Address, range(1, 100_001)))
    table = v.Table.of(sets=[v.Set("a", v.KeyType.ADDRESS_V4, addresses)])
    NftDriver(node.kernel).start(table, 0.0)
    assert NftDriver(node.kernel).start(table, 0.0).operations == 0
