"""What a workload may pretend: real packets with forged senders, router advertisements and neighbour advertisements."""

import socket
import struct
from collections.abc import Callable, Iterator
from ipaddress import IPv6Address, ip_address, ip_network

import pytest

from felix.calc.delta import LocalEndpoint, NodeDelta, Settings
from felix.dataplane.sender_checks import KernelSenderChecks, SenderChecks
from lab.netns import NetNs
from tests.fakes import computed_policies as computed
from tests.functional.policy.node import PolicyNode
from weft.model.address import IPNetwork
from weft.model.keys import ResourceKey
from weft.netlink.socket import NetlinkSocket
from weft.policy.values import EndpointPolicy, Policy

pytestmark = pytest.mark.root

LINK_LOCAL = "fe80::bad"
PREFIXES: tuple[IPNetwork, ...] = (ip_network("192.0.2.0/24"), ip_network("2001:db8::/64"))
SENDERS = {
    "10.0.0.1": "its own",
    "fd00::1": "its own",
    "192.0.2.1": "allowed",
    "2001:db8::1": "allowed",
    "10.0.0.77": "nobody's",
    "fd00::77": "nobody's",
    "10.0.0.2": "another workload's",
    "fd00::2": "another workload's",
    "10.9.9.9": "an outsider's",
    "fd01::1": "an outsider's",
}


@pytest.fixture
def node(netns: Callable[[str], NetNs]) -> Iterator[PolicyNode]:
    made = PolicyNode(netns)
    made.host.sysctl(ipv4__conf__all__rp_filter=0, ipv4__conf__cali1__rp_filter=1, ipv4__conf__cali2__rp_filter=1)
    made.behind["cali1"].ip("address", "add", f"{LINK_LOCAL}/64", "dev", "eth0", "nodad")
    yield made
    made.close()


def _open(*may_send_as: IPNetwork) -> NodeDelta:
    policy = EndpointPolicy(profiles=(computed.OPEN,))
    endpoints = {
        name: LocalEndpoint(
            ResourceKey("WorkloadEndpoint", name, "one"), name, (), "", policy, may_send_as if name == "cali1" else ()
        )
        for name in ("cali1", "cali2")
    }
    policies = {computed.OPEN: Policy(key=computed.OPEN, ingress=computed.ALLOW, egress=computed.ALLOW)}
    return NodeDelta(policies=policies, endpoints=endpoints, settings=Settings(endpoint_to_host="Accept"))


def _arriving(node: PolicyNode, interface: str = "cali1") -> set[str]:
    """What the senders are whose packets get from the workload to the outside."""
    arrived = set()
    for source, whose in SENDERS.items():
        where = ip_address(source)
        version = where.version
        receiver = node.endpoint("10.9.9.9" if version == 4 else "fd01::1", 1000)
        receiver.settimeout(0.05)
        with node.behind[interface].enter():
            sender = socket.socket(socket.AF_INET if version == 4 else socket.AF_INET6, socket.SOCK_DGRAM)
        with sender:
            if version == 4:
                sender.setsockopt(socket.SOL_IP, 19, 1)  # IP_TRANSPARENT
            else:
                sender.setsockopt(socket.IPPROTO_IPV6, 75, 1)  # IPV6_TRANSPARENT
            sender.bind((source, 0))
            sender.sendto(source.encode(), ("10.9.9.9" if version == 4 else "fd01::1", 1000))
        try:
            assert receiver.recv(100) == source.encode()
            arrived.add(f"{whose} IPv{version}")
        except TimeoutError:
            pass
    return arrived


