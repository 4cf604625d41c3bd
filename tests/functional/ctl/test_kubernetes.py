"""weftctl takes objects of Kubernetes' own API and stores what they become."""

from __future__ import annotations

import json
from collections.abc import Callable

from tests.functional.ctl.conftest import Weftctl

RESOURCES = "/calico/resources/v3/projectcalico.org/"
CLUSTER = """
apiVersion: v1
kind: List
items:
- {apiVersion: v1, kind: Namespace, metadata: {name: shop, labels: {team: red}, uid: u, resourceVersion: "7"}}
- {apiVersion: v1, kind: ServiceAccount, metadata: {name: robot, namespace: shop}}
- apiVersion: v1
  kind: Pod
  metadata: {name: web, namespace: shop, labels: {app: web}}
  spec:
    nodeName: node-1
    serviceAccountName: robot
    containers: [{name: c, image: i, ports: [{containerPort: 80, name: http}]}]
  status: {phase: Running, podIPs: [{ip: 10.65.0.7}]}
- {apiVersion: v1, kind: Pod, metadata: {name: proxy, namespace: shop}, spec: {nodeName: node-1, hostNetwork: true}}
- apiVersion: networking.k8s.io/v1
  kind: NetworkPolicy
  metadata: {name: web, namespace: shop}
  spec: {podSelector: {matchLabels: {app: web}}, ingress: [{ports: [{port: http}]}]}
---
apiVersion: policy.networking.k8s.io/v1alpha2
kind: ClusterNetworkPolicy
metadata: {name: guard}
spec:
  tier: Admin
  priority: 10
  subject: {namespaces: {}}
  egress: [{action: Deny, to: [{networks: [169.254.169.254/32]}]}]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: web-x, namespace: shop, labels: {kubernetes.io/service-name: web}}
addressType: IPv4
endpoints: [{addresses: [10.65.0.7], conditions: {ready: true}}]
ports: [{port: 80, protocol: TCP}]
"""
KEYS = (
    "profiles/kns.shop",
    "profiles/ksa.shop.robot",
    "workloadendpoints/shop/node--1-k8s-web-eth0",
    "networkpolicies/shop/knp.default.web",
    "globalnetworkpolicies/kcnp.kube-admin.guard",
    "kubernetesendpointslices/shop/web-x",
)


def test_objects_are_applied_as_what_they_become_and_a_second_time_nothing_changes(
    weftctl: Weftctl, read: Callable[[str], str]
) -> None:
    applied = weftctl("apply", "-f", "-", stdin=CLUSTER)
    assert (applied.code, applied.out) == (0, "Successfully applied 6 resource(s)\n"), applied.err
    before = weftctl("get", "-f", "-", "-o", "json", stdin=CLUSTER).out
    assert len(json.loads(before)["items"]) == 6
    assert json.loads(read(RESOURCES + KEYS[0]))["spec"]["labelsToApply"]["pcns.team"] == "red"
    assert all(read(RESOURCES + key) for key in KEYS)
    assert weftctl("apply", "-f", "-", stdin=CLUSTER).code == 0
    assert weftctl("get", "-f", "-", "-o", "json", stdin=CLUSTER).out == before
    assert weftctl("get", "endpointslices", "-n", "shop", "-o", "wide").out.split()[-5:] == [
        *("shop", "web-x", "web", "IPv4", "1")
    ]
    assert weftctl("replace", "-f", "-", stdin=CLUSTER).code == 0
    again = weftctl("create", "-f", "-", stdin=CLUSTER)
    assert again.code == 1
    assert "resource already exists: NetworkPolicy(shop/knp.default.web)" in again.err
    deleted = weftctl("delete", "-f", "-", stdin=CLUSTER)
    assert (deleted.code, deleted.out) == (0, "Successfully deleted 6 resource(s)\n"), deleted.err
    assert not any(read(RESOURCES + key) for key in KEYS)


def test_a_converted_policy_is_written_by_its_kubernetes_document_only(weftctl: Weftctl) -> None:
    words = "kubernetes network policies must be managed through the kubernetes API"
    assert weftctl("apply", "-f", "-", stdin=CLUSTER).code == 0
    printed = weftctl("get", "np", "-n", "shop", "knp.default.web", "-o", "yaml").out
    assert words in weftctl("apply", "-f", "-", stdin=printed).err
    assert words in weftctl("delete", "np", "-n", "shop", "knp.default.web").err
    assert weftctl("get", "np", "-n", "shop", "knp.default.web").code == 0


def test_a_mistake_is_told_by_the_kubernetes_field(weftctl: Weftctl) -> None:
    refused = weftctl("apply", "-f", "-", stdin=CLUSTER.replace("port: http", "port: 0"))
    assert refused.code == 1
    field = "items[4].spec.ingress[0].ports[0].port"
    assert f"<stdin>, document 1: {field}: 0 is not valid: a port from 1 to 65535" in refused.err
    assert weftctl("get", "profiles", "-o", "name").out == ""


def test_staged_policies_are_written_listed_and_keep_their_tier(weftctl: Weftctl) -> None:
    staged = """
{apiVersion: projectcalico.org/v3, kind: Tier, metadata: {name: t}, spec: {order: 5}}
---
apiVersion: projectcalico.org/v3
kind: StagedNetworkPolicy
metadata: {name: p, namespace: shop}
spec: {tier: t, order: 7, selector: has(a)}
---
apiVersion: projectcalico.org/v3
kind: StagedKubernetesNetworkPolicy
metadata: {name: k, namespace: shop}
spec: {podSelector: {matchLabels: {app: web}}}
"""
    assert weftctl("apply", "-f", "-", stdin=staged).code == 0
    listed = weftctl("get", "spol", "-n", "shop", "-o", "wide").out.split()
    assert listed == ["NAMESPACE", "NAME", "TIER", "ORDER", "SELECTOR", "shop", "p", "t", "7", "has(a)"]
    assert weftctl("get", "sknp", "-n", "shop").out.split() == ["NAMESPACE", "NAME", "shop", "k"]
    assert "non-empty tier" in weftctl("delete", "tier", "t").err
    missing = weftctl(
        "apply",
        "-f",
        "-",
        stdin=staged.partition("---")[2].replace("name: p, ", "name: new, ").replace("tier: t", "tier: u"),
    )
    assert "spec.tier: 'u' is not valid: the name of an existing tier" in missing.err
