"""The work on live connections: step by step, after every change, and again when it failed."""

import pytest

from felix.calc.delta import NodeDelta
from felix.dataplane.cutting import CHUNKS_PER_STEP, FIRST_RETRY_S, LONGEST_RETRY_S, ConnectionCutter
from felix.rules.render_names import CUT_CONNECTION
from tests.fakes.conntrack import FakeConnectionTable
from tests.fakes.conntrack_entries import directions
from tests.unit.dataplane.test_connections import FRIEND, ONE, OPEN, STRANGER, TWO, FakeMembers, endpoint, state
from weft.netlink.socket import DumpInterruptedError
from weft.policy.values import Policy

FOREIGN = directions(FRIEND, 1, STRANGER, 2)


class Cutting:
    def __init__(self) -> None:
        self.table = FakeConnectionTable()
        self.woken = 0
        self.cutter = ConnectionCutter(self.table, FakeMembers(), dict, self._wake)
        self.now_s = 100.0

    def _wake(self) -> None:
        self.woken += 1

    def work(self) -> int:
        """Until there is nothing to do; how many steps it took."""
        steps = 1
        while self.cutter.step(self.now_s):
            steps += 1
        return steps


@pytest.fixture
def it() -> Cutting:
    return Cutting()


def test_a_start_cuts_what_is_refused_and_touches_nothing_else(it: Cutting) -> None:
    refused = it.table.add(directions(STRANGER, 1, TWO, 80), mark=0x77)
    allowed = it.table.add(directions(FRIEND, 1, TWO, 80), mark=0x77)
    foreign = it.table.add(FOREIGN, mark=CUT_CONNECTION)
    it.cutter.on_delta(state())
    assert it.woken == 1
    it.work()
    assert it.table.cut() == {refused, foreign}
    assert it.table.entries[refused][1] == CUT_CONNECTION | 0x77
    assert it.table.entries[allowed][1] == 0x77
    assert it.table.examined == [refused, allowed]
    assert (it.cutter.cut_total, it.cutter.resumed_total) == (1, 0)


def test_what_is_allowed_again_loses_the_mark(it: Cutting) -> None:
    one = it.table.add(directions(STRANGER, 1, TWO, 80))
    it.cutter.on_delta(state())
    it.work()
    it.cutter.on_delta(NodeDelta(endpoints={"cali2": endpoint("cali2", OPEN)}))
    it.work()
    assert it.table.cut() == set()
    assert it.table.entries[one][1] == 0
    assert it.cutter.resumed_total == 1


def test_only_entries_of_those_concerned_are_looked_at(it: Cutting) -> None:
    it.table.add(directions(STRANGER, 1, TWO, 80))
    mine = it.table.add(directions(ONE, 1, STRANGER, 80))
    it.cutter.on_delta(state())
    it.work()
    it.table.examined.clear()
    it.cutter.on_delta(NodeDelta(endpoints={"cali1": endpoint("cali1")}))
    it.work()
    assert it.table.examined == [mine]
    assert mine in it.table.cut()


def test_a_change_that_concerns_nobody_is_no_work(it: Cutting) -> None:
    it.cutter.on_delta(state())
    it.work()
    before = len(it.table.sieves)
    it.cutter.on_delta(NodeDelta())
    assert it.work() == 1
    assert (it.woken, len(it.table.sieves)) == (1, before)


def test_a_step_is_bounded(it: Cutting) -> None:
    for number in range(10 * CHUNKS_PER_STEP):
        it.table.add(directions(STRANGER, number, TWO, 80))
    it.cutter.on_delta(state())
    assert it.cutter.step(it.now_s)
    assert len(it.table.cut()) == CHUNKS_PER_STEP
    assert it.work() >= 9
    assert len(it.table.cut()) == 10 * CHUNKS_PER_STEP


def test_changes_that_come_while_others_are_worked_on_are_one_pass_more(it: Cutting) -> None:
    for number in range(2 * CHUNKS_PER_STEP):
        it.table.add(directions(STRANGER, number, TWO, 80))
    it.cutter.on_delta(state())
    it.cutter.step(it.now_s)
    it.cutter.on_delta(NodeDelta(endpoints={"cali2": endpoint("cali2", OPEN)}))
    it.cutter.on_delta(NodeDelta(endpoints={"cali1": endpoint("cali1", OPEN)}))
    it.work()
    assert it.table.cut() == set()
    assert len(it.table.sieves) == 2


@pytest.mark.parametrize("error", [DumpInterruptedError(), OSError(105, "No buffer space available")])
def test_a_pass_that_failed_is_repeated_with_back_off_and_forgets_nobody(it: Cutting, error: Exception) -> None:
    it.table.fail_with = [error] * 3
    it.cutter.on_delta(state())
    waits = []
    for _ in range(3):
        it.work()
        assert "live connections" in it.cutter.failures
        assert it.cutter.retry_at_s is not None
        waits.append(round(it.cutter.retry_at_s - it.now_s, 3))
        assert it.work() == 1, "not before its time"
        it.now_s = it.cutter.retry_at_s
    late = it.table.add(directions(STRANGER, 9, TWO, 80))
    it.work()
    assert waits == [FIRST_RETRY_S, 2 * FIRST_RETRY_S, 4 * FIRST_RETRY_S]
    assert it.table.cut() == {late}
    assert (it.cutter.failures, it.cutter.retry_at_s) == ({}, None)


def test_back_off_has_an_end(it: Cutting) -> None:
    it.table.fail_with = [OSError(12, "Cannot allocate memory")] * 20
    it.cutter.on_delta(state())
    for _ in range(20):
        it.work()
        assert it.cutter.retry_at_s is not None
        assert it.cutter.retry_at_s <= it.now_s + LONGEST_RETRY_S
        it.now_s = it.cutter.retry_at_s


def test_a_mark_that_the_kernel_refused_is_set_later(it: Cutting) -> None:
    refused = it.table.add(directions(STRANGER, 1, TWO, 80))
    it.table.refuse_marks = [OSError(1, "Operation not permitted")]
    it.cutter.on_delta(state())
    it.work()
    assert "Operation not permitted" in it.cutter.failures["live connections"]
    assert it.cutter.cut_total == 0
    it.now_s += LONGEST_RETRY_S
    it.work()
    assert it.table.cut() == {refused}


def test_an_announced_connection_lives_and_dies_with_its_master(it: Cutting) -> None:
    """A data connection of FTP: by itself nothing would allow it."""
    for client, port in ((FRIEND, 21), (STRANGER, 22)):
        control = it.table.add(directions(client, 1, TWO, port, protocol=6))
        it.table.add(directions(client, 2, TWO, 30000 + port, protocol=6), master=control)
    orphan = it.table.add(
        directions(STRANGER, 3, TWO, 30000, protocol=6), master=directions(STRANGER, 4, TWO, 23, protocol=6)[0]
    )
    it.cutter.on_delta(state())
    it.work()
    assert {one.ports for one in it.table.cut()} == {(1, 22), (2, 30022), orphan.ports}


def test_a_policy_that_opens_again_before_the_pass_cuts_nobody(it: Cutting) -> None:
    it.table.add(directions(STRANGER, 1, ONE, 80))
    it.cutter.on_delta(state())
    it.work()
    opened = state().policies[OPEN]
    assert opened is not None
    it.cutter.on_delta(NodeDelta(policies={OPEN: Policy(key=OPEN, ingress=(), egress=())}))
    it.cutter.on_delta(NodeDelta(policies={OPEN: opened}))
    it.work()
    assert it.table.cut() == set()
    assert it.cutter.cut_total == 0
