"""What Namespaces, ServiceAccounts and Pods become; the tables are what Calico 3.32.1 makes of them."""

from __future__ import annotations

from ipaddress import ip_network
from typing import Any

import pytest

from tests.unit.kubernetes.documents import Tree, document, namespace, one, pod, policy, read
from weft.kubernetes import implicit_profiles
from weft.model.base import Metadata
from weft.model.endpoint import WorkloadEndpoint
from weft.model.policy import NetworkSet, Rule


def test_a_namespace_becomes_a_profile_that_allows_everything_and_hands_down_its_labels() -> None:
    found = one(namespace("shop", team="red", **{"projectcalico.org/name": "forged"}))
    assert found.name == "kns.shop"
    assert found.spec.ingress == found.spec.egress == (Rule(action="Allow"),)
    assert found.spec.labels_to_apply == {
        "pcns.team": "red",
        "pcns.projectcalico.org/name": "shop",
        "pcns.kubernetes.io/metadata.name": "shop",
    }


def test_a_service_account_becomes_a_profile_without_rules() -> None:
    found = one(document("v1", "ServiceAccount", "robot", "shop", labels={"role": "x"}, secrets=[{"name": "s"}]))
    assert found.name == "ksa.shop.robot"
    assert found.spec.ingress == found.spec.egress == ()
    assert found.spec.labels_to_apply == {"pcsa.role": "x", "pcsa.projectcalico.org/name": "robot"}


def test_a_service_account_without_a_namespace_is_in_that_of_the_command() -> None:
    (found,) = read(document("v1", "ServiceAccount", "robot"), namespace="ops")
    assert found.name == "ksa.ops.robot"


def test_a_pod_becomes_an_endpoint_with_calicos_names() -> None:
    found = one(
        pod(
            "pod-a",
            "default",
            "192.168.0.1",
            labels={"labelA": "valueA"},
            annotations={"cni.projectcalico.org/containerID": "abcde12345"},
            spec={
                "nodeName": "node-a",
                "serviceAccountName": "sa",
                "containers": [
                    {
                        "name": "c",
                        "image": "i",
                        "ports": [
                            {"containerPort": 5678},
                            {"containerPort": 1234, "name": "no-proto"},
                            {"containerPort": 1024, "name": "tcp-proto", "protocol": "TCP"},
                            {"containerPort": 432, "name": "sctp-proto", "protocol": "SCTP"},
                            {"containerPort": 80, "hostPort": 8080, "hostIP": "10.0.0.1"},
                        ],
                    }
                ],
                "initContainers": [{"name": "i", "ports": [{"containerPort": 1, "name": "init", "protocol": "UDP"}]}],
            },
        )
    )
    assert isinstance(found, WorkloadEndpoint)
    assert (found.name, found.namespace) == ("node--a-k8s-pod--a-eth0", "default")
    assert found.metadata.labels == {
        "labelA": "valueA",
        "projectcalico.org/namespace": "default",
        "projectcalico.org/orchestrator": "k8s",
        "projectcalico.org/serviceaccount": "sa",
    }
    spec = found.spec
    assert (spec.orchestrator, spec.node, spec.pod, spec.endpoint) == ("k8s", "node-a", "pod-a", "eth0")
    assert spec.container_id == "abcde12345"
    assert spec.interface_name == "cali5e1c4d6c68c"
    assert spec.profiles == ("kns.default", "ksa.default.sa")
    assert spec.ip_networks == (ip_network("192.168.0.1/32"),)
    assert [(p.name, p.protocol.name, p.port, p.host_port, p.host_ip) for p in spec.ports] == [
        ("no-proto", "TCP", 1234, 0, ""),
        ("tcp-proto", "TCP", 1024, 0, ""),
        ("sctp-proto", "SCTP", 432, 0, ""),
        ("", "TCP", 80, 8080, "10.0.0.1"),
        ("init", "UDP", 1, 0, ""),
    ]


