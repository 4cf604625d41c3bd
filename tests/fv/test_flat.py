"""A flat fabric: nodes in a mesh, a BIRD ToR, an outside client."""

from __future__ import annotations

import json
import subprocess
import sys
from ipaddress import ip_interface, ip_network
from pathlib import Path

import pytest
import yaml

from lab import ctl, routers, status, workloads
from lab.netns import NetNs
from lab.state import Lab, LabError
from lab.topology import CLIENT_IPV4, CLIENT_IPV6, IPV4_POOL, IPV6_POOL
from tests.fv.conftest import WorkloadFactory, answers, eventually, tour_goes_well

pytestmark = [pytest.mark.root, pytest.mark.xdist_group("flat")]

WEFT_LAB = str(Path(sys.executable).parent / "weft-lab")


def kernel_routes(netns: NetNs, protocol: str, family: str = "-4") -> dict[str, dict[str, object]]:
    return {str(one["dst"]): one for one in netns.ip_json(family, "route", "show", "proto", protocol)}


def test_every_session_is_established_as_both_its_ends_see_it(flat: Lab) -> None:
    found = status.collect(flat)
    assert found["errors"] == []
    assert {one["state"] for one in found["sessions"]} == {"Established"}
    # Three nodes in a mesh of 3 pairs and 3 sessions to the ToR, seen from both ends, over two address families.
    assert len(found["sessions"]) == (3 + 3) * 2 * 2


def test_workloads_have_addresses_of_blocks_of_their_own_node(flat: Lab, workload: WorkloadFactory) -> None:
    one, two = workload(flat, "node1", "a"), workload(flat, "node2", "b")
    first, second = (ip_interface(one.addresses[0]), ip_interface(two.addresses[0]))
    assert first.ip in IPV4_POOL
    assert first.network.prefixlen == 32
    assert ip_interface(one.addresses[1]).ip in IPV6_POOL
    assert ip_network(f"{first.ip}/26", strict=False) != ip_network(f"{second.ip}/26", strict=False)


def test_the_tor_learns_each_nodes_blocks_and_the_nodes_learn_its_networks(
    flat: Lab, workload: WorkloadFactory
) -> None:
    one = workload(flat, "node1", "a")
    block = str(ip_network(f"{ip_interface(one.addresses[0]).ip}/26", strict=False))
    node1 = str(flat.topology.host("node1").uplink.ipv4.ip)
    tor = flat.netns("tor")
    eventually(lambda: (block, node1) in routers.routes(tor), what=f"{block} at the ToR")
    node2, node3 = flat.netns("node2"), flat.netns("node3")
    eventually(lambda: str(CLIENT_IPV4) in kernel_routes(node3, "186"), what="the client's network at node3")
    eventually(lambda: str(CLIENT_IPV6) in kernel_routes(node3, "186", "-6"), what="the same over IPv6")
    eventually(lambda: block in kernel_routes(node2, "186"), what=f"{block} at node2")
    assert kernel_routes(node2, "186")[block]["gateway"] == node1


def test_a_nodes_own_block_is_a_blackhole_under_its_workloads(flat: Lab, workload: WorkloadFactory) -> None:
    one = workload(flat, "node1", "a")
    address = ip_interface(one.addresses[0]).ip
    node1, block = flat.netns("node1"), str(ip_network(f"{address}/26", strict=False))
    assert str(kernel_routes(node1, "80")[str(address)]["dev"]).startswith("cali")
    eventually(lambda: block in kernel_routes(node1, "80"), what=f"{block} on node1")
    assert kernel_routes(node1, "80")[block]["type"] == "blackhole"


def test_workloads_reach_each_other_across_nodes_and_on_one_node(flat: Lab, workload: WorkloadFactory) -> None:
    a, b, c = workload(flat, "node1", "a"), workload(flat, "node1", "b"), workload(flat, "node3", "c")
    source = flat.workload_netns("node1", "a")
    for target in (b, c):
        for address in target.addresses:
            eventually(lambda address=address: answers(source, address), what=f"{a.name} -> {target.name} {address}")


