"""Names that are made of other names, as Calico makes them: endpoints, interfaces, handles, profiles.

Calico and weft nodes find each other's objects by these, so not one character may differ."""

from __future__ import annotations

import hashlib
from typing import Final

import msgspec

from weft.model.errors import FieldError
from weft.model.policy import DEFAULT_TIER

INTERFACE_PREFIX: Final = "cali"
INTERFACE_MAC: Final = "ee:ee:ee:ee:ee:ee"
DELETED_INTERFACE_PREFIX: Final = "weftdel"
# How the names of converted Kubernetes policies begin: NetworkPolicy, ClusterNetworkPolicy, and its forerunners.
KUBERNETES_POLICY_PREFIX: Final = "knp.default."
CLUSTER_POLICY_ADMIN_PREFIX: Final = "kcnp.kube-admin."
CLUSTER_POLICY_BASELINE_PREFIX: Final = "kcnp.kube-baseline."
ADMIN_POLICY_PREFIX: Final = "kanp.adminnetworkpolicy."
BASELINE_ADMIN_POLICY_PREFIX: Final = "kbanp.baselineadminnetworkpolicy."
CLUSTER_POLICY_PREFIXES: Final = (
    CLUSTER_POLICY_ADMIN_PREFIX,
    CLUSTER_POLICY_BASELINE_PREFIX,
    ADMIN_POLICY_PREFIX,
    BASELINE_ADMIN_POLICY_PREFIX,
)
_ID_LENGTH: Final = 11


_MIDDLE: Final = {"k8s": "pod", "cni": "containerID", "libnetwork": "orchestrator"}


class EndpointName(msgspec.Struct, frozen=True):
    """The parts of a workload endpoint's name; `workload` is the container id, the pod, or the workload."""

    node: str
    orchestrator: str
    workload: str
    endpoint: str

    def __str__(self) -> str:
        parts = (self.node, self.orchestrator, self.workload, self.endpoint)
        fields = ("node", "orchestrator", _MIDDLE.get(self.orchestrator, "workload"), "endpoint")
        return "-".join(_escape(field, part) for field, part in zip(fields, parts, strict=True))


def cni_endpoint_name(node: str, container_id: str, interface: str) -> str:
    """A container outside Kubernetes: `<node>-cni-<container id>-<interface>`."""
    return str(EndpointName(node, "cni", container_id, interface))


def k8s_endpoint_name(node: str, pod: str, interface: str) -> str:
    """A pod: `<node>-k8s-<pod>-<interface>`."""
    return str(EndpointName(node, "k8s", pod, interface))


def libnetwork_endpoint_name(node: str, endpoint: str) -> str:
    """A Docker container: `<node>-libnetwork-libnetwork-<endpoint>`."""
    return str(EndpointName(node, "libnetwork", "libnetwork", endpoint))


def endpoint_name(
    *,
    node: str,
    orchestrator: str,
    workload: str = "",
    pod: str = "",
    container_id: str = "",
    endpoint: str,
) -> str:
    """The name that a WorkloadEndpoint with these fields must have. Raises FieldError."""
    middle = {"k8s": pod, "cni": container_id, "libnetwork": "libnetwork"}.get(orchestrator, workload)
    return str(EndpointName(node, orchestrator, middle, endpoint))


def parse_endpoint_name(name: str) -> EndpointName | None:
    """The parts again; None where the name does not have four."""
    parts = [part.replace("\0", "-") for part in name.replace("--", "\0").split("-")]
    if len(parts) != 4 or not all(parts):
        return None
    return EndpointName(*parts)


def endpoint_prefix(node: str) -> str:
    """What the names of all endpoints of a node begin with."""
    return _escape("node", node) + "-"


def _escape(field: str, part: str) -> str:
    if not part or part.startswith("-") or part.endswith("-"):
        raise FieldError(field, part, "a name that neither begins nor ends with '-'")
    return part.replace("-", "--")


def cni_interface_name(container_id: str) -> str:
    """The host's side of a container outside Kubernetes: `cali` and the id's first 11 characters."""
    return INTERFACE_PREFIX + container_id[:_ID_LENGTH]


def k8s_interface_name(namespace: str, pod: str) -> str:
    """The host's side of a pod: `cali` and 11 hex digits of SHA-1 over `<namespace>.<pod>`."""
    digest = hashlib.sha1(f"{namespace}.{pod}".encode(), usedforsecurity=False).hexdigest()
    return INTERFACE_PREFIX + digest[:_ID_LENGTH]


def cni_handle_id(network: str, container_id: str) -> str:
    """The handle of a container's addresses in one network."""
    return f"{network}.{container_id}"


def namespace_profile(namespace: str) -> str:
    """The profile of all pods of a Kubernetes namespace."""
    return f"kns.{namespace}"


def service_account_profile(namespace: str, account: str) -> str:
    """The profile of all pods that run as a service account."""
    return f"ksa.{namespace}.{account}"


def legacy_policy_name(tier: str, name: str) -> str:
    """The name a policy was stored under before Calico 3.32: `<tier>.<name>`."""
    return f"{tier or DEFAULT_TIER}.{name}"
