"""`weftctl explain --offline --flows`: lines in, lines out, in order, and what is refused."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from weft.ctl.explain import cluster_of
from weft.ctl.explain_flows import MalformedFlowsError, read, write
from weft.ctl.explain_view import rule_of
from weft.ctl.main import main
from weft.kubernetes import decode_manifests
from weft.policy.ends import Parties
from weft.policy.explainer import Explainer

CLUSTER = """
apiVersion: projectcalico.org/v3
kind: WorkloadEndpoint
metadata: {name: n1-k8s-web-eth0, namespace: prod, labels: {app: web}}
spec: {node: n1, orchestrator: k8s, pod: web, endpoint: eth0, interfaceName: cali1,
  ipNetworks: [10.0.0.1/32, "fd00::1/128"], profiles: [open], ports: [{name: http, port: 8080, protocol: TCP}]}
---
apiVersion: projectcalico.org/v3
kind: WorkloadEndpoint
metadata: {name: n1-k8s-db-eth0, namespace: prod, labels: {app: db}}
spec: {node: n1, orchestrator: k8s, pod: db, endpoint: eth0, interfaceName: cali2, ipNetworks: [10.0.0.2/32],
  profiles: [open]}
---
apiVersion: projectcalico.org/v3
kind: Profile
metadata: {name: open}
spec: {ingress: [{action: Allow}], egress: [{action: Allow}]}
---
apiVersion: projectcalico.org/v3
kind: NetworkPolicy
metadata: {name: db, namespace: prod}
spec:
  selector: app == 'db'
  ingress:
  - {action: Allow, protocol: TCP, source: {selector: app == 'web'}, destination: {ports: [5432]}}
---
apiVersion: projectcalico.org/v3
kind: NetworkPolicy
metadata: {name: web, namespace: prod}
spec:
  selector: app == 'web'
  ingress:
  - {action: Allow, protocol: TCP, destination: {ports: [http]}}
