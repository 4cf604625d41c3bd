"""What Kubernetes says of a connection, computed from the documents as they are written.

Made from the API's own documentation of NetworkPolicy (networking.k8s.io) and of the policies of the cluster
(policy.networking.k8s.io); it knows nothing of Calico, of our values or of our conversion, so that a mistake in them
cannot be a mistake here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from ipaddress import ip_address, ip_network
from typing import Any

Tree = Mapping[str, Any]

CLUSTER_KINDS = {"AdminNetworkPolicy": "Admin", "BaselineAdminNetworkPolicy": "Baseline", "ClusterNetworkPolicy": ""}
"""The tier of each kind; "": it says so itself."""


@dataclass(frozen=True)
class End:
    """Of a connection: an address, and the pod that has it, if one does."""

    address: str
    pod: Tree | None = None


class Oracle:
    def __init__(self, documents: Sequence[Tree]) -> None:
        self._policies = [one for one in documents if one["kind"] == "NetworkPolicy"]
        of_cluster = [one for one in documents if one["kind"] in CLUSTER_KINDS]
        self._cluster = sorted(of_cluster, key=lambda one: one["spec"].get("priority", 0))
        self._namespaces: dict[str, dict[str, str]] = {}
        for one in documents:
            if one["kind"] == "Namespace":
                self._namespaces[one["metadata"]["name"]] = dict(one["metadata"].get("labels") or {})

    def egress(self, source: End, destination: End, protocol: str, port: int | None) -> bool:
        return self._allowed("Egress", source, destination, destination, protocol, port)

    def ingress(self, source: End, destination: End, protocol: str, port: int | None) -> bool:
        return self._allowed("Ingress", destination, source, destination, protocol, port)

    def _allowed(self, direction: str, at: End, other: End, target: End, protocol: str, port: int | None) -> bool:
        """The administrator's word, or else that of the policies which isolate the pod `at`, or else the baseline's."""
        if at.pod is None:
            return True
        decided = self._decided("Admin", direction, at.pod, other, target, protocol, port)
        if decided is None:
            decided = self._namespaced(direction, at.pod, other, target, protocol, port)
        if decided is None:
            decided = self._decided("Baseline", direction, at.pod, other, target, protocol, port)
        return decided is not False

    def _namespaced(
        self, direction: str, pod: Tree, other: End, target: End, protocol: str, port: int | None
    ) -> bool | None:
        """None where no policy isolates the pod in this direction; else whether one of their rules allows."""
        field, peers = ("ingress", "from") if direction == "Ingress" else ("egress", "to")
        isolated = False
        for policy in self._policies:
            spec = policy.get("spec") or {}
            if not self._applies(policy, spec, pod) or direction not in _types(spec):
                continue
            isolated = True
            for rule in spec.get(field) or ():
                if self._peers_match(rule.get(peers), policy, other) and _ports_match(
                    rule.get("ports"), target, protocol, port
                ):
                    return True
        return False if isolated else None

    def _decided(
        self, tier: str, direction: str, pod: Tree, other: End, target: End, protocol: str, port: int | None
    ) -> bool | None:
        """What the first rule that matches says, policies in order of priority; None where none does, or one passes."""
        field, peers = ("ingress", "from") if direction == "Ingress" else ("egress", "to")
        for policy in self._cluster:
            spec = policy["spec"]
            if (CLUSTER_KINDS[policy["kind"]] or spec["tier"]) != tier or not self._chosen(spec["subject"], pod):
                continue
            for rule in spec.get(field) or ():
                if any(self._is_peer(peer, other) for peer in rule[peers]) and _at_port(rule, target, protocol, port):
                    return {"Allow": True, "Accept": True, "Deny": False, "Pass": None}[rule["action"]]
        return None

    def _chosen(self, subject: Tree, pod: Tree) -> bool:
        metadata = pod["metadata"]
        labels = self._labels_of_namespace(metadata["namespace"])
        if "namespaces" in subject:
            return _selects(subject["namespaces"], labels)
        pods = subject["pods"]
        return _selects(pods["namespaceSelector"], labels) and _selects(
            pods["podSelector"], metadata.get("labels") or {}
        )

    def _is_peer(self, peer: Tree, other: End) -> bool:
        if "networks" in peer:
            return any(_inside(other.address, network) for network in peer["networks"])
        return other.pod is not None and self._chosen(peer, other.pod)

    def _applies(self, policy: Tree, spec: Tree, pod: Tree) -> bool:
        return policy["metadata"]["namespace"] == pod["metadata"]["namespace"] and _selects(
            spec.get("podSelector") or {}, pod["metadata"].get("labels") or {}
        )

    def _peers_match(self, peers: Iterable[Tree] | None, policy: Tree, other: End) -> bool:
        return not peers or any(self._peer_matches(peer, policy, other) for peer in peers)

    def _peer_matches(self, peer: Tree, policy: Tree, other: End) -> bool:
        block = peer.get("ipBlock")
        if block is not None:
            return _inside(other.address, block["cidr"]) and not any(
                _inside(other.address, hole) for hole in block.get("except") or ()
            )
        if other.pod is None:
            return False
        metadata = other.pod["metadata"]
        if peer.get("namespaceSelector") is None:
            if metadata["namespace"] != policy["metadata"]["namespace"]:
                return False
        elif not _selects(peer["namespaceSelector"], self._labels_of_namespace(metadata["namespace"])):
            return False
        selector = peer.get("podSelector")
        return selector is None or _selects(selector, metadata.get("labels") or {})

    def _labels_of_namespace(self, name: str) -> dict[str, str]:
        return {**self._namespaces.get(name, {}), "kubernetes.io/metadata.name": name}


def _types(spec: Tree) -> set[str]:
    given = spec.get("policyTypes")
    if given:
        return set(given)
    return {"Ingress", "Egress"} if spec.get("egress") else {"Ingress"}


def _selects(selector: Tree, labels: Mapping[str, str]) -> bool:
    for key, value in (selector.get("matchLabels") or {}).items():
        if key not in labels or labels[key] != value:
            return False
    for one in selector.get("matchExpressions") or ():
        there = one["key"] in labels
        match one["operator"]:
            case "In":
                holds = there and labels[one["key"]] in one["values"]
            case "NotIn":
                holds = not (there and labels[one["key"]] in one["values"])
            case "Exists":
                holds = there
            case _:
                holds = not there
        if not holds:
            return False
    return True


@cache
def _inside(address: str, cidr: str) -> bool:
    return ip_address(address) in ip_network(cidr, strict=False)


def _ports_match(ports: Iterable[Tree] | None, target: End, protocol: str, port: int | None) -> bool:
    if not ports:
        return True
    return any(_port_matches(one, target, protocol, port) for one in ports)


def _port_matches(wanted: Tree, target: End, protocol: str, port: int | None) -> bool:
    if (wanted.get("protocol") or "TCP") != protocol:
        return False
    number = wanted.get("port")
    if number is None:
        return True
    if isinstance(number, str):
        return any(
            one.get("name") == number and (one.get("protocol") or "TCP") == protocol and one["containerPort"] == port
            for one in _container_ports(target)
        )
    return port is not None and number <= port <= wanted.get("endPort", number)


def _container_ports(end: End) -> Iterable[Tree]:
    spec = (end.pod or {}).get("spec") or {}
    for container in (*(spec.get("containers") or ()), *(spec.get("initContainers") or ())):
        yield from container.get("ports") or ()


def _at_port(rule: Tree, target: End, protocol: str, port: int | None) -> bool:
    wanted = [*map(_admin_port, rule.get("ports") or ()), *map(_cluster_port, rule.get("protocols") or ())]
    return not wanted or any(
        _is_named(one, target, protocol, port)
        if isinstance(one, str)
        else one[0] == protocol and (one[1] is None or (port is not None and one[1] <= port <= one[2]))
        for one in wanted
    )


def _is_named(name: str, target: End, protocol: str, port: int | None) -> bool:
    return any(
        one.get("name") == name and (one.get("protocol") or "TCP") == protocol and one["containerPort"] == port
        for one in _container_ports(target)
    )


def _admin_port(one: Tree) -> str | tuple[str, Any, Any]:
    """A name, or a protocol with its first and last port."""
    if "namedPort" in one:
        return str(one["namedPort"])
    if "portNumber" in one:
        number = one["portNumber"]
        return number.get("protocol", "TCP"), number["port"], number["port"]
    return one["portRange"].get("protocol", "TCP"), one["portRange"]["start"], one["portRange"]["end"]


def _cluster_port(one: Tree) -> str | tuple[str, Any, Any]:
    if "destinationNamedPort" in one:
        return str(one["destinationNamedPort"])
    ((protocol, inside),) = one.items()
    port = inside.get("destinationPort")
    if port is None:
        return protocol.upper(), None, None
    if "number" in port:
        return protocol.upper(), port["number"], port["number"]
    return protocol.upper(), port["range"]["start"], port["range"]["end"]