POD_IPS: dict[str, tuple[Tree, list[str]]] = {
    "both families of the status": (
        {"status": {"podIP": "10.0.0.1", "podIPs": [{"ip": "10.0.0.1"}, {"ip": "fd00::1"}]}},
        ["10.0.0.1/32", "fd00::1/128"],
    ),
    "the one address of an older status": ({"status": {"podIP": "10.0.0.1"}}, ["10.0.0.1/32"]),
    "Calico's note of both": (
        {"annotations": {"cni.projectcalico.org/podIPs": "10.0.0.1/32,fd00::1/128"}},
        ["10.0.0.1/32", "fd00::1/128"],
    ),
    "Calico's note of one": ({"annotations": {"cni.projectcalico.org/podIP": "10.0.0.1/32"}}, ["10.0.0.1/32"]),
    "Amazon's note": ({"annotations": {"vpc.amazonaws.com/pod-ips": "10.0.0.1"}}, ["10.0.0.1/32"]),
    "the status rather than a note": (
        {"status": {"podIP": "10.0.0.1"}, "annotations": {"cni.projectcalico.org/podIP": "10.0.0.9/32"}},
        ["10.0.0.1/32"],
    ),
    "none yet": ({}, []),
    "given back when it ended": ({"status": {"podIP": "10.0.0.1", "phase": "Succeeded"}}, []),
    "given back when it failed": ({"status": {"podIP": "10.0.0.1", "phase": "Failed"}}, []),
    "its own while it terminates": (
        {"status": {"podIP": "10.0.0.1"}, "metadata": {"deletionTimestamp": "2026-01-31T12:00:00Z"}},
        ["10.0.0.1/32"],
    ),
    "taken back by the plugin while it terminates": (
        {
            "status": {"podIP": "10.0.0.1"},
            "metadata": {"deletionTimestamp": "2026-01-31T12:00:00Z"},
            "annotations": {"cni.projectcalico.org/podIP": ""},
        },
        [],
    ),
}


@pytest.mark.parametrize(("changes", "networks"), POD_IPS.values(), ids=POD_IPS)
def test_a_pods_addresses_are_those_it_has_now(changes: dict[str, Any], networks: list[str]) -> None:
    changes = dict(changes)
    metadata = changes.pop("metadata", {})
    tree = pod("a", **changes)
    tree["metadata"] |= metadata
    assert [str(network) for network in one(tree).spec.ip_networks] == networks


def test_a_pod_on_the_hosts_network_or_without_a_node_is_no_endpoint() -> None:
    assert read(pod("a", "shop", "10.0.0.1", spec={"hostNetwork": True})) == []
    assert read(pod("a", spec={"nodeName": ""})) == []


def test_a_pod_written_by_hand_needs_no_node() -> None:
    found = one(pod("a", "shop", "10.0.0.1", spec={"nodeName": ""}))
    assert (found.name, found.spec.node) == ("unknown-k8s-a-eth0", "unknown")


def test_a_long_service_account_name_is_no_label() -> None:
    found = one(pod("a", spec={"serviceAccountName": "s" * 63}))
    assert "projectcalico.org/serviceaccount" not in found.metadata.labels
    assert found.spec.service_account_name == "s" * 63


def test_floating_addresses_and_source_prefixes_come_from_annotations() -> None:
    notes = {
        "cni.projectcalico.org/floatingIPs": '["203.0.113.1", "2001:db8::1"]',
        "cni.projectcalico.org/allowedSourcePrefixes": '["10.9.9.9/24"]',
    }
    found = one(pod("a", "shop", "10.0.0.1", annotations=notes)).spec
    assert [(str(nat.internal_ip), str(nat.external_ip)) for nat in found.ip_nats] == [("10.0.0.1", "203.0.113.1")]
    assert found.allow_spoofed_source_prefixes == (ip_network("10.9.9.0/24"),)


def test_profiles_that_no_document_gave_have_the_labels_that_kubernetes_gives_all() -> None:
    resources = read(
        namespace("given", a="b"),
        pod("a", "given", "10.0.0.1", spec={"serviceAccountName": "robot"}),
        pod("b", "missing", "10.0.0.2"),
        pod("c", "missing", "10.0.0.3"),
        policy({}, namespace="unused"),
    )
    office = NetworkSet(metadata=Metadata(name="n", namespace="office"))
    found = {profile.name: profile.spec for profile in implicit_profiles([*resources, office])}
    assert found.keys() == {"ksa.given.robot", "kns.missing", "kns.office"}
    assert found["kns.missing"].ingress == (Rule(action="Allow"),)
    assert found["kns.missing"].labels_to_apply == {
        "pcns.projectcalico.org/name": "missing",
        "pcns.kubernetes.io/metadata.name": "missing",
    }
    assert found["ksa.given.robot"].labels_to_apply == {"pcsa.projectcalico.org/name": "robot"}
