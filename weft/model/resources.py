"""All resources in one place: the union, and the class of each kind."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from weft.model.base import Metadata as Metadata
from weft.model.base import Resource as Resource
from weft.model.bgp import BGPConfiguration, BGPFilter, BGPPeer
from weft.model.endpoint import HostEndpoint, WorkloadEndpoint
from weft.model.endpoint_slice import KubernetesEndpointSlice
from weft.model.felix_configuration import FelixConfiguration
from weft.model.node import ClusterInformation, Node
from weft.model.node_status import CalicoNodeStatus
from weft.model.policy import (
    GlobalNetworkPolicy,
    GlobalNetworkSet,
    NetworkPolicy,
    NetworkSet,
    Profile,
    Tier,
)
from weft.model.pool import IPAMConfiguration, IPPool, IPReservation
from weft.model.staged import StagedGlobalNetworkPolicy, StagedKubernetesNetworkPolicy, StagedNetworkPolicy

AnyResource = (
    Node
    | IPPool
    | IPReservation
    | IPAMConfiguration
    | BGPConfiguration
    | BGPPeer
    | BGPFilter
    | CalicoNodeStatus
    | WorkloadEndpoint
    | HostEndpoint
    | Profile
    | Tier
    | NetworkPolicy
    | GlobalNetworkPolicy
    | StagedNetworkPolicy
    | StagedGlobalNetworkPolicy
    | StagedKubernetesNetworkPolicy
    | NetworkSet
    | GlobalNetworkSet
    | ClusterInformation
    | FelixConfiguration
    | KubernetesEndpointSlice
)

CLASSES: Final[Mapping[str, type[Resource]]] = {
    cls.kind: cls
    for cls in (
        Node,
        IPPool,
        IPReservation,
        IPAMConfiguration,
        BGPConfiguration,
        BGPPeer,
        BGPFilter,
        CalicoNodeStatus,
        WorkloadEndpoint,
        HostEndpoint,
        Profile,
        Tier,
        NetworkPolicy,
        GlobalNetworkPolicy,
        StagedNetworkPolicy,
        StagedGlobalNetworkPolicy,
        StagedKubernetesNetworkPolicy,
        NetworkSet,
        GlobalNetworkSet,
        ClusterInformation,
        FelixConfiguration,
        KubernetesEndpointSlice,
    )
}
