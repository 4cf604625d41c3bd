"""Any process of a node may be killed at any instant: traffic goes on, no route goes, and it all comes back."""

from __future__ import annotations

import signal
import time

import pytest

from lab import fabric, processes, routers, status, workloads
from lab.state import Lab
from lab.traffic import Report, Traffic
from tests.fv.conftest import WorkloadFactory, answers, eventually

pytestmark = [pytest.mark.root, pytest.mark.xdist_group("flat")]

VICTIM = "node2"
FAULT_S = 6.0


def run_traffic(lab: Lab, target: str, fault: str | None) -> Report:
    """Six seconds of traffic from the client through the ToR to a workload of the victim, with a process of the
    victim killed after the first."""
    with Traffic(lab.netns("client"), lab.workload_netns(VICTIM, "sink"), target) as traffic:
        time.sleep(1)
        if fault is not None:
            processes.of_node(lab, VICTIM)[fault].signal(signal.SIGKILL)
        time.sleep(FAULT_S - 1)
    return traffic.report()


@pytest.mark.parametrize("victim", processes.ON_EVERY_NODE)
def test_killing_a_process_costs_no_more_than_the_control_run(
    flat: Lab, workload: WorkloadFactory, victim: str
) -> None:
    sink = workload(flat, VICTIM, "sink")
    address = sink.addresses[0].partition("/")[0]
    client, tor = flat.netns("client"), flat.netns("tor")
    eventually(lambda: answers(client, address), what="the sink answers")
    eventually(lambda: not status.pending_sessions(flat), what="every session")
    before = routers.routes(tor)
    pid = processes.of_node(flat, VICTIM)[victim].pid

    control = run_traffic(flat, address, None)
    struck = run_traffic(flat, address, victim)

    assert control.udp_received > 0.9 * control.udp_sent
    assert struck.udp_lost <= control.udp_lost
    assert struck.tcp_lost == 0
    assert set(before) <= set(routers.routes(tor)), "no route went"
    if victim == "weft-node":
        fabric.start_node(flat, flat.topology.host(VICTIM))  # its container engine's part
    eventually(
        lambda: (found := processes.of_node(flat, VICTIM).get(victim)) is not None and found.pid != pid,
        what=f"{victim} runs again",
    )
    eventually(lambda: not status.pending_sessions(flat), timeout_s=30, what="every session again")
    eventually(lambda: workloads.add(flat, VICTIM, "after"), what="the CNI plugin serves again")
    after = flat.find_workload("after", VICTIM)
    eventually(lambda: answers(client, after.addresses[0]), what="a new workload is reachable")
    workloads.delete(flat, after)