def test_a_workload_sends_as_itself_and_as_what_it_is_allowed(node: PolicyNode) -> None:
    node.host.sysctl(ipv4__conf__eth0__rp_filter=2)
    with node.host.enter():
        socket_ = NetlinkSocket()
    with socket_:
        checks = SenderChecks(KernelSenderChecks(socket_), lambda name: _index(node.host, name))
        itself, allowed = {"its own IPv4", "its own IPv6"}, {"allowed IPv4", "allowed IPv6"}
        for may_send_as, expected in (((), itself), (PREFIXES, itself | allowed), ((), itself)):
            delta = _open(*may_send_as)
            checks.before_policy(delta.endpoints, take_over=False)
            if may_send_as:
                assert _arriving(node) == itself, "nothing is open before the rules are there"
            report = node.program(delta)
            assert report.failed == {}
            if not may_send_as:
                assert _arriving(node) == itself
            checks.after_policy(delta.endpoints, lambda _: True)
            assert _arriving(node) == expected
            assert _arriving(node, "cali2") == {"another workload's IPv4", "another workload's IPv6"}, "its own"
    assert node.host.run(["cat", "/proc/sys/net/ipv4/conf/eth0/rp_filter"]).strip() == "2", "the uplink's own"
    assert node.host.run(["cat", "/proc/sys/net/ipv4/conf/cali2/rp_filter"]).strip() == "1"


def _index(where: NetNs, name: str) -> int:
    with where.enter():
        return socket.if_nametoindex(name)


def _send_icmpv6(node: PolicyNode, destination: str, message: bytes) -> None:
    """From the workload behind cali1, with the hop limit that neighbour discovery asks for."""
    with node.behind["cali1"].enter():
        sender = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)
        index = socket.if_nametoindex("eth0")
    with sender:
        sender.bind((LINK_LOCAL, 0, 0, index))
        sender.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 255)
        sender.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS, 255)
        sender.sendto(message, (destination, 0, 0, index if destination.startswith(("fe80", "ff")) else 0))


ROUTER_ADVERTISEMENT = struct.pack("!BBHBBHII", 134, 0, 0, 64, 0, 1800, 0, 0)


def _neighbour_advertisement(target: str) -> bytes:
    """Overriding, with another link-layer address for the target."""
    option = struct.pack("!BB6s", 2, 1, bytes.fromhex("020000000bad"))
    return struct.pack("!BBHI", 136, 0, 0, 0x20000000) + IPv6Address(target).packed + option


@pytest.mark.parametrize("destination", ["ff02::1", "fe80::1", "fd00::2"], ids=["everybody", "the host", "a neighbour"])
def test_a_workload_is_nobodys_router(node: PolicyNode, destination: str) -> None:
    node.program(_open())
    node.host.sysctl(ipv6__conf__cali1__accept_ra=2)
    node.behind["cali2"].sysctl(ipv6__conf__eth0__accept_ra=2)
    before = [where.ip("-6", "route", "show", "default") for where in (node.host, node.behind["cali2"])]
    _send_icmpv6(node, destination, ROUTER_ADVERTISEMENT)
    assert node.passes("fd00::1", 80, "fd01::1", 80)  # so that what was sent before has been dealt with
    after = [where.ip("-6", "route", "show", "default") for where in (node.host, node.behind["cali2"])]
    assert after == before


def test_without_rules_the_host_would_take_the_workload_for_a_router(node: PolicyNode) -> None:
    """What the test above relies on."""
    node.host.sysctl(ipv6__conf__cali1__accept_ra=2)
    _send_icmpv6(node, "ff02::1", ROUTER_ADVERTISEMENT)
    assert node.passes("fd00::1", 80, "fd01::1", 80)
    assert "dev cali1" in node.host.ip("-6", "route", "show", "default")


@pytest.mark.parametrize("target", ["fd00::2", "fd01::1", "fe80::1"], ids=["a neighbour", "an outsider", "the gateway"])
def test_claiming_the_address_of_another_takes_no_traffic_from_it(node: PolicyNode, target: str) -> None:
    """Every workload has a link of its own: what it says about neighbours is believed for that link alone."""
    node.program(_open())
    for destination in ("ff02::1", "fe80::1", "fd00::2"):
        _send_icmpv6(node, destination, _neighbour_advertisement(target))
    assert node.passes("fd01::1", 85, "fd00::2", 85)
    assert node.passes("fd00::2", 85, "fd01::1", 85)
    assert node.passes("fd00::2", 85, "fd00::1", 85)
    for interface in ("cali2", "eth0"):
        assert "02:00:00:00:0b:ad" not in node.host.ip("-6", "neighbour", "show", "dev", interface)
    assert "02:00:00:00:0b:ad" not in node.behind["cali2"].ip("-6", "neighbour", "show")
