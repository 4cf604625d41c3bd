"""Pieces of Kubernetes' policies, good or with one mistake in them."""

from __future__ import annotations

from typing import Any

from tests.unit.kubernetes.documents import (
    Tree,
    admin_policy,
    cluster_policy,
    pod,
    policy,
)


def selecting(**selector: Any) -> Tree:
    return policy({"podSelector": selector})


def expression(**fields: Any) -> Tree:
    return selecting(matchExpressions=[fields])


def let_in(*peers: Any, ports: Any = None) -> Tree:
    return policy({"ingress": [{"from": list(peers)} | ({"ports": ports} if ports is not None else {})]})


def at(*ports: Any) -> Tree:
    return policy({"egress": [{"ports": list(ports)}]})


def block(cidr: Any, *holes: Any) -> Tree:
    return let_in({"ipBlock": {"cidr": cidr} | ({"except": list(holes)} if holes else {})})


def serving(**port: Any) -> Tree:
    return pod("a", spec={"containers": [{"name": "c", "ports": [port]}]})


ALL: Tree = {"namespaces": {}}


CLUSTER = {"tier": "Admin", "priority": 1, "subject": ALL}


ADMIN = {"priority": 1, "subject": ALL}


def cluster_rule(**fields: Any) -> Tree:
    return cluster_policy(CLUSTER | {"egress": [{"action": "Accept", "to": [ALL]} | fields]})


def admin_rule(**fields: Any) -> Tree:
    return admin_policy(ADMIN | {"ingress": [{"action": "Allow", "from": [ALL]} | fields]})


def without(spec: Tree, field: str) -> Tree:
    return {name: value for name, value in spec.items() if name != field}
