"""Two failure domains with automatic reflectors behind an FRR spine."""

from __future__ import annotations

import pytest

from lab import reflectors, status
from lab.state import Lab
from tests.fv.conftest import WorkloadFactory, answers, eventually, tour_goes_well

pytestmark = [pytest.mark.root, pytest.mark.xdist_group("domains")]


def test_a_node_peers_with_the_spine_and_two_reflectors_of_its_domain_and_with_nobody_else(domains: Lab) -> None:
    found = status.collect(domains)
    assert found["errors"] == []
    peers: dict[str, set[str]] = {node.name: set() for node in domains.topology.nodes}
    for one in found["sessions"]:
        if one["host"] in peers and one["state"] == status.ESTABLISHED:
            peers[one["host"]].add(one["peer"])
    near, far = ({frozenset(peers[f"node{number}"]) for number in numbers} for numbers in ((1, 2, 3), (4, 5, 6)))
    assert len(near) == len(far) == 1
    # The spine, and two reflectors by an IPv4 and an IPv6 address each.
    assert len(*near) == len(*far) == 5
    assert frozenset.intersection(*near, *far) == {"spine"}
    chosen = reflectors.chosen(domains)
    assert set(chosen["zone1"]) < {"node1", "node2", "node3"}
    assert set(chosen["zone2"]) < {"node4", "node5", "node6"}


def test_workloads_reach_each_other_within_a_domain_and_across_and_the_client_reaches_them(
    domains: Lab, workload: WorkloadFactory
) -> None:
    targets = [workload(domains, f"node{number}", f"w{number}") for number in (1, 3, 5)]
    sources = [domains.workload_netns(one.node, one.name) for one in targets] + [domains.netns("client")]
    for source in sources:
        for target in targets:
            for address in target.addresses:
                eventually(
                    lambda source=source, address=address: answers(source, address), what=f"{source.name} -> {address}"
                )


@pytest.mark.soak
def test_the_tour_goes_as_it_says(domains: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    tour_goes_well(domains, 10, capsys)
