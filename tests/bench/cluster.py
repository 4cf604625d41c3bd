"""The cluster that the benchmarks load: policies of a rule, workloads here and elsewhere, and the agent's own path.

Workload number n is chosen by `each` policies of its own, and each of these lets in one of the roles."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Network

from felix.calc.graph import Graph
from felix.rules import values as v
from felix.rules.changes import Changes, first_table
from felix.rules.render import Renderer
from weft.model import keys
from weft.model.base import Metadata, Resource
from weft.model.endpoint import WorkloadEndpoint, WorkloadEndpointSpec
from weft.model.policy import EntityRule, GlobalNetworkPolicy, GlobalNetworkPolicySpec, Rule
from weft.model.values import Port, Protocol

ROLES = 100
TCP = Protocol.parse("TCP")


def policy(number: int, each: int, *ports: int) -> GlobalNetworkPolicy:
    """One of the `each` policies of a workload: these ports, from one of the roles."""
    source = EntityRule(selector=f"role == 'r{number % ROLES}'")
    rules = (
        Rule(action="Allow", protocol=TCP, source=source, destination=EntityRule(ports=(Port(port, port),)))
        for port in ports
    )
    spec = GlobalNetworkPolicySpec(selector=f"app == 'a{number // each}'", ingress=tuple(rules))
    return GlobalNetworkPolicy(metadata=Metadata(name=f"pol-{number}"), spec=spec)


def workload(number: int, *, here: bool, profiles: tuple[str, ...] = (), **labels: str) -> WorkloadEndpoint:
    """As the CNI server of a node stores it, with further labels; a remote one's node is one of 250."""
    container = f"{number:08x}{'c0ffee' * 9}{number % 97:02d}"
    return WorkloadEndpoint(
        metadata=Metadata(
            name=f"n{number % 250}-cni-{container[:12]}-eth0",
            namespace=f"ns{number % 50}",
            uid=f"00000000-0000-4000-8000-{number:012d}",
            labels={"app": f"a{number}", "role": f"r{number % ROLES}", **labels},
        ),
        spec=WorkloadEndpointSpec(
            orchestrator="cni",
            workload=container,
            container_id=container,
            endpoint="eth0",
            node="here" if here else f"node-{number % 250}",
            ip_networks=(IPv4Network((0x0A000000 + number, 32)),),
            interface_name=interface(number),
            mac="ee:ee:ee:ee:ee:ee",
            profiles=profiles,
        ),
    )


def interface(number: int) -> str:
    """The host side of a workload."""
    return f"cali{number:08x}"


class Node:
    """The agent's path from a changed resource to what the driver is given, after its first start."""

    def __init__(self, resources: Iterable[Resource]) -> None:
        self._graph, self._renderer = Graph("here"), Renderer()
        for resource in resources:
            self._graph.on_update(keys.of(resource), resource)
        self._graph.on_in_sync()
        self.first: v.Table = first_table(self._changes())

    def change(self, resource: Resource) -> Changes:
        """What follows from a resource written anew."""
        self._graph.on_update(keys.of(resource), resource)
        return self._changes()

    def _changes(self) -> Changes:
        return self._renderer.render(self._graph.flush())
