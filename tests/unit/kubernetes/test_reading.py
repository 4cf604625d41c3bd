"""Whole outputs of kubectl are read, and what they become can be written and read like anything else of ours."""

from __future__ import annotations

import json

import pytest
import yaml
from hypothesis import HealthCheck, given, settings

from tests.unit.kubernetes import strategies
from tests.unit.kubernetes.documents import Tree, namespace, one, pod, policy, read
from weft.kubernetes import decode_manifests, staged_policy
from weft.kubernetes.manifest import decode_with_origin
from weft.model import codec
from weft.model.errors import ValidationError
from weft.model.keys import of
from weft.model.staged import StagedKubernetesNetworkPolicy

# As an API server prints it, with what nobody here has any use for.
KUBECTL = """
apiVersion: v1
items:
- apiVersion: v1
  kind: Namespace
  metadata:
    annotations:
      kubectl.kubernetes.io/last-applied-configuration: |
        {"apiVersion":"v1","kind":"Namespace","metadata":{"annotations":{},"name":"shop"}}
    creationTimestamp: "2026-01-31T12:00:00Z"
    labels: {kubernetes.io/metadata.name: shop, team: red}
    managedFields: [{apiVersion: v1, manager: kubectl, operation: Update, fieldsV1: {"f:metadata": {}}}]
    name: shop
    resourceVersion: "12"
    uid: 0d6e0b2c-32a2-4a2b-9c1e-5b9b2f1b4f3a
  spec: {finalizers: [kubernetes]}
  status: {phase: Active}
- apiVersion: v1
  automountServiceAccountToken: false
  imagePullSecrets: [{name: registry}]
  kind: ServiceAccount
  metadata: {name: default, namespace: shop, creationTimestamp: null, uid: 0d6e0b2c-32a2-4a2b-9c1e-5b9b2f1b4f3b}
  secrets: [{name: default-token}]
- apiVersion: v1
  kind: Pod
  metadata:
    annotations: {cni.projectcalico.org/podIP: 10.65.0.7/32, cni.projectcalico.org/podIPs: 10.65.0.7/32}
    creationTimestamp: "2026-01-31T12:00:00Z"
    generateName: web-6d4cf56db6-
    labels: {app: web, pod-template-hash: 6d4cf56db6}
    name: web-6d4cf56db6-abcde
    namespace: shop
    ownerReferences:
    - {apiVersion: apps/v1, blockOwnerDeletion: true, controller: true, kind: ReplicaSet, name: web-6d4cf56db6, uid: u}
    resourceVersion: "13"
    uid: 0d6e0b2c-32a2-4a2b-9c1e-5b9b2f1b4f3c
  spec:
    affinity: {podAntiAffinity: {}}
    containers:
    - image: nginx
      imagePullPolicy: Always
      livenessProbe: {httpGet: {path: /, port: http, scheme: HTTP}}
      name: nginx
      ports: [{containerPort: 80, name: http, protocol: TCP}]
      resources: {limits: {cpu: 100m}}
      securityContext: {runAsNonRoot: true}
      volumeMounts: [{mountPath: /var/run/secrets, name: token, readOnly: true}]
    dnsPolicy: ClusterFirst
    enableServiceLinks: true
    nodeName: node-1
    preemptionPolicy: PreemptLowerPriority
    priority: 0
    restartPolicy: Always
    serviceAccount: default
    serviceAccountName: default
    tolerations: [{effect: NoExecute, key: node.kubernetes.io/not-ready, operator: Exists, tolerationSeconds: 300}]
    volumes: [{name: token, projected: {defaultMode: 0420, sources: [{serviceAccountToken: {path: token}}]}}]
  status:
    conditions: [{lastProbeTime: null, lastTransitionTime: "2026-01-31T12:00:00Z", status: "True", type: Ready}]
    containerStatuses: [{image: nginx, ready: true, restartCount: 0, state: {running: {}}}]
    hostIP: 192.0.2.1
    hostIPs: [{ip: 192.0.2.1}]
    phase: Running
    podIP: 10.65.0.7
    podIPs: [{ip: 10.65.0.7}]
    qosClass: Burstable
- apiVersion: v1
  kind: Pod
  metadata: {name: kube-proxy-x, namespace: kube-system}
  spec: {hostNetwork: true, nodeName: node-1, containers: [{name: c, ports: [{containerPort: 10249, hostPort: 10249}]}]}
  status: {phase: Running, podIP: 192.0.2.1, podIPs: [{ip: 192.0.2.1}]}
- apiVersion: networking.k8s.io/v1
  kind: NetworkPolicy
  metadata: {generation: 1, name: web, namespace: shop, resourceVersion: "14"}
  spec:
    ingress: [{from: [{podSelector: {}}], ports: [{port: http, protocol: TCP}]}]
    podSelector: {matchLabels: {app: web}}
    policyTypes: [Ingress]
  status: {}
kind: List
metadata:
  resourceVersion: ""
"""


def test_what_kubectl_prints_is_read_whole() -> None:
    found = decode_manifests(KUBECTL, "all.yaml")
    assert [(one.kind, one.namespace, one.name) for one in found] == [
        ("Profile", "", "kns.shop"),
        ("Profile", "", "ksa.shop.default"),
        ("WorkloadEndpoint", "shop", "node--1-k8s-web--6d4cf56db6--abcde-eth0"),
        ("NetworkPolicy", "shop", "knp.default.web"),
    ]


