"""The wiring against the real kernel: one host namespace, workloads in namespaces of their own."""

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import ip_address

import pytest

from felix.dataplane.attachment import Attachment, InterfaceExistsError
from felix.dataplane.reaper import Reaper, retirement
from felix.dataplane.wiring import KernelWiring
from lab.netns import CommandError, NetNs
from weft.model.address import IPAddress
from weft.netlink.rtnetlink import decode_link, dump_links
from weft.netlink.socket import NetlinkSocket

pytestmark = pytest.mark.root

IPV4 = ip_address("10.65.0.2")
IPV6 = ip_address("fd00:65::2")
HOST_INTERFACE = "calia1b2c3d4e5f"
MAC = "02:00:00:00:00:07"


@dataclass
class Host:
    """A host namespace with our wiring in it; `reaper` sleeps unless told otherwise."""

    netns: NetNs
    wiring: KernelWiring
    reaper: Reaper

    def links(self) -> dict[str, dict[str, object]]:
        return {link["ifname"]: link for link in self.netns.ip_json("link", "show")}


@contextmanager
def running_host(netns: NetNs, delay_s: float) -> Iterator[Host]:
    with netns.enter():
        reaper = Reaper(delay_s)
        wiring = KernelWiring(reaper)
    try:
        # Each call of the wiring happens on the host's thread, as in the agent.
        with netns.enter():
            yield Host(netns, wiring, reaper)
    finally:
        wiring.close()
        reaper.close()


@pytest.fixture
def host(netns: Callable[[str], NetNs]) -> Iterator[Host]:
    made = netns("host")
    made.sysctl(ipv4__ip_forward=1, ipv6__conf__all__forwarding=1)
    made.ip("addr", "add", "192.0.2.1/32", "dev", "lo")
    with running_host(made, delay_s=0.02) as running:
        yield running


@contextmanager
def opened(netns: NetNs) -> Iterator[int]:
    fd = os.open(netns.path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)


def attach(host: Host, workload: NetNs, *addresses: IPAddress, name: str = HOST_INTERFACE, mtu: int = 1450) -> int:
    with opened(workload) as fd:
        return host.wiring.attach(Attachment(fd, "eth0", name, addresses or (IPV4, IPV6), mtu, MAC))


def route_to(host: Host, *addresses: IPAddress, name: str = HOST_INTERFACE) -> None:
    for address in addresses:
        host.netns.ip("route", "add", str(address), "dev", name)


def test_a_workload_can_talk_in_both_families_as_soon_as_it_is_routed(host: Host, netns: Callable[..., NetNs]) -> None:
    first, second = netns("w1"), netns("w2")
    attach(host, first, IPV4, IPV6)
    route_to(host, IPV4, IPV6)
    others = ip_address("10.65.0.3"), ip_address("fd00:65::3")
    attach(host, second, *others, name="calib2c3d4e5f60")
    route_to(host, *others, name="calib2c3d4e5f60")
    for address in others:
        first.run(["ping", "-c", "1", "-W", "1", str(address)])


def test_the_pair_is_as_specified(host: Host, netns: Callable[..., NetNs]) -> None:
    workload = netns("w")
    with opened(workload) as fd:
        index = host.wiring.attach(Attachment(fd, "eth0", HOST_INTERFACE, (IPV4, IPV6), 1450, MAC))
    near = host.links()[HOST_INTERFACE]
    assert near["ifindex"] == index
    assert (near["address"], near["mtu"]) == ("ee:ee:ee:ee:ee:ee", 1450)
    assert wait_until(lambda: bool(host.links()[HOST_INTERFACE]["operstate"] == "UP"))  # the kernel says it later
    [far] = workload.ip_json("addr", "show", "dev", "eth0", "scope", "global")
    assert (far["address"], far["mtu"]) == (MAC, 1450)
    assert [(one["local"], one["prefixlen"]) for one in far["addr_info"] if one] == [(str(IPV4), 32), (str(IPV6), 128)]
    routes = workload.ip_json("route")
    assert [(r["dst"], r.get("gateway"), r["dev"]) for r in routes] == [
        ("default", "169.254.1.1", "eth0"),
        ("169.254.1.1", None, "eth0"),
    ]
    [ipv6_default] = workload.ip_json("-6", "route", "show", "default")
    assert ipv6_default["gateway"] == "fe80::ecee:eeff:feee:eeee"
    neighbours = workload.ip_json("neigh", "show", "nud", "permanent")
    assert {(n["dst"], n["lladdr"]) for n in neighbours} == {
        ("169.254.1.1", "ee:ee:ee:ee:ee:ee"),
        ("fe80::ecee:eeff:feee:eeee", "ee:ee:ee:ee:ee:ee"),
    }
    conf = f"/proc/sys/net/ipv4/conf/{HOST_INTERFACE}/"
    values = {name: host.netns.run(["cat", conf + name]).strip() for name in ("forwarding", "proxy_arp", "rp_filter")}
    assert values == {"forwarding": "1", "proxy_arp": "1", "rp_filter": "1"}
    delay = f"/proc/sys/net/ipv4/neigh/{HOST_INTERFACE}/proxy_delay"
    assert host.netns.run(["cat", delay]).strip() == "0"


