"""Passwords, filters, communities, limits: what an administrator writes, as a real BIRD sees it."""

from __future__ import annotations

import urllib.request
from collections.abc import Callable
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest

from lab.netns import NetNs
from tests.functional.bgp.asking import weftctl
from tests.functional.bgp.fabric import AgentNode, Bird, Store, bird_configuration, segment, wait_until
from tests.functional.bgp.pair import BLOCK, BODY, FIRST, Pair, configuration
from weft.model.bgp import (
    AddCommunity,
    BGPFilterRuleV4,
    BGPPassword,
    CommunityMatch,
    FilterOperation,
    PrefixAdvertisement,
    PrependAsPath,
    SecretKeySelector,
    SetPriority,
)
from weft.model.values import AsNumber

pytestmark = pytest.mark.root

PASSWORD = "not.for/any=log"
SECRET = BGPPassword(secret_key_ref=SecretKeySelector(name="bgp", key="tor"))
MARKED = "198.51.100.0/24"


def tagging_bird(body: str) -> str:
    """BIRD, which gives one of its routes a community."""
    text = bird_configuration("10.1.0.254", [body], sorted(FIRST))
    rule = f"filter {{ if net = {MARKED} then bgp_community.add((65001, 666)); accept; }}"
    return text.replace('export where proto = "announced"', f"export {rule}")


def adding(community: str) -> FilterOperation:
    return FilterOperation(add_community=AddCommunity(value=community))


def metrics(node: AgentNode) -> str:
    with node.netns.enter(), urllib.request.urlopen("http://127.0.0.1:9092/metrics", timeout=10) as answer:
        return str(answer.read().decode())


def test_a_session_with_password_and_ttl_security_is_filtered_both_ways(
    node: AgentNode, store: Store, netns: Callable[[str], NetNs], tmp_path: Path
) -> None:
    tor = netns("tor")
    segment(node.netns, tor, "up0", "10.1.0.1/24", "10.1.0.254/24")
    secrets = tmp_path / "secrets"
    node.environ = {**node.environ, "WEFT_BGP_SECRETS_DIR": str(secrets), "WEFT_BGP_METRICS": "9092"}
    store.node("n1", "10.1.0.1/24")
    store.pool("pool", "10.65.0.0/16")
    for block in (BLOCK, "10.65.1.0/26"):
        store.block("n1", block)
    advertised = PrefixAdvertisement(cidr=ip_network("10.65.1.0/24"), communities=("64512:7", "64512:8:9"))
    store.configuration(prefix_advertisements=(advertised,))
    store.filter(
        "tor",
        import_v4=[
            BGPFilterRuleV4(action="Reject", communities=CommunityMatch(values=("65001:666",))),
            BGPFilterRuleV4(action="Accept", operations=(FilterOperation(set_priority=SetPriority(value=100)),)),
        ],
        export_v4=[
            BGPFilterRuleV4(
                action="Accept",
                cidr=ip_network(BLOCK),
                match_operator="Equal",
                operations=(
                    adding("64512:1"),
                    FilterOperation(prepend_as_path=PrependAsPath(prefix=(AsNumber(64512), AsNumber(64513)))),
                ),
            ),
            BGPFilterRuleV4(action="Accept", cidr=ip_network("10.1.0.0/24"), match_operator="Equal"),
        ],
    )
    store.peer("tor", peer_ip="10.1.0.254", as_number=65001, password=SECRET, ttl_security=1, filters=("tor", "absent"))
    body = f'{BODY} password "{PASSWORD}"; ttl security on;'
    bird = Bird(tor, tmp_path / "bird", tagging_bird(body))
    bird.start()
    node.start()
    wait_until("the speaker runs, without the session", lambda: (node.run_dir / "speaker.conf").exists())
    assert "neighbor" not in (node.run_dir / "speaker.conf").read_text()
    (secrets / "kube-system" / "bgp").mkdir(parents=True)
    (secrets / "kube-system" / "bgp" / "tor").write_text(PASSWORD + "\n")
    announced = {BLOCK, "10.65.1.0/26", "10.1.0.0/24"}
    wait_until("BIRD has what the filter lets pass", lambda: bird.routes("p0") == announced)
    wait_until("we have the unmarked route", lambda: set(node.routes()) == FIRST - {MARKED})
    changed = bird.attributes(BLOCK, "p0")
    assert (changed["as_path"], changed["community"]) == ("64512 64512 64513", "(64512,1)")
    tagged = bird.attributes("10.65.1.0/26", "p0")
    assert (tagged["as_path"], tagged["community"]) == ("64512", "(64512,7)")
    assert tagged["large_community"] == "(64512, 8, 9)"
    connection = bird.connection()
    store.filter("tor")
    wait_until("without rules we have both routes", lambda: set(node.routes()) == FIRST)
    wait_until("BIRD has our blocks as they are", lambda: bird.routes("p0") == {BLOCK, "10.65.1.0/26"})
    wait_until("and without what a rule added", lambda: bird.attributes(BLOCK, "p0")["as_path"] == "64512")
    assert bird.connection() == connection
    received = 'weft_bgp_prefixes_received{asn="65001",peer="10.1.0.254",resource="BGPPeer/tor"} 2.0'
    wait_until("the metrics say so", lambda: received in metrics(node))
    for log in (node.log(), (node.run_dir / "speaker.log").read_text()):
        assert PASSWORD not in log


