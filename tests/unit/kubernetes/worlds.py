"""A small cluster for policies to be tried in, and both answers for every connection in it: Kubernetes' and ours."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache
from ipaddress import ip_address

from tests.unit.kubernetes.documents import Tree, namespace, pod, read
from tests.unit.kubernetes.oracle import End, Oracle
from weft.kubernetes import implicit_profiles
from weft.model.base import Resource
from weft.model.endpoint import WorkloadEndpoint
from weft.model.keys import ResourceKey
from weft.policy.cluster import Cluster
from weft.policy.values import Direction
from weft.policy.verdict import Flow, verdict

PROTOCOLS = {"TCP": 6, "UDP": 17, "SCTP": 132, "ICMP": 1}
PORTS = (80, 81, 82, 443)
OUTSIDE = ("10.0.9.9", "192.0.2.7", "fd00::9:9", "2001:db8::7")


def serving(name: str, port: int, protocol: str = "TCP") -> Tree:
    return {"name": name, "containerPort": port, "protocol": protocol}


def cluster_documents() -> list[Tree]:
    """Three namespaces, one of which no document describes; pods with and without labels, of one family and of both,
    whose ports have the same names and different numbers."""
    web = {
        "containers": [{"name": "c", "ports": [serving("web", 80), serving("dns", 81, "UDP"), {"containerPort": 82}]}]
    }
    other = {"containers": [{"name": "c", "ports": [serving("web", 81), serving("dns", 81)]}]}
    init = {"initContainers": [{"name": "i", "ports": [serving("web", 443, "SCTP")]}]}
    return [
        namespace("x", ns="x", team="red"),
        namespace("y", ns="y", team=""),
        pod("a", "x", "10.0.1.1", "fd00::1:1", spec=web, labels={"pod": "a", "tier": "front"}),
        pod("b", "x", "10.0.1.2", spec=other, labels={"pod": "b", "tier": ""}),
        pod("c", "x", "10.0.1.3", spec=init),
        pod("a", "y", "10.0.2.1", "fd00::2:1", spec=other, labels={"pod": "a", "tier": "back"}),
        pod("b", "y", "fd00::2:2", spec=web, labels={"pod": "b"}),
        pod("a", "z", "10.0.3.1", labels={"pod": "a", "tier": "front"}),
    ]


Connection = tuple[End, End, str, int | None]


def connections(documents: Sequence[Tree], protocols: Sequence[str], ports: Sequence[int]) -> Iterator[Connection]:
    """From every pod and address outside to every other, by each protocol and port."""
    ends = [End(one["ip"], tree) for tree in documents if tree["kind"] == "Pod" for one in tree["status"]["podIPs"]]
    ends += [End(address) for address in OUTSIDE]
    for source in ends:
        for destination in ends:
            if parse(source.address).version != parse(destination.address).version:
                continue
            if source.pod is None and destination.pod is None:
                continue
            for protocol in protocols:
                for port in ports if protocol != "ICMP" else (None,):
                    yield source, destination, protocol, port


@cache
def _surroundings() -> list[Resource]:
    return read(*cluster_documents())


parse = cache(ip_address)


class Ours:
    """Verdicts by way of the conversion, of `cluster_documents` and policies."""

    def __init__(self, documents: Sequence[Tree]) -> None:
        policies = [one for one in documents if one["kind"].endswith("NetworkPolicy")]
        resources = [*_surroundings(), *(read(*policies) if policies else ())]
        self._cluster = Cluster([*resources, *implicit_profiles(resources)])
        self._keys = {
            (one.namespace, one.spec.pod): ResourceKey(one.kind, one.name, one.namespace)
            for one in resources
            if isinstance(one, WorkloadEndpoint)
        }

    def egress(self, source: End, destination: End, protocol: str, port: int | None) -> bool:
        return self._allowed(Direction.EGRESS, source, source, destination, protocol, port)

    def ingress(self, source: End, destination: End, protocol: str, port: int | None) -> bool:
        return self._allowed(Direction.INGRESS, destination, source, destination, protocol, port)

    def _allowed(
        self, direction: Direction, at: End, source: End, destination: End, protocol: str, port: int | None
    ) -> bool:
        if at.pod is None:
            return True
        key = self._keys[at.pod["metadata"]["namespace"], at.pod["metadata"]["name"]]
        flow = Flow(
            source=parse(source.address),
            destination=parse(destination.address),
            protocol=PROTOCOLS[protocol],
            source_port=None if port is None else 40000,
            destination_port=port,
        )
        chosen = self._cluster.endpoint_policy(key)
        return verdict(chosen, self._cluster.policies, self._cluster.members, flow, direction).allowed


def differences(
    policies: Sequence[Tree], protocols: Sequence[str] = tuple(PROTOCOLS), ports: Sequence[int] = PORTS
) -> tuple[int, list[str]]:
    """How many verdicts were compared, and those that differ, in words."""
    documents = [*cluster_documents(), *policies]
    oracle, ours = Oracle(documents), Ours(documents)
    compared, found = 0, []
    for connection in connections(documents, protocols, ports):
        compared += 2
        for direction in ("egress", "ingress"):
            expected, got = getattr(oracle, direction)(*connection), getattr(ours, direction)(*connection)
            if expected != got:
                found.append(f"{direction} of {_words(connection)}: Kubernetes {expected}, we {got}")
    return compared, found


def _words(connection: Connection) -> str:
    source, destination, protocol, port = connection
    names = [
        f"{end.pod['metadata']['namespace']}/{end.pod['metadata']['name']}" if end.pod else end.address
        for end in (source, destination)
    ]
    return f"{names[0]} to {names[1]} by {protocol} {port}"
