"""Kubernetes documents as people and kubectl write them."""

from __future__ import annotations

from typing import Any

import yaml

from weft.kubernetes import decode_manifests
from weft.model.base import Resource

Tree = dict[str, Any]


def document(api_version: str, kind: str, name: str, namespace: str = "", /, **rest: Any) -> Tree:
    """`labels` and `annotations` go to the metadata."""
    metadata: Tree = {"name": name} | ({"namespace": namespace} if namespace else {})
    metadata |= {field: rest.pop(field) for field in ("labels", "annotations") if field in rest}
    return {"apiVersion": api_version, "kind": kind, "metadata": metadata, **rest}


def policy(spec: Tree, name: str = "p", namespace: str = "shop") -> Tree:
    return document("networking.k8s.io/v1", "NetworkPolicy", name, namespace, spec=spec)


def cluster_policy(spec: Tree, name: str = "p") -> Tree:
    return document("policy.networking.k8s.io/v1alpha2", "ClusterNetworkPolicy", name, spec=spec)


def admin_policy(spec: Tree, name: str = "p") -> Tree:
    return document("policy.networking.k8s.io/v1alpha1", "AdminNetworkPolicy", name, spec=spec)


def baseline_policy(spec: Tree) -> Tree:
    return document("policy.networking.k8s.io/v1alpha1", "BaselineAdminNetworkPolicy", "default", spec=spec)


def namespace(name: str, **labels: str) -> Tree:
    return document("v1", "Namespace", name, labels=labels)


def pod(name: str, namespace: str = "shop", *addresses: str, spec: Tree | None = None, **rest: Any) -> Tree:
    status = {"phase": "Running", "podIPs": [{"ip": one} for one in addresses]} if addresses else {}
    status |= rest.pop("status", {})
    return document("v1", "Pod", name, namespace, spec={"nodeName": "node-1", **(spec or {})}, status=status, **rest)


def read(*trees: Tree, namespace: str = "default") -> list[Resource]:
    return decode_manifests(yaml.safe_dump_all(trees), "k8s.yaml", namespace)


def one(tree: Tree) -> Any:
    (resource,) = read(tree)
    return resource
