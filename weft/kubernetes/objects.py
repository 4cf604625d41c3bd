"""What we read of Kubernetes' objects: of policies everything, of a Pod little."""

from __future__ import annotations

from typing import ClassVar

from weft.model.base import Metadata, Value
from weft.model.kubernetes import KubernetesNetworkPolicySpec, KubernetesProtocol


class KubernetesObject(Value, frozen=True, kw_only=True):
    """`ignored` are its other fields that may be there."""

    ignored: ClassVar[frozenset[str]] = frozenset({"status"})
    metadata: Metadata


class Namespace(KubernetesObject, frozen=True, kw_only=True):
    ignored = frozenset({"spec", "status"})


class ServiceAccount(KubernetesObject, frozen=True, kw_only=True):
    ignored = frozenset({"secrets", "imagePullSecrets", "automountServiceAccountToken"})


class ContainerPort(Value, frozen=True, kw_only=True):
    """`host_port` 0: none."""

    container_port: int
    name: str = ""
    protocol: KubernetesProtocol = "TCP"
    host_port: int = 0
    host_ip: str = ""


class Container(Value, frozen=True, kw_only=True):
    ports: tuple[ContainerPort, ...] = ()


class PodSpec(Value, frozen=True, kw_only=True):
    node_name: str = ""
    host_network: bool = False
    service_account_name: str = ""
    containers: tuple[Container, ...] = ()
    init_containers: tuple[Container, ...] = ()


class PodIP(Value, frozen=True, kw_only=True):
    ip: str = ""


class PodStatus(Value, frozen=True, kw_only=True):
    phase: str = ""
    pod_ip: str = ""
    pod_ips: tuple[PodIP, ...] = ()


class Pod(KubernetesObject, frozen=True, kw_only=True):
    ignored = frozenset()
    spec: PodSpec = PodSpec()
    status: PodStatus = PodStatus()


class NetworkPolicy(KubernetesObject, frozen=True, kw_only=True):
    spec: KubernetesNetworkPolicySpec = KubernetesNetworkPolicySpec()
