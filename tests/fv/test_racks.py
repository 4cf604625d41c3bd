"""Two racks: each node speaks eBGP to its ToR alone; one ToR is BIRD, the other FRR."""

from __future__ import annotations

import pytest

from lab import routers, status
from lab.state import Lab
from tests.fv.conftest import WorkloadFactory, answers, eventually

pytestmark = [pytest.mark.root, pytest.mark.xdist_group("racks")]


def test_nodes_peer_with_the_tor_of_their_rack_and_with_nobody_else(racks: Lab) -> None:
    found = status.collect(racks)
    assert found["errors"] == []
    peers = {(one["host"], one["peer"]) for one in found["sessions"] if one["host"].startswith("node")}
    assert peers == {("node1", "tor1"), ("node2", "tor1"), ("node3", "tor2"), ("node4", "tor2")}
    assert {one["state"] for one in found["sessions"]} == {"Established"}


def test_workloads_reach_each_other_within_a_rack_and_across_bird_and_frr(
    racks: Lab, workload: WorkloadFactory
) -> None:
    targets = [workload(racks, f"node{number}", f"w{number}") for number in (1, 2, 3, 4)]
    sources = [racks.workload_netns(one.node, one.name) for one in targets] + [racks.netns("client")]
    for source in sources:
        for target in targets:
            for address in target.addresses:
                eventually(
                    lambda source=source, address=address: answers(source, address), what=f"{source.name} -> {address}"
                )


def test_frr_has_the_blocks_of_both_racks_in_its_kernel(racks: Lab, workload: WorkloadFactory) -> None:
    near, far = workload(racks, "node3", "near"), workload(racks, "node1", "far")
    eventually(
        lambda: (
            {hops for prefix, hops in routers.routes(racks.netns("tor2")) if prefix.startswith("10.65.")}
            >= {str(racks.topology.host("node3").uplink.ipv4.ip), "10.99.255.1"}
        ),
        what=f"routes to {near.addresses[0]} and {far.addresses[0]}",
    )
