"""The real agent, etcd, kernel and weftctl: what rules count survives what is done to them, and denied packets are
told with the names of all concerned."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from ipaddress import ip_address
from typing import Any

import pytest

from lab import process
from lab.netns import NetNs
from tests.functional.cni.live import LiveNode, live_node
from weft.admin.client import AdminClient
from weft.admin.policy import Counters, Flow, PolicyCount
from weft.admin.status import Severity
from weft.model.base import Metadata
from weft.model.keys import ResourceKey
from weft.model.policy import EntityRule, GlobalNetworkPolicy, GlobalNetworkPolicySpec, Rule
from weft.model.values import Port, Protocol
from weft.policy.values import Action, Direction

pytestmark = pytest.mark.root
GUARD = ResourceKey("GlobalNetworkPolicy", "guard")
METRICS_PORT = 19091
WITHIN_S = 8


@pytest.fixture(scope="module")
def machine() -> Iterator[LiveNode]:
    netns = NetNs(f"weft-{os.getpid()}-work").create()
    settings = {"FELIX_PROMETHEUSMETRICSENABLED": "true", "FELIX_PROMETHEUSMETRICSPORT": str(METRICS_PORT)}
    try:
        with live_node(netns, settings) as node:
            node.settings = {**settings, "WEFT_FLOW_LOG_FILE": str(node.directory / "flows.jsonl")}
            node.kill_agent()
            node.start_agent()
            yield node
    finally:
        process.stop(process.in_netns(netns), grace_s=1)
        netns.delete()


class Pair:
    """Two workloads; the first sends, the second has the policy `guard`."""

    def __init__(self, node: LiveNode, netns: Callable[[str], NetNs], stack: ExitStack) -> None:
        self.node = node
        self.places = {name: netns(name) for name in ("client", "server")}
        self.addresses: dict[str, str] = {}
        for name, where in self.places.items():
            answer = node.plugin("ADD", f"{name}-0123456789", where)
            stack.callback(node.plugin, "DEL", f"{name}-0123456789", where)
            self.addresses[name] = answer["ips"][0]["address"].partition("/")[0]

    def guard(self, *rules: Rule) -> None:
        selector = "projectcalico.org/namespace == 'default'"
        spec = GlobalNetworkPolicySpec(selector=selector, order=1, ingress=rules, types=("Ingress",))
        self.node.put(GlobalNetworkPolicy(metadata=Metadata(name="guard"), spec=spec))

    def send(self, kind: socket.SocketKind, port: int, packets: int = 1) -> None:
        with self.places["client"].enter():
            for _ in range(packets):
                with socket.socket(socket.AF_INET, kind) as made:
                    made.setblocking(False)
                    made.connect_ex((self.addresses["server"], port))
                    if kind is socket.SOCK_DGRAM:
                        made.send(b"hello")

    async def counters(self, key: ResourceKey | None = None) -> Counters:
        async with AdminClient(self.node.directory / "felix.sock") as client:
            return await client.counters(key)

    async def guarded(self) -> PolicyCount:
        return (await self.counters(GUARD)).policies[0]

    async def flows(self, wanted: Callable[[list[Flow]], bool]) -> list[Flow]:
        deadline = time.monotonic() + WITHIN_S
        while True:
            async with AdminClient(self.node.directory / "felix.sock") as client:
                found = list((await client.flows()).flows)
            if wanted(found):
                return found
            assert time.monotonic() < deadline, (found, self.node.log())
            time.sleep(0.1)

    def lines(self, count: int) -> list[dict[str, Any]]:
        """The file with what was denied, which a thread writes: when it has so many lines."""
        file = self.node.directory / "flows.jsonl"
        deadline = time.monotonic() + WITHIN_S
        while True:
            found = file.read_text().splitlines(keepends=True) if file.exists() else []
            if len(found) >= count and found[-1].endswith("\n"):
                return [json.loads(line) for line in found]
            assert time.monotonic() < deadline, (found, self.node.log())
            time.sleep(0.05)

    def weftctl(self, *arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "weft.ctl.main", *arguments],
            env={**os.environ, "WEFT_RUN_DIR": str(self.node.directory)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    async def until(self, true: Callable[[PolicyCount], bool]) -> PolicyCount:
        deadline = time.monotonic() + WITHIN_S
        while True:
            found = await self.counters(GUARD)
            if found.policies and true(found.policies[0]):
                return found.policies[0]
            assert time.monotonic() < deadline, (found, self.node.log())
            time.sleep(0.05)


@pytest.fixture
def pair(machine: LiveNode, netns: Callable[[str], NetNs]) -> Iterator[Pair]:
    with ExitStack() as stack:
        yield Pair(machine, netns, stack)
        machine.etcdctl("del", "/calico/resources/v3/projectcalico.org/globalnetworkpolicies/guard")


def rule(action: str, protocol: str, port: int) -> Rule:
    return Rule(action=action, protocol=Protocol.parse(protocol), destination=EntityRule(ports=(Port(port, port),)))


ALLOW_80, DENY_53, DENY_99 = rule("Allow", "UDP", 80), rule("Deny", "UDP", 53), rule("Deny", "TCP", 99)


def packets(found: PolicyCount) -> list[int]:
    return [one.count.packets for one in found.rules]


async def test_counters_survive_another_rule_s_change_and_the_agent_s_death(pair: Pair) -> None:
    pair.guard(ALLOW_80, DENY_53, DENY_99)
    await pair.until(lambda found: len(found.rules) == 3)
    pair.send(socket.SOCK_DGRAM, 80, 3)
    pair.send(socket.SOCK_DGRAM, 53, 5)
    pair.send(socket.SOCK_STREAM, 99, 2)
    counted = await pair.guarded()
    assert packets(counted) == [3, 5, 2]
    assert [one.action for one in counted.rules] == [Action.ALLOW, Action.DENY, Action.DENY]
    assert counted.rules[1].count.bytes == 5 * (20 + 8 + 5)

    pair.guard(ALLOW_80, rule("Deny", "UDP", 54), DENY_99)
    changed = await pair.until(lambda found: found.rules[1].count.packets == 0)
    assert packets(changed) == [3, 0, 2]
    assert changed.total(Direction.INGRESS).packets == 10

    pair.node.kill_agent()
    pair.send(socket.SOCK_DGRAM, 54, 4)
    pair.node.start_agent()
    after = await pair.guarded()
    assert packets(after) == [3, 4, 2]
    assert after.total(Direction.INGRESS).packets == 14
    table = pair.weftctl("policy", "counters", "guard").splitlines()
    assert [line.split()[2:5] for line in table[1:]] == [
        ["ingress", "all", "14"],
        ["ingress", "0", "Allow"],
        ["ingress", "1", "Deny"],
        ["ingress", "2", "Deny"],
        ["ingress", "(former)", "5"],
    ]
    shown = json.loads(pair.weftctl("policy", "counters", "-o", "json"))
    guard = next(one for one in shown["policies"] if one["name"] == "guard")
    assert [one["packets"] for one in guard["rules"]] == [3, 4, 2]


async def test_what_is_denied_is_told_with_the_names_of_all_concerned(pair: Pair) -> None:
    pair.guard(ALLOW_80, DENY_53, DENY_99)
    await pair.until(lambda found: len(found.rules) == 3)
    before = len(await pair.flows(lambda _: True))
    pair.send(socket.SOCK_DGRAM, 80)
    pair.send(socket.SOCK_DGRAM, 53, 3)
    pair.send(socket.SOCK_STREAM, 99)
    pair.send(socket.SOCK_DGRAM, 7)
    told = (await pair.flows(lambda found: len(found) >= before + 3))[before:]
    by_port = {one.destination.port: one for one in told}
    assert by_port.keys() == {53, 99, 7}
    for one in told:
        assert (one.action, one.direction, one.tier) == (Action.DENY, Direction.INGRESS, "default")
        assert str(one.source.address) == pair.addresses["client"]
        assert (one.source.namespace, one.source.name) == ("default", "client-0123456789")
        assert (one.destination.namespace, one.destination.name) == ("default", "server-0123456789")
        assert one.destination.address == ip_address(pair.addresses["server"])
        assert one.interface == "caliserver-0123"
        assert abs(time.time() - one.last_s) < 60
    assert [(by_port[port].policy, by_port[port].rule) for port in (53, 99, 7)] == [
        (GUARD, 1),
        (GUARD, 2),
        (None, None),
    ]
    assert [by_port[port].protocol for port in (53, 99, 7)] == [17, 6, 17]
    assert by_port[53].packets == 3

    lines = pair.lines(before + len(told))
    assert lines[-1]["node"] == "n1"
    assert {one["destination"]["endpoint"] for one in lines[-3:]} == {"default/server-0123456789"}
    shown = pair.weftctl("policy", "flows")
    assert "default/client-0123456789" in shown
    assert "guard" in shown


async def test_flows_are_followed_as_they_come(pair: Pair) -> None:
    pair.guard(DENY_53)
    await pair.until(lambda found: len(found.rules) == 1)
    following = subprocess.Popen(
        [sys.executable, "-m", "weft.ctl.main", "policy", "flows", "--follow", "-o", "json"],
        env={**os.environ, "WEFT_RUN_DIR": str(pair.node.directory)},
        stdout=subprocess.PIPE,
    )
    try:
        assert following.stdout is not None
        pair.send(socket.SOCK_DGRAM, 53)
        while True:
            one = json.loads(following.stdout.readline())
            if one["destination"]["address"] == pair.addresses["server"] and one["rule"] == 0:
                break
        assert one["policy"] == {"kind": "GlobalNetworkPolicy", "namespace": "", "name": "guard"}
    finally:
        following.kill()
        following.wait()
        if following.stdout is not None:
            following.stdout.close()


def scraped(node: LiveNode) -> dict[str, float]:
    with node.netns.enter():
        body = urllib.request.urlopen(f"http://127.0.0.1:{METRICS_PORT}/metrics", timeout=5).read().decode()
    lines = (line.rpartition(" ") for line in body.splitlines() if line and not line.startswith("#"))
    return {name: float(value) for name, _, value in lines}


async def test_metrics_tell_of_policies_and_of_the_kernel(pair: Pair) -> None:
    pair.guard(ALLOW_80, DENY_53)
    await pair.until(lambda found: len(found.rules) == 2)
    denied = scraped(pair.node)["weft_felix_denied_packets_total"]
    pair.send(socket.SOCK_DGRAM, 53, 4)
    found = scraped(pair.node)
    assert found["felix_active_local_endpoints"] == 2
    assert found["felix_active_local_policies"] == 2
    assert found["weft_felix_in_kernel"] == 1
    assert found["weft_felix_denied_packets_total"] == denied + 4
    labels = 'action="deny",direction="ingress",kind="GlobalNetworkPolicy",namespace="",policy="guard"'
    assert found[f"weft_felix_policy_packets_total{{{labels}}}"] == 4
    assert found["weft_felix_nft_commit_seconds_count"] > 0


BROKEN = "/calico/resources/v3/projectcalico.org/globalnetworkpolicies/broken"


async def test_a_malformed_policy_is_told_by_status_and_metric_and_denies_in_its_place(pair: Pair) -> None:
    def notices() -> list[dict[str, Any]]:
        answer = json.loads(
            pair.weftctl("node", "status", "-o", "json", "--socket", str(pair.node.directory / "felix.sock"))
        )
        return [one for one in answer["notices"] if one["subject"] == "GlobalNetworkPolicy/broken"]

    pair.guard(ALLOW_80)
    await pair.until(lambda found: len(found.rules) == 1)
    assert notices() == []
    spec = {"selector": "all()", "order": 0, "types": ["Ingress"], "ingress": [{"action": 7, "protocol": {"x": 1}}]}
    document = {
        "kind": "GlobalNetworkPolicy",
        "apiVersion": "projectcalico.org/v3",
        "metadata": {"name": "broken"},
        "spec": spec,
    }
    pair.node.etcdctl("put", BROKEN, json.dumps(document))
    try:
        deadline = time.monotonic() + WITHIN_S
        while not notices():
            assert time.monotonic() < deadline, pair.node.log()
        assert notices()[0]["severity"] == Severity.NOT_ENFORCED.value
        found = scraped(pair.node)
        assert found['weft_felix_malformed{kind="GlobalNetworkPolicy"}'] == 1
        assert found['weft_felix_not_enforced{kind="GlobalNetworkPolicy"}'] == 1
        assert found["weft_felix_in_kernel"] == 1
        before = packets(await pair.guarded())
        pair.send(socket.SOCK_DGRAM, 80)
        assert packets(await pair.guarded()) == before
        assert pair.node.agent is not None
        assert pair.node.agent.poll() is None
    finally:
        pair.node.etcdctl("del", BROKEN)
    deadline = time.monotonic() + WITHIN_S
    while notices():
        assert time.monotonic() < deadline
    assert 'weft_felix_malformed{kind="GlobalNetworkPolicy"}' not in scraped(pair.node)
