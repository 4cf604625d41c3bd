"""100,000 flows over 50 policies through `weftctl explain --offline --flows`, as a user runs it.

The whole process is timed: Python's start, reading the manifests, the flows in, the verdicts out. The cluster has 1,000
endpoints in ten namespaces; of the 50 policies a fifth are global and concern everybody, the others belong to
namespaces; their rules ask for selectors, prefixes, ports, ranges and named ports. Every flow has ends and a port of
its own, drawn at random, so that hardly any two are alike. There is no rival that does this. Beside it stands a naive
evaluation in process, `weft.policy.verdict` for each flow and end with nothing remembered, without start and files: of
a sample, scaled up to the same number of flows. Both must come to the same verdicts."""

import json
import os
import random
import subprocess
import sys
import tempfile
import time
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

from tests.bench.result import Result, pairs
from weft.model.codec import decode_manifests
from weft.policy.cluster import Cluster
from weft.policy.ends import Parties
from weft.policy.explainer import common_addresses
from weft.policy.matching import Flow
from weft.policy.values import Direction
from weft.policy.verdict import verdict

FLOWS, POLICIES, ENDPOINTS, NAMESPACES = 100_000, 50, 1_000, 10
SAMPLE = 2_000
PAIRS = 3
GOAL_S = 10.0
APPS = 20


def endpoint(number: int) -> dict[str, Any]:
    namespace = f"ns{number % NAMESPACES}"
    return {
        "apiVersion": "projectcalico.org/v3",
        "kind": "WorkloadEndpoint",
        "metadata": {
            "name": f"node1-k8s-pod--{number}-eth0",
            "namespace": namespace,
            "labels": {"app": f"a{number % APPS}", "version": f"v{number % 3}"},
        },
        "spec": {
            "node": "node1",
            "orchestrator": "k8s",
            "pod": f"pod-{number}",
            "endpoint": "eth0",
            "interfaceName": f"cali{number}",
            "ipNetworks": [f"{IPv4Address(0x0A000001 + number)}/32"],
            "profiles": [f"kns.{namespace}"],
            "ports": [{"name": "http", "port": 8000 + number % 4, "protocol": "TCP"}],
        },
    }


def profile(number: int) -> dict[str, Any]:
    return {
        "apiVersion": "projectcalico.org/v3",
        "kind": "Profile",
        "metadata": {"name": f"kns.ns{number}"},
        "spec": {
            "ingress": [{"action": "Allow"}],
            "egress": [{"action": "Allow"}],
            "labelsToApply": {"pcns.name": f"ns{number}", "pcns.team": f"t{number % 3}"},
        },
    }


def policy(number: int, chance: random.Random) -> dict[str, Any]:
    everybody = number % 5 == 0
    kind, metadata = "NetworkPolicy", {"name": f"p{number}", "namespace": f"ns{number % NAMESPACES}"}
    if everybody:
        kind, metadata = "GlobalNetworkPolicy", {"name": f"p{number}"}
    return {
        "apiVersion": "projectcalico.org/v3",
        "kind": kind,
        "metadata": metadata,
        "spec": {
            "order": number,
            "selector": "all()" if everybody else f"app in {{'a{number % APPS}', 'a{(number + 5) % APPS}'}}",
            "types": ["Ingress", "Egress"],
            "ingress": [rule("source", chance) for _ in range(4)],
            "egress": [rule("destination", chance) for _ in range(4)],
        },
    }


def rule(peer: str, chance: random.Random) -> dict[str, Any]:
    ends: dict[str, dict[str, Any]] = {"source": {}, "destination": {}}
    ends[peer] = chance.choice(
        [
            {"selector": f"app == 'a{chance.randrange(APPS)}'"},
            {
                "selector": f"version != 'v{chance.randrange(3)}'",
                "namespaceSelector": f"team == 't{chance.randrange(3)}'",
            },
            {"nets": [f"10.0.{chance.randrange(4)}.0/24"], "notNets": ["10.0.1.128/25"]},
            {"notSelector": f"app == 'a{chance.randrange(APPS)}'"},
        ]
    )
    first = chance.randrange(1, 9000)
    ends["destination"]["ports"] = chance.choice([[first], [f"{first}:{first + 500}"], ["http"], [first, "http", 443]])
    return {"action": chance.choice(["Allow", "Allow", "Deny"]), "protocol": chance.choice(["TCP", "UDP"]), **ends}


