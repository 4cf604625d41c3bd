"""Settings of a session and of the speaker, as a real BIRD and another node's agent meet them."""

from __future__ import annotations

import socket
from collections.abc import Callable
from ipaddress import ip_address
from pathlib import Path

import pytest

from bird_agent.reflector.sockets import listener
from lab.netns import NetNs
from tests.functional.bgp.fabric import AgentNode, Bird, Store, bird_configuration, segment, wait_until
from weft.model.bgp import BGPFilterRuleV4
from weft.model.values import AsNumber, Duration

pytestmark = pytest.mark.root

BLOCK, OTHERS = "10.65.0.0/26", "10.65.1.0/26"


def listening(node: AgentNode) -> set[str]:
    """Where the speaker listens: "0.0.0.0:1790"."""
    return {line.split()[3] for line in node.netns.run(["ss", "-Hltn"]).splitlines()} - {"127.0.0.1:2379"}


def test_ports_timers_own_as_numbers_and_ignored_interfaces_are_what_was_asked_for(
    node: AgentNode, store: Store, netns: Callable[[str], NetNs], tmp_path: Path
) -> None:
    tor = netns("tor")
    segment(node.netns, tor, "up0", "10.1.0.1/24", "10.1.0.254/24")
    segment(node.netns, netns("office"), "mgmt0", "10.9.0.1/24", "10.9.0.254/24")
    store.node("n1", "10.1.0.1/24")
    store.block("n1", BLOCK)
    store.configuration(listen_port=1790, ignored_interfaces=("mgmt*",))
    store.filter("all", export_v4=[BGPFilterRuleV4(action="Accept")])
    store.peer(
        "tor",
        peer_ip="10.1.0.254:1179",
        as_number=AsNumber(65001),
        keepalive_time=Duration.parse("4s"),
        num_allowed_local_as_numbers=1,
        source_address="None",
        filters=("all",),
    )
    body = "local 10.1.0.254 port 1179 as 65001; neighbor 10.1.0.1 port 1790 as 64512; hold time 60;"
    text = bird_configuration("10.1.0.254", [body], ["203.0.113.0/24", "198.51.100.0/24"])
    # One of its routes has passed us once, the other twice.
    passed = "bgp_path.prepend(64512); if net = 198.51.100.0/24 then bgp_path.prepend(64512); accept;"
    text = text.replace('export where proto = "announced"', f"export filter {{ {passed} }}")
    bird = Bird(tor, tmp_path / "bird", text)
    bird.start()
    node.start()
    wait_until("the path with our number once", lambda: node.routes() == {"203.0.113.0/24": {"10.1.0.254"}})
    # The connected network of the uplink, and not that of the ignored interface.
    wait_until("what the filter lets out", lambda: bird.routes("p0") == {BLOCK, "10.1.0.0/24"})
    assert "0.0.0.0:1790" in listening(node)
    assert "/12" in bird.ask("show protocols all p0").partition("Hold timer:")[2].splitlines()[0]
    store.configuration(listen_port=1790, ignored_interfaces=("mgmt*",), bind_mode="NodeIP")
    wait_until("bindMode NodeIP", lambda: "10.1.0.1:1790" in listening(node) and "0.0.0.0:1790" not in listening(node))
    wait_until("the session is back", lambda: bird.established("p0") and node.routes())


def test_the_other_end_of_a_peering_is_there_by_itself_unless_it_is_manual(
    make_node: Callable[[str], AgentNode], store: Store
) -> None:
    first, second = make_node("n1"), make_node("n2")
    segment(first.netns, second.netns, "up0", "10.1.0.1/24", "10.1.0.2/24")
    for number, block in ((1, BLOCK), (2, OTHERS)):
        store.node(f"n{number}", f"10.1.0.{number}/24")
        store.block(f"n{number}", block)
    store.configuration(node_to_node_mesh_enabled=False, listen_port=1790)
    store.peer("towards", node="n1", peer_ip="10.1.0.2", as_number=AsNumber(64512))
    first.start()
    second.start()
    wait_until("n1 has n2's block", lambda: set(first.routes()) == {OTHERS})
    wait_until("and n2 n1's", lambda: set(second.routes()) == {BLOCK})
    store.peer("towards", node="n1", peer_ip="10.1.0.2", as_number=AsNumber(64512), reverse_peering="Manual")
    wait_until("n2 has no session any more", lambda: not first.routes() and not second.routes())
    store.peer("back", node="n2", peer_ip="10.1.0.1", as_number=AsNumber(64512))
    wait_until("until somebody says so", lambda: set(second.routes()) == {BLOCK})


def test_a_reflector_of_the_node_has_the_port_at_its_own_address_beside_the_speaker(
    node: AgentNode, store: Store, netns: Callable[[str], NetNs]
) -> None:
    tor = netns("tor")
    segment(node.netns, tor, "up0", "10.1.0.1/24", "10.1.0.254/24")
    node.netns.ip("address", "add", "10.1.0.7/32", "dev", "up0")
    store.node("n1", "10.1.0.1/24")
    node.start()
    wait_until("the speaker listens on all addresses", lambda: "0.0.0.0:179" in listening(node))
    with node.netns.enter():
        own = listener(ip_address("10.1.0.7"), 179)
    with own, tor.enter(), socket.create_connection(("10.1.0.7", 179), timeout=10) as caller:
        own.setblocking(True)
        accepted, _ = own.accept()
        with accepted:
            assert accepted.getpeername() == caller.getsockname()
