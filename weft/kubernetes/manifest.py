"""Manifests of Kubernetes' API beside ours: strictly read, checked as its API server does, and converted.

Complaints name the field of the Kubernetes object, never that of what it would have become. Of Pods, Namespaces and
ServiceAccounts only what matters to policy is read; everything of a policy is."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final, NamedTuple

from msgspec.structs import replace

from weft.kubernetes import checks
from weft.kubernetes.cluster_objects import AdminNetworkPolicy, BaselineAdminNetworkPolicy, ClusterNetworkPolicy
from weft.kubernetes.cluster_policy import cluster_policy
from weft.kubernetes.endpoint_slices import EndpointSlice, endpoint_slice
from weft.kubernetes.network_policy import network_policy
from weft.kubernetes.objects import KubernetesObject, Namespace, NetworkPolicy, Pod, ServiceAccount
from weft.kubernetes.pods import workload_endpoint
from weft.kubernetes.profiles import namespace_profile, service_account_profile
from weft.model import manifest
from weft.model.base import Resource
from weft.model.defaults import DEFAULT_NAMESPACE
from weft.model.errors import FieldError
from weft.model.manifest import Place, Readers
from weft.model.wire import only_known, shape_of

Convert = Callable[[Any], Iterable[Resource]]


class _Kind(NamedTuple):
    """One kind we read. `open`: of these fields only what the class knows is looked at."""

    cls: type[KubernetesObject]
    convert: Convert
    namespaced: bool = True
    open: tuple[str, ...] = ()


def _of_pod(pod: Pod) -> Iterator[Resource]:
    endpoint = workload_endpoint(pod)
    if endpoint is not None:
        yield endpoint


KINDS: Final[dict[str, dict[str, _Kind]]] = {
    "v1": {
        "Namespace": _Kind(
            Namespace, lambda one: (namespace_profile(one.metadata.name, one.metadata.labels),), namespaced=False
        ),
        "ServiceAccount": _Kind(
            ServiceAccount,
            lambda one: (service_account_profile(one.metadata.namespace, one.metadata.name, one.metadata.labels),),
        ),
        "Pod": _Kind(Pod, _of_pod, open=("spec", "status")),
    },
    "networking.k8s.io/v1": {
        "NetworkPolicy": _Kind(NetworkPolicy, lambda one: (network_policy(one.metadata, one.spec),)),
    },
    "discovery.k8s.io/v1": {
        "EndpointSlice": _Kind(EndpointSlice, lambda one: (endpoint_slice(one),), open=("endpoints",)),
    },
    "policy.networking.k8s.io/v1alpha1": {
        cls.__name__: _Kind(cls, lambda one: (cluster_policy(one),), namespaced=False)
        for cls in (AdminNetworkPolicy, BaselineAdminNetworkPolicy)
    },
    "policy.networking.k8s.io/v1alpha2": {
        "ClusterNetworkPolicy": _Kind(ClusterNetworkPolicy, lambda one: (cluster_policy(one),), namespaced=False),
    },
}


def decode_manifests(text: str | bytes, source: str, namespace: str = DEFAULT_NAMESPACE) -> list[Resource]:
    """As `weft.model.codec.decode_manifests`, and Kubernetes' own objects as the resources they become.

    An object can become none: a pod on the host's network is no endpoint. Raises ValidationError."""
    return manifest.decode_manifests(text, source, namespace, READERS)


def decode_with_origin(text: str, source: str, namespace: str = DEFAULT_NAMESPACE) -> list[tuple[Resource, bool]]:
    """As `decode_manifests`, each with whether it was a Kubernetes object."""
    converted: list[Resource] = []

    def reader(tree: dict[str, Any], place: Place, namespace: str) -> list[Resource]:
        found = read(tree, place, namespace)
        converted.extend(found)
        return found

    resources = manifest.decode_manifests(text, source, namespace, dict.fromkeys(KINDS, reader))
    origins = {id(resource) for resource in converted}
    return [(resource, id(resource) in origins) for resource in resources]


def read(tree: dict[str, Any], place: Place, namespace: str) -> list[Resource]:
    """The resources that one Kubernetes object becomes. Raises ValidationError."""
    known = KINDS[tree["apiVersion"]]
    name = tree.get("kind")
    if not isinstance(name, str) or name not in known:
        raise manifest.unknown_kind(name, list(known), place)
    kind = known[name]
    body = {field: item for field, item in tree.items() if field not in ("apiVersion", "kind", *kind.cls.ignored)}
    shape = shape_of(kind.cls)
    body |= {field: only_known(body[field], shape.fields[field]) for field in kind.open if field in body}
    found = manifest.read_value(kind.cls, body, place)
    if kind.namespaced and not found.metadata.namespace:
        found = _in_namespace(found, namespace)
    try:
        for problem in checks.problems(found, namespaced=kind.namespaced):
            raise problem
        return list(kind.convert(found))
    except FieldError as error:
        raise place.wrong(error.field, error.value, error.expected) from None


def _in_namespace(found: KubernetesObject, namespace: str) -> KubernetesObject:
    return replace(found, metadata=replace(found.metadata, namespace=namespace))


READERS: Final[Readers] = dict.fromkeys(KINDS, read)
