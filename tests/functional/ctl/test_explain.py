"""`weftctl explain` of what a real etcd holds, asked directly and through an agent, with and without counters."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.functional.ctl.conftest import Weftctl
from tests.functional.ctl.test_agents import served
from tests.unit.ctl.test_explain_flows import CLUSTER
from weft.admin.policy import Count, Counters, EndCount, Flows, PolicyCount, RuleCount
from weft.admin.server import AdminService
from weft.admin.services.datastore import datastore_services
from weft.admin.services.policy import PolicyServer
from weft.config import EtcdConfig
from weft.datastore.etcd import EtcdDatastore
from weft.model.codec import decode_manifests
from weft.model.keys import ResourceKey
from weft.policy.cluster import Cluster
from weft.policy.values import Action, Direction

ALLOWED = ("explain", "--from", "prod/web", "--to", "prod/db", "--protocol", "tcp", "--port", "5432")
DB = ResourceKey("NetworkPolicy", "db", "prod")


@pytest.fixture
def stored(weftctl: Weftctl) -> Weftctl:
    """weftctl on an etcd that holds CLUSTER."""
    applied = weftctl("apply", "-f", "-", stdin=CLUSTER)
    assert applied.code == 0, applied.err
    return weftctl


def test_online_says_what_offline_says(stored: Weftctl) -> None:
    online = stored(*ALLOWED)
    assert online.code == 0, online.err
    assert "Ingress at prod/db: allow, by rule 0 of NetworkPolicy prod/db" in online.out
    assert stored(*ALLOWED, "--offline", "-f", "-", stdin=CLUSTER).out == online.out


def test_a_changed_policy_changes_the_verdict(stored: Weftctl) -> None:
    assert stored("delete", "networkpolicy", "-n", "prod", "db").code == 0
    assert stored("delete", "profile", "open").code == 0
    denied = json.loads(stored(*ALLOWED, "-o", "json").out)
    assert (denied["verdict"], denied["ingress"]["rule"]["policy"]) == ("deny", "open")


def test_flows_are_asked_of_the_datastore_too(stored: Weftctl, tmp_path: Path) -> None:
    flows = tmp_path / "flows.jsonl"
    line = {"from": "prod/web", "to": "prod/db", "protocol": "TCP", "port": 5432, "expect": "deny"}
    flows.write_text(json.dumps(line))
    run = stored("explain", "--flows", str(flows))
    assert (run.code, json.loads(run.out)["matched"]) == (1, False)


class Counting:
    """What an agent would have counted of CLUSTER."""

    def __init__(self) -> None:
        cluster = Cluster(decode_manifests(CLUSTER, "f.yaml"))
        for key in cluster.endpoints:
            cluster.endpoint_policy(key)
        rules = cluster.policies[DB].ingress
        assert rules
        counted = RuleCount(Direction.INGRESS, 0, rules[0].id, Action.ALLOW, Count(7, 420))
        end = EndCount(Direction.INGRESS, "default", Count(3, 180))
        self.found = Counters((PolicyCount(DB, (counted,)),), (end,))

    async def counters(self, policy: ResourceKey | None = None) -> Counters:
        return self.found

    def flows(self, after: int = 0) -> Flows:
        return Flows()


@pytest.fixture
def agents(stored: Weftctl, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Weftctl]:
    """Two agents instead of an etcd: one counts, the other has the datastore."""
    config = EtcdConfig((os.environ["ETCD_ENDPOINTS"],))
    monkeypatch.delenv("ETCD_ENDPOINTS")

    def services() -> list[AdminService]:
        return datastore_services(EtcdDatastore(config))

    with (
        served(tmp_path / "felix.sock", lambda: [PolicyServer(Counting())]),
        served(tmp_path / "node.sock", services),
    ):
        yield stored


def test_an_agents_counters_stand_beside_the_rules_and_ends(agents: Weftctl) -> None:
    shown = agents(*ALLOWED)
    assert shown.code == 0, shown.err
    assert "default   NetworkPolicy prod/db   0      Allow    7         420     decides" in shown.out
    denied = json.loads(agents(*ALLOWED[:-1], "1", "-o", "json").out)["ingress"]
    assert (denied["rule"]["packets"], denied["rule"]["bytes"]) == (3, 180)
    assert (denied["before"][0]["packets"], denied["before"][0]["bytes"]) == (7, 420)


def test_without_an_agent_that_counts_there_is_no_column(stored: Weftctl) -> None:
    assert "PACKETS" not in stored(*ALLOWED).out