def test_the_outside_client_and_a_workload_reach_each_other(flat: Lab, workload: WorkloadFactory) -> None:
    one = workload(flat, "node2", "a")
    client = flat.netns("client")
    for address in one.addresses:
        eventually(lambda address=address: answers(client, address), what=f"client -> {address}")
    for address in (flat.topology.host("client").uplink.ipv4, flat.topology.host("client").uplink.ipv6):
        assert answers(flat.workload_netns("node2", "a"), str(address))


def test_a_policy_in_calicos_yaml_decides_what_passes(flat: Lab, workload: WorkloadFactory) -> None:
    web = workload(flat, "node1", "web", labels={"app": "web"})
    workload(flat, "node2", "friend", labels={"app": "friend"})
    workload(flat, "node3", "stranger", labels={"app": "stranger"})
    friend, stranger = flat.workload_netns("node2", "friend"), flat.workload_netns("node3", "stranger")
    eventually(lambda: all(answers(one, a) for one in (friend, stranger) for a in web.addresses), what="before")
    policy = """
apiVersion: projectcalico.org/v3
kind: NetworkPolicy
metadata:
  name: web-takes-friends
  namespace: default
spec:
  selector: app == 'web'
  types: [Ingress]
  ingress:
    - action: Allow
      source:
        selector: app in {'friend'}
"""
    ctl.weftctl(flat, "apply", "-f", "-", stdin=policy)
    try:
        for address in web.addresses:
            eventually(lambda address=address: not answers(stranger, address), what=f"stranger refused at {address}")
            assert answers(friend, address)
    finally:
        ctl.weftctl(flat, "delete", "networkpolicy", "web-takes-friends")
    eventually(lambda: all(answers(stranger, a) for a in web.addresses), what="after")


def test_an_address_is_free_again_after_its_workload_is_gone(flat: Lab, workload: WorkloadFactory) -> None:
    one = workload(flat, "node2", "a")
    workloads.delete(flat, one)
    assert one.addresses[0].removesuffix("/32") not in kernel_routes(flat.netns("node2"), "80")
    shown = ctl.weftctl(flat, "ipam", "show", f"--ip={ip_interface(one.addresses[0]).ip}")
    assert "not" in shown.lower()
    again = workload(flat, "node2", "a")
    assert again.container_id == one.container_id


def test_the_datastore_away_stops_no_traffic(flat: Lab, workload: WorkloadFactory) -> None:
    one = workload(flat, "node1", "a")
    client, etcd = flat.netns("client"), flat.state.processes["etcd"][0]
    eventually(lambda: all(answers(client, address) for address in one.addresses), what="before")
    etcd.signal(19)  # SIGSTOP
    try:
        assert all(answers(client, address) for address in one.addresses)
        with pytest.raises(LabError, match="code 11"):
            workloads.add(flat, "node1", "late")
    finally:
        etcd.signal(18)  # SIGCONT
    eventually(lambda: workload(flat, "node1", "late"), what="the CNI plugin serves again")


def test_the_lab_command_shows_runs_and_points_weftctl(flat: Lab, workload: WorkloadFactory) -> None:
    workload(flat, "node1", "a")

    def lab(*arguments: str) -> str:
        return subprocess.run(arguments, check=True, capture_output=True, text=True, timeout=60).stdout

    shown = json.loads(lab(WEFT_LAB, "status", "--name", flat.name, "-o", "json"))
    assert {"sessions", "routes", "workloads"} <= set(shown)
    assert {"HOST", "DESTINATION", "NAMESPACE"} <= set(lab(WEFT_LAB, "status", "--name", flat.name).split())
    assert "eth0" in lab(WEFT_LAB, "exec", "--name", flat.name, "a", "--", "ip", "-br", "link")
    environ = lab(WEFT_LAB, "env", "--name", flat.name, "node1")
    nodes = yaml.safe_load(lab("sh", "-c", f"{environ}\nweftctl get nodes -o yaml"))
    assert [one["metadata"]["name"] for one in nodes["items"]] == ["node1", "node2", "node3"]
    node_status = lab("sh", "-c", f"{environ}\nweftctl node status")
    assert node_status.count("Established") == 6


def test_the_tour_goes_as_it_says(flat: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    tour_goes_well(flat, 5, capsys)
