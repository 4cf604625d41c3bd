"""Draining a node: its peers find other ways before it stops, and no packet is lost."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import ip_network
from pathlib import Path

import pytest

from lab.netns import NetNs
from lab.traffic import Report, Traffic
from tests.conftest import EtcdServer
from tests.functional.bgp.fabric import REPOSITORY, AgentNode, Bird, Store, segment, wait_until
from weft.ctl.main import main
from weft.model.bgp import ServiceBlock

pytestmark = pytest.mark.root

SERVICES = "10.96.0.0/24"
SERVICE = "10.96.0.10"
TOR = """router id 10.1.0.254;
log stderr all;
protocol device {}
protocol kernel { merge paths on; ipv4 { import none; export filter { krt_prefsrc = 10.9.0.1; accept; }; }; }
template bgp node {
  local as 65001; hold time 9; graceful restart on; connect retry time 1; connect delay time 1; error wait time 1, 2;
  ipv4 { import filter { if (65535, 0) ~ bgp_community then bgp_local_pref = 0; accept; }; export none; };
}
protocol bgp n1 from node { local 10.1.0.254; neighbor 10.1.0.1 as 64512; }
protocol bgp n2 from node { local 10.2.0.254; neighbor 10.2.0.1 as 64512; }
"""


@dataclass
class Anycast:
    """Two nodes announce one service range to a ToR, and both lead to the same sink."""

    nodes: dict[str, AgentNode]
    tor: Bird
    sink: NetNs
    endpoint: str

    def next_hops(self) -> set[str]:
        """The ToR's, in its kernel."""
        routes = self.tor.netns.ip_json("route", "show", SERVICES)
        return {hop["gateway"] for route in routes for hop in route.get("nexthops", [route])}

    def on_the_way(self) -> str:
        """The node that the ToR's packets to the service pass."""
        (route,) = self.tor.netns.ip_json("route", "get", SERVICE, "from", "10.9.0.1")
        return {"10.1.0.1": "n1", "10.2.0.1": "n2"}[route["gateway"]]

    def ctl(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "weft.ctl.main", *arguments],
            env={**os.environ, "ETCD_ENDPOINTS": self.endpoint, "PYTHONPATH": str(REPOSITORY)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )


@pytest.fixture
def anycast(
    make_node: Callable[[str], AgentNode],
    store: Store,
    netns: Callable[[str], NetNs],
    tmp_path: Path,
    etcd: EtcdServer,
) -> Anycast:
    tor, sink = netns("tor"), netns("sink")
    tor.ip("address", "add", "10.9.0.1/32", "dev", "lo")
    tor.run(["sysctl", "-qw", "net.ipv4.ip_forward=1"])
    sink.ip("address", "add", f"{SERVICE}/32", "dev", "lo")
    store.configuration(service_cluster_ips=(ServiceBlock(cidr=ip_network(SERVICES)),))
    store.peer("tor1", node="n1", peer_ip="10.1.0.254", as_number=65001)
    store.peer("tor2", node="n2", peer_ip="10.2.0.254", as_number=65001)
    nodes = {}
    for number in (1, 2):
        name = f"n{number}"
        node = nodes[name] = make_node(name)
        segment(node.netns, tor, f"tor{number}", f"10.{number}.0.1/24", f"10.{number}.0.254/24")
        segment(node.netns, sink, f"sink{number}", f"10.{number}0.0.1/24", f"10.{number}0.0.2/24")
        node.netns.ip("route", "add", f"{SERVICE}/32", "via", f"10.{number}0.0.2")
        for beyond in ("10.9.0.1/32", f"10.{3 - number}.0.0/24"):
            node.netns.ip("route", "add", beyond, "via", f"10.{number}.0.254")
        node.netns.run(["sysctl", "-qw", "net.ipv4.ip_forward=1"])
        store.node(name, f"10.{number}.0.1/24")
    bird = Bird(tor, tmp_path / "bird", TOR)
    bird.start()
    for node in nodes.values():
        node.start()
    made = Anycast(nodes, bird, sink, etcd.endpoint)
    wait_until("the nodes are peers", lambda: nodes["n1"].sessions_begun() == 2)
    wait_until("the ToR uses both nodes", lambda: made.next_hops() == {"10.1.0.1", "10.2.0.1"})
    return made


