"""The agent with real ExaBGP against real routers: routes both ways, and nothing that should not go."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from lab.netns import NetNs, bridge, link
from tests.functional.bgp.fabric import (
    AgentNode,
    Bird,
    Frr,
    Store,
    bird_configuration,
    segment,
    wait_until,
)
from weft.model import keys

pytestmark = pytest.mark.root


def test_bird_learns_our_blocks_and_we_learn_its_routes(
    node: AgentNode, store: Store, netns: Callable[[str], NetNs], tmp_path: Path
) -> None:
    tor = netns("tor")
    segment(node.netns, tor, "up0", "10.1.0.1/24", "10.1.0.254/24")
    store.node("n1", "10.1.0.1/24")
    store.pool("pool", "10.65.0.0/16")
    store.block("n1", "10.65.0.0/26")
    store.configuration(node_to_node_mesh_enabled=False)
    store.peer("tor", peer_ip="10.1.0.254", as_number=65001)
    body = "local 10.1.0.254 as 65001; neighbor 10.1.0.1 as 64512; hold time 9;"
    bird = Bird(tor, tmp_path / "bird", bird_configuration("10.1.0.254", [body], ["203.0.113.0/24", "0.0.0.0/0"]))
    bird.start()
    node.start()
    wait_until("BIRD has our block", lambda: bird.routes("p0") == {"10.65.0.0/26"})
    learnt = {"203.0.113.0/24": {"10.1.0.254"}, "default": {"10.1.0.254"}}
    wait_until("we have its routes, the default one too", lambda: node.routes() == learnt)
    # A borrowed address is announced as a host route, one of our own block is not.
    node.netns.ip("route", "add", "10.65.9.7/32", "dev", "lo", "proto", "80")
    node.netns.ip("route", "add", "10.65.0.9/32", "dev", "lo", "proto", "80")
    node.netns.ip("route", "add", "192.0.2.1/32", "dev", "lo", "proto", "80")
    wait_until("the borrowed address", lambda: bird.routes("p0") == {"10.65.0.0/26", "10.65.9.7/32"})
    store.release_block("n1", "10.65.0.0/26")
    wait_until("the block is withdrawn", lambda: "10.65.0.0/26" not in bird.routes("p0"))
    assert "Established" in bird.ask("show protocols p0")


FRR_CONFIGURATION = """hostname tor
router bgp 65002
 bgp router-id 10.2.0.254
 no bgp ebgp-requires-policy
 no bgp network import-check
 bgp graceful-restart
 neighbor 10.1.0.1 remote-as 64512
 neighbor 10.1.0.1 timers 3 9
 neighbor 10.1.0.1 timers connect 2
 neighbor 10.1.0.1 ebgp-multihop 4
 address-family ipv4 unicast
  network 198.51.100.0/24
  network 203.0.113.0/24
 exit-address-family
"""


def test_frr_and_bird_beside_each_other_give_equal_paths(
    node: AgentNode, store: Store, netns: Callable[[str], NetNs], tmp_path: Path, frr_directory: Path
) -> None:
    left, right = netns("left"), netns("right")
    segment(node.netns, left, "up0", "10.1.0.1/24", "10.1.0.254/24")
    link(node.netns, "up1", right, "up0")
    node.netns.ip("address", "add", "10.2.0.1/24", "dev", "up1")
    right.ip("address", "add", "10.2.0.254/24", "dev", "up0")
    right.ip("route", "add", "10.1.0.1/32", "via", "10.2.0.1")
    frr = Frr(right, frr_directory / "frr", FRR_CONFIGURATION)
    body = "local 10.1.0.254 as 65001; neighbor 10.1.0.1 as 64512; hold time 9;"
    bird = Bird(left, tmp_path / "bird", bird_configuration("10.1.0.254", [body], ["203.0.113.0/24", "192.0.2.0/24"]))
    store.node("n1", "10.1.0.1/24")
    store.block("n1", "10.65.0.0/26")
    store.peer("left", peer_ip="10.1.0.254", as_number=65001)
    store.peer("right", peer_ip="10.2.0.254", as_number=65002, node="n1")
    frr.start()
    bird.start()
    node.start()
    expected = {
        "203.0.113.0/24": {"10.1.0.254", "10.2.0.254"},
        "198.51.100.0/24": {"10.2.0.254"},
        "192.0.2.0/24": {"10.1.0.254"},
    }
    wait_until("all paths are in the kernel", lambda: node.routes() == expected)
    wait_until("both have our block", lambda: "10.65.0.0/26" in frr.routes() and bird.routes("p0") == {"10.65.0.0/26"})
    # One of two equal paths goes: the other carries on.
    bird.ask("disable p0")
    remaining = {"203.0.113.0/24": {"10.2.0.254"}, "198.51.100.0/24": {"10.2.0.254"}}
    wait_until("only the other path is left", lambda: node.routes() == remaining)


def test_a_mesh_of_three_carries_both_families_and_takes_a_fourth_without_disturbing_any_session(
    make_node: Callable[[str], AgentNode], store: Store, netns: Callable[[str], NetNs]
) -> None:
    switch = netns("switch")
    bridge(switch, "br0")
    nodes = [make_node(f"n{number}") for number in range(1, 5)]
    for number, node in enumerate(nodes, 1):
        link(node.netns, "up0", switch, f"port{number}")
        switch.ip("link", "set", f"port{number}", "master", "br0")
        node.netns.ip("address", "add", f"10.1.0.{number}/24", "dev", "up0")
        node.netns.ip("address", "add", f"fd01::{number}/64", "dev", "up0", "nodad")
    store.pool("pool", "10.65.0.0/16")

    def join(number: int) -> None:
        store.node(f"n{number}", f"10.1.0.{number}/24", address6=f"fd01::{number}/64")
        store.block(f"n{number}", f"10.65.{number}.0/26")
        store.block(f"n{number}", f"fd65::{number}:0/122")
        nodes[number - 1].start()

    def complete(members: int) -> bool:
        for own in range(1, members + 1):
            others = [other for other in range(1, members + 1) if other != own]
            if nodes[own - 1].routes() != {f"10.65.{n}.0/26": {f"10.1.0.{n}"} for n in others}:
                return False
            if nodes[own - 1].routes("-6") != {f"fd65::{n}:0/122": {f"fd01::{n}"} for n in others}:
                return False
        return True

    for number in (1, 2, 3):
        join(number)
    wait_until("three have each other's blocks", lambda: complete(3))
    before = [node.log().count(" down:") for node in nodes[:3]]
    join(4)
    wait_until("four have each other's blocks", lambda: complete(4))
    assert [node.log().count(" down:") for node in nodes[:3]] == before
    store.delete(keys.ResourceKey("Node", "n4"))
    wait_until("the fourth's blocks are gone", lambda: complete(3))
    store.configuration(node_to_node_mesh_enabled=False)
    wait_until("without a mesh nothing is left", lambda: not any(node.routes() for node in nodes[:3]))
