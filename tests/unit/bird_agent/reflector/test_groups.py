"""Whatever is told and whenever members take it, each of them ends with what the group is told, but for its own."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from bird_agent.exabgp.events import PathAttributes
from bird_agent.reflector import groups
from bird_agent.reflector.attributes import AttributeSet, AttributeSets
from bird_agent.reflector.groups import Group
from bird_agent.reflector.prefixes import Nlri
from bird_agent.reflector.reflection import Told
from tests.unit.bird_agent.reflector.world import raw
from weft.model.address import IPAddress

SETS = AttributeSets()
MEMBERS = [ip_address(f"10.0.0.{number}") for number in range(1, 5)]
STRANGER = ip_address("192.0.2.1")
PREFIXES = [bytes((24, 10, 65, number)) for number in range(6)]


def told(med: int, source: IPAddress) -> Told:
    path = PathAttributes(origin=0, med=med)
    return Told(SETS.of(path, raw(path)), ip_address("10.9.9.9"), source)


class Text:
    """An encoder whose messages are lines that a reader understands."""

    def encode(self, attributes: AttributeSet, next_hop: IPAddress, prefixes: Sequence[Nlri]) -> list[bytes]:
        return [line("+", attributes.path.med, prefixes)]

    def withdraw(self, prefixes: Sequence[Nlri]) -> list[bytes]:
        return [line("-", None, prefixes)]


def line(verb: str, med: int | None, prefixes: Sequence[Nlri]) -> bytes:
    return json.dumps([verb, med, [prefix.hex() for prefix in prefixes]]).encode() + b"\n"


@dataclass
class Reader:
    """What a member believes. `strict`: it has always been up to date, so nothing superfluous may come."""

    table: dict[Nlri, int] = field(default_factory=dict)
    superfluous: int = 0

    def read(self, pieces: Sequence[bytes | memoryview]) -> None:
        seen: set[Nlri] = set()
        announced = False
        for text in b"".join(pieces).splitlines():
            verb, med, names = json.loads(text)
            prefixes = [bytes.fromhex(name) for name in names]
            assert not seen & set(prefixes), "a prefix twice in one batch"
            seen.update(prefixes)
            assert not (verb == "-" and announced), "a withdrawal behind an announcement"
            announced = announced or verb == "+"
            for prefix in prefixes:
                if verb == "+":
                    self.table[prefix] = med
                elif self.table.pop(prefix, None) is None:
                    self.superfluous += 1


class Members(RuleBasedStateMachine):
    """A group beside a plain dictionary."""

    def __init__(self) -> None:
        super().__init__()
        self.group = Group(Text())
        self.model: dict[Nlri, Told] = {}
        self.readers: dict[IPAddress, Reader] = {}

    @rule(prefix=st.sampled_from(PREFIXES), med=st.integers(0, 2), source=st.sampled_from([*MEMBERS, STRANGER]))
    def announce(self, prefix: Nlri, med: int, source: IPAddress) -> None:
        self.model[prefix] = told(med, source)
        self.group.tell(prefix, self.model[prefix])

    @rule(prefix=st.sampled_from(PREFIXES))
    def withdraw(self, prefix: Nlri) -> None:
        self.model.pop(prefix, None)
        self.group.tell(prefix, None)

    @rule(member=st.sampled_from(MEMBERS))
    def come_or_go(self, member: IPAddress) -> None:
        if self.readers.pop(member, None) is None:
            self.readers[member] = Reader()
            self.group.join(member)
        else:
            self.group.leave(member)

    @rule(member=st.sampled_from(MEMBERS), before=st.sets(st.sampled_from(PREFIXES)))
    def move_in(self, member: IPAddress, before: set[Nlri]) -> None:
        """From another group, where it was told this, and perhaps not yet of what is no longer so."""
        if member not in self.readers:
            self.readers[member] = Reader(dict.fromkeys(before, 9))
            self.group.join(member, before)

    @rule(member=st.sampled_from(MEMBERS))
    def take(self, member: IPAddress) -> None:
        if member in self.readers:
            self.readers[member].read(self.group.advance(member))

    @rule(member=st.sampled_from(MEMBERS))
    def ask_again(self, member: IPAddress) -> None:
        if member in self.readers and self.group.up_to_date(member):
            self.group.tell_again(member)

    @rule()
    def compact(self) -> None:
        self.group.compact()

    @invariant()
    def what_it_holds_is_known(self) -> None:
        """Nobody has more than `held` says: a member that changes groups is rid of all of it."""
        for member, reader in self.readers.items():
            assert set(reader.table) <= set(self.group.held(member))
            assert self.group.size(member) == len(self.expected(member))

    def teardown(self) -> None:
        for member, reader in self.readers.items():
            while not self.group.up_to_date(member):
                reader.read(self.group.advance(member))
            assert reader.table == self.expected(member)
            assert dict(self.group.table(member)).keys() == reader.table.keys()

    def expected(self, member: IPAddress) -> dict[Nlri, int | None]:
        return {prefix: one.attributes.path.med for prefix, one in self.model.items() if one.source != member}


class SmallMembers(Members):
    """The same with batches of two prefixes, and a log that is compacted all the time."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(groups, "PREFIXES_AT_ONCE", 2)
        self.patch.setattr(groups, "_COMPACT_FROM", 0)
        self.group = Group(Text())

    def teardown(self) -> None:
        try:
            super().teardown()
        finally:
            self.patch.undo()


