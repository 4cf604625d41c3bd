"""core/v1 Pod to WorkloadEndpoint, as Calico's conversion has it (3.32.1).

A pod on the host's network and one that is not scheduled are no endpoints. One that has ended keeps its labels and
loses its addresses: they may be another pod's by now."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from weft.kubernetes.objects import Container, Pod
from weft.model import names
from weft.model.address import IPAddress, IPNetwork, parse_address, parse_cidr
from weft.model.base import Metadata, Resource
from weft.model.defaults import with_defaults
from weft.model.endpoint import IPNAT, WorkloadEndpoint, WorkloadEndpointPort, WorkloadEndpointSpec
from weft.model.errors import FieldError
from weft.model.values import Protocol
from weft.model.wire import NO_JSON

UNKNOWN_NODE = "unknown"
"""Where a pod is put that has an address and no node: written by hand, since Kubernetes gives the node first."""

POD_IP = "cni.projectcalico.org/podIP"
POD_IPS = "cni.projectcalico.org/podIPs"
AWS_POD_IPS = "vpc.amazonaws.com/pod-ips"
CONTAINER_ID = "cni.projectcalico.org/containerID"
FLOATING_IPS = "cni.projectcalico.org/floatingIPs"
SOURCE_PREFIXES = "cni.projectcalico.org/allowedSourcePrefixes"

_INTERFACE = "eth0"
_ENDED = ("Failed", "Succeeded", "Completed")


def workload_endpoint(pod: Pod) -> Resource | None:
    """None where the pod is no endpoint. `pod` has its namespace. Raises FieldError."""
    spec, metadata = pod.spec, pod.metadata
    addresses = tuple(_addresses(pod))
    if spec.host_network or not (spec.node_name or addresses):
        return None
    node = spec.node_name or UNKNOWN_NODE
    if is_finished(pod):
        addresses = ()
    profiles = [names.namespace_profile(metadata.namespace)]
    if spec.service_account_name:
        profiles.append(names.service_account_profile(metadata.namespace, spec.service_account_name))
    try:
        name = names.k8s_endpoint_name(node, metadata.name, _INTERFACE)
    except FieldError as error:
        field = {"node": "spec.nodeName", "pod": "metadata.name"}[error.field]
        raise FieldError(field, error.value, error.expected) from None
    endpoint = WorkloadEndpoint(
        metadata=Metadata(name=name, namespace=metadata.namespace, labels=metadata.labels),
        spec=WorkloadEndpointSpec(
            orchestrator="k8s",
            node=node,
            container_id=metadata.annotations.get(CONTAINER_ID, ""),
            pod=metadata.name,
            endpoint=_INTERFACE,
            service_account_name=spec.service_account_name,
            ip_networks=tuple(_network(address) for address in addresses),
            ip_nats=tuple(_floating_ips(pod, addresses)),
            profiles=tuple(profiles),
            interface_name=names.k8s_interface_name(metadata.namespace, metadata.name),
            ports=tuple(_ports((*spec.containers, *spec.init_containers))),
            allow_spoofed_source_prefixes=tuple(_source_prefixes(pod)),
        ),
    )
    return with_defaults(endpoint)


def is_finished(pod: Pod) -> bool:
    """Whether its addresses may belong to somebody else: it has ended, or the CNI plugin has taken them back."""
    taken_back = any(pod.metadata.annotations.get(name) == "" for name in (POD_IP, AWS_POD_IPS))
    return pod.status.phase in _ENDED or (pod.metadata.deletion_timestamp is not None and taken_back)


def _addresses(pod: Pod) -> Iterator[IPAddress]:
    """From the status, or else from what the CNI plugin noted before the status was there."""
    status, annotations = pod.status, pod.metadata.annotations
    found: list[tuple[str, str]] = [
        (f"status.podIPs[{index}].ip", one.ip) for index, one in enumerate(status.pod_ips) if one.ip
    ]
    if not found and status.pod_ip:
        found = [("status.podIP", status.pod_ip)]
    for name in (POD_IPS, POD_IP, AWS_POD_IPS):
        if not found and annotations.get(name):
            found = [(f"metadata.annotations.{name}", text) for text in annotations[name].split(",")]
    for field, text in found:
        try:
            yield _address(text)
        except ValueError as error:
            raise FieldError(field, text, str(error)) from None


def _address(text: str) -> IPAddress:
    """The annotations have it with its prefix length."""
    address, slash, length = text.strip().partition("/")
    parsed = parse_address(address)
    if slash and length != str(parsed.max_prefixlen):
        raise ValueError(f"a single address, such as {parsed}")
    return parsed


def _network(address: IPAddress) -> IPNetwork:
    return parse_cidr(f"{address}/{address.max_prefixlen}")


def _ports(containers: tuple[Container, ...]) -> Iterator[WorkloadEndpointPort]:
    """Those that a policy can name or that are reached by the host's."""
    for container in containers:
        for port in container.ports:
            if port.name or port.host_port:
                yield WorkloadEndpointPort(
                    name=port.name,
                    protocol=Protocol.parse(port.protocol),
                    port=port.container_port,
                    host_port=port.host_port,
                    host_ip=port.host_ip,
                )


def _floating_ips(pod: Pod, addresses: tuple[IPAddress, ...]) -> Iterator[IPNAT]:
    """To the pod's address of the same family; those of a family that the pod has not are left out."""
    by_version = {address.version: address for address in addresses}
    for text in _annotated_list(pod, FLOATING_IPS) if addresses else ():
        try:
            external = parse_address(text)
        except ValueError as error:
            raise FieldError(f"metadata.annotations.{FLOATING_IPS}", text, str(error)) from None
        if external.version in by_version:
            yield IPNAT(internal_ip=by_version[external.version], external_ip=external)


def _source_prefixes(pod: Pod) -> Iterator[IPNetwork]:
    for text in _annotated_list(pod, SOURCE_PREFIXES):
        try:
            yield parse_cidr(text)
        except ValueError as error:
            raise FieldError(f"metadata.annotations.{SOURCE_PREFIXES}", text, str(error)) from None


def _annotated_list(pod: Pod, name: str) -> list[str]:
    text = pod.metadata.annotations.get(name)
    if not text:
        return []
    try:
        return msgspec.json.decode(text, type=list[str])
    except NO_JSON:
        raise FieldError(f"metadata.annotations.{name}", text, "a JSON list of text") from None
