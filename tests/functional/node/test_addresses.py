"""Addresses read from a real kernel, and followed while weft-node runs."""

from collections.abc import Callable
from ipaddress import ip_address

import pytest

from lab.netns import NetNs
from tests.functional.node.conftest import WeftNode
from weft.node.autodetect import Surroundings, detect
from weft.node.interfaces import read_interfaces, source_address

pytestmark = pytest.mark.root


@pytest.fixture
def host(netns: Callable[[str], NetNs]) -> NetNs:
    """Two uplinks to another namespace, an address each; the default route is on the first."""
    made, other = netns("node"), netns("tor")
    for index in (0, 1):
        made.ip("link", "add", f"eth{index}", "type", "veth", "peer", "name", f"p{index}", "netns", other.name)
        other.ip("link", "set", f"p{index}", "up")
        made.ip("link", "set", f"eth{index}", "up")
        made.ip("addr", "add", f"10.{index}.0.1/24", "dev", f"eth{index}")
        made.ip("-6", "addr", "add", f"fd0{index}::1/64", "dev", f"eth{index}", "nodad")
    made.ip("route", "add", "default", "via", "10.0.0.254")
    made.ip("addr", "add", "10.0.0.2/32", "peer", "10.9.9.9/32", "dev", "eth0")
    return made


def test_the_kernel_tells_interfaces_and_addresses(host: NetNs) -> None:
    with host.enter():
        interfaces = {one.name: one for one in read_interfaces()}
    assert [str(address) for address in interfaces["eth1"].addresses[:2]] == ["10.1.0.1/24", "fd01::1/64"]
    # The own address of a point-to-point link, not the peer's.
    assert "10.0.0.2/32" in map(str, interfaces["eth0"].addresses)
    assert "lo" in interfaces


@pytest.mark.parametrize(
    ("method", "version", "address"),
    [
        ("can-reach=192.0.2.1", 4, "10.0.0.1/24"),
        ("can-reach=10.1.0.77", 4, "10.1.0.1/24"),
        ("can-reach=fd01::77", 6, "fd01::1/64"),
        ("first-found", 4, "10.1.0.1/24"),
        ("interface=eth0", 6, "fd00::1/64"),
    ],
)
def test_each_method_works_on_a_real_kernel(host: NetNs, method: str, version: int, address: str) -> None:
    with host.enter():
        around = Surroundings(read_interfaces(), source_address)
        detection = detect(method, 4 if version == 4 else 6, around)
    assert str(detection.chosen.address) == address


def test_a_destination_without_a_route_has_no_source(host: NetNs) -> None:
    with host.enter(), pytest.raises(OSError, match="unreachable"):
        source_address("2001:db8::1", 6)
    with host.enter():
        assert source_address("10.0.0.254", 4) == ip_address("10.0.0.1")


def test_a_changed_address_is_registered_while_the_node_runs(host: NetNs, weft_node: Callable[..., WeftNode]) -> None:
    settings = {"IP": "autodetect", "IP6": "autodetect", "AUTODETECT_POLL_INTERVAL": "1s"}
    node = weft_node(host, **settings)
    node.wait_until(node.running)
    assert node.addresses("n1") == ("10.1.0.1/24", "fd01::1/64")
    assert "chose 10.1.0.1/24 on eth1, but could also have chosen 10.0.0.1/24 on eth0" in node.log
    assert "IP_AUTODETECTION_METHOD=interface=^eth1$" in node.log
    host.ip("link", "delete", "eth1")
    node.wait_until(lambda: node.addresses("n1") == ("10.0.0.1/24", "fd00::1/64"))
    host.ip("link", "delete", "eth0")
    node.wait_until(
        lambda: "no IPv4 address fits 'first-found'; interfaces: lo; the stored 10.0.0.1/24 is kept" in node.log
    )
    assert node.addresses("n1") == ("10.0.0.1/24", "fd00::1/64")
