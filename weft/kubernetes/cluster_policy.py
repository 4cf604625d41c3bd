"""Policies of the cluster to GlobalNetworkPolicies in the tiers kube-admin and kube-baseline, in order of priority.

Names and orders of AdminNetworkPolicy and BaselineAdminNetworkPolicy are those of Calico up to 3.31, which had tiers
of its own for them; the tiers, and everything about ClusterNetworkPolicy, are those of 3.32.1. A named port is of any
protocol."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from weft.kubernetes.cluster_objects import (
    AdminNetworkPolicy,
    AnyRule,
    BaselineAdminNetworkPolicy,
    ClusterPolicy,
    EgressPeer,
    Subject,
)
from weft.kubernetes.rules import Direction, gather_ports, rules
from weft.kubernetes.selectors import namespace_selector, pod_selector
from weft.model import names
from weft.model.base import Metadata, Resource
from weft.model.defaults import with_defaults
from weft.model.policy import (
    KUBE_ADMIN_TIER,
    KUBE_BASELINE_TIER,
    Action,
    EntityRule,
    GlobalNetworkPolicy,
    GlobalNetworkPolicySpec,
    PolicyType,
    Rule,
    RuleMetadata,
)
from weft.model.values import Number

BASELINE_ORDER = Number(1000)
RULE_NAME_ANNOTATION = "name"


def cluster_policy(policy: ClusterPolicy) -> Resource:
    prefix, tier = _place(policy)
    subject = policy.spec.subject
    ingress = tuple(_rules("ingress", policy.spec.ingress))
    egress = tuple(_rules("egress", policy.spec.egress))
    return with_defaults(
        GlobalNetworkPolicy(
            metadata=Metadata(name=prefix + policy.metadata.name),
            spec=GlobalNetworkPolicySpec(
                tier=tier,
                order=_order(policy),
                selector=pod_selector(subject.pods.pod_selector if subject.pods is not None else None),
                namespace_selector=namespace_selector(
                    subject.pods.namespace_selector if subject.pods is not None else subject.namespaces
                ),
                ingress=ingress,
                egress=egress,
                types=_types(ingress, egress),
            ),
        )
    )


def _place(policy: ClusterPolicy) -> tuple[str, str]:
    """What its name begins with, and its tier."""
    if isinstance(policy, AdminNetworkPolicy):
        return names.ADMIN_POLICY_PREFIX, KUBE_ADMIN_TIER
    if isinstance(policy, BaselineAdminNetworkPolicy):
        return names.BASELINE_ADMIN_POLICY_PREFIX, KUBE_BASELINE_TIER
    if policy.spec.tier == "Admin":
        return names.CLUSTER_POLICY_ADMIN_PREFIX, KUBE_ADMIN_TIER
    return names.CLUSTER_POLICY_BASELINE_PREFIX, KUBE_BASELINE_TIER


def _order(policy: ClusterPolicy) -> float:
    return BASELINE_ORDER if isinstance(policy, BaselineAdminNetworkPolicy) else Number(policy.spec.priority)


def _types(ingress: Sequence[Rule], egress: Sequence[Rule]) -> tuple[PolicyType, ...]:
    """Those it has rules for: these tiers pass at their end, so a direction without rules has nothing to say."""
    types: tuple[PolicyType, ...] = ("Ingress",) if ingress else ()
    return (*types, "Egress") if egress else types


def _rules(direction: Direction, found: Sequence[AnyRule]) -> Iterator[Rule]:
    for rule in found:
        action: Action = "Allow" if rule.action == "Accept" else rule.action
        metadata = RuleMetadata(annotations={RULE_NAME_ANNOTATION: rule.name}) if rule.name else None
        peers = [one for peer in rule.peers for one in _entities(peer)]
        yield from rules(direction, action, peers, gather_ports(port.choice() for port in rule.ports), metadata)


def _entities(peer: Subject) -> Iterator[EntityRule]:
    """One, or one for each address family: prefixes of both cannot stand in one of our rules."""
    if peer.pods is not None:
        yield EntityRule(
            selector=pod_selector(peer.pods.pod_selector),
            namespace_selector=namespace_selector(peer.pods.namespace_selector),
        )
    elif peer.namespaces is not None:
        yield EntityRule(namespace_selector=namespace_selector(peer.namespaces))
    elif isinstance(peer, EgressPeer):
        for version in (4, 6):
            nets = tuple(net for net in peer.networks or () if net.version == version)
            if nets:
                yield EntityRule(nets=nets)
