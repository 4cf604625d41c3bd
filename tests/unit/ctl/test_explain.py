"""`weftctl explain --offline` of one flow: what a person reads, and the same as JSON."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml

from tests.unit.ctl.test_explain_flows import CLUSTER
from weft.ctl.main import main

STAGED = """
---
apiVersion: projectcalico.org/v3
kind: StagedGlobalNetworkPolicy
metadata: {name: lockdown}
spec: {selector: all(), order: 1, types: [Ingress], ingress: [{action: Deny, protocol: TCP}]}
"""


@pytest.fixture
def manifests(tmp_path: Path) -> Path:
    path = tmp_path / "cluster.yaml"
    path.write_text(CLUSTER + STAGED)
    return path


WEB_TO_DB = ("--from", "prod/web", "--to", "prod/db", "--protocol", "tcp")


def ran(manifests: Path, capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    status = main(["explain", "--offline", "-f", str(manifests), *arguments])
    said = capsys.readouterr()
    return status, said.out, said.err


def test_a_person_reads_the_verdict_what_decided_and_what_was_passed_over(
    manifests: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, out, _ = ran(manifests, capsys, *WEB_TO_DB, "--port", "5433")
    assert status == 0
    assert out == (
        """prod/web (10.0.0.1) to prod/db (10.0.0.2), TCP port 5433: deny

Egress at prod/web: allow, by rule 0 of Profile open
TIER   POLICY         RULE   ACTION   RESULT    TEXT
-      Profile open   0      Allow    decides   Allow
1 other policy does not choose this endpoint.

Ingress at prod/db: deny, by the end of the tier default
TIER      POLICY                               RULE   ACTION   RESULT                            TEXT
default   StagedGlobalNetworkPolicy lockdown   0      Deny     staged: would Deny                Deny TCP
default   NetworkPolicy prod/db                0      Allow    destination port 5433, not 5432   """
        """Allow TCP from app == 'web' to ports 5432
default   -                                    -      Deny     decides                           the end of the tier
1 other policy does not choose this endpoint.
"""
    )


FORWARDING = """
---
apiVersion: projectcalico.org/v3
kind: HostEndpoint
metadata: {name: uplink, labels: {role: uplink}}
spec: {node: NODE, interfaceName: INTERFACE}
---
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {name: gate}
spec: {selector: role == 'uplink', applyOnForward: true, types: [Ingress], ingress: [{action: Deny}]}
"""


@pytest.mark.parametrize(
    ("source", "interface", "named"),
    [("203.0.113.1", "eth0", True), ("203.0.113.1", "*", True), ("prod/web", "eth0", False), ("prod/web", "*", True)],
)
def test_host_endpoints_that_a_flow_may_pass_are_named(
    manifests: Path, capsys: pytest.CaptureFixture[str], source: str, interface: str, named: bool
) -> None:
    node = re.search(r"node: (\w+)", CLUSTER)
    assert node
    more = FORWARDING.replace("NODE", node[1]).replace("INTERFACE", json.dumps(interface))
    manifests.write_text(CLUSTER + more)
    asked = ("--from", source, "--to", "prod/db", "--protocol", "tcp", "--port", "5432")
    _, out, _ = ran(manifests, capsys, *asked)
    assert ("Not asked: host endpoint uplink, by which this may pass" in out) is named
    told = json.loads(ran(manifests, capsys, *asked, "-o", "json")[1])
    expected = [{"host_endpoint": "uplink", "interface": interface, "policies": ["gate"]}]
    assert told["ingress"]["on_the_way"] == (expected if named else [])
    assert told["egress"]["on_the_way"] == []


def test_json_and_yaml_say_the_same(manifests: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = (*WEB_TO_DB, "--port", "5432", "--source-port", "999")
    said = json.loads(ran(manifests, capsys, *arguments, "-o", "json")[1])
    assert said == yaml.safe_load(ran(manifests, capsys, *arguments, "-o", "yaml")[1])
    assert {key: said[key] for key in ("verdict", "protocol", "source_port", "port", "source")} == {
        "verdict": "allow",
        "protocol": "TCP",
        "source_port": 999,
        "port": 5432,
        "source": "10.0.0.1",
    }
    ingress = said["ingress"]
    assert ingress["endpoint"] == {"kind": "WorkloadEndpoint", "name": "prod/n1-k8s-db-eth0"}
    assert ingress["rule"]["text"] == "Allow TCP from app == 'web' to ports 5432"
    assert (ingress["rule"]["policy"], ingress["rule"]["rule"]) == ("prod/db", 0)
    (staged,) = ingress["before"]
    assert (staged["kind"], staged["passed_over"], staged["would"]) == ("StagedGlobalNetworkPolicy", True, "Deny")
    assert ingress["not_choosing"] == [{"kind": "NetworkPolicy", "policy": "prod/web"}]


REFUSED = {
    "no end": (("--to", "prod/db", "--protocol", "tcp"), 2, "--from is missing"),
    "no protocol": (("--from", "prod/db", "--to", "prod/db"), 2, "--protocol is missing"),
    "no port": (WEB_TO_DB, 2, "--port: missing: TCP has ports"),
    "a wrong port": ((*WEB_TO_DB, "--port", "70000"), 2, "--port: 70000 is not valid: a port from 1 to 65535"),
    "a wrong source port": ((*WEB_TO_DB, "--port", "1", "--source-port", "0"), 2, "--source-port: 0 is not valid"),
    "a wrong protocol": (
        ("--from", "prod/web", "--to", "prod/db", "--protocol", "tpc"), 2, "--protocol: 'tpc' is not valid",
    ),
    "nobody": (
        ("--from", "prod/x", "--to", "prod/db", "--protocol", "47"), 1, "'prod/x': there is no workload of this name",
    ),
    "flows besides": ((*WEB_TO_DB, "--flows", "f"), 2, "--flows has its ends"),
    "no such file of flows": (("--flows", "none.jsonl"), 1, "none.jsonl: No such file"),
    "all from stdin": (("-f", "-", "--flows", "-"), 2, "both -f and --flows from stdin"),
}  # fmt: skip


@pytest.mark.parametrize(("arguments", "status", "complaint"), REFUSED.values(), ids=REFUSED)
def test_what_is_refused(
    manifests: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], status: int, complaint: str
) -> None:
    code, out, err = ran(manifests, capsys, *arguments)
    assert complaint in err
    assert (code, out) == (status, "")


def test_offline_needs_files_and_files_need_offline(capsys: pytest.CaptureFixture[str]) -> None:
    one = [*WEB_TO_DB, "--port", "1"]
    assert main(["explain", "--offline", *one]) == 2
    assert "--offline needs the cluster's documents" in capsys.readouterr().err
    assert main(["explain", "--socket", "/nowhere", "-f", "x.yaml", *one]) == 2
    assert "-f is for --offline" in capsys.readouterr().err