TestMembers = Members.TestCase
TestSmallMembers = SmallMembers.TestCase
TestMembers.settings = TestSmallMembers.settings = settings(max_examples=40, deadline=None)

steps = st.lists(
    st.tuples(st.sampled_from(PREFIXES), st.none() | st.integers(0, 2), st.sampled_from([*MEMBERS, STRANGER]))
)


@given(steps)
def test_a_member_that_keeps_up_is_told_nothing_superfluous(history: list[tuple[Nlri, int | None, IPAddress]]) -> None:
    group, readers = Group(Text()), {member: Reader() for member in MEMBERS}
    for member in MEMBERS:
        group.join(member)
    for prefix, med, source in history:
        group.tell(prefix, None if med is None else told(med, source))
        for member, reader in readers.items():
            reader.read(group.advance(member))
    assert [reader.superfluous for reader in readers.values()] == [0] * len(readers)


def test_members_that_are_equally_far_share_the_bytes() -> None:
    group = Group(Text())
    for member in MEMBERS:
        group.join(member)
    group.tell(PREFIXES[0], told(1, STRANGER))
    first, *others = [group.advance(member) for member in MEMBERS]
    assert all(pieces[0] is first[0] for pieces in others)


def test_a_slow_member_costs_no_more_than_the_table() -> None:
    group = Group(Text())
    group.join(MEMBERS[0])
    for round_number in range(5000):
        group.tell(PREFIXES[round_number % 6], told(round_number, STRANGER))
        group.compact()
    reader = Reader()
    reader.read(group.advance(MEMBERS[0]))
    assert group.behind(MEMBERS[0]) == 0
    assert len(group._positions) < 2000
    assert reader.table == {PREFIXES[number % 6]: number for number in range(4994, 5000)}


def test_a_withdrawal_that_a_later_announcement_hid_is_made_up_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """The member had the prefix, was in the middle of the log when it was withdrawn, and then brought it itself."""
    monkeypatch.setattr(groups, "PREFIXES_AT_ONCE", 2)
    first, second, third = PREFIXES[:3]
    group, reader, member = Group(Text()), Reader(), MEMBERS[0]
    group.join(member)
    group.tell(first, told(0, STRANGER))
    reader.read(group.advance(member))
    group.tell(first, None)
    group.tell(second, told(0, STRANGER))
    group.tell(third, told(0, STRANGER))
    group.tell(first, told(0, member))
    reader.read(group.advance(member))
    assert not group.up_to_date(member)
    reader.read(group.advance(member))
    assert reader.table == {second: 0, third: 0}


def test_withdrawn_prefixes_are_forgotten_when_everybody_has_heard() -> None:
    group = Group(Text())
    group.join(MEMBERS[0])
    for number in range(20_000):
        prefix = number.to_bytes(4, "big")
        group.tell(prefix, told(1, STRANGER))
        group.advance(MEMBERS[0])
        group.tell(prefix, None)
        group.advance(MEMBERS[0])
        group.compact()
    assert len(group._entries) < 2000
