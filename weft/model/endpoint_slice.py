"""Kubernetes' EndpointSlice (discovery.k8s.io/v1): which addresses and ports are behind a service.

Stored under Calico's key for it, `kubernetesendpointslices`; `weft.kubernetes` reads manifests. Unlike a v3 resource it
has no spec."""

from __future__ import annotations

from typing import ClassVar, Final, Literal

from weft.model.base import Resource, Value, written
from weft.model.values import Protocol

SERVICE_LABEL: Final = "kubernetes.io/service-name"


class SliceEndpoint(Value, frozen=True, kw_only=True):
    """`addresses` are of the slice's family; for FQDN slices they are names."""

    addresses: tuple[str, ...] = ()


class SlicePort(Value, frozen=True, kw_only=True):
    """`port` None: every port."""

    name: str = ""
    protocol: Protocol | None = None
    port: int | None = None


class KubernetesEndpointSlice(Resource, frozen=True, kw_only=True):
    kind: ClassVar[str] = "KubernetesEndpointSlice"
    address_type: Literal["IPv4", "IPv6", "FQDN"] = written("IPv4")
    endpoints: tuple[SliceEndpoint, ...] = ()
    ports: tuple[SlicePort, ...] = ()

    @property
    def service(self) -> str:
        """The service of its namespace that it belongs to; "" for none."""
        return self.metadata.labels.get(SERVICE_LABEL, "")
