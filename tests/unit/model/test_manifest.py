"""Manifests that people write: what is read, what is refused and with which words."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from ipaddress import IPv4Interface, ip_address, ip_network
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.model.manifests import EVERYTHING, TOR, manifest, one, refused, rule
from weft.model.base import Resource
from weft.model.bgp import BGPConfiguration, BGPFilter, BGPPeer, PeerAddress
from weft.model.codec import decode_manifests, decode_stored, encode_stored, to_manifest
from weft.model.endpoint import HostEndpoint, WorkloadEndpoint
from weft.model.errors import ValidationError
from weft.model.felix_configuration import FelixConfiguration
from weft.model.keys import ResourceKey, of
from weft.model.node import Node
from weft.model.policy import GlobalNetworkPolicy, NetworkPolicy, NetworkSet, Profile, Tier
from weft.model.pool import IPAMConfiguration, IPPool, IPReservation
from weft.model.resources import CLASSES
from weft.model.values import Duration, Port, Protocol


def test_manifests_of_every_kind_become_values() -> None:
    text = EVERYTHING.replace("clusterGUID: 0123", 'clusterGUID: "0123"')
    resources = {resource.kind: resource for resource in decode_manifests(text, "all.yaml")}
    assert resources.keys() == CLASSES.keys()
    node, peer, policy = resources["Node"], resources["BGPPeer"], resources["NetworkPolicy"]
    assert isinstance(node, Node)
    assert node.spec.bgp is not None
    assert node.spec.bgp.as_number == 64512 * 65536 + 1
    assert node.spec.bgp.ipv4_address == IPv4Interface("10.0.0.1/24")
    assert isinstance(peer, BGPPeer)
    assert peer.spec.peer_address == PeerAddress(ip_address("192.168.1.1"), 180)
    assert peer.spec.keepalive_time == Duration(seconds=10)
    assert isinstance(policy, NetworkPolicy)
    allow, log, _ = policy.spec.ingress
    assert allow.destination.ports == (Port(6379, 6379), Port(8000, 8100), Port(name="http"))
    assert allow.protocol == Protocol(6, "TCP")
    assert log.icmp is not None
    assert (log.icmp.type, log.icmp.code) == (8, 0)
    pool, configuration = resources["IPPool"], resources["IPAMConfiguration"]
    assert isinstance(pool, IPPool)
    assert (pool.spec.cidr, pool.spec.block_size) == (ip_network("10.65.0.0/16"), 26)
    assert isinstance(configuration, IPAMConfiguration)
    assert configuration.spec.auto_allocate_blocks
    nets = resources["NetworkSet"]
    assert isinstance(nets, NetworkSet)
    assert nets.spec.nets[0] == ip_network("198.51.100.0/28")
    reservation = resources["IPReservation"]
    assert isinstance(reservation, IPReservation)
    assert reservation.spec.reserved_cidrs == (ip_network("10.65.0.1/32"), ip_network("10.65.1.0/24"))


@pytest.mark.parametrize(
    "resource",
    decode_manifests(EVERYTHING.replace("0123}", '"0123"}').replace("0123,", '"0123",'), "e"),
    ids=lambda found: found.kind,
)
def test_what_is_printed_applies_again_and_what_is_stored_reads_again(resource: Resource) -> None:
    printed = yaml.safe_dump(to_manifest(resource))
    assert one(printed) == resource
    if resource.kind == "IPAMConfiguration":
        return
    assert decode_stored(of(resource), encode_stored(resource)) == resource


def test_what_a_server_adds_is_tolerated() -> None:
    text = """
apiVersion: projectcalico.org/v3
kind: Tier
metadata:
  name: a
  creationTimestamp: null
  deletionTimestamp: null
  managedFields: [{manager: kubectl, fieldsV1: {"f:spec": {}}}]
  resourceVersion: "12"
  uid: 0b1d7c9e-0000-4000-8000-000000000000
  generation: 3
  selfLink: /apis
