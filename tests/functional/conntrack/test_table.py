"""The connection table of a real kernel: read with and without the kernel's filter, and marked."""

from collections.abc import Callable, Iterator
from ipaddress import ip_address

import pytest

from felix.dataplane.connections import Sieve
from felix.dataplane.conntrack import FILTERED_AT_MOST, ConntrackSocket
from felix.rules.render_names import CUT_CONNECTION
from lab.netns import NetNs
from tests.fakes.conntrack_entries import TCP, batches, create, directions, many, pack
from weft.netlink.conntrack import CT_DELETE, Seen, Sighting, Tuple
from weft.netlink.message import AF_INET, NLM_F_REQUEST, message
from weft.netlink.socket import NETLINK_NETFILTER, NetlinkSocket

pytestmark = pytest.mark.root

PAIRS = {
    "plain": directions("10.0.0.1", 4000, "10.0.0.2", 80),
    "tcp": directions("10.0.0.2", 4000, "10.0.0.9", 443, TCP),
    "dnat": directions("10.0.0.9", 4001, "198.51.100.1", 80, dnat=("10.0.0.2", 8080)),
    "masqueraded": directions("10.0.0.2", 4002, "192.0.2.9", 53, masqueraded=("192.0.2.1", 61000)),
    "IPv6": directions("fd00::1", 4000, "fd00::2", 80),
    "icmp": (
        Tuple(pack("10.0.0.3"), pack("10.0.0.2"), 1, icmp=(7, 8, 0)),
        Tuple(pack("10.0.0.2"), pack("10.0.0.3"), 1, icmp=(7, 0, 0)),
    ),
    "elsewhere": directions("10.9.0.1", 1, "10.9.0.2", 2),
}
OURS = {"plain", "tcp", "dnat", "masqueraded", "icmp"}


class Kernel:
    def __init__(self) -> None:
        self.table = ConntrackSocket()
        self.socket = NetlinkSocket(NETLINK_NETFILTER)
        for pair in PAIRS.values():
            assert self.socket.request([create(*pair, mark=0x123)]) == []

    def read(self, *addresses: str) -> dict[Seen, Sighting]:
        sieve = Sieve(frozenset(map(pack, addresses)))
        return {one.seen: one for chunk in self.table.sightings(sieve) for one in chunk}


@pytest.fixture
def kernel(netns: Callable[[str], NetNs]) -> Iterator[Kernel]:
    with netns("table").enter():
        made = Kernel()
        yield made
        made.table.close()
        made.socket.close()


def seen(*names: str) -> set[Seen]:
    expected = {
        "plain": Seen(pack("10.0.0.1"), pack("10.0.0.2"), 17, 4000, 80),
        "tcp": Seen(pack("10.0.0.2"), pack("10.0.0.9"), 6, 4000, 443),
        "dnat": Seen(pack("10.0.0.9"), pack("10.0.0.2"), 17, 4001, 8080),
        "masqueraded": Seen(pack("10.0.0.2"), pack("192.0.2.9"), 17, 4002, 53),
        "IPv6": Seen(pack("fd00::1"), pack("fd00::2"), 17, 4000, 80),
        "icmp": Seen(pack("10.0.0.3"), pack("10.0.0.2"), 1, 8, 0),
    }
    return {expected[name] for name in names}


@pytest.mark.parametrize("others", [0, FILTERED_AT_MOST], ids=["filtered by the kernel", "filtered by us"])
def test_entries_of_an_address_are_found_by_either_end(kernel: Kernel, others: int) -> None:
    more = [str(ip_address(0x0AFF0000 + number)) for number in range(others)]
    assert kernel.read("10.0.0.2", *more).keys() == seen(*OURS)
    assert kernel.read("fd00::2", *more).keys() == seen("IPv6")
    assert kernel.read("10.0.0.77", *more) == {}
    assert kernel.read("10.0.0.2", "fd00::1", *more).keys() == seen(*OURS, "IPv6")


def test_a_mark_is_set_and_cleared_without_touching_other_bits_or_entries(kernel: Kernel) -> None:
    found = kernel.read("10.0.0.2", "fd00::1")
    assert {one.mark for one in found.values()} == {0x123}
    chosen = [found[one] for one in seen("dnat", "icmp", "IPv6", "masqueraded")]
    kernel.table.mark(chosen, cut=True)
    after = kernel.read("10.0.0.2", "fd00::1")
    assert {one.seen for one in after.values() if one.mark == CUT_CONNECTION | 0x123} == {one.seen for one in chosen}
    assert {one.mark for one in after.values()} == {0x123, CUT_CONNECTION | 0x123}
    kernel.table.mark(chosen, cut=False)
    assert {one.mark for one in kernel.read("10.0.0.2", "fd00::1").values()} == {0x123}


def test_an_entry_that_is_gone_is_not_made_again(kernel: Kernel) -> None:
    found = kernel.read("10.0.0.2")
    with NetlinkSocket(NETLINK_NETFILTER) as socket:
        assert socket.request([message(CT_DELETE, NLM_F_REQUEST, bytes((AF_INET, 0, 0, 0)))]) == []
    kernel.table.mark(list(found.values()), cut=True)
    assert kernel.read("10.0.0.2") == {}


def test_one_entry_is_asked_for_by_its_original_direction(kernel: Kernel) -> None:
    found = kernel.table.original(PAIRS["dnat"][0])
    assert found is not None
    assert {found.seen} == seen("dnat")
    assert kernel.table.original(directions("10.0.0.9", 9, "10.0.0.8", 9)[0]) is None


def test_a_reading_that_is_given_up_does_not_stand_in_the_way_of_the_next(kernel: Kernel) -> None:
    for batch in batches(many(3000, 0x0B000000, "10.0.0.2")):
        assert kernel.socket.request(batch) == []
    sieve = Sieve(frozenset({pack("10.0.0.2")}))
    given_up = kernel.table.sightings(sieve)
    assert next(given_up)
    given_up.close()  # type: ignore[attr-defined]
    assert len(kernel.read("10.0.0.2")) == 3000 + len(OURS)