---
apiVersion: projectcalico.org/v3
kind: IPPool
metadata: {name: pool}
spec: {cidr: 10.0.0.0/16}
"""

WORLD = cluster_of(decode_manifests(CLUSTER, "cluster.yaml"))


class Ran:
    def __init__(self, status: int, out: str, err: str) -> None:
        self.status, self.out, self.err = status, out, err
        self.lines: list[dict[str, Any]] = [json.loads(line) for line in out.splitlines()]


class Explain:
    """`cluster` are the manifests; called with lines as values or as text, answers what weftctl did."""

    def __init__(self, directory: Path, capture: pytest.CaptureFixture[str]) -> None:
        self.manifests, self.flows = directory / "cluster.yaml", directory / "flows.jsonl"
        self.capture = capture
        self.manifests.write_text(CLUSTER)

    def __call__(self, *lines: dict[str, Any] | str) -> Ran:
        texts = (line if isinstance(line, str) else json.dumps(line) for line in lines)
        self.flows.write_text("".join(text + "\n" for text in texts))
        status = main(["explain", "--offline", "-f", str(self.manifests), "--flows", str(self.flows)])
        said = self.capture.readouterr()
        return Ran(status, said.out, said.err)


@pytest.fixture
def explain(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Explain:
    return Explain(tmp_path, capsys)


def flow(to: str = "prod/db", port: Any = 5432, **fields: Any) -> dict[str, Any]:
    return {"from": "prod/web", "to": to, "protocol": "tcp", "port": port, **fields}


def test_a_line_keeps_its_fields_and_says_the_verdict_of_both_ends_and_their_rules(explain: Explain) -> None:
    ran = explain(flow(id=7, note={"by": "me"}))
    assert ran.lines == [
        flow(id=7, note={"by": "me"})
        | {
            "verdict": "allow",
            "egress": "allow",
            "ingress": "allow",
            "egress_rule": {
                "tier": None,
                "kind": "Profile",
                "policy": "open",
                "rule": 0,
                "action": "Allow",
                "reason": None,
            },
            "ingress_rule": {
                "tier": "default",
                "kind": "NetworkPolicy",
                "policy": "prod/db",
                "rule": 0,
                "action": "Allow",
                "reason": None,
            },
        }
    ]
    assert ran.status == 0


VERDICTS = {
    "another port": (flow(port=5433), "deny", "allow", "deny"),
    "from outside": ({**flow(), "from": "198.51.100.1"}, "deny", "allow", "deny"),
    "by address": ({**flow(), "from": "10.0.0.1", "to": "10.0.0.2"}, "allow", "allow", "allow"),
    "a named port": ({**flow("prod/web", 8080), "from": "prod/db"}, "allow", "allow", "allow"),
    "not the named port": ({**flow("prod/web", 80), "from": "prod/db"}, "deny", "allow", "deny"),
    "to itself": (flow("prod/web", 1), "allow", "allow", "allow"),
    "to itself by address": (flow("10.0.0.1", 1), "allow", "allow", "allow"),
    "between two outside": ({**flow("198.51.100.2"), "from": "198.51.100.1"}, "allow", "allow", "allow"),
    "the protocol by number and in capitals": (flow(protocol="TCP"), "allow", "allow", "allow"),
    "the protocol as a number": (flow(protocol=6), "allow", "allow", "allow"),
    "a protocol without ports": ({"from": "prod/web", "to": "prod/db", "protocol": "icmp"}, "deny", "allow", "deny"),
    "over IPv6": ({**flow("prod/web", 8080), "from": "fd00::9"}, "allow", "allow", "allow"),
}


@pytest.mark.parametrize(("line", "verdict", "egress", "ingress"), VERDICTS.values(), ids=VERDICTS)
def test_what_becomes_of_a_flow(
    explain: Explain, line: dict[str, Any], verdict: str, egress: str, ingress: str
) -> None:
    (said,) = explain(line).lines
    assert (said["verdict"], said["egress"], said["ingress"]) == (verdict, egress, ingress)


def test_what_is_not_as_expected_is_said_and_the_exit_code_is_1(explain: Explain) -> None:
    ran = explain(flow(expect="allow"), flow(port=1, expect="allow"), flow(port=2))
    assert [line.get("matched") for line in ran.lines] == [True, False, None]
    assert [line.get("expected") for line in ran.lines] == ["allow", "allow", None]
    assert ran.status == 1
    assert "1 of 3 flows are not as expected" in ran.err


def test_lines_come_out_in_order_and_empty_ones_are_passed_over(explain: Explain) -> None:
    ran = explain(*(flow(id=number) for number in range(50)), "", "   ")
    assert [line["id"] for line in ran.lines] == list(range(50))


def test_what_came_out_can_go_in_again(explain: Explain) -> None:
    once = explain(flow(expect="allow")).lines
    assert explain(*once).lines == once


WRONG = {
    "no JSON": ("{", "$: a JSON object"),
    "no object": ("[1]", "$: [1] is not valid"),
    "no end": ({"to": "prod/db", "protocol": "tcp", "port": 1}, "from: NAMESPACE/NAME"),
    "an end that is no text": (flow(to=3), "to: 3 is not valid"),
    "nobody": (flow(to="prod/nobody"), "to: 'prod/nobody' is not valid: there is no workload of this name in"),
    "no protocol": ({"from": "prod/web", "to": "prod/db", "port": 1}, "protocol: a protocol such as"),
    "an unknown protocol": (flow(protocol="tpc"), "protocol: 'tpc' is not valid: one of ICMP, TCP"),
    "a protocol that is true": (flow(protocol=True), "protocol: True is not valid"),
    "no port": ({"from": "prod/web", "to": "prod/db", "protocol": "tcp"}, "port: missing: TCP has ports"),
    "a port too high": (flow(port=65536), "port: 65536 is not valid: a port from 1 to 65535"),
    "a port that is text": (flow(port="80"), "port: '80' is not valid"),
    "a port that is true": (flow(port=True), "port: True is not valid"),
    "a source port of 0": (flow(source_port=0), "source_port: 0 is not valid"),
    "an ICMP type too high": (flow(protocol="icmp", icmp_type=256), "icmp_type: 256 is not valid"),
    "an ICMP code alone": (flow(protocol="icmp", icmp_code=1), "icmp_code: 1 is not valid"),
    "another expectation": (flow(expect="yes"), "expect: 'yes' is not valid: allow or deny"),
    "a misspelt field": (flow(expects="deny"), "expects: unknown field, did you mean expect?"),
    "two families": (flow(to="fd00::7", **{"from": "10.0.0.1"}), "to: 10.0.0.1 and fd00::7 have no address family"),
}  # fmt: skip


@pytest.mark.parametrize(("line", "complaint"), WRONG.values(), ids=WRONG)
def test_a_wrong_line_is_named_with_its_field_and_nothing_is_answered(
    explain: Explain, line: dict[str, Any] | str, complaint: str
) -> None:
    ran = explain(flow(), line)
    assert f"{explain.flows}, line 2: {complaint}" in ran.err
    assert (ran.out, ran.status) == ("", 2)


def test_of_many_wrong_lines_the_first_are_named(explain: Explain) -> None:
    ran = explain(*(flow(port=0) for _ in range(30)))
    assert "line 20:" in ran.err
    assert "line 21:" not in ran.err
    assert "10 more wrong lines" in ran.err


def test_flows_come_from_stdin(
    explain: Explain, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(json.dumps(flow()).encode())))
    assert main(["explain", "--offline", "-f", str(explain.manifests), "--flows", "-"]) == 0
    assert json.loads(capsys.readouterr().out)["verdict"] == "allow"


def test_a_wrong_manifest_is_named_with_its_field(explain: Explain) -> None:
    explain.manifests.write_text(
        CLUSTER.replace("action: Allow, protocol: TCP, destination", "action: Alow, destination")
    )
    ran = explain(flow())
    assert "cluster.yaml, document 5: spec.ingress[0].action: 'Alow' is not valid" in ran.err
    assert (ran.out, ran.status) == ("", 2)


def test_a_missing_profile_denies(explain: Explain) -> None:
    explain.manifests.write_text(CLUSTER.replace("name: open", "name: other"))
    (said,) = explain(flow()).lines
    assert said["egress_rule"]["policy"] == "open"
    assert said["egress"] == "deny"


KUBERNETES = """
apiVersion: v1
kind: List
items:
- {apiVersion: v1, kind: Namespace, metadata: {name: prod, labels: {team: a}}}
- apiVersion: v1
  kind: Pod
  metadata: {name: web, namespace: prod, labels: {app: web}}
  spec: {nodeName: n1, containers: [{name: c, image: i}]}
  status: {phase: Running, podIP: 10.0.0.1, podIPs: [{ip: 10.0.0.1}]}
