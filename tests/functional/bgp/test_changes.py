"""What an administrator changes while everything runs, and what stands in the way of a start."""

from __future__ import annotations

import errno
import os
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from lab.netns import NetNs
from lab.process import start
from tests.functional.bgp.fabric import AgentNode, Bird, Store, bird_configuration, segment, wait_until
from tests.functional.bgp.pair import BLOCK, BODY, FIRST, Pair, nothing_deleted
from weft.model.keys import ResourceKey
from weft.model.values import Duration

pytestmark = pytest.mark.root


def test_a_peer_that_is_replaced_at_once_is_heard_again(pair: Pair) -> None:
    pair.store.remove_peer("tor")
    pair.store.peer("tor2", peer_ip="10.1.0.254", as_number=65001)
    wait_until("the session is the new resource's", lambda: "BGPPeer/tor2) up" in pair.node.log())
    wait_until("its routes are back", lambda: pair.routes() == FIRST)
    wait_until("BIRD has our block", lambda: pair.bird.routes("p0") == {BLOCK})


def test_a_session_with_new_settings_starts_anew_and_costs_no_route(pair: Pair) -> None:
    before = pair.node.sessions_begun()
    with nothing_deleted(pair.node.netns) as deleted:
        pair.store.peer("tor", peer_ip="10.1.0.254", as_number=65001, max_restart_time=Duration.parse("60s"))
        wait_until("the new session is up", lambda: pair.node.sessions_begun() > before)
        wait_until("BIRD has our block", lambda: pair.bird.established("p0") and pair.bird.routes("p0") == {BLOCK})
    assert deleted == []
    assert pair.routes() == FIRST


def test_a_node_that_changes_its_address_peers_from_the_new_one_and_keeps_its_routes(pair: Pair) -> None:
    second = BODY.replace("neighbor 10.1.0.1 ", "neighbor 10.1.0.11 ")
    pair.bird.reconfigure(bird_configuration("10.1.0.254", [BODY, second], sorted(FIRST)))
    pair.node.netns.ip("address", "add", "10.1.0.11/24", "dev", "up0")
    before = pair.node.sessions_begun()
    with nothing_deleted(pair.node.netns) as deleted:
        pair.store.node("n1", "10.1.0.11/24")
        wait_until("BIRD hears of our block from there", lambda: pair.bird.routes("p1") == {BLOCK})
        wait_until("we hear its routes", lambda: pair.node.sessions_begun() > before)
    assert deleted == []
    assert pair.routes() == FIRST


def test_another_as_number_takes_effect(pair: Pair) -> None:
    pair.bird.reconfigure(bird_configuration("10.1.0.254", [BODY.replace("64512", "64999")], sorted(FIRST)))
    pair.store.node("n1", "10.1.0.1/24", asn=64999)
    wait_until("BIRD has our block", lambda: "64999" in pair.bird.ask("show route protocol p0 all"))
    wait_until("we have its routes", lambda: pair.routes() == FIRST)


def test_a_node_that_is_no_longer_registered_speaks_to_nobody_until_it_is_again(pair: Pair) -> None:
    pair.store.delete(ResourceKey("Node", "n1"))
    wait_until("nothing is announced or learnt", lambda: not pair.bird.routes("p0") and not pair.routes())
    pair.store.node("n1", "10.1.0.1/24")
    wait_until("everything is back", lambda: pair.bird.routes("p0") == {BLOCK} and pair.routes() == FIRST)


def bound(netns: NetNs, address: str, port: int) -> socket.socket:
    """A listening socket there, as soon as the kernel has closed that of a process that was killed."""

    def attempt() -> socket.socket | None:
        try:
            with netns.enter():
                return socket.create_server((address, port))
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            return None

    made: socket.socket = wait_until("the port is free", attempt)
    return made


def test_a_port_that_somebody_else_has_is_named_and_no_route_goes_until_it_is_free(pair: Pair) -> None:
    speaker = pair.node.speaker()
    assert speaker is not None
    with nothing_deleted(pair.node.netns) as deleted:
        pair.node.kill()
        os.kill(speaker, signal.SIGKILL)
        wait_until("the speaker is gone", lambda: pair.node.speaker() is None)
        with bound(pair.node.netns, "10.1.0.1", 179):
            pair.node.start()
            wait_until("it is tried twice", lambda: pair.node.log().count("starting it again") >= 2)
            assert "can not bind to 0.0.0.0:179" in pair.node.log()
            assert pair.routes() == FIRST
        after = "starting it again"
        wait_until("all is learnt", lambda: "has been learnt" in pair.node.log().rsplit(after, 1)[-1])
        wait_until("BIRD has our block", lambda: pair.bird.routes("p0") == {BLOCK})
    assert deleted == []
    assert pair.routes() == FIRST


def test_a_second_agent_leaves_the_work_to_the_first(pair: Pair) -> None:
    environ = {**pair.node.environ, "NODENAME": "n1", "WEFT_RUN_DIR": str(pair.node.run_dir)}
    log = pair.node.run_dir / "second.log"
    second = start(
        "second", [sys.executable, "-m", "bird_agent.daemon"], log=log, netns=pair.node.netns, environ=environ
    )
    wait_until("it gives up", lambda: not second.alive())
    assert pair.node.agent is not None
    assert f"is held by process {pair.node.agent.pid}" in log.read_text()
    assert pair.routes() == FIRST


def test_a_node_with_ipv6_alone_routes_by_way_of_the_link_local_address_that_the_peer_names(
    node: AgentNode, store: Store, netns: Callable[[str], NetNs], tmp_path: Path
) -> None:
    tor = netns("tor")
    segment(node.netns, tor, "up0", "fd01::1/64", "fd01::254/64")
    wait_until("its address may be used", lambda: "tentative" not in tor.run(["ip", "-6", "address", "show"]))
    store.node("n1", None, address6="fd01::1/64")
    store.block("n1", "fd65::/122")
    store.peer("tor", peer_ip="fd01::254", as_number=65001)
    many = {"fd99:1::/64", "fd99:2::/64"}
    (link_local,) = (
        one["local"] for one in tor.ip_json("address", "show", "dev", "up0")[0]["addr_info"] if one["scope"] == "link"
    )
    body = "local fd01::254 as 65001; neighbor fd01::1 as 64512;"
    bird = Bird(tor, tmp_path / "bird", bird_configuration("10.1.0.254", [body], sorted(many), "ipv6"))
    bird.start()
    node.start()
    wait_until("we have its routes", lambda: node.routes("-6") == {one: {link_local} for one in many})
    wait_until("BIRD has our block", lambda: bird.routes("p0") == {"fd65::/122"})
    tor.ip("link", "set", "up0", "down")
    wait_until("the routes go with the link", lambda: node.routes("-6") == {})
