"""Both families over one session, and IPv4 by way of IPv6 next hops (RFC 8950), with real routers and real packets."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lab.netns import CommandError, NetNs
from tests.functional.bgp.fabric import AgentNode, Bird, Frr, Store, segment, wait_until

pytestmark = pytest.mark.root

BLOCK, BLOCK6 = "10.65.0.0/26", "fd65::/122"
INSIDE, BEYOND, BEYOND6 = "10.65.0.1", "203.0.113.1", "fd99::1"
BOTH = {"weft/address-families": "IPv4,IPv6"}

BIRD = """router id 10.9.9.9;
log stderr all;
protocol device {{}}
protocol kernel {{ ipv4 {{ export all; }}; }}
protocol kernel {{ ipv6 {{ export all; }}; }}
protocol direct {{ ipv4; ipv6; interface "lo"; }}
protocol bgp p0 {{ local {local} as 65001; neighbor {peer} as 64512; direct; hold time 9; graceful restart on;
 connect retry time 1; connect delay time 1; error wait time 1, 2;
 ipv4 {{ import all; export where source = RTS_DEVICE; {extended} next hop self; }};
 ipv6 {{ import all; export where source = RTS_DEVICE; next hop self; }};
}}
"""

FRR = """hostname tor
ipv6 forwarding
router bgp 65001
 bgp router-id 10.9.9.9
 no bgp ebgp-requires-policy
 no bgp network import-check
 bgp graceful-restart
 neighbor fd01::1 remote-as 64512
 neighbor fd01::1 timers 3 9
 neighbor fd01::1 timers connect 2
 neighbor fd01::1 capability extended-nexthop
 address-family ipv4 unicast
  network 203.0.113.1/32
  neighbor fd01::1 activate
 exit-address-family
 address-family ipv6 unicast
  network fd99::1/128
  neighbor fd01::1 activate
 exit-address-family
"""


def addresses(inside: NetNs, *more: str) -> None:
    inside.ip("link", "set", "lo", "up")
    for address in more:
        inside.ip("address", "add", address, "dev", "lo")


def via(node: AgentNode, destination: str) -> dict[str, Any]:
    """The kernel's BGP route there, as `ip` says it."""
    family = "-6" if ":" in destination else "-4"
    return next(
        (one for one in node.netns.ip_json(family, "route", "show", "proto", "186") if one["dst"] == destination), {}
    )


def reaches(inside: NetNs, source: str, target: str) -> bool:
    try:
        inside.run(["ping", "-c", "1", "-W", "1", "-I", source, target])
    except CommandError:
        return False
    return True


def prepare(node: AgentNode, store: Store, tor: NetNs, **own: Any) -> None:
    segment(node.netns, tor, "up0", "fd01::1/64", "fd01::fe/64")
    addresses(node.netns, f"{INSIDE}/32", "fd65::1/128")
    addresses(tor, f"{BEYOND}/32", f"{BEYOND6}/128")
    store.block("n1", BLOCK)
    store.block("n1", BLOCK6)
    store.node("n1", own.get("address"), address6="fd01::1/64")


def test_ipv4_goes_by_way_of_ipv6_alone_between_us_and_bird(
    node: AgentNode, store: Store, netns: Callable[[str], NetNs], tmp_path: Path
) -> None:
    tor = netns("tor")
    prepare(node, store, tor)
    store.peer("tor", BOTH, peer_ip="fd01::fe", as_number=65001)
    text = BIRD.format(local="fd01::fe", peer="fd01::1", extended="extended next hop on;")
    bird = Bird(tor, tmp_path / "bird", text)
    bird.start()
    node.start()
    wait_until("we lead there by way of IPv6", lambda: via(node, BEYOND).get("via", {}).get("family") == "inet6")
    wait_until("and IPv6 over the same session", lambda: via(node, BEYOND6))
    wait_until("BIRD has both blocks", lambda: {BLOCK, BLOCK6} <= bird.routes("p0"))
    assert bird.attributes(BLOCK, "p0")["next_hop"].split()[0] == "fd01::1"
    wait_until("packets flow over it", lambda: reaches(tor, BEYOND, INSIDE))
    # An agent that comes back finds it all as it was.
    node.kill()
    node.start()
    wait_until("the next agent has learnt all", lambda: "everything has been learnt" in node.log())
    assert via(node, BEYOND)["via"]["family"] == "inet6"
    store.release_block("n1", BLOCK)
    wait_until("a withdrawal reaches BIRD", lambda: BLOCK not in bird.routes("p0"))
    bird.ask("disable p0")
    wait_until("what BIRD said goes", lambda: not via(node, BEYOND) and not via(node, BEYOND6))


def test_frr_gives_and_takes_ipv4_by_way_of_its_link_local_address(
    node: AgentNode, store: Store, netns: Callable[[str], NetNs], frr_directory: Path
) -> None:
    tor = netns("tor")
    prepare(node, store, tor)
    store.peer("tor", BOTH, peer_ip="fd01::fe", as_number=65001)
    frr = Frr(tor, frr_directory / "frr", FRR)
    frr.start()
    node.start()
    wait_until("we lead there by way of IPv6", lambda: via(node, BEYOND).get("via", {}).get("family") == "inet6")
    assert via(node, BEYOND)["via"]["host"].startswith("fe80:")
    wait_until("FRR has our block", lambda: BLOCK in frr.routes())
    wait_until("packets flow over it", lambda: reaches(tor, BEYOND, INSIDE))


@pytest.mark.parametrize(
    ("local", "peer", "node_peer"), [("10.1.0.254", "10.1.0.1", "10.1.0.254"), ("fd01::fe", "fd01::1", "fd01::fe")]
)
def test_either_family_goes_over_a_session_of_the_other_with_next_hops_of_its_own(
    node: AgentNode,
    store: Store,
    netns: Callable[[str], NetNs],
    tmp_path: Path,
    local: str,
    peer: str,
    node_peer: str,
) -> None:
    tor = netns("tor")
    prepare(node, store, tor, address="10.1.0.1/24")
    node.netns.ip("address", "add", "10.1.0.1/24", "dev", "up0")
    tor.ip("address", "add", "10.1.0.254/24", "dev", "up0")
    store.peer("tor", BOTH, peer_ip=node_peer, as_number=65001)
    text = BIRD.format(local=local, peer=peer, extended="")
    bird = Bird(tor, tmp_path / "bird", text)
    bird.start()
    node.start()
    wait_until("BIRD has both blocks", lambda: {BLOCK, BLOCK6} <= bird.routes("p0"))
    assert bird.attributes(BLOCK, "p0")["next_hop"] == "10.1.0.1"
    assert bird.attributes(BLOCK6, "p0")["next_hop"].split()[0] == "fd01::1"
    wait_until("packets flow of one family", lambda: reaches(tor, BEYOND, INSIDE))
    wait_until("and of the other", lambda: reaches(tor, BEYOND6, "fd65::1"))
