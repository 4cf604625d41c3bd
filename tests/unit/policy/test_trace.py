"""What was passed over on the way to a verdict, in words."""

from ipaddress import ip_address

import pytest

from weft.model.codec import decode_manifests
from weft.policy.cluster import Cluster
from weft.policy.ends import Parties
from weft.policy.explainer import Explainer, Packet, common_addresses, flow_of
from weft.policy.trace import Visit, visits
from weft.policy.values import Action, Direction
from weft.policy.words import rule_text

POLICY = """
apiVersion: projectcalico.org/v3
kind: %s
metadata: {name: p}
spec: {selector: all(), %s}
"""
WORKLOAD = """
apiVersion: projectcalico.org/v3
kind: WorkloadEndpoint
metadata: {name: n1-cni-%s-eth0, namespace: one, labels: {app: %s}}
spec: {node: n1, orchestrator: cni, containerID: %s, endpoint: eth0, workload: %s, interfaceName: cali%s,
  ipNetworks: [%s], ports: [{name: http, port: 8080, protocol: TCP}]}
---
"""
WORKLOADS = "".join(
    WORKLOAD % (name, name, name, name, name, address) for name, address in (("a", "10.0.0.1"), ("b", "10.0.0.2"))
)


def cluster_of(spec: str, kind: str = "GlobalNetworkPolicy") -> Cluster:
    return Cluster(decode_manifests(WORKLOADS + POLICY % (kind, spec), "f.yaml"))


def seen(cluster: Cluster, packet: Packet, direction: Direction = Direction.INGRESS) -> tuple[Visit, ...]:
    """From workload a to b, at b."""
    parties, explainer = Parties(cluster), Explainer(cluster)
    a, b = parties.find("one/a"), parties.find("one/b")
    answer = explainer.explain(a, b, packet)
    flow = flow_of(*common_addresses(a, b), packet)
    party, side = (b, answer.ingress) if direction is Direction.INGRESS else (a, answer.egress)
    return visits(cluster, party, side, flow, direction)


