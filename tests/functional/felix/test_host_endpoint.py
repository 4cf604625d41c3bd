"""The real agent protects the interface of its node that has an expected address, and follows the address."""

import socket
import time
from collections.abc import Callable, Iterator
from ipaddress import ip_address

import pytest

from lab.netns import NetNs, link
from tests.functional.cni.live import LiveNode, live_node
from weft.model import keys
from weft.model.base import Metadata
from weft.model.endpoint import HostEndpoint, HostEndpointSpec

pytestmark = pytest.mark.root
FAILSAFE, PORT = 22, 8080
ADDRESSES = ("192.0.2.1", "198.51.100.1")
ENDPOINT = HostEndpoint(
    metadata=Metadata(name="h"), spec=HostEndpointSpec(node="n1", expected_ips=(ip_address("198.51.100.1"),))
)


@pytest.fixture
def node(netns: Callable[[str], NetNs]) -> Iterator[LiveNode]:
    with live_node(netns("protected")) as node:
        yield node


def reaches(client: NetNs, address: str, port: int) -> bool:
    with client.enter():
        asking = socket.socket()
    with asking:
        asking.settimeout(0.5)
        try:
            asking.connect((address, port))
        except TimeoutError:
            return False
        return True


def becomes(expected: bool, ask: Callable[[], bool], within_s: float = 20) -> bool:
    end_s = time.monotonic() + within_s
    while time.monotonic() < end_s:
        if ask() is expected:
            return True
        time.sleep(0.05)  # nobody accepts: each that reaches a port stays in its listener's queue
    return False


def test_a_host_endpoint_closes_all_but_the_failsafe_ports_where_its_address_is(
    node: LiveNode, netns: Callable[[str], NetNs]
) -> None:
    client = netns("client")
    with node.netns.enter():
        listening = [socket.create_server(("", port), backlog=2000) for port in (FAILSAFE, PORT)]
    for number, address in enumerate(ADDRESSES):
        link(node.netns, f"up{number}", client, f"eth{number}")
        node.netns.ip("address", "add", f"{address}/24", "dev", f"up{number}")
        client.ip("address", "add", f"{address[:-1]}2/24", "dev", f"eth{number}")
    try:
        assert all(reaches(client, address, PORT) for address in ADDRESSES)
        node.put(ENDPOINT)
        assert becomes(False, lambda: reaches(client, ADDRESSES[1], PORT)), node.log()
        assert reaches(client, ADDRESSES[1], FAILSAFE)
        assert reaches(client, ADDRESSES[0], PORT)
        node.netns.ip("address", "add", "198.51.100.1/32", "dev", "up0")
        assert becomes(False, lambda: reaches(client, ADDRESSES[0], PORT)), node.log()
        assert reaches(client, ADDRESSES[0], FAILSAFE)
        node.etcdctl("del", keys.path(keys.of(ENDPOINT)))
        assert becomes(True, lambda: all(reaches(client, address, PORT) for address in ADDRESSES)), node.log()
    finally:
        for one in listening:
            one.close()