def test_a_workload_cannot_send_from_an_address_that_is_not_its_own(host: Host, netns: Callable[..., NetNs]) -> None:
    first, second = netns("w1"), netns("w2")
    attach(host, first, IPV4)
    route_to(host, IPV4)
    attach(host, second, ip_address("10.65.0.3"), name="calib2c3d4e5f60")
    route_to(host, ip_address("10.65.0.3"), name="calib2c3d4e5f60")
    first.ip("addr", "add", "192.0.2.9/32", "dev", "eth0")

    def received() -> int:
        return int(second.run(["cat", "/sys/class/net/eth0/statistics/rx_packets"]))

    first.run(["ping", "-c", "1", "-W", "1", "10.65.0.3"])
    before = received()
    with pytest.raises(CommandError, match="100% packet loss"):
        first.run(["ping", "-c", "2", "-i", "0.2", "-W", "1", "-I", "192.0.2.9", "10.65.0.3"])
    assert received() == before


def test_the_peers_index_is_not_assumed(host: Host, netns: Callable[..., NetNs]) -> None:
    workload = netns("w")
    for number in range(3):
        workload.ip("link", "add", f"br{number}", "type", "bridge")
    attach(host, workload)
    assert workload.ip_json("link", "show", "dev", "eth0")[0]["operstate"] == "UP"


def test_ipv6_is_turned_on_where_the_runtime_turned_it_off(host: Host, netns: Callable[..., NetNs]) -> None:
    workload = netns("w")
    workload.sysctl(ipv6__conf__default__disable_ipv6=1)
    attach(host, workload)
    route_to(host, IPV4, IPV6)
    host.netns.run(["ping", "-c", "1", "-W", "1", str(IPV6)])


@pytest.mark.parametrize("where", ["host", "workload"])
def test_an_index_that_somebody_else_has_is_passed_over(host: Host, netns: Callable[..., NetNs], where: str) -> None:
    workload, other = netns("w"), netns("other")
    next_one = attach(host, other) + 2
    with opened(other) as fd:
        host.wiring.detach(HOST_INTERFACE, fd, "eth0")
    taken = next_one if where == "host" else next_one + 1
    (host.netns if where == "host" else workload).ip("link", "add", "bridge0", "index", str(taken), "type", "bridge")
    assert attach(host, workload) == next_one + 2
    route_to(host, IPV4)
    host.netns.run(["ping", "-c", "1", "-W", "1", str(IPV4)])


def test_an_agent_that_starts_anew_takes_away_what_the_former_made(netns: Callable[[str], NetNs]) -> None:
    made, workload, other = netns("host"), netns("w"), netns("other")
    with running_host(made, delay_s=0) as host:
        former = attach(host, workload)
    with running_host(made, delay_s=0) as host:
        assert attach(host, other, name="calib2c3d4e5f60") > former
        with opened(workload) as fd:
            assert host.wiring.detach(HOST_INTERFACE, fd, "eth0")
        assert [link["ifname"] for link in workload.ip_json("link")][:1] == ["lo"]
        assert HOST_INTERFACE not in host.links()


def test_a_pair_that_somebody_deleted_makes_no_trouble(host: Host, netns: Callable[..., NetNs]) -> None:
    workload = netns("w")
    attach(host, workload)
    host.netns.ip("link", "del", HOST_INTERFACE)
    with opened(workload) as fd:
        assert not host.wiring.detach(HOST_INTERFACE, fd, "eth0")
    attach(host, workload)


def test_the_successor_of_a_pair_that_somebody_deleted_can_be_taken_away(
    host: Host, netns: Callable[..., NetNs]
) -> None:
    workload = netns("w")
    attach(host, workload)
    host.netns.ip("link", "del", HOST_INTERFACE)
    host.netns.ip("link", "add", HOST_INTERFACE, "type", "veth", "peer", "name", "eth0", "netns", workload.name)
    with opened(workload) as fd:
        assert host.wiring.detach(HOST_INTERFACE, fd, "eth0")
    assert HOST_INTERFACE not in host.links()
    assert "eth0" not in [link["ifname"] for link in workload.ip_json("link")]


@pytest.mark.parametrize("where", ["host", "workload"])
def test_a_name_that_is_taken_is_refused_and_nothing_is_left(
    host: Host, netns: Callable[..., NetNs], where: str
) -> None:
    workload = netns("w")
    if where == "host":
        host.netns.ip("link", "add", HOST_INTERFACE, "type", "bridge")
    else:
        workload.ip("link", "add", "eth0", "type", "bridge")
    before = set(host.links()), workload.ip("link", "show")
    with pytest.raises(InterfaceExistsError) as refused:
        attach(host, workload)
    assert refused.value.interface == (HOST_INTERFACE if where == "host" else "eth0")
    assert (set(host.links()), workload.ip("link", "show")) == before


