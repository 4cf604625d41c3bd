"""Staged policies: what would hold if they were enforced. Evaluated and counted, never enforced.

`staged_action` says what enforcing it would do: Set creates or replaces the policy of the same name, Delete removes it;
Learn and Ignore are for tools of their own and mean nothing here. Fields: Calico's staged*networkpolicy.go."""

from __future__ import annotations

from typing import ClassVar, Literal

from weft.model.base import Resource, written
from weft.model.kubernetes import KubernetesNetworkPolicySpec
from weft.model.policy import GlobalNetworkPolicySpec, NetworkPolicySpec

StagedAction = Literal["Set", "Delete", "Learn", "Ignore"]


class StagedNetworkPolicySpec(NetworkPolicySpec, frozen=True, kw_only=True):
    staged_action: StagedAction = written("Set")


class StagedNetworkPolicy(Resource, frozen=True, kw_only=True):
    kind: ClassVar[str] = "StagedNetworkPolicy"
    spec: StagedNetworkPolicySpec = StagedNetworkPolicySpec()


class StagedGlobalNetworkPolicySpec(GlobalNetworkPolicySpec, frozen=True, kw_only=True):
    staged_action: StagedAction = written("Set")


class StagedGlobalNetworkPolicy(Resource, frozen=True, kw_only=True):
    kind: ClassVar[str] = "StagedGlobalNetworkPolicy"
    spec: StagedGlobalNetworkPolicySpec = StagedGlobalNetworkPolicySpec()


class StagedKubernetesNetworkPolicySpec(KubernetesNetworkPolicySpec, frozen=True, kw_only=True):
    staged_action: StagedAction = written("Set")


class StagedKubernetesNetworkPolicy(Resource, frozen=True, kw_only=True):
    """A Kubernetes policy; `weft.kubernetes` turns it into the StagedNetworkPolicy that it is evaluated as."""

    kind: ClassVar[str] = "StagedKubernetesNetworkPolicy"
    spec: StagedKubernetesNetworkPolicySpec = StagedKubernetesNetworkPolicySpec()


StagedPolicy = StagedNetworkPolicy | StagedGlobalNetworkPolicy
