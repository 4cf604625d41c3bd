"""What Calico's client fills in when a resource is created or updated, so that both store the same.

Defaults that do not depend on other fields stand at the fields themselves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, TypeVar

from msgspec.structs import replace

from weft.model import kinds, names
from weft.model.base import Metadata, Resource
from weft.model.endpoint import WorkloadEndpoint
from weft.model.errors import FieldError
from weft.model.policy import (
    DEFAULT_TIER,
    TIER_ORDERS,
    GlobalNetworkPolicy,
    GlobalNetworkPolicySpec,
    NetworkPolicy,
    NetworkPolicySpec,
    PolicyType,
    Tier,
)
from weft.model.staged import StagedGlobalNetworkPolicy, StagedNetworkPolicy, StagedPolicy

R = TypeVar("R", bound=Resource)

DEFAULT_NAMESPACE: Final = "default"
TIER_LABEL: Final = "projectcalico.org/tier"
NAMESPACE_LABEL: Final = "projectcalico.org/namespace"
ORCHESTRATOR_LABEL: Final = "projectcalico.org/orchestrator"
SERVICE_ACCOUNT_LABEL: Final = "projectcalico.org/serviceaccount"
_LONGEST_LABEL_VALUE: Final = 63


def policy_types(spec: NetworkPolicySpec | GlobalNetworkPolicySpec) -> tuple[PolicyType, ...]:
    """The directions a policy is for; with none given, those it has rules for, and ingress if it has none."""
    if spec.types:
        return spec.types
    if not spec.egress:
        return ("Ingress",)
    return ("Ingress", "Egress") if spec.ingress else ("Egress",)


def with_defaults(resource: Resource, namespace: str = DEFAULT_NAMESPACE) -> Resource:
    """The resource as it is to be stored. `namespace` is for namespaced resources that name none."""
    if kinds.KINDS[resource.kind].namespaced and not resource.metadata.namespace:
        resource = _with_metadata(resource, replace(resource.metadata, namespace=namespace))
    match resource:
        case NetworkPolicy() | GlobalNetworkPolicy() | StagedNetworkPolicy() | StagedGlobalNetworkPolicy():
            return _policy(resource)
        case Tier() if resource.spec.order is None:
            return replace(resource, spec=replace(resource.spec, order=TIER_ORDERS[DEFAULT_TIER]))
        case WorkloadEndpoint():
            return _workload_endpoint(resource)
        case _:
            return resource


def _with_metadata(resource: R, metadata: Metadata) -> R:
    return replace(resource, metadata=metadata)


def _with_labels(resource: R, labels: Mapping[str, str]) -> R:
    metadata = resource.metadata
    return _with_metadata(resource, replace(metadata, labels={**metadata.labels, **labels}))


def _policy(policy: NetworkPolicy | GlobalNetworkPolicy | StagedPolicy) -> Resource:
    """Types and the tier's label; a staged deletion has no types."""
    policy = _with_labels(policy, {TIER_LABEL: policy.spec.tier or DEFAULT_TIER})
    deletion = isinstance(policy, StagedPolicy) and policy.spec.staged_action == "Delete"
    return replace(policy, spec=replace(policy.spec, types=() if deletion else policy_types(policy.spec)))


def _workload_endpoint(endpoint: WorkloadEndpoint) -> Resource:
    """The labels that policy may select by, and the name where it is left out."""
    spec, metadata = endpoint.spec, endpoint.metadata
    labels = {NAMESPACE_LABEL: metadata.namespace, ORCHESTRATOR_LABEL: spec.orchestrator}
    if spec.service_account_name and len(spec.service_account_name) < _LONGEST_LABEL_VALUE:
        labels[SERVICE_ACCOUNT_LABEL] = spec.service_account_name
    endpoint = _with_labels(endpoint, labels)
    if metadata.name:
        return endpoint
    return _with_metadata(endpoint, replace(endpoint.metadata, name=workload_endpoint_name(endpoint)))


def workload_endpoint_name(endpoint: WorkloadEndpoint) -> str:
    """The name that the endpoint's own fields demand. Raises FieldError."""
    spec = endpoint.spec
    try:
        return names.endpoint_name(
            node=spec.node,
            orchestrator=spec.orchestrator,
            workload=spec.workload,
            pod=spec.pod,
            container_id=spec.container_id,
            endpoint=spec.endpoint,
        )
    except FieldError as error:
        raise FieldError(f"spec.{error.field}", error.value, error.expected) from None