def test_a_half_made_pair_is_taken_back_and_both_names_are_free(host: Host, netns: Callable[..., NetNs]) -> None:
    workload = netns("w")
    with pytest.raises(OSError, match="File exists"):
        attach(host, workload, IPV4, IPV4)
    attach(host, workload)
    assert wait_until(lambda: bool(host.links()[HOST_INTERFACE]["operstate"] == "UP"))  # the kernel says it later


def test_detach_followed_at_once_by_the_same_attach_works(host: Host, netns: Callable[..., NetNs]) -> None:
    workload = netns("w")
    for _ in range(5):
        attach(host, workload)
        with opened(workload) as fd:
            assert host.wiring.detach(HOST_INTERFACE, fd, "eth0")
    attach(host, workload)
    route_to(host, IPV4)
    host.netns.run(["ping", "-c", "1", "-W", "1", str(IPV4)])
    gone = wait_until(lambda: not [name for name in host.links() if name.startswith("weftdel")])
    assert gone, host.links()
    assert [link["ifname"] for link in workload.ip_json("link")] == ["lo", "eth0"]


def test_detach_is_idempotent_and_works_without_the_namespace(host: Host, netns: Callable[..., NetNs]) -> None:
    workload = netns("w")
    attach(host, workload)
    assert host.wiring.detach(HOST_INTERFACE, None, "eth0")
    assert not host.wiring.detach(HOST_INTERFACE, None, "eth0")
    with opened(workload) as fd:
        assert not host.wiring.detach(HOST_INTERFACE, fd, "eth0")


def test_detach_leaves_alone_what_is_not_ours(host: Host, netns: Callable[..., NetNs]) -> None:
    workload = netns("w")
    host.netns.ip("link", "add", "uplink0", "type", "bridge")
    with opened(workload) as fd:
        assert not host.wiring.detach("uplink0", fd, "eth0")
    # An eth0 that belongs to somebody else's pair stays when ours goes.
    attach(host, workload)
    with opened(workload) as fd:
        workload.ip("link", "set", "eth0", "name", "moved0")
        workload.ip("link", "add", "eth0", "type", "bridge")
        assert host.wiring.detach(HOST_INTERFACE, fd, "eth0")
    assert "eth0" in workload.ip("link", "show")
    assert "uplink0" in host.links()


def test_a_detached_pair_carries_nothing_even_before_it_is_deleted(netns: Callable[[str], NetNs]) -> None:
    workload = netns("w")
    with running_host(netns("slow"), delay_s=30) as host:
        index = attach(host, workload)
        with opened(workload) as fd:
            host.wiring.detach(HOST_INTERFACE, fd, "eth0")
        left = host.links()[f"weftdel{index}"]
        assert left["operstate"] == "DOWN"
        assert not any("eth0" in str(link["ifname"]) for link in workload.ip_json("link"))
    assert not [name for name in host.links() if name.startswith("weftdel")]


def test_inspection_shows_what_is_there(host: Host, netns: Callable[..., NetNs]) -> None:
    workload = netns("w")
    attach(host, workload)
    with opened(workload) as fd:
        seen = host.wiring.inspect(HOST_INTERFACE, fd, "eth0")
        assert (seen.host_interface_up, seen.interface_up, seen.has_default_route) == (True, True, True)
        assert set(seen.addresses) == {IPV4, IPV6}
        workload.ip("-6", "route", "del", "default")
        assert not host.wiring.inspect(HOST_INTERFACE, fd, "eth0").has_default_route
        host.wiring.detach(HOST_INTERFACE, fd, "eth0")
        seen = host.wiring.inspect(HOST_INTERFACE, fd, "eth0")
    assert (seen.host_interface_up, seen.interface_up, seen.mac, seen.addresses) == (False, False, None, ())


def test_what_a_dead_agent_left_is_reaped_at_start(netns: Callable[[str], NetNs]) -> None:
    made, workload = netns("host"), netns("w")
    made.ip("link", "add", HOST_INTERFACE, "type", "veth", "peer", "name", "eth0", "netns", workload.name)
    made.ip("link", "add", "weftdelivery", "type", "bridge")
    with made.enter(), NetlinkSocket() as socket:
        index = next(link.index for link in map(decode_link, socket.dump(dump_links())) if link.name == HOST_INTERFACE)
        # Killed between the name and the group.
        assert not socket.request(retirement(index)[:1])
    made.ip("link", "set", HOST_INTERFACE, "name", f"weftdel{index}")
    with running_host(made, delay_s=0) as host:
        assert host.reaper.adopt_leftovers() == [f"weftdel{index}"]
        assert wait_until(lambda: f"weftdel{index}" not in host.links())
        assert "weftdelivery" in host.links()


def wait_until(condition: Callable[[], bool], timeout_s: float = 5) -> bool:
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def test_the_reaper_ends_whenever_it_is_told_to(netns: Callable[[str], NetNs]) -> None:
    made = netns("host")
    for number in range(400):
        with made.enter():
            reaper = Reaper(delay_s=0.001)
        reaper.notify()
        time.sleep(number % 20 * 0.0001)  # at every moment of its round
        closing = threading.Thread(target=reaper.close, daemon=True)
        closing.start()
        closing.join(10)
        assert not closing.is_alive(), "it waits for ever"
