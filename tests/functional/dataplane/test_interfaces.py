"""Following a namespace's links and addresses, and making it a router."""

import asyncio
from collections.abc import Callable, Iterator
from ipaddress import ip_address
from pathlib import Path

import pytest

from felix.dataplane import sysctl
from felix.dataplane.interfaces import HostChanges, InterfaceMonitor
from felix.dataplane.sysctl import ProcSettings, SettingChange
from lab.netns import NetNs

pytestmark = pytest.mark.root


@pytest.fixture
def host(netns: Callable[[str], NetNs]) -> NetNs:
    return netns("host")


@pytest.fixture
def monitor(host: NetNs) -> Iterator[InterfaceMonitor]:
    with host.enter():
        made = InterfaceMonitor()
    yield made
    made.close()


def add_pair(host: NetNs, name: str, other: NetNs, inside: str = "eth0") -> None:
    host.ip("link", "add", name, "type", "veth", "peer", "name", inside, "netns", other.name)


async def heard(monitor: InterfaceMonitor, name: str) -> HostChanges:
    """The changes, waited for as the agent does: carrier changes come a little later than their cause."""
    loop = asyncio.get_running_loop()
    readable = asyncio.Event()
    loop.add_reader(monitor.fileno(), readable.set)
    try:
        async with asyncio.timeout(5):
            while True:
                await readable.wait()
                readable.clear()
                changes = monitor.receive()
                if name in changes.links:
                    return changes
    finally:
        loop.remove_reader(monitor.fileno())


async def test_links_that_come_go_and_change_state_are_told(
    host: NetNs, monitor: InterfaceMonitor, netns: Callable[[str], NetNs]
) -> None:
    workload = netns("w")
    assert monitor.index("calia") is None
    add_pair(host, "calia", workload)
    index = monitor.index("calia")
    assert index is not None
    assert (await heard(monitor, "calia")).links == {"calia": index}
    host.ip("link", "set", "calia", "up")
    assert (await heard(monitor, "calia")).links == {"calia": index}
    host.ip("link", "set", "calia", "down")
    assert (await heard(monitor, "calia")).links == {"calia": index}
    host.ip("link", "set", "calia", "name", "weftdel7")
    assert (await heard(monitor, "calia")).links == {"calia": None, "weftdel7": index}
    host.ip("link", "del", "weftdel7")
    assert (await heard(monitor, "weftdel7")).links == {"weftdel7": None}


async def test_a_name_that_was_taken_over_belongs_to_the_successor(
    host: NetNs, monitor: InterfaceMonitor, netns: Callable[[str], NetNs]
) -> None:
    first, second = netns("w1"), netns("w2")
    add_pair(host, "calia", first)
    host.ip("link", "set", "calia", "name", "weftdel7")
    add_pair(host, "calia", second)
    host.ip("link", "del", "weftdel7")
    assert monitor.receive().links["calia"] == monitor.index("calia") is not None


def test_a_link_that_leaves_a_bridge_is_still_there(host: NetNs, monitor: InterfaceMonitor) -> None:
    host.ip("link", "add", "br0", "type", "bridge")
    host.ip("link", "add", "br1", "type", "bridge")
    host.ip("link", "add", "p0", "type", "veth", "peer", "name", "p1")
    host.ip("link", "set", "p0", "master", "br0")
    host.ip("link", "set", "p0", "nomaster")
    assert monitor.receive().links["p0"] == monitor.index("p0")
    assert "p0" in {link.name for link in monitor.links()}


def test_the_uplink_is_the_link_with_the_nodes_address(host: NetNs, monitor: InterfaceMonitor) -> None:
    node = ip_address("192.0.2.1")
    assert monitor.uplink(node) is None
    host.ip("link", "add", "up0", "mtu", "1400", "type", "veth", "peer", "name", "p0")
    host.ip("addr", "add", "192.0.2.1/24", "dev", "up0")
    assert monitor.receive().mtu_or_address
    uplink = monitor.uplink(node)
    assert uplink is not None
    assert (uplink.name, uplink.mtu) == ("up0", 1400)
    host.ip("link", "set", "up0", "mtu", "9000")
    assert monitor.receive().mtu_or_address
    uplink = monitor.uplink(node)
    assert uplink is not None
    assert uplink.mtu == 9000
    assert not monitor.receive().mtu_or_address
    host.ip("addr", "del", "192.0.2.1/24", "dev", "up0")
    assert monitor.receive().mtu_or_address
    assert monitor.uplink(node) is None


def test_after_lost_notifications_nothing_is_missed(host: NetNs, monitor: InterfaceMonitor) -> None:
    host.ip("link", "add", "old0", "type", "bridge")
    monitor.receive()
    host.ip("link", "add", "new0", "type", "bridge")
    batch = "".join(f"link set lo mtu {65000 + number % 500}\n" for number in range(4000))
    host.run(["ip", "-batch", "-"], stdin=batch)
    host.ip("link", "del", "old0")
    changes = monitor.receive()
    assert changes.lost
    assert changes.links["old0"] is None
    assert changes.links["new0"] == monitor.index("new0")
    assert {link.name for link in monitor.links()} == {"lo", "new0"}
    assert not monitor.receive().lost


def test_becoming_a_router_keeps_listening_to_router_advertisements(host: NetNs) -> None:
    host.ip("link", "add", "up0", "type", "veth", "peer", "name", "p0")
    host.sysctl(ipv6__conf__p0__accept_ra=0, ipv4__ip_forward=0, ipv6__conf__all__forwarding=0)
    with host.enter():
        changes = sysctl.enable_routing(ProcSettings())
        assert sysctl.enable_routing(ProcSettings()) == []
        settings = ProcSettings()
        assert settings.read("ipv4/ip_forward") == settings.read("ipv6/conf/up0/forwarding") == "1"
        assert settings.read("ipv6/conf/up0/accept_ra") == "2"
        assert settings.read("ipv6/conf/p0/accept_ra") == "0"
        assert settings.read("ipv4/no/such/setting") is None
    assert changes[0] == SettingChange("ipv4/ip_forward", "0", "1")
    assert changes[-1] == SettingChange("ipv6/conf/all/forwarding", "0", "1")


def test_what_undoes_the_anti_spoofing_is_reported_and_left_alone(host: NetNs) -> None:
    host.sysctl(ipv4__conf__all__rp_filter=2, ipv4__ip_forward=1, ipv6__conf__all__forwarding=1)
    with host.enter():
        [problem] = sysctl.problems(ProcSettings())
        assert "loose" in problem.consequence
        assert ProcSettings().read(problem.name) == "2"
    assert Path("/proc/sys/net", problem.name).exists()
