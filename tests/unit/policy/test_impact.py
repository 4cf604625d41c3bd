"""Which flows a change allows or denies: none is missed between endpoints, and none is said that does not change."""

from itertools import product
from typing import Any

import pytest
from hypothesis import given, settings

from tests.unit.calc.world import Update, histories
from tests.unit.policy.test_cluster_properties import cluster_of
from weft.model.address import parse_address
from weft.model.codec import decode_manifests
from weft.policy.cluster import Cluster, addresses
from weft.policy.ends import Party
from weft.policy.explainer import Explainer, Packet
from weft.policy.impact import FlowChange, flow_changes
from weft.policy.packets import Packets, kinds_of_packets
from weft.policy.values import Action, Entity, Icmp, PortRange, Rule

PORTS = (1, 79, 80, 84, 85, 86, 90, 91, 442, 443, 444, 8080, 65535)
PACKETS = [
    *(Packet(protocol, None, port) for protocol in (6, 17) for port in PORTS),
    *(Packet(protocol, icmp_type=type_, icmp_code=0) for protocol in (1, 58) for type_ in (3, 8, 128)),
    Packet(132, None, 80),
]


def parties(cluster: Cluster, version: int) -> dict[str, Party]:
    found = {}
    for key, endpoint in cluster.endpoints.items():
        used = next((one for one in addresses(endpoint) if one.version == version), None)
        if used is not None:
            found[key.kind + key.namespace + key.name] = Party(key.name, (used,), key, endpoint.spec.node)
    return found


def covers(kind: Packets, packet: Packet) -> bool:
    if kind.protocol != packet.protocol:
        return False
    if kind.first is not None and kind.last is not None:
        return packet.destination_port is not None and kind.first <= packet.destination_port <= kind.last
    return True


def by_names(changes: list[FlowChange], version: int) -> dict[tuple[str, str], list[FlowChange]]:
    found: dict[tuple[str, str], list[FlowChange]] = {}
    for one in changes:
        for source, destination in product(one.sources, one.destinations):
            if source.version == version:
                for pair in product(source.names, destination.names):
                    found.setdefault(pair, []).append(one)
    return found


@given(first=histories, second=histories)
@settings(max_examples=40)
def test_what_is_said_to_change_is_what_changes(first: list[Update], second: list[Update]) -> None:
    before, after = cluster_of(first), cluster_of([*first, *second[:4]])
    then, now = Explainer(before), Explainer(after)
    changes = flow_changes(before, after)
    for version in (4, 6):
        said = by_names(changes, version)
        old, new = parties(before, version), parties(after, version)
        for source, destination in product(old.keys() & new.keys(), repeat=2):
            if source == destination:
                continue
            named = (_named(new[source], after), _named(new[destination], after))
            for packet in PACKETS:
                if packet.protocol in (1, 58) and (packet.protocol == 58) != (version == 6):
                    continue
                was = then.explain(old[source], old[destination], packet).allowed
                will = now.explain(new[source], new[destination], packet).allowed
                told = {
                    one.decision.allowed
                    for one in said.get(named, [])
                    if any(covers(kind, packet) for kind in one.packets)
                }
                assert (will in told) == (was != will), (named, packet, was, will)


def _named(party: Party, cluster: Cluster) -> str:
    assert party.key is not None
    return f"{party.key.namespace}/{party.key.name}" if party.key.namespace else party.key.name


WORKLOAD = """
apiVersion: projectcalico.org/v3
kind: WorkloadEndpoint
metadata: {name: n1-cni-%(name)s-eth0, namespace: one, labels: {app: %(app)s}}
spec: {node: n1, orchestrator: cni, containerID: %(name)s, endpoint: eth0, workload: %(name)s, interfaceName: c%(name)s,
  ipNetworks: [10.0.0.%(number)d], profiles: [projectcalico-default-allow]}
---
"""
POLICY = """
apiVersion: projectcalico.org/v3
kind: NetworkPolicy
metadata: {name: db, namespace: one}
spec:
  selector: app == 'db'
  ingress: [%s]
"""
APPS = {"web1": "web", "web2": "web", "db1": "db", "other": "other"}
WORKLOADS = "".join(
    WORKLOAD % {"name": name, "app": app, "number": number} for number, (name, app) in enumerate(APPS.items(), 1)
)