def flows(anycast: Anycast, meanwhile: Callable[[], None]) -> Report:
    with Traffic(anycast.tor.netns, anycast.sink, SERVICE) as traffic:
        time.sleep(0.5)
        meanwhile()
        time.sleep(0.5)
    return traffic.report()


def test_a_node_that_is_drained_and_then_stopped_costs_no_packet(anycast: Anycast) -> None:
    leaving = anycast.on_the_way()
    (staying,) = anycast.nodes.keys() - {leaving}
    number = int(staying[1])
    anycast.sink.ip("route", "add", "10.9.0.1/32", "via", f"10.{number}0.0.1")
    said: list[str] = []
    before: list[str] = []

    def drain_and_stop() -> None:
        ctl = anycast.ctl("node", "drain", leaving, "--wait", "1s")
        last_choice = (
            r"BGP\.community: \(65535,0\)\s+BGP\.local_pref: 0|BGP\.local_pref: 0\s+BGP\.community: \(65535,0\)"
        )
        wait_until(
            "the ToR hears that it is the last choice",
            lambda: re.search(last_choice, anycast.tor.ask(f"show route {SERVICES} protocol {leaving} all")),
        )
        wait_until("the ToR goes the other way", lambda: anycast.on_the_way() == staying)
        before.append(anycast.tor.ask(f"show route protocol {leaving}"))
        out, _ = ctl.communicate(timeout=60)
        said.append(out)
        assert ctl.returncode == 0, out
        # What would cost packets now, if anything still came this way.
        anycast.nodes[leaving].netns.run(["sysctl", "-qw", "net.ipv4.ip_forward=0"])

    control = flows(anycast, lambda: time.sleep(2))
    drained = flows(anycast, drain_and_stop)
    assert drained.udp_lost <= control.udp_lost
    assert drained.tcp_lost == 0
    assert SERVICES in before[0]  # it was still announced when the ToR had another way already
    assert f"{leaving}: draining: GRACEFUL_SHUTDOWN sent to 2 of 2 peers" in said[0]
    assert said[0].splitlines()[-1] == f"{leaving}: drained: nothing is announced"
    assert SERVICES not in anycast.tor.ask(f"show route protocol {leaving}")
    assert anycast.tor.established(leaving)


def test_a_drained_node_stays_so_over_every_restart_until_it_is_undrained(
    anycast: Anycast, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ETCD_ENDPOINTS", anycast.endpoint)
    node = anycast.nodes["n1"]
    assert main(["node", "drain", "n1", "--wait", "0"]) == 0
    assert anycast.next_hops() == {"10.2.0.1"}
    assert main(["node", "drain", "n1"]) == 0  # nothing new
    speaker = node.speaker()
    assert speaker is not None
    node.kill()
    os.kill(speaker, signal.SIGKILL)
    wait_until("the ToR has lost it", lambda: not anycast.tor.established("n1"))
    node.start()
    wait_until("the ToR has it again", lambda: anycast.tor.established("n1"))
    time.sleep(1)
    assert anycast.next_hops() == {"10.2.0.1"}
    capsys.readouterr()
    monkeypatch.setenv("WEFT_RUN_DIR", str(node.run_dir))
    main(["node", "status"])
    assert "Warning: Node/n1: drained: nothing is announced" in capsys.readouterr().out
    assert main(["node", "undrain", "n1"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "n1: announces again"
    wait_until("the ToR uses both nodes", lambda: anycast.next_hops() == {"10.1.0.1", "10.2.0.1"})


def test_a_node_whose_agent_does_not_run_is_waited_for_until_the_time_is_over(
    anycast: Anycast, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ETCD_ENDPOINTS", anycast.endpoint)
    anycast.nodes["n1"].kill()
    assert main(["node", "drain", "n1", "--timeout", "1s"]) == 1
    assert "n1: not done after 1s: its BGP agent has not taken it up" in capsys.readouterr().err
    assert main(["node", "drain", "n9"]) == 1
    assert main(["node", "undrain", "n2"]) == 0
    assert capsys.readouterr().out == "n2: not asked to drain\nn2: announces again\n"
    anycast.nodes["n1"].start()
    wait_until("the wish is found", lambda: anycast.next_hops() == {"10.2.0.1"})
