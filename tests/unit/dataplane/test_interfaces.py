"""What notifications mean for the links and addresses that are known."""

from collections.abc import Callable
from ipaddress import IPv4Address, IPv4Interface

from hypothesis import given
from hypothesis import strategies as st

from felix.dataplane.interfaces import HostChanges, Interfaces
from felix.dataplane.reaper import RETIRED_NAME, retired_name
from weft.netlink.rtnetlink import Address, Link

NAMES = ["cali1", "cali2", "weftdel3", "up0"]


def link(index: int, name: str, up: bool = True, mtu: int = 1500) -> Link:
    return Link(index, name, "veth", up, up, mtu, "ee:ee:ee:ee:ee:ee", 0, None)


@st.composite
def hosts(draw: st.DrawFn) -> list[Link]:
    """Links as a host has them: no index and no name twice."""
    names = draw(st.lists(st.sampled_from(NAMES), unique=True))
    indexes = draw(st.lists(st.integers(1, 6), min_size=len(names), max_size=len(names), unique=True))
    return [
        link(index, name, draw(st.booleans()), draw(st.sampled_from([1400, 1500])))
        for index, name in zip(indexes, names, strict=True)
    ]


@given(hosts(), hosts())
def test_reading_again_tells_exactly_what_differs(before: list[Link], after: list[Link]) -> None:
    interfaces = Interfaces()
    interfaces.replace_all(before, [])
    changes = interfaces.replace_all(after, [])
    assert sorted(interfaces.links(), key=lambda one: one.index) == sorted(after, key=lambda one: one.index)
    was = {one.name: (one.index, one.up) for one in before}
    now = {one.name: (one.index, one.up) for one in after}
    assert changes.links == {
        name: now[name][0] if name in now else None
        for name in was.keys() | now.keys()
        if was.get(name) != now.get(name)
    }


def test_a_repeated_notification_is_no_change() -> None:
    interfaces = Interfaces()
    interfaces.replace_all([link(1, "cali1")], [Address(1, IPv4Interface("192.0.2.1/24"), 0)])
    changes = HostChanges()
    interfaces.on_link(link(1, "cali1"), changes)
    interfaces.on_address(Address(1, IPv4Interface("192.0.2.1/24"), 0), True, changes)
    assert changes == HostChanges()


def _address(index: int, text: str = "192.0.2.1/24") -> Address:
    return Address(index, IPv4Interface(text), 0)


def test_addresses_of_the_node_itself_are_told_from_those_of_workloads() -> None:
    interfaces = Interfaces()
    interfaces.replace_all([link(1, "cali1"), link(2, "up0")], [_address(1), _address(2, "192.0.2.2/24")])
    assert interfaces.own_addresses() == {"up0": frozenset({IPv4Address("192.0.2.2")})}

    def changed(*steps: Callable[[HostChanges], None]) -> bool:
        changes = HostChanges()
        for step in steps:
            step(changes)
        return changes.own_addresses

    assert not changed(lambda changes: interfaces.on_address(_address(1), False, changes))
    assert changed(lambda changes: interfaces.on_address(_address(2), True, changes))
    assert not changed(lambda changes: interfaces.on_link(link(3, "cali3"), changes))
    assert changed(lambda changes: interfaces.on_link(link(2, "up1"), changes))
    assert changed(lambda changes: interfaces.on_link_gone(2, changes))
    assert interfaces.own_addresses() == {}


def test_an_address_heard_of_before_its_link_counts_when_the_link_is_known() -> None:
    interfaces, changes = Interfaces(), HostChanges()
    interfaces.on_address(_address(7), True, changes)
    changes.own_addresses = False
    interfaces.on_link(link(7, "up0"), changes)
    assert changes.own_addresses
    assert interfaces.own_addresses().keys() == {"up0"}


def test_names_of_retired_interfaces_are_told_from_all_others() -> None:
    assert RETIRED_NAME.fullmatch(retired_name(99_999_999))
    for other in ("weftdel", "weftdelivery", "weftdel1a", "cali0weftdel1"):
        assert not RETIRED_NAME.fullmatch(other)