def cluster(*policies: str) -> Cluster:
    return Cluster(decode_manifests(WORKLOADS + "---".join(policies), "f.yaml"))


def told(changes: list[FlowChange]) -> set[tuple[Any, ...]]:
    return {
        (
            tuple(name for group in one.sources for name in group.names),
            tuple(name for group in one.destinations for name in group.names),
            one.decision.allowed,
            tuple((kind.protocol, kind.first, kind.last) for kind in one.packets if kind.protocol == 6),
        )
        for one in changes
    }


def test_a_new_policy_closes_what_it_does_not_allow_and_endpoints_alike_are_one_group() -> None:
    new = POLICY % "{action: Allow, protocol: TCP, source: {selector: app == 'web'}, destination: {ports: [5432]}}"
    changes = flow_changes(cluster(), cluster(new))
    assert told(changes) == {
        (("one/web1", "one/web2"), ("one/db1",), False, ((6, 1, 5431), (6, 5433, 65535))),
        (("one/other", "198.51.100.1"), ("one/db1",), False, ((6, 1, 65535),)),
    }


def test_a_wider_rule_opens_what_it_adds() -> None:
    rule = "{action: Allow, protocol: TCP, destination: {ports: [%s]}}"
    changes = flow_changes(cluster(POLICY % (rule % "80")), cluster(POLICY % (rule % "80, 443")))
    assert {one[2:] for one in told(changes)} == {(True, ((6, 443, 443),))}


def test_a_prefix_outside_that_a_rule_names_now_is_tried() -> None:
    rule = "{action: Deny, source: {nets: [203.0.113.0/24]}}, {action: Allow}"
    changes = flow_changes(cluster(POLICY % "{action: Allow}"), cluster(POLICY % rule))
    assert {one[:3] for one in told(changes)} == {(("203.0.113.0",), ("one/db1",), False)}


def test_nothing_changes_where_nothing_changed() -> None:
    same = POLICY % "{action: Allow, protocol: TCP}"
    assert flow_changes(cluster(same), cluster(same)) == []


def test_packets_are_cut_where_a_rule_begins_and_ends() -> None:
    rule = Rule(action=Action.ALLOW, protocol=6, destination=Entity(ports=(PortRange(80, 90),)))
    kinds = kinds_of_packets([rule], [])
    assert [(kind.first, kind.last) for kind in kinds if kind.protocol == 6] == [(1, 79), (80, 90), (91, 65535)]
    assert [(kind.first, kind.last) for kind in kinds if kind.protocol == 17] == [(1, 65535)]


def test_icmp_is_tried_as_it_is_named_and_otherwise() -> None:
    rule = Rule(action=Action.ALLOW, protocol=1, icmp=Icmp(8, 0))
    kinds = [(kind.icmp_type, kind.icmp_code) for kind in kinds_of_packets([rule], []) if kind.protocol == 1]
    assert kinds == [(8, 0), (8, 1), (0, 0)]


@pytest.mark.parametrize("named", [None, 47, 253])
def test_one_protocol_that_nobody_names_is_tried(named: int | None) -> None:
    others = [
        kind.protocol
        for kind in kinds_of_packets([Rule(action=Action.ALLOW, protocol=named)], [])
        if kind.protocol not in (1, 6, 17, 58, 132)
    ]
    assert others == ([named] if named else []) + [254 if named == 253 else 253]


def test_an_address_outside_is_one_that_no_prefix_holds() -> None:
    rule = "{action: Allow, source: {nets: [198.51.100.0/24]}}"
    changes = flow_changes(cluster(), cluster(POLICY % rule))
    outside = {group.names[0] for one in changes for group in one.sources if group.outside}
    assert parse_address("203.0.113.1") in map(parse_address, outside)