def test_a_peer_that_announces_too_much_is_told_so_and_kept_down_until_its_limit_changes(pair: Pair) -> None:
    limited = {"weft/max-prefixes": "2"}
    pair.store.peer("tor", limited, peer_ip="10.1.0.254", as_number=65001)
    wait_until("the speaker has heard of it", lambda: pair.bird.established("p0"))
    many = FIRST | {"192.0.2.0/24"}
    pair.bird.reconfigure(configuration(many))
    wait_until("its routes are gone", lambda: pair.routes() == set())
    wait_until("BIRD has dropped ours", lambda: pair.bird.routes("p0") == set())
    assert "Maximum number of prefixes reached" in pair.bird.ask("show protocols all p0")
    assert "announced more than 2 prefixes" in pair.node.log()
    wait_until("the session is not configured", lambda: "neighbor" not in speaker_configuration(pair))
    pair.store.peer("tor", {"weft/max-prefixes": "3"}, peer_ip="10.1.0.254", as_number=65001)
    wait_until("all is learnt", lambda: pair.routes() == many)
    wait_until("BIRD has our block", lambda: pair.bird.routes("p0") == {BLOCK})


def speaker_configuration(pair: Pair) -> str:
    return (pair.node.run_dir / "speaker.conf").read_text()


def test_a_peer_that_is_reachable_by_a_gateway_has_a_host_route_there(
    node: AgentNode, store: Store, netns: Callable[[str], NetNs], tmp_path: Path
) -> None:
    gateway, far = netns("gateway"), netns("far")
    segment(node.netns, gateway, "up0", "10.1.0.1/24", "10.1.0.254/24")
    segment(gateway, far, "up1", "10.2.0.254/24", "10.2.0.2/24")
    gateway.run(["sysctl", "-qw", "net.ipv4.ip_forward=1"])
    far.ip("route", "add", "10.1.0.0/24", "via", "10.2.0.254")
    store.node("n1", "10.1.0.1/24")
    store.block("n1", BLOCK)
    store.peer("far", peer_ip="10.2.0.2", as_number=65001, reachable_by=ip_address("10.1.0.254"))
    body = "local 10.2.0.2 as 65001; neighbor 10.1.0.1 as 64512; multihop; hold time 30;"
    bird = Bird(far, tmp_path / "bird", bird_configuration("10.2.0.2", [body], ["203.0.113.0/24", "10.2.0.2/32"]))
    bird.start()
    node.start()
    routes = {"10.2.0.2": {"10.1.0.254"}, "203.0.113.0/24": {"10.1.0.254"}}
    wait_until("its routes lead by way of the gateway", lambda: node.routes() == routes)
    wait_until("it has our block", lambda: bird.routes("p0") == {BLOCK})
    bird.reconfigure(bird_configuration("10.2.0.2", [body], ["203.0.113.0/24"]))
    told = lambda: weftctl(node.run_dir, None, "trace", "10.2.0.2")[1]  # noqa: E731
    wait_until("the way there is told, though nobody announces it", lambda: "Paths\nNo paths.\n" in told())
    assert told().startswith("10.2.0.2 lies in 10.2.0.2/32\n")
    assert "In the kernel\nvia 10.1.0.254 dev up0\n" in told()
    store.remove_peer("far")
    wait_until("the host route goes with the peer", lambda: node.routes() == {})


def metric_of(node: AgentNode, destination: str) -> list[int]:
    return [one["metric"] for one in node.netns.ip_json("route", "show", destination, "proto", "186")]


def test_a_priority_that_an_import_filter_sets_is_the_metric_in_the_kernel(pair: Pair) -> None:
    node, store = pair.node, pair.store
    assert metric_of(node, MARKED) == [1024]

    def prefer(priority: int) -> None:
        operations = (FilterOperation(set_priority=SetPriority(value=priority)),)
        rule = BGPFilterRuleV4(action="Accept", cidr=ip_network(MARKED), match_operator="Equal", operations=operations)
        store.filter("urgent", import_v4=[rule])

    prefer(512)
    store.peer("tor", peer_ip="10.1.0.254", as_number=AsNumber(65001), filters=("urgent",))
    wait_until("the filter's metric", lambda: metric_of(node, MARKED) == [512])
    prefer(700)
    wait_until("another one", lambda: metric_of(node, MARKED) == [700])
    # The next agent knows it as its own, and takes it back.
    node.kill()
    node.start()
    wait_until("the next agent has learnt all", lambda: "everything has been learnt" in node.log())
    assert metric_of(node, MARKED) == [700]
    store.peer("tor", peer_ip="10.1.0.254", as_number=AsNumber(65001))
    wait_until("the usual metric again", lambda: metric_of(node, MARKED) == [1024])
    assert pair.routes() == FIRST