def test_as_json_it_is_the_same() -> None:
    assert decode_manifests(json.dumps(yaml.safe_load(KUBECTL)), "a") == decode_manifests(KUBECTL, "b")


DEPTHS = (50, 200, 480, 960, 3000)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"apiVersion": "v1", "kind": "Namespace", "kind": "Pod", "metadata": {"name": "a"}}', "'kind' twice"),
        ('{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NaN}}', "lower case"),
        ('{"apiVersion": "v1", "kind": "Namespace"', "YAML or JSON"),
        *(
            ('{"apiVersion": "v1", "kind": "Pod", "metadata": ' + '{"a": ' * n + "1" + "}" * (n + 1), "")
            for n in DEPTHS
        ),
    ],
)
def test_json_is_read_as_strictly_as_yaml(text: str, words: str) -> None:
    with pytest.raises(ValidationError) as caught:
        decode_manifests(text, "a.json")
    assert words in caught.value.expected


def test_several_documents_may_be_json() -> None:
    trees = [namespace("a"), namespace("b")]
    assert decode_manifests("\n---\n".join(map(json.dumps, trees)), "a") == read(*trees)


@pytest.mark.parametrize("kind", ["NamespaceList", "PodList", "NetworkPolicyList"])
def test_lists_of_one_kind_need_not_say_the_kind_of_each(kind: str) -> None:
    trees: dict[str, list[Tree]] = {
        "NamespaceList": [namespace("a"), namespace("b")],
        "PodList": [pod("a", "shop", "10.0.0.1")],
        "NetworkPolicyList": [policy({})],
    }
    bare = [{"metadata": tree["metadata"], "spec": tree.get("spec", {})} for tree in trees[kind]]
    items = bare if kind != "PodList" else [tree | {"kind": "Pod"} for tree in trees[kind]]
    version = trees[kind][0]["apiVersion"]
    listed = {"apiVersion": version, "kind": kind, "metadata": {"resourceVersion": "1"}, "items": items}
    assert decode_manifests(yaml.safe_dump(listed), "l") == read(*trees[kind])


def test_an_empty_list_is_no_resources() -> None:
    assert decode_manifests("apiVersion: v1\nkind: List\nitems: []\n", "l") == []
    assert decode_manifests("apiVersion: v1\nkind: PodList\nitems: null\n", "l") == []


def test_our_own_resources_stand_beside_them() -> None:
    tier = {"apiVersion": "projectcalico.org/v3", "kind": "Tier", "metadata": {"name": "t"}}
    listed = {"apiVersion": "v1", "kind": "List", "items": [tier, namespace("a"), policy({})]}
    found = decode_with_origin(yaml.safe_dump_all([listed, tier]), "l")
    assert [(one.kind, converted) for one, converted in found] == [
        ("Tier", False),
        ("Profile", True),
        ("NetworkPolicy", True),
        ("Tier", False),
    ]


def test_each_calicos_networkpolicy_and_kubernetes_is_its_own() -> None:
    calico = {
        "apiVersion": "projectcalico.org/v3",
        "kind": "NetworkPolicy",
        "metadata": {"name": "p", "namespace": "shop"},
        "spec": {"selector": "all()"},
    }
    assert [one.name for one in read(calico, policy({}))] == ["p", "knp.default.p"]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(strategies.policies_of_the_cluster())
def test_what_they_become_is_good_as_a_manifest_and_as_a_stored_value(policies: list[Tree]) -> None:
    for resource in read(*policies) if policies else ():
        printed = json.dumps(codec.to_manifest(resource))
        assert codec.decode_manifests(printed, "again") == [resource]
        assert codec.decode_stored(of(resource), codec.encode_stored(resource)) == resource


def test_names_and_labels_as_long_as_kubernetes_allows_are_good_for_us() -> None:
    trees = [
        policy({}, name="n" * 253),
        namespace("n" * 63, **{"l" * 63: "v" * 63}),
        pod("p" * 63, "n" * 63, "10.0.0.1", labels={"l" * 63: "v" * 63}),
    ]
    for resource in read(*trees):
        assert codec.decode_manifests(json.dumps(codec.to_manifest(resource)), "again") == [resource]


def test_a_staged_kubernetes_policy_is_evaluated_as_the_staged_policy_of_its_name() -> None:
    tree = policy(
        {"podSelector": {"matchLabels": {"a": "b"}}, "egress": [{"ports": [{"port": 53, "protocol": "UDP"}]}]}
    )
    staged = one(tree | {"apiVersion": "projectcalico.org/v3", "kind": "StagedKubernetesNetworkPolicy"})
    assert isinstance(staged, StagedKubernetesNetworkPolicy)
    found, enforced = staged_policy(staged), one(tree)
    assert (found.kind, found.name, found.namespace) == ("StagedNetworkPolicy", "p", "shop")
    assert found.spec.staged_action == "Set"
    for field in enforced.spec.__struct_fields__:
        assert getattr(found.spec, field) == getattr(enforced.spec, field)
