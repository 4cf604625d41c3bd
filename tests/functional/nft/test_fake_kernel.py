"""The fake kernel must take and refuse what the real one does, and hold the same afterwards."""

from collections.abc import Callable
from ipaddress import IPv4Network

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from felix.dataplane.nft_kernel import NftSocket
from felix.rules import operations as op
from felix.rules import values as v
from felix.rules.compiler import compile_rule
from felix.rules.members import members_of
from lab.netns import NetNs
from tests.fakes import nft_values
from tests.fakes.nft import FakeNft

pytestmark = pytest.mark.root

CHAINS = st.sampled_from(["a", "b", "base"])
KEYS = {"s1": v.KeyType.NETWORK_V4, "s2": v.KeyType.ADDRESS_V4}
SETS = st.sampled_from(sorted(KEYS))
COUNTERS = st.sampled_from(["ingress/a", "egress/b"])
VERDICTS = st.sampled_from([v.Accept(), v.Drop(), v.Jump("a"), v.Goto("b"), v.Goto("base")])
INTERFACES = st.sampled_from(["cali0", "cali1"])
OPEN = [IPv4Network("255.255.255.255/32").supernet(new_prefix=length) for length in range(33)]
HOOK = v.Hook("filter", "forward", 0)


@st.composite
def elements(draw: st.DrawFn, kind: type[op.AddElements] | type[op.RemoveElements]) -> op.Operation:
    name = draw(SETS)
    key = KEYS[name]
    # The kernel overlooks an overlap with an interval that has no end, being the last; the driver never makes one.
    known = nft_values.members(key).filter(lambda member: member not in OPEN)
    members = draw(st.lists(known, min_size=1, max_size=3))
    return kind(name, key, sorted(members_of(key, members).keys()))


rules = st.one_of(
    VERDICTS.map(v.rule),
    SETS.map(lambda name: v.rule(v.AddressInSet(v.Side.SOURCE, name, 4), v.Accept())),
    st.just(v.rule(v.InterfaceVerdict(v.Way.IN, "m"))),
    COUNTERS.map(lambda name: v.rule(v.CountIn(name), v.Accept())),
)
operations: SearchStrategy[op.Operation] = st.one_of(
    st.just(op.CreateTable()),
    CHAINS.map(lambda name: op.CreateChain(name, HOOK if name == "base" else None)),
    CHAINS.map(op.FlushChain),
    CHAINS.map(op.DeleteChain),
    st.builds(lambda name, rule: op.AddRule(name, compile_rule(rule)), CHAINS, rules),
    SETS.map(lambda name: op.CreateSet(name, KEYS[name])),
    SETS.map(op.DeleteSet),
    st.just(op.CreateMap("m")),
    st.just(op.DeleteSet("m", True)),
    st.builds(op.CreateCounter, COUNTERS, st.sampled_from([v.Count(), v.Count(3, 1 << 33)])),
    COUNTERS.map(op.DeleteCounter),
    elements(op.AddElements),
    elements(op.RemoveElements),
    st.builds(op.AddEntries, st.just("m"), st.dictionaries(INTERFACES, VERDICTS, min_size=1)),
    st.builds(op.RemoveEntries, st.just("m"), st.lists(INTERFACES, min_size=1, max_size=1)),
)
# Random operations alone are nearly always refused: most batches start from objects that are there.
START: list[op.Operation] = [
    op.CreateTable(),
    op.CreateSet("s1", v.KeyType.NETWORK_V4),
    op.CreateSet("s2", v.KeyType.ADDRESS_V4),
    op.CreateMap("m"),
    op.CreateCounter("ingress/a"),
    op.CreateChain("a"),
    op.CreateChain("b"),
    op.CreateChain("base", HOOK),
]


def test_the_fake_kernel_takes_and_refuses_what_the_real_one_does(netns: Callable[[str], NetNs]) -> None:
    namespace = netns("fake")
    with namespace.enter():
        real = NftSocket()

    @settings(max_examples=60)
    @given(batches=st.lists(st.lists(operations, min_size=1, max_size=4), max_size=6), empty=st.booleans())
    def check(batches: list[list[op.Operation]], empty: bool) -> None:
        real.commit([op.CreateTable(), op.DeleteTable()])
        fake = FakeNft()
        for batch in batches if empty else [START, *batches]:
            refused = real.commit(batch), fake.commit(batch)
            assert bool(refused[0]) == bool(refused[1]), refused
            held = real.read()
            assert held == fake.read()
            assert real.counts(["ingress/a", "egress/b"]) == held.counters

    try:
        check()
    finally:
        real.close()
