"""policy.networking.k8s.io: ClusterNetworkPolicy (v1alpha2), and AdminNetworkPolicy and BaselineAdminNetworkPolicy
(v1alpha1), which it took the place of.

A rule chooses by one of its peers at one of its ports; of each peer and of each port exactly one field is given."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import msgspec

from weft.kubernetes.objects import KubernetesObject
from weft.model.address import CidrNetwork
from weft.model.base import Value
from weft.model.kubernetes import KubernetesProtocol, LabelSelector
from weft.model.values import Port

ProtocolPort = tuple[str, Port | None]
"""A protocol ("": any) and a port of it (None: every)."""


class NamespacedPods(Value, frozen=True, kw_only=True):
    namespace_selector: LabelSelector = LabelSelector()
    pod_selector: LabelSelector = LabelSelector()


class Subject(Value, frozen=True, kw_only=True):
    """Whom the policy is for; also a peer of an ingress rule."""

    namespaces: LabelSelector | None = None
    pods: NamespacedPods | None = None


class EgressPeer(Subject, frozen=True, kw_only=True):
    networks: tuple[CidrNetwork, ...] | None = None
    nodes: LabelSelector | None = None
    domain_names: tuple[str, ...] | None = None


class PortNumber(Value, frozen=True, kw_only=True):
    port: int
    protocol: KubernetesProtocol = "TCP"


class PortRange(Value, frozen=True, kw_only=True):
    start: int
    end: int


class ProtocolPortRange(PortRange, frozen=True, kw_only=True):
    protocol: KubernetesProtocol = "TCP"


class AdminPort(Value, frozen=True, kw_only=True):
    """Of v1alpha1."""

    port_number: PortNumber | None = None
    port_range: ProtocolPortRange | None = None
    named_port: str | None = None

    def choice(self) -> ProtocolPort:
        if self.port_number is not None:
            return self.port_number.protocol, Port(self.port_number.port, self.port_number.port)
        if self.port_range is not None:
            return self.port_range.protocol, Port(self.port_range.start, self.port_range.end)
        return "", Port(name=self.named_port or "")


class DestinationPort(Value, frozen=True, kw_only=True):
    number: int | None = None
    range: PortRange | None = None

    def choice(self) -> Port:
        if self.range is not None:
            return Port(self.range.start, self.range.end)
        return Port(self.number or 0, self.number or 0)


class OfProtocol(Value, frozen=True, kw_only=True):
    """`destination_port` None: every port."""

    destination_port: DestinationPort | None = None


class ClusterProtocol(Value, frozen=True, kw_only=True):
    """Of v1alpha2."""

    tcp: OfProtocol | None = None
    udp: OfProtocol | None = None
    sctp: OfProtocol | None = None
    destination_named_port: str | None = None

    def choice(self) -> ProtocolPort:
        for name, one in (("TCP", self.tcp), ("UDP", self.udp), ("SCTP", self.sctp)):
            if one is not None:
                return name, one.destination_port.choice() if one.destination_port is not None else None
        return "", Port(name=self.destination_named_port or "")


class AdminIngressRule(Value, frozen=True, kw_only=True):
    action: Literal["Allow", "Deny", "Pass"]
    name: str = ""
    peers: tuple[Subject, ...] = msgspec.field(name="from", default=())
    ports: tuple[AdminPort, ...] = ()


class AdminEgressRule(Value, frozen=True, kw_only=True):
    action: Literal["Allow", "Deny", "Pass"]
    name: str = ""
    peers: tuple[EgressPeer, ...] = msgspec.field(name="to", default=())
    ports: tuple[AdminPort, ...] = ()


class BaselineIngressRule(AdminIngressRule, frozen=True, kw_only=True):
    action: Literal["Allow", "Deny"]


class BaselineEgressRule(AdminEgressRule, frozen=True, kw_only=True):
    action: Literal["Allow", "Deny"]


class ClusterIngressRule(Value, frozen=True, kw_only=True):
    action: Literal["Accept", "Deny", "Pass"]
    name: str = ""
    peers: tuple[Subject, ...] = msgspec.field(name="from", default=())
    ports: tuple[ClusterProtocol, ...] = msgspec.field(name="protocols", default=())


class ClusterEgressRule(Value, frozen=True, kw_only=True):
    action: Literal["Accept", "Deny", "Pass"]
    name: str = ""
    peers: tuple[EgressPeer, ...] = msgspec.field(name="to", default=())
    ports: tuple[ClusterProtocol, ...] = msgspec.field(name="protocols", default=())


AnyRule = AdminIngressRule | AdminEgressRule | ClusterIngressRule | ClusterEgressRule


class AdminSpec(Value, frozen=True, kw_only=True):
    """The lower the `priority`, the earlier the policy is asked."""

    priority: int
    subject: Subject
    ingress: tuple[AdminIngressRule, ...] = ()
    egress: tuple[AdminEgressRule, ...] = ()


class BaselineSpec(Value, frozen=True, kw_only=True):
    subject: Subject
    ingress: tuple[BaselineIngressRule, ...] = ()
    egress: tuple[BaselineEgressRule, ...] = ()


class ClusterSpec(Value, frozen=True, kw_only=True):
    tier: Literal["Admin", "Baseline"]
    priority: int
    subject: Subject
    ingress: tuple[ClusterIngressRule, ...] = ()
    egress: tuple[ClusterEgressRule, ...] = ()


class AdminNetworkPolicy(KubernetesObject, frozen=True, kw_only=True):
    spec: AdminSpec


class BaselineAdminNetworkPolicy(KubernetesObject, frozen=True, kw_only=True):
    """There is one, and it is called default."""

    spec: BaselineSpec


class ClusterNetworkPolicy(KubernetesObject, frozen=True, kw_only=True):
    spec: ClusterSpec


ClusterPolicy = AdminNetworkPolicy | BaselineAdminNetworkPolicy | ClusterNetworkPolicy


def given(value: Value) -> Iterator[str]:
    """The JSON names of the fields that are not None."""
    for attribute, name in zip(value.__struct_fields__, value.__struct_encode_fields__, strict=True):
        if getattr(value, attribute) is not None:
            yield name