spec: {order: null}
status: {conditions: []}
"""
    tier = one(text)
    assert isinstance(tier, Tier)
    assert (tier.metadata.resource_version, tier.metadata.generation) == ("12", 3)
    assert b"resourceVersion" not in encode_stored(tier)


def test_json_is_read_too() -> None:
    spec = {"egress": [{"action": "Allow"}]}
    tree = {"apiVersion": "projectcalico.org/v3", "kind": "Profile", "metadata": {"name": "a"}, "spec": spec}
    profile = one(json.dumps(tree))
    assert isinstance(profile, Profile)
    assert profile.spec.egress[0].action == "Allow"


def test_times_and_base_60_numbers_stay_text() -> None:
    text = manifest("NetworkPolicy", {}).replace(
        "spec: {}", "spec: {ingress: [{action: Allow, protocol: TCP, source: {ports: [20:30]}}]}"
    )
    assert one(text).spec.ingress[0].source.ports == (Port(20, 30),)
    created = one(manifest("Tier", {}).replace("name: x", "name: x\n  creationTimestamp: 2026-01-31T12:00:00Z"))
    assert created.metadata.creation_timestamp.isoformat() == "2026-01-31T12:00:00+00:00"


DERIVED_TYPES = {
    "no rules": ({}, ["Ingress"]),
    "ingress": ({"ingress": [{"action": "Allow"}]}, ["Ingress"]),
    "egress": ({"egress": [{"action": "Allow"}]}, ["Egress"]),
    "both": ({"ingress": [{"action": "Allow"}], "egress": [{"action": "Allow"}]}, ["Ingress", "Egress"]),
    "given": ({"types": ["Egress"], "ingress": [{"action": "Allow"}]}, ["Egress"]),
}


@pytest.mark.parametrize(("spec", "types"), DERIVED_TYPES.values(), ids=DERIVED_TYPES.keys())
@pytest.mark.parametrize("kind", ["NetworkPolicy", "GlobalNetworkPolicy"])
def test_a_policy_is_for_the_directions_it_has_rules_for(kind: str, spec: Any, types: list[str]) -> None:
    assert list(one(manifest(kind, spec)).spec.types) == types


def test_what_calicos_client_fills_in_is_filled_in() -> None:
    policy = one(manifest("NetworkPolicy", {}, name="default.allow"))
    assert isinstance(policy, NetworkPolicy)
    assert (policy.metadata.name, policy.metadata.namespace, policy.spec.tier) == (
        "default.allow",
        "default",
        "default",
    )
    assert policy.metadata.labels == {"projectcalico.org/tier": "default"}
    assert one(manifest("GlobalNetworkPolicy", {"tier": "a"}, name="a.b")).metadata.name == "a.b"
    assert one(manifest("Tier", {})).spec.order == 1_000_000
    (elsewhere,) = decode_manifests(manifest("NetworkSet", {}), "f", namespace="prod")
    assert elsewhere.metadata.namespace == "prod"
    endpoint = one(
        manifest(
            "WorkloadEndpoint",
            {"node": "n", "orchestrator": "k8s", "pod": "web-1", "endpoint": "eth0", "interfaceName": "cali1"},
            name="",
        )
    )
    assert isinstance(endpoint, WorkloadEndpoint)
    assert endpoint.metadata.name == "n-k8s-web--1-eth0"
    assert endpoint.metadata.labels["projectcalico.org/orchestrator"] == "k8s"


def test_good_manifests_of_the_delicate_kind_pass() -> None:
    text = "---\n".join(
        (
            manifest("FelixConfiguration", {"nodeSelector": "has(gpu)", "chainInsertMode": "Append"}, name="gpu"),
            manifest("BGPConfiguration", {"logSeverityScreen": "Info", "listenPort": 180}, name="node.a"),
            manifest("BGPPeer", {"localWorkloadSelector": "has(r)", "asNumber": 65000}),
            manifest("BGPFilter", {"importV4": [{"action": "Reject"}], "exportV6": [{**TOR, "cidr": "fd00::/8"}]}),
            manifest("IPPool", {"cidr": "10.65.0.0/30", "disabled": True}),
            manifest("IPPool", {"cidr": "10.9.0.0/16", "allowedUses": ["LoadBalancer"]}),
            manifest("NetworkPolicy", rule(destination={"ports": ["http"]})),
            manifest("NetworkPolicy", {}, name="knp.default.web.v2"),
            manifest("HostEndpoint", {"node": "n", "expectedIPs": ["10.0.0.1"]}),
        )
    )
    kinds = [type(resource) for resource in decode_manifests(text, "f")]
    assert kinds[:4] == [FelixConfiguration, BGPConfiguration, BGPPeer, BGPFilter]
    assert kinds[-1] is HostEndpoint


def test_a_global_policy_key_has_no_namespace() -> None:
    policy = one(manifest("GlobalNetworkPolicy", {}))
    assert isinstance(policy, GlobalNetworkPolicy)
    assert of(policy) == ResourceKey("GlobalNetworkPolicy", "x")


def _paths(tree: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where everything in a tree is."""
    if path:
        yield path
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for step, inner in items:
        yield from _paths(inner, (*path, step))


