"""What a manifest must keep to beyond the types of its fields, as Calico's validator has it.

`problems(resource)` yields one FieldError per mistake, with paths from the resource's top. Stored values are
not checked again: what is in the datastore is read as far as it can be."""

from __future__ import annotations

from collections.abc import Iterator

from weft.model.base import Resource
from weft.model.bgp import BGPConfiguration, BGPFilter, BGPPeer
from weft.model.endpoint import HostEndpoint, WorkloadEndpoint
from weft.model.errors import FieldError
from weft.model.felix_configuration import FelixConfiguration
from weft.model.node import ClusterInformation, Node
from weft.model.policy import (
    GlobalNetworkPolicy,
    GlobalNetworkSet,
    NetworkPolicy,
    NetworkSet,
    Profile,
    Tier,
)
from weft.model.pool import IPAMConfiguration, IPPool
from weft.model.staged import StagedGlobalNetworkPolicy, StagedKubernetesNetworkPolicy, StagedNetworkPolicy
from weft.model.validation import bgp, endpoint, felix, kubernetes, metadata, policy, pool


def problems(resource: Resource) -> Iterator[FieldError]:
    """Everything that is wrong with a resource; nothing for a good one."""
    yield from metadata.problems(resource)
    match resource:
        case NetworkPolicy():
            yield from policy.network_policy(resource)
        case GlobalNetworkPolicy():
            yield from policy.global_network_policy(resource)
        case StagedNetworkPolicy() | StagedGlobalNetworkPolicy() | StagedKubernetesNetworkPolicy():
            yield from _staged(resource)
        case Profile():
            yield from policy.profile(resource)
        case Tier():
            yield from policy.tier(resource)
        case NetworkSet() | GlobalNetworkSet():
            yield from policy.network_set(resource)
        case IPPool():
            yield from pool.ip_pool(resource)
        case IPAMConfiguration() | ClusterInformation():
            yield from metadata.only_default(resource)
        case BGPConfiguration():
            yield from bgp.configuration(resource)
        case BGPPeer():
            yield from bgp.peer(resource)
        case BGPFilter():
            yield from bgp.bgp_filter(resource)
        case WorkloadEndpoint():
            yield from endpoint.workload_endpoint(resource)
        case HostEndpoint():
            yield from endpoint.host_endpoint(resource)
        case Node():
            yield from endpoint.node(resource)
        case FelixConfiguration():
            yield from felix.configuration(resource)
        case _:
            return


def _staged(
    resource: StagedNetworkPolicy | StagedGlobalNetworkPolicy | StagedKubernetesNetworkPolicy,
) -> Iterator[FieldError]:
    if resource.spec.staged_action == "Delete":
        yield from policy.staged_deletion(resource)
        return
    match resource:
        case StagedNetworkPolicy():
            yield from policy.network_policy(resource)
        case StagedGlobalNetworkPolicy():
            yield from policy.global_network_policy(resource)
        case StagedKubernetesNetworkPolicy():
            yield from kubernetes.network_policy_spec(resource.spec)
