"""The spec of Kubernetes' NetworkPolicy (networking.k8s.io/v1), which Calico's StagedKubernetesNetworkPolicy holds too.

An absent selector and an empty one mean different things here: absent is None, `LabelSelector()` chooses everything.
Absent and empty lists mean the same."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import msgspec

from weft.model.address import CidrNetwork
from weft.model.base import Value
from weft.model.errors import FieldError
from weft.model.values import KubernetesPort

LabelOperator = Literal["In", "NotIn", "Exists", "DoesNotExist"]
KubernetesProtocol = Literal["TCP", "UDP", "SCTP"]


class LabelSelectorRequirement(Value, frozen=True, kw_only=True):
    key: str
    operator: LabelOperator
    values: tuple[str, ...] = ()


class LabelSelector(Value, frozen=True, kw_only=True):
    """Everything given must hold; nothing given holds for everything."""

    match_labels: Mapping[str, str] = msgspec.field(default_factory=dict)
    match_expressions: tuple[LabelSelectorRequirement, ...] = ()


class IPBlock(Value, frozen=True, kw_only=True):
    cidr: CidrNetwork
    excluded: tuple[CidrNetwork, ...] = msgspec.field(name="except", default=())


class NetworkPolicyPeer(Value, frozen=True, kw_only=True):
    """Pods by one or both selectors, or addresses by `ip_block` alone."""

    pod_selector: LabelSelector | None = None
    namespace_selector: LabelSelector | None = None
    ip_block: IPBlock | None = None


class NetworkPolicyPort(Value, frozen=True, kw_only=True):
    """`protocol` None: TCP. `port` None: every port of the protocol."""

    protocol: KubernetesProtocol | None = None
    port: KubernetesPort | None = None
    end_port: int | None = None

    def __post_init__(self) -> None:
        port, end = self.port, self.end_port
        if end is None:
            return
        if port is None or port.is_named:
            raise FieldError("endPort", end, "no endPort without a port number")
        if not port.first <= end <= 65535:
            raise FieldError("endPort", end, f"a port from {port.first} (port) to 65535")


class NetworkPolicyIngressRule(Value, frozen=True, kw_only=True):
    """No ports: every port of every protocol. No peers: everybody."""

    ports: tuple[NetworkPolicyPort, ...] = ()
    peers: tuple[NetworkPolicyPeer, ...] = msgspec.field(name="from", default=())


class NetworkPolicyEgressRule(Value, frozen=True, kw_only=True):
    ports: tuple[NetworkPolicyPort, ...] = ()
    peers: tuple[NetworkPolicyPeer, ...] = msgspec.field(name="to", default=())


class KubernetesNetworkPolicySpec(Value, frozen=True, kw_only=True):
    """`policy_types` empty: Ingress, and Egress if there are egress rules."""

    pod_selector: LabelSelector = LabelSelector()
    ingress: tuple[NetworkPolicyIngressRule, ...] = ()
    egress: tuple[NetworkPolicyEgressRule, ...] = ()
    policy_types: tuple[Literal["Ingress", "Egress"], ...] = ()