- apiVersion: v1
  kind: Pod
  metadata: {name: db, namespace: other, labels: {app: db}}
  spec: {nodeName: n1, containers: [{name: c, image: i}]}
  status: {phase: Running, podIP: 10.0.0.2, podIPs: [{ip: 10.0.0.2}]}
- apiVersion: networking.k8s.io/v1
  kind: NetworkPolicy
  metadata: {name: db, namespace: other}
  spec:
    podSelector: {}
    ingress: [{from: [{namespaceSelector: {matchLabels: {team: a}}}], ports: [{port: 5432}]}]
"""


def test_kubernetes_objects_are_the_cluster_too_and_a_namespace_that_is_not_given_exists(explain: Explain) -> None:
    explain.manifests.write_text(KUBERNETES)
    ran = explain(flow(to="other/db"), flow(to="other/db", port=80), {**flow(), "from": "other/db", "to": "prod/web"})
    assert [line["verdict"] for line in ran.lines] == ["allow", "deny", "allow"]


_parts = st.sampled_from(
    [
        "prod/web",
        "prod/db",
        "prod/",
        "10.0.0.1",
        "fd00::1",
        "tcp",
        "icmp",
        6,
        1,
        0,
        80,
        65536,
        -1,
        1.5,
        True,
        None,
        "",
        "é",
    ]
)
_fields = st.sampled_from(
    ["from", "to", "protocol", "port", "source_port", "icmp_type", "icmp_code", "expect", "id", "x"]
)
_lines = st.dictionaries(_fields, _parts | st.lists(_parts, max_size=1), max_size=6).map(
    lambda one: json.dumps(one).encode()
)
_good = json.dumps(flow()).encode()
_spoilt = st.builds(
    lambda at, byte: _good[:at] + bytes([byte]) + _good[at + 1 :], st.integers(0, len(_good)), st.integers(0, 255)
)


@example(text=b'{"from": "\\rod/web", "to": "prod/db", "protocol": "tcp", "port": 5432}')
@settings(max_examples=150)
@given(text=st.lists(_lines | _spoilt | st.binary(max_size=30) | st.just(_good), max_size=4).map(b"\n".join))
def test_whatever_stands_in_a_flows_file_is_answered_or_refused_with_its_line(text: bytes) -> None:
    try:
        lines = read(text, "f.jsonl", Parties(WORLD), Explainer(WORLD))
    except MalformedFlowsError as error:
        refused, lines = str(error).splitlines(), []
    else:
        refused = []
    assert all(complaint.startswith("f.jsonl, line ") for complaint in refused)
    answers = [json.loads(answer) for answer in write(lines, rule_of)]
    assert all(answer["verdict"] in ("allow", "deny") for answer in answers)
    assert refused or len(answers) == sum(1 for raw in text.split(b"\n") if raw.strip())


@pytest.mark.parametrize(
    "raw", [b'{"fr\x80m": 1}', b"[" * 100_000, b'{"from": "\\ud800"}'], ids=["no UTF-8", "brackets", "surrogate"]
)
def test_what_is_hardly_json_is_a_wrong_line(raw: bytes) -> None:
    with pytest.raises(MalformedFlowsError, match=r"^f.jsonl, line 1: "):
        read(raw, "f.jsonl", Parties(WORLD), Explainer(WORLD))


def test_a_byte_order_mark_before_the_first_line_says_nothing(explain: Explain) -> None:
    ran = explain("\ufeff" + json.dumps(flow()))
    assert (ran.status, [line["verdict"] for line in ran.lines]) == (0, ["allow"])


def test_icmp_is_of_the_ip_version_that_it_belongs_to() -> None:
    both = {"from": "192.0.2.1", "to": "prod/web", "protocol": "icmp"}
    (asked,) = read(json.dumps(both).encode(), "f", Parties(WORLD), Explainer(WORLD))
    assert asked.answer.egress.allowed
    with pytest.raises(MalformedFlowsError, match="no address family in common"):
        read(json.dumps(both | {"protocol": "icmpv6"}).encode(), "f", Parties(WORLD), Explainer(WORLD))


def test_an_endpoint_of_both_versions_is_asked_about_icmpv6_by_its_ipv6_address() -> None:
    parties = Parties(WORLD)
    assert [str(one) for one in parties.find("prod/web", 6).addresses] == ["fd00::1"]
    assert [str(one) for one in parties.find("prod/web").addresses] == ["10.0.0.1", "fd00::1"]
    assert parties.find("prod/db", 6) is parties.find("prod/db", 6)