DOCUMENTS = list(yaml.safe_load_all(EVERYTHING))


PLACES = [(index, path) for index, tree in enumerate(DOCUMENTS) for path in _paths(tree)]


anything = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text("aA1.:/-*= '", max_size=6)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=2), st.dictionaries(st.sampled_from(["a", "name", "action"]), inner, max_size=2)
    ),
    max_leaves=3,
)


@settings(max_examples=150)
@given(st.sampled_from(PLACES), anything)
def test_any_change_of_a_good_manifest_gives_a_resource_or_says_what_is_wrong(
    place: tuple[int, tuple[Any, ...]], value: Any
) -> None:
    index, (*steps, last) = place
    tree = copy.deepcopy(DOCUMENTS[index])
    inner = tree
    for step in steps:
        inner = inner[step]
    inner[last] = value
    try:
        resources = decode_manifests(yaml.safe_dump(tree), "changed.yaml")
    except ValidationError as error:
        resources = []
        named = error.source
    else:
        named = "changed.yaml"
    assert named == "changed.yaml"
    for resource in resources:
        assert one(yaml.safe_dump(to_manifest(resource))) == resource


@pytest.mark.parametrize(
    ("written", "read"),
    [
        pytest.param("1", "1", id="whole number"),
        pytest.param("1337495556942031415926535", "1337495556942031415926535", id="many digits"),
        pytest.param("true", "true", id="true"),
        pytest.param("no", "false", id="false in YAML's other spelling"),
        pytest.param("'1'", "1", id="already text"),
    ],
)
def test_plain_numbers_and_booleans_are_text_where_text_belongs(written: str, read: str) -> None:
    text = (
        "apiVersion: projectcalico.org/v3\nkind: WorkloadEndpoint\n"
        f"metadata: {{name: n-k8s-p-eth0, labels: {{app: {written}}}}}\n"
        "spec: {node: n, orchestrator: k8s, pod: p, endpoint: eth0, interfaceName: cali1, "
        f"profiles: [a], containerID: {written}}}\n"
    )
    endpoint = one(text)
    assert endpoint.metadata.labels["app"] == read
    assert endpoint.spec.container_id == read


def test_a_fraction_is_not_guessed_to_be_text() -> None:
    error = refused(manifest("GlobalNetworkSet", {}, labels={"version": 1.10}))
    assert error.field.startswith("metadata.labels")


def test_an_unknown_field_among_very_many_is_not_answered_with_all_of_them() -> None:
    error = refused(manifest("FelixConfiguration", {"zzzz": 1}))
    assert error.field == "spec.zzzz"
    assert len(error.expected) < 100
