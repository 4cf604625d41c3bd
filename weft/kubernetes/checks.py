"""What Kubernetes' API server checks of the objects that we read, as far as we look at them."""

from __future__ import annotations

from collections.abc import Iterator

from weft.kubernetes import cluster_checks, endpoint_slices
from weft.kubernetes.cluster_objects import AdminNetworkPolicy, BaselineAdminNetworkPolicy, ClusterNetworkPolicy
from weft.kubernetes.endpoint_slices import EndpointSlice
from weft.kubernetes.objects import Container, KubernetesObject, NetworkPolicy, Pod
from weft.model.errors import FieldError
from weft.model.validation import checks
from weft.model.validation import kubernetes as specs


def problems(found: KubernetesObject, *, namespaced: bool) -> Iterator[FieldError]:
    """Everything that is wrong with an object, by its own fields."""
    metadata = found.metadata
    if not metadata.name:
        yield FieldError("metadata.name", "", "a name: it has none")
    yield from checks.name("metadata.name", metadata.name)
    if namespaced:
        yield from checks.name("metadata.namespace", metadata.namespace)
    elif metadata.namespace:
        yield FieldError("metadata.namespace", metadata.namespace, "no namespace: there is none around it")
    yield from checks.label_map("metadata.labels", metadata.labels)
    match found:
        case NetworkPolicy():
            yield from specs.network_policy_spec(found.spec)
        case Pod():
            yield from _pod(found)
        case EndpointSlice():
            yield from endpoint_slices.problems(found)
        case AdminNetworkPolicy() | BaselineAdminNetworkPolicy() | ClusterNetworkPolicy():
            yield from cluster_checks.problems(found)
        case _:
            return


def _pod(pod: Pod) -> Iterator[FieldError]:
    yield from checks.name("spec.nodeName", pod.spec.node_name)
    yield from checks.name("spec.serviceAccountName", pod.spec.service_account_name)
    for field, containers in (("containers", pod.spec.containers), ("initContainers", pod.spec.init_containers)):
        for index, container in enumerate(containers):
            yield from _container(f"spec.{field}[{index}]", container)


def _container(where: str, container: Container) -> Iterator[FieldError]:
    for index, port in enumerate(container.ports):
        at = f"{where}.ports[{index}]"
        yield from checks.within(f"{at}.containerPort", port.container_port, 1, 65535)
        yield from checks.within(f"{at}.hostPort", port.host_port, 0, 65535)
        if port.name and not checks.is_port_name(port.name):
            yield FieldError(f"{at}.name", port.name, checks.PORT_NAME_WORDS)
