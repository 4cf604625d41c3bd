"""networking.k8s.io/v1 NetworkPolicy to NetworkPolicy: `knp.default.<name>` in the tier default, order 1000.

The name is the one that Calico's controller gives it in etcd, the spec that of its conversion (3.32.1)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from msgspec.structs import replace

from weft.kubernetes.rules import Direction, gather_ports, rules
from weft.kubernetes.selectors import namespace_selector, pod_selector
from weft.model.base import Metadata, Resource
from weft.model.defaults import with_defaults
from weft.model.kubernetes import (
    KubernetesNetworkPolicySpec,
    NetworkPolicyEgressRule,
    NetworkPolicyIngressRule,
    NetworkPolicyPeer,
    NetworkPolicyPort,
)
from weft.model.names import KUBERNETES_POLICY_PREFIX
from weft.model.policy import DEFAULT_TIER, EntityRule, NetworkPolicy, NetworkPolicySpec, PolicyType, Rule
from weft.model.staged import StagedKubernetesNetworkPolicy, StagedNetworkPolicy, StagedNetworkPolicySpec
from weft.model.values import Number, Port

ORDER = Number(1000)


def network_policy(metadata: Metadata, spec: KubernetesNetworkPolicySpec) -> Resource:
    """`metadata` is the Kubernetes policy's, with its namespace."""
    name = KUBERNETES_POLICY_PREFIX + metadata.name
    return with_defaults(
        NetworkPolicy(metadata=Metadata(name=name, namespace=metadata.namespace), spec=_converted(spec))
    )


def staged_policy(staged: StagedKubernetesNetworkPolicy) -> StagedNetworkPolicy:
    """What it is evaluated as, under its own name. One that stands for a deletion has no rules and chooses nothing to
    evaluate: callers leave it out, as they do any staged policy whose action is not Set."""
    spec = _converted(staged.spec)
    fields = {name: getattr(spec, name) for name in spec.__struct_fields__}
    metadata = replace(staged.metadata, resource_version="", uid="")
    return StagedNetworkPolicy(
        metadata=metadata, spec=StagedNetworkPolicySpec(**fields, staged_action=staged.spec.staged_action)
    )


def _converted(spec: KubernetesNetworkPolicySpec) -> NetworkPolicySpec:
    return NetworkPolicySpec(
        tier=DEFAULT_TIER,
        order=ORDER,
        selector=pod_selector(spec.pod_selector),
        ingress=tuple(_rules("ingress", spec.ingress)),
        egress=tuple(_rules("egress", spec.egress)),
        types=_types(spec),
    )


def _types(spec: KubernetesNetworkPolicySpec) -> tuple[PolicyType, ...]:
    """As given, or as Kubernetes' API server fills them in."""
    given = spec.policy_types or (("Ingress", "Egress") if spec.egress else ("Ingress",))
    both: tuple[PolicyType, ...] = ("Ingress", "Egress")
    return tuple(one for one in both if one in given)


def _rules(direction: Direction, found: Sequence[NetworkPolicyIngressRule | NetworkPolicyEgressRule]) -> Iterator[Rule]:
    for rule in found:
        peers = [_peer(peer) for peer in rule.peers]
        yield from rules(direction, "Allow", peers, gather_ports(_port(port) for port in rule.ports))


def _peer(peer: NetworkPolicyPeer) -> EntityRule:
    if peer.ip_block is not None:
        return EntityRule(nets=(peer.ip_block.cidr,), not_nets=peer.ip_block.excluded)
    return EntityRule(
        selector=pod_selector(peer.pod_selector), namespace_selector=namespace_selector(peer.namespace_selector)
    )


def _port(port: NetworkPolicyPort) -> tuple[str, Port | None]:
    protocol = port.protocol or "TCP"
    if port.port is None:
        return protocol, None
    if port.port.is_named:
        return protocol, Port(name=port.port.name)
    return protocol, Port(port.port.first, port.end_port or port.port.last)
