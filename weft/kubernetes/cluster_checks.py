"""What the API server checks of policies of the cluster, and what of them nobody could enforce."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from weft.kubernetes.cluster_objects import (
    AdminPort,
    AnyRule,
    BaselineAdminNetworkPolicy,
    ClusterPolicy,
    ClusterProtocol,
    EgressPeer,
    PortRange,
    Subject,
    given,
)
from weft.model.base import Value
from weft.model.errors import FieldError
from weft.model.validation import checks
from weft.model.validation.kubernetes import label_selector

HIGHEST_PRIORITY = 1000
LONGEST_RULE_NAME = 100


def problems(policy: ClusterPolicy) -> Iterator[FieldError]:
    if isinstance(policy, BaselineAdminNetworkPolicy):
        if policy.metadata.name != "default":
            yield FieldError("metadata.name", policy.metadata.name, "default: there is only one")
    else:
        yield from checks.within("spec.priority", policy.spec.priority, 0, HIGHEST_PRIORITY)
    yield from _subject("spec.subject", policy.spec.subject)
    ingress: Sequence[AnyRule] = policy.spec.ingress
    egress: Sequence[AnyRule] = policy.spec.egress
    for index, rule in enumerate(ingress):
        yield from _rule(f"spec.ingress[{index}]", "from", rule)
    for index, rule in enumerate(egress):
        yield from _rule(f"spec.egress[{index}]", "to", rule)


def _rule(where: str, field: str, rule: AnyRule) -> Iterator[FieldError]:
    if len(rule.name) > LONGEST_RULE_NAME:
        yield FieldError(f"{where}.name", rule.name, f"at most {LONGEST_RULE_NAME} characters")
    if not rule.peers:
        yield FieldError(f"{where}.{field}", [], "at least one peer")
    for index, peer in enumerate(rule.peers):
        at = f"{where}.{field}[{index}]"
        yield from _subject(at, peer)
        if isinstance(peer, EgressPeer):
            yield from _unenforceable(at, peer)
    yield from _ports(where, rule.ports)


def _one_of(where: str, value: Value) -> Iterator[FieldError]:
    found = list(given(value))
    if len(found) != 1:
        yield FieldError(where, found, f"exactly one of {', '.join(value.__struct_encode_fields__)}")


def _subject(where: str, subject: Subject) -> Iterator[FieldError]:
    yield from _one_of(where, subject)
    if subject.namespaces is not None:
        yield from label_selector(f"{where}.namespaces", subject.namespaces)
    if subject.pods is not None:
        yield from label_selector(f"{where}.pods.namespaceSelector", subject.pods.namespace_selector)
        yield from label_selector(f"{where}.pods.podSelector", subject.pods.pod_selector)


def _unenforceable(where: str, peer: EgressPeer) -> Iterator[FieldError]:
    if peer.nodes is not None:
        yield FieldError(f"{where}.nodes", "nodes", "networks with their addresses: nodes cannot be chosen by label")
    if peer.domain_names is not None:
        expected = "networks with their addresses: names are not resolved"
        yield FieldError(f"{where}.domainNames", list(peer.domain_names), expected)
    if peer.networks == ():
        yield FieldError(f"{where}.networks", [], "at least one prefix")


def _ports(where: str, ports: Sequence[AdminPort | ClusterProtocol]) -> Iterator[FieldError]:
    for index, port in enumerate(ports):
        if isinstance(port, AdminPort):
            yield from _admin_port(f"{where}.ports[{index}]", port)
        else:
            yield from _cluster_protocol(f"{where}.protocols[{index}]", port)


def _admin_port(where: str, port: AdminPort) -> Iterator[FieldError]:
    yield from _one_of(where, port)
    if port.port_number is not None:
        yield from checks.within(f"{where}.portNumber.port", port.port_number.port, 1, 65535)
    if port.port_range is not None:
        yield from _range(f"{where}.portRange", port.port_range)
    if port.named_port is not None:
        yield from _name(f"{where}.namedPort", port.named_port)


def _cluster_protocol(where: str, protocol: ClusterProtocol) -> Iterator[FieldError]:
    yield from _one_of(where, protocol)
    for name, one in (("tcp", protocol.tcp), ("udp", protocol.udp), ("sctp", protocol.sctp)):
        port = one.destination_port if one is not None else None
        if port is None:
            continue
        at = f"{where}.{name}.destinationPort"
        yield from _one_of(at, port)
        yield from checks.within(f"{at}.number", port.number, 1, 65535)
        if port.range is not None:
            yield from _range(f"{at}.range", port.range)
    if protocol.destination_named_port is not None:
        yield from _name(f"{where}.destinationNamedPort", protocol.destination_named_port)


def _range(where: str, ports: PortRange) -> Iterator[FieldError]:
    yield from checks.within(f"{where}.start", ports.start, 1, 65535)
    yield from checks.within(f"{where}.end", ports.end, 1, 65535)
    if ports.start >= ports.end:
        yield FieldError(f"{where}.end", ports.end, f"a port above {ports.start} (start)")


def _name(where: str, name: str) -> Iterator[FieldError]:
    if not checks.is_port_name(name):
        yield FieldError(where, name, checks.PORT_NAME_WORDS)
