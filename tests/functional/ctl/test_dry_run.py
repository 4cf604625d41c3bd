"""`--dry-run` on a real etcd: what would be written, whose flows would change, and that nothing is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.functional.ctl.conftest import Weftctl
from tests.unit.ctl.test_explain_flows import CLUSTER

TIER = "apiVersion: projectcalico.org/v3\nkind: Tier\nmetadata: {name: early}\nspec: {order: 5}\n"
POLICY = """
apiVersion: projectcalico.org/v3
kind: NetworkPolicy
metadata: {name: %s, namespace: prod}
spec:
  tier: %s
  selector: app == 'db'
  ingress:
  - {action: Allow, protocol: TCP, source: {selector: app == 'web'}, destination: {ports: [%s]}}
"""
DB = POLICY % ("db", "default", "5432")
WIDER = POLICY % ("db", "default", "5432, 6000")


@pytest.fixture
def stored(weftctl: Weftctl) -> Weftctl:
    """weftctl on an etcd that holds CLUSTER."""
    applied = weftctl("apply", "-f", "-", stdin=CLUSTER)
    assert applied.code == 0, applied.err
    return weftctl


def everything(weftctl: Weftctl) -> str:
    return "".join(weftctl("get", kind, "-A", "-o", "yaml").out for kind in ("np", "wep")) + "".join(
        weftctl("get", kind, "-o", "yaml").out for kind in ("gnp", "tier", "profile", "pool")
    )


def test_what_would_be_created_updated_and_left_is_said_and_nothing_is_written(stored: Weftctl) -> None:
    before = everything(stored)
    documents = "---\n".join((TIER, POLICY % ("x", "early", "1"), WIDER, POLICY % ("web2", "default", "1")))
    run = stored("apply", "--dry-run", "-f", "-", stdin=f"{documents}---{CLUSTER.split('---')[2]}")
    assert (run.code, run.err) == (0, "")
    assert run.out == (
        "Tier early would be created\n"
        "NetworkPolicy prod/x would be created\n"
        "NetworkPolicy prod/db would be updated\n"
        "NetworkPolicy prod/web2 would be created\n"
        "Profile open is unchanged\n"
        "Nothing was written (dry run)\n"
    )
    assert everything(stored) == before


def test_what_would_be_refused_is_named_and_the_exit_code_is_1(stored: Weftctl) -> None:
    run = stored("create", "--dry-run", "-f", "-", stdin=f"{POLICY % ('new', 'none', '1')}---{DB}---\n{TIER}")
    assert run.code == 1
    assert "NetworkPolicy prod/new would be refused: <stdin>, document 1: spec.tier: 'none' is not valid" in run.err
    assert "NetworkPolicy prod/db would be refused: resource already exists" in run.err
    assert "Tier early would be created" in run.out
    assert stored("create", "--dry-run", "--skip-exists", "-f", "-", stdin=DB).out.startswith(
        "NetworkPolicy prod/db would be passed over\n"
    )
    assert stored("replace", "--dry-run", "-f", "-", stdin=TIER).code == 1


def test_the_same_resource_twice_is_judged_by_what_comes_before(stored: Weftctl) -> None:
    run = stored("create", "--dry-run", "-f", "-", stdin=f"{TIER}---\n{TIER}")
    assert run.code == 1
    assert "Tier early would be refused: resource already exists" in run.err
    twice = stored("apply", "--dry-run", "-f", "-", stdin=f"{TIER}---\n{TIER}")
    assert twice.out.splitlines()[:2] == ["Tier early would be created", "Tier early is unchanged"]


def test_the_flows_that_would_change_are_told(stored: Weftctl) -> None:
    run = stored("apply", "--dry-run", "--diff-flows", "-f", "-", stdin=WIDER)
    assert run.code == 0, run.err
    rows = [" ".join(line.split()) for line in run.out.splitlines()]
    assert (
        "prod/web prod/db TCP 6000 deny -> allow ingress: rule 0 of NetworkPolicy prod/db "
        "(was: the end of the tier default)"
    ) in rows
    assert len([row for row in rows if "->" in row]) == 1


def test_the_flows_as_json_name_every_end(stored: Weftctl) -> None:
    run = stored("apply", "--dry-run", "--diff-flows", "-o", "json", "--exit-code", "-f", "-", stdin=WIDER)
    assert run.code == 3
    said = json.loads(run.out)
    assert said["resources"] == [{"kind": "NetworkPolicy", "namespace": "prod", "name": "db", "change": "updated"}]
    (flow,) = said["flows"]
    assert (flow["from"], flow["to"]) == ([{"endpoints": ["prod/web"]}], [{"endpoints": ["prod/db"]}])
    assert flow["packets"] == [{"protocol": "TCP", "port": [6000, 6000]}]
    assert (flow["before"], flow["after"], flow["at"]) == ("deny", "allow", "ingress")
    assert (flow["rule_before"]["reason"], flow["rule_after"]["policy"]) == ("the end of the tier", "prod/db")


def test_a_deletion_opens_what_the_policy_closed(stored: Weftctl) -> None:
    run = stored("delete", "--dry-run", "--diff-flows", "--exit-code", "np", "-n", "prod", "db")
    assert run.code == 3
    assert "NetworkPolicy prod/db would be deleted" in run.out
    assert "198.51.100.1 (outside)" in run.out
    assert "ingress: rule 0 of Profile open (was: the end of the tier default)" in run.out
    assert stored("get", "np", "-n", "prod", "db").code == 0


def test_where_no_flow_changes_that_is_said(stored: Weftctl) -> None:
    run = stored("apply", "--dry-run", "--diff-flows", "--exit-code", "-f", "-", stdin=DB)
    assert (run.code, run.out.splitlines()[-1]) == (0, "No flow between existing endpoints would change.")


@pytest.mark.parametrize(
    "arguments", [("--diff-flows",), ("-o", "json"), ("--exit-code",), ("--dry-run", "--exit-code")], ids=" ".join
)
def test_what_only_a_dry_run_has_is_refused_without(
    weftctl: Weftctl, tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    (tmp_path / "db.yaml").write_text(DB)
    run = weftctl("apply", "-f", str(tmp_path / "db.yaml"), *arguments)
    assert run.code == 2
    assert "--dry-run" in run.err or "--diff-flows" in run.err
