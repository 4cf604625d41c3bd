"""A node's graph asks a staged Kubernetes policy in its place, among the policies of the default tier."""

from __future__ import annotations

from felix.calc.graph import Graph
from tests.unit.kubernetes.documents import Tree, namespace, pod, policy, read
from weft.model.base import Resource
from weft.model.keys import ResourceKey, of
from weft.policy.values import Action, Direction

STAGED = ResourceKey("StagedKubernetesNetworkPolicy", "deny", "shop")


def staged(spec: Tree) -> list[Resource]:
    changes = {"apiVersion": "projectcalico.org/v3", "kind": "StagedKubernetesNetworkPolicy"}
    return read(policy(spec, "deny") | changes)


def test_a_staged_kubernetes_policy_is_asked_and_goes_with_its_resource() -> None:
    graph = Graph("node-1")
    graph.on_in_sync()
    pods = pod("a", "shop", "10.0.0.1", labels={"app": "web"})
    allow = policy({"podSelector": {}, "ingress": [{}]}, "allow")
    for resource in (*read(namespace("shop"), pods, allow), *staged({"podSelector": {"matchLabels": {"app": "web"}}})):
        graph.on_update(of(resource), resource)
    delta = graph.flush()
    (endpoint,) = (one for one in delta.endpoints.values() if one is not None)
    (tier,) = endpoint.policy.tiers
    assert tier.policies(Direction.INGRESS) == (STAGED, ResourceKey("NetworkPolicy", "knp.default.allow", "shop"))
    assert tier.default_action is Action.DENY
    compiled = delta.policies[STAGED]
    assert compiled is not None
    assert (compiled.ingress, compiled.egress) == ((), None)
    graph.on_update(STAGED, None)
    assert graph.flush().policies == {STAGED: None}
