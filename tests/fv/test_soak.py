"""Minutes of churn and faults, and then the question whether anything leaked."""

from __future__ import annotations

import json
import random
import signal

import pytest

from lab import ctl, processes, status, workloads
from lab.state import Lab, LabError
from tests.fv.conftest import answers, eventually

pytestmark = [pytest.mark.root, pytest.mark.soak, pytest.mark.xdist_group("flat")]

ROUNDS = 40
SEED = 20261123


def add_sooner_or_later(lab: Lab, node: str, name: str) -> None:
    """As a runtime does: an ADD that is told to try again is tried again, after the DEL that it owes."""

    def added() -> bool:
        try:
            workloads.add(lab, node, name)
        except LabError:
            return False
        return True

    eventually(added, timeout_s=60, what=f"ADD of {node}/{name}")


def delete_sooner_or_later(lab: Lab, node: str, name: str) -> None:
    def deleted() -> bool:
        try:
            workloads.delete(lab, lab.find_workload(name, node))
        except LabError:
            return False
        return True

    eventually(deleted, timeout_s=60, what=f"DEL of {node}/{name}")


def test_forty_rounds_of_churn_and_kills_leak_nothing(flat: Lab) -> None:
    chance = random.Random(SEED)
    nodes = [node.name for node in flat.topology.nodes]
    for number in range(ROUNDS):
        node = chance.choice(nodes)
        victim = chance.choice([name for name in processes.ON_EVERY_NODE if name != "weft-node"])
        running = processes.of_node(flat, node)
        if victim in running:
            running[victim].signal(signal.SIGKILL)
        add_sooner_or_later(flat, node, f"soak{number}")
        if number >= 10:
            old = flat.find_workload(f"soak{number - 10}")
            delete_sooner_or_later(flat, old.node, old.name)

    eventually(lambda: not status.pending_sessions(flat), timeout_s=60, what="every session")
    client = flat.netns("client")
    for one in flat.state.workloads:
        for address in one.addresses:
            eventually(lambda address=address: answers(client, address), timeout_s=30, what=f"client -> {address}")
    for one in list(flat.state.workloads):
        delete_sooner_or_later(flat, one.node, one.name)
    eventually(lambda: leftovers(flat) == [], what="nothing is left")


def leftovers(lab: Lab) -> list[str]:
    """What should have gone with the last workload."""
    left = []
    for node in lab.topology.nodes:
        netns = lab.netns(node.name)
        left += [link["ifname"] for link in netns.ip_json("link", "show", "type", "veth") if is_ours(link["ifname"])]
        routes = netns.ip_json("route", "show", "proto", "80") + netns.ip_json("-6", "route", "show", "proto", "80")
        left += [f"{node.name}: {route['dst']}" for route in routes if route.get("type") != "blackhole"]
        table = json.loads(netns.run(["nft", "-j", "list", "table", "inet", "weft"]))["nftables"]
        left += [
            f"{node.name}: chain {entry['chain']['name']}"
            for entry in table
            if "chain" in entry and "/endpoint/" in entry["chain"]["name"]
        ]
    stored = ctl.weftctl(lab, "get", "workloadendpoints", "-A", "-o", "json")
    left += [item["metadata"]["name"] for item in json.loads(stored)["items"]]
    usage = ctl.weftctl(lab, "ipam", "show", "--show-blocks", "-o", "json")
    left += [f"{pool['cidr']}: {pool['inUse']} in use" for pool in json.loads(usage)["pools"] if pool["inUse"]]
    return left


def is_ours(name: str) -> bool:
    return name.startswith(("cali", "weftdel"))


def test_five_hundred_workloads_come_and_go_on_one_node(flat: Lab) -> None:
    for _ in range(500):
        workloads.add(flat, "node1", "churn")
        workloads.delete(flat, flat.find_workload("churn", "node1"))
    eventually(lambda: leftovers(flat) == [], what="nothing is left")
