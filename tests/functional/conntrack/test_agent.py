"""The real agent, from a policy in etcd to a connection that has fallen silent, and again after it was killed."""

import socket
import time
from collections.abc import Callable, Iterator

import pytest

from lab.netns import NetNs
from tests.functional.cni.live import LiveNode, live_node
from tests.functional.conntrack.live import Live, policy, speaking
from weft.model import keys

pytestmark = pytest.mark.root
PORT = 8080


@pytest.fixture
def node(netns: Callable[[str], NetNs]) -> Iterator[LiveNode]:
    with live_node(netns("cutting")) as node:
        yield node


def connection(client: NetNs, server: NetNs, address: str) -> Live:
    with server.enter():
        answering = socket.create_server((address, PORT))
    with client.enter():
        asking = socket.create_connection((address, PORT), timeout=3)
    accepted, _ = answering.accept()
    answering.close()
    return Live("tcp", asking, accepted)


def falls_silent(live: Live, within_s: float = 20) -> bool:
    end_s = time.monotonic() + within_s
    while time.monotonic() < end_s:
        if not live.server_pushes(0.1):
            return True
    return False


def test_a_policy_in_the_datastore_cuts_what_it_refuses(node: LiveNode, netns: Callable[[str], NetNs]) -> None:
    client, server = netns("client"), netns("server")
    ipam = {"type": "weft-ipam", "assign_ipv4": "true"}
    node.put(policy("p", "ingress", PORT))
    node.plugin("ADD", "client", client, ipam=ipam)
    [answer] = node.plugin("ADD", "server", server, ipam=ipam)["ips"]
    live = connection(client, server, answer["address"].partition("/")[0])
    try:
        assert live.passes_both_ways(3)
        node.put(policy("p", "ingress", PORT + 1))
        assert falls_silent(live), node.log()
        assert speaking([live], 0.3) == []
        node.put(policy("p", "ingress", PORT))
        assert live.passes_both_ways(20), node.log()
        node.kill_agent()
        node.etcdctl("del", keys.path(keys.of(policy("p", "ingress"))))
        node.put(policy("q", "ingress", PORT + 1))
        assert live.passes_both_ways(3)
        node.start_agent()
        assert falls_silent(live), node.log()
    finally:
        live.client.close()
        live.server.close()