def flows(chance: random.Random) -> list[dict[str, Any]]:
    found = []
    for _ in range(FLOWS):
        source, destination = (chance.randrange(ENDPOINTS) for _ in range(2))
        found.append(
            {
                "from": f"ns{source % NAMESPACES}/pod-{source}",
                "to": f"ns{destination % NAMESPACES}/pod-{destination}",
                "protocol": chance.choice(["tcp", "udp"]),
                "port": chance.randrange(1, 10_000),
            }
        )
    return found


class Load:
    def __init__(self, directory: Path) -> None:
        chance = random.Random(3)
        documents = [
            *map(endpoint, range(ENDPOINTS)),
            *map(profile, range(NAMESPACES)),
            *(policy(number, chance) for number in range(POLICIES)),
        ]
        self.flows = flows(chance)
        self.manifests, self.lines = directory / "cluster.json", directory / "flows.jsonl"
        self.manifests.write_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": documents}))
        self.lines.write_text("".join(json.dumps(one) + "\n" for one in self.flows))
        self.cluster = Cluster(decode_manifests(self.manifests.read_text(), str(self.manifests)))
        self.parties = Parties(self.cluster)
        self.verdicts: list[str] = []

    def explain(self) -> float:
        command = [sys.executable, "-m", "weft.ctl.main", "explain", "--offline"]
        started = time.perf_counter()
        done = subprocess.run(
            [*command, "-f", str(self.manifests), "--flows", str(self.lines)],
            capture_output=True,
            check=True,
            env={**os.environ, "PYTHONPATH": os.getcwd()},
        )
        took = time.perf_counter() - started
        self.verdicts = [json.loads(line)["verdict"] for line in done.stdout.splitlines()]
        assert len(self.verdicts) == FLOWS
        return took

    def naive(self) -> float:
        started = time.perf_counter()
        found = [self.evaluate(one) for one in self.flows[:SAMPLE]]
        took = time.perf_counter() - started
        assert found == self.verdicts[:SAMPLE], "the naive evaluation and explain disagree"
        assert {"allow", "deny"} == set(found), "verdicts that are all the same show nothing"
        return took * FLOWS / SAMPLE

    def evaluate(self, one: dict[str, Any]) -> str:
        source, destination = self.parties.find(one["from"]), self.parties.find(one["to"])
        if source is destination:
            return "allow"
        addresses = common_addresses(source, destination)
        protocol = {"tcp": 6, "udp": 17}[one["protocol"]]
        flow = Flow(source=addresses[0], destination=addresses[1], protocol=protocol, destination_port=one["port"])
        sides = ((source, Direction.EGRESS), (destination, Direction.INGRESS))
        for party, direction in sides:
            assert party.key is not None
            policy = self.cluster.endpoint_policy(party.key)
            if not verdict(policy, self.cluster.policies, self.cluster.members, flow, direction).allowed:
                return "deny"
        return "allow"


def explain() -> list[Result]:
    with tempfile.TemporaryDirectory() as directory:
        load = Load(Path(directory))
        measured = pairs(load.explain, load.naive, PAIRS)
    what = f"explain --flows: {FLOWS:,} flows, {POLICIES} policies, {ENDPOINTS:,} endpoints"
    rival = f"naive evaluation without memory ({SAMPLE:,} flows, scaled)"
    return [measured.result(what, rival, "s", f"under {GOAL_S:.0f} s", lambda ours, _: ours < GOAL_S)]


BENCHMARKS = {"explain": explain}
