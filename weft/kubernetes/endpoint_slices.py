"""discovery.k8s.io/v1 EndpointSlice to KubernetesEndpointSlice: the addresses behind a service, ready or not.

Calico makes no difference between endpoints that are ready and those that are not, and neither do we: policy decides
whether a packet may pass, not where it goes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from weft.kubernetes.objects import KubernetesObject
from weft.model.address import parse_address
from weft.model.base import Metadata, Value
from weft.model.endpoint_slice import KubernetesEndpointSlice, SliceEndpoint, SlicePort
from weft.model.errors import FieldError
from weft.model.kubernetes import KubernetesProtocol
from weft.model.validation import checks
from weft.model.values import Protocol


class Port(Value, frozen=True, kw_only=True):
    """`port` None: every port. `app_protocol` is a hint that nobody needs here."""

    name: str = ""
    protocol: KubernetesProtocol = "TCP"
    port: int | None = None
    app_protocol: str = ""


class Endpoint(Value, frozen=True, kw_only=True):
    addresses: tuple[str, ...]


class EndpointSlice(KubernetesObject, frozen=True, kw_only=True):
    """Of an endpoint only the addresses are read."""

    address_type: Literal["IPv4", "IPv6", "FQDN"]
    endpoints: tuple[Endpoint, ...] = ()
    ports: tuple[Port, ...] = ()


def problems(found: EndpointSlice) -> Iterator[FieldError]:
    for index, endpoint in enumerate(found.endpoints):
        where = f"endpoints[{index}].addresses"
        if not endpoint.addresses:
            yield FieldError(where, [], "at least one address")
        for place, address in enumerate(endpoint.addresses):
            if found.address_type != "FQDN" and not _is_of(address, found.address_type):
                yield FieldError(f"{where}[{place}]", address, f"an {found.address_type} address, as addressType says")
    for index, port in enumerate(found.ports):
        yield from checks.within(f"ports[{index}].port", port.port, 1, 65535)


def _is_of(address: str, family: str) -> bool:
    try:
        return f"IPv{parse_address(address).version}" == family
    except ValueError:
        return False


def endpoint_slice(found: EndpointSlice) -> KubernetesEndpointSlice:
    return KubernetesEndpointSlice(
        metadata=Metadata(name=found.metadata.name, namespace=found.metadata.namespace, labels=found.metadata.labels),
        address_type=found.address_type,
        endpoints=tuple(SliceEndpoint(addresses=one.addresses) for one in found.endpoints),
        ports=tuple(
            SlicePort(name=one.name, protocol=Protocol.parse(one.protocol), port=one.port) for one in found.ports
        ),
    )