WEB = Packet(6, None, 80)
PING = Packet(1, icmp_type=8, icmp_code=0)
REASONS = {
    "protocol": ("protocol: UDP", WEB, "protocol TCP, not UDP"),
    "a protocol without a name": ("protocol: 47", WEB, "protocol TCP, not protocol 47"),
    "not a protocol": ("notProtocol: TCP", WEB, "protocol TCP is notProtocol"),
    "IP version": ("ipVersion: 6", WEB, "IPv4, not IPv6"),
    "icmp": ("protocol: ICMP, icmp: {type: 3, code: 1}", PING, "ICMP type 8 code 0, not ICMP type 3 code 1"),
    "not icmp": ("protocol: ICMP, notICMP: {type: 8}", PING, "ICMP type 8 code 0 is notICMP"),
    "ports": (
        'protocol: TCP, destination: {ports: [443, "8000:8100"]}', WEB,
        "destination port 80, not 443 or 8000-8100",
    ),
    "a named port": (
        "protocol: TCP, destination: {selector: app == 'b', ports: [http]}", WEB,
        "destination port 80, not http of app == \"b\"",
    ),
    "not a port": ("protocol: TCP, destination: {notPorts: [80]}", WEB, "destination port 80 is one of notPorts 80"),
    "a source port that is not given": (
        "protocol: TCP, source: {ports: [1000]}", WEB, "source port (not given), not 1000",
    ),
    "nets": ("source: {nets: [10.1.0.0/16]}", WEB, "source 10.0.0.1 is not in 10.1.0.0/16"),
    "not nets": ("source: {notNets: [10.0.0.0/8, 10.9.0.0/16]}", WEB, "source 10.0.0.1 is in notNets 10.0.0.0/8"),
    "selector": ("source: {selector: app == 'c'}", WEB, "source 10.0.0.1 is not in selector app == \"c\""),
    "not selector": ("source: {notSelector: app == 'a'}", WEB, "source 10.0.0.1 is in notSelector app == \"a\""),
    "many prefixes": (
        f"source: {{nets: [{', '.join(f'10.{n}.0.0/16' for n in range(1, 9))}]}}", WEB,
        "source 10.0.0.1 is not in 10.1.0.0/16 or 10.2.0.0/16 or 10.3.0.0/16 or 10.4.0.0/16 or 10.5.0.0/16 or 3 more",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("matched", "packet", "why"), REASONS.values(), ids=REASONS)
def test_the_first_match_that_does_not_hold_is_named(matched: str, packet: Packet, why: str) -> None:
    passed, end = seen(cluster_of(f"ingress: [{{action: Allow, {matched}}}]"), packet)
    assert passed.passed_over == why
    assert (end.passed_over, end.step.tier, end.step.policy) == ("", "default", None)


def test_a_service_that_the_destination_is_not_behind_is_named() -> None:
    cluster = cluster_of(
        "types: [Egress], egress: [{action: Allow, destination: {services: {name: web, namespace: one}}}]"
    )
    passed, _ = seen(cluster, WEB, Direction.EGRESS)
    assert passed.passed_over == "destination 10.0.0.2 port 80 is not behind service one/web"


def test_a_policy_without_rules_is_passed_over_as_a_whole() -> None:
    passed, _ = seen(cluster_of("types: [Ingress]"), WEB)
    assert (passed.step.rule, passed.passed_over) == (None, "has no rules for this direction")


def test_a_staged_policy_says_what_it_would_do_by_its_first_rule_that_matches() -> None:
    rules = "ingress: [{action: Log}, {action: Deny, protocol: UDP}, {action: Deny}, {action: Allow}]"
    found = seen(cluster_of(rules, "StagedGlobalNetworkPolicy"), WEB)
    assert [(visit.step.rule, visit.would) for visit in found] == [
        (0, Action.LOG),
        (1, None),
        (2, Action.DENY),
        (None, None),
    ]
    assert found[2].passed_over == "staged: would Deny"


def test_what_logs_is_on_the_way() -> None:
    found = seen(cluster_of("ingress: [{action: Log}, {action: Allow}]"), WEB)
    assert [(visit.step.action, visit.passed_over) for visit in found] == [(Action.LOG, ""), (Action.ALLOW, "")]


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("{action: Deny}", "Deny"),
        ("{action: Allow, ipVersion: 6, protocol: ICMPv6, icmp: {type: 128}}", "Allow IPv6 ICMPv6 ICMP type 128"),
        ("{action: Pass, notProtocol: UDP}", "Pass not UDP"),
        (
            "{action: Allow, protocol: TCP, source: {namespaceSelector: team == 'a', selector: app == 'b', "
            "notNets: [10.0.0.0/8]}, destination: {ports: [80, http], notPorts: ['1:5']}}",
            "Allow TCP from namespaces team == 'a', app == 'b', not 10.0.0.0/8 to ports 80 or http, not ports 1:5",
        ),
        (
            "{action: Allow, source: {serviceAccounts: {names: [a, b], selector: x == 'y'}, notSelector: has(z)}}",
            "Allow from service accounts a or b, service accounts x == 'y', not has(z)",
        ),
        ("{action: Allow, destination: {services: {name: s, namespace: n}}}", "Allow to service n/s"),
    ],
)
def test_a_rule_reads_as_it_is_written(rule: str, expected: str) -> None:
    (policy,) = decode_manifests(POLICY % ("GlobalNetworkPolicy", f"egress: [{rule}]"), "f.yaml")
    assert rule_text(policy.spec.egress[0]) == expected  # type: ignore[attr-defined]


def test_nothing_is_asked_outside() -> None:
    cluster = cluster_of("ingress: [{action: Allow}]")
    parties, explainer = Parties(cluster), Explainer(cluster)
    outside, b = parties.find("198.51.100.1"), parties.find("one/b")
    answer = explainer.explain(outside, b, WEB)
    flow = flow_of(ip_address("198.51.100.1"), ip_address("10.0.0.2"), WEB)
    assert visits(cluster, outside, answer.egress, flow, Direction.EGRESS) == ()
