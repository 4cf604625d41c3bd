"""The agent with real ExaBGP against real routers: routes both ways, and nothing that should not go."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from lab.netns import NetNs
from tests.functional.bgp.fabric import (
    AgentNode,
    Bird,
    Store,
    bird_configuration,
    segment,
    wait_until,
)

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
    wait_until("we have its route", lambda: node.routes() == {"203.0.113.0/24": {"10.1.0.254"}})
    # A borrowed address is announced as a host route, one of our own block is not.
    node.netns.ip("route", "add", "10.65.9.7/32", "dev", "lo", "proto", "80")
    node.netns.ip("route", "add", "10.65.0.9/32", "dev", "lo", "proto", "80")
    node.netns.ip("route", "add", "192.0.2.1/32", "dev", "lo", "proto", "80")
    wait_until("the borrowed address", lambda: bird.routes("p0") == {"10.65.0.0/26", "10.65.9.7/32"})
    store.release_block("n1", "10.65.0.0/26")
    wait_until("the block is withdrawn", lambda: "10.65.0.0/26" not in bird.routes("p0"))
    assert "Established" in bird.ask("show protocols p0")
