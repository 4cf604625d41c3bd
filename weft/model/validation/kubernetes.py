"""Kubernetes' label selectors and NetworkPolicy spec, as its API server checks them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from weft.model.errors import FieldError
from weft.model.kubernetes import (
    IPBlock,
    KubernetesNetworkPolicySpec,
    LabelSelector,
    LabelSelectorRequirement,
    NetworkPolicyPeer,
    NetworkPolicyPort,
)
from weft.model.validation import checks

_MOST_TYPES: Final = 2


def label_selector(where: str, selector: LabelSelector) -> Iterator[FieldError]:
    yield from checks.label_map(f"{where}.matchLabels", selector.match_labels)
    for index, requirement in enumerate(selector.match_expressions):
        yield from _requirement(f"{where}.matchExpressions[{index}]", requirement)


def _requirement(where: str, requirement: LabelSelectorRequirement) -> Iterator[FieldError]:
    values = list(requirement.values)
    if not checks.is_qualified_name(requirement.key):
        yield FieldError(f"{where}.key", requirement.key, checks.LABEL_NAME_WORDS)
    if requirement.operator in ("In", "NotIn"):
        if not values:
            yield FieldError(f"{where}.values", values, f"at least one value with operator {requirement.operator}")
    elif values:
        yield FieldError(f"{where}.values", values, f"no values with operator {requirement.operator}")
    for index, value in enumerate(values):
        if not checks.is_label_value(value):
            yield FieldError(f"{where}.values[{index}]", value, checks.LABEL_VALUE_WORDS)


def network_policy_spec(spec: KubernetesNetworkPolicySpec) -> Iterator[FieldError]:
    yield from label_selector("spec.podSelector", spec.pod_selector)
    for index, ingress in enumerate(spec.ingress):
        where = f"spec.ingress[{index}]"
        yield from _ports(f"{where}.ports", ingress.ports)
        yield from _peers(f"{where}.from", ingress.peers)
    for index, egress in enumerate(spec.egress):
        where = f"spec.egress[{index}]"
        yield from _ports(f"{where}.ports", egress.ports)
        yield from _peers(f"{where}.to", egress.peers)
    if len(spec.policy_types) > _MOST_TYPES:
        yield FieldError("spec.policyTypes", list(spec.policy_types), "Ingress, Egress or both")


def _ports(where: str, ports: Sequence[NetworkPolicyPort]) -> Iterator[FieldError]:
    for index, one in enumerate(ports):
        port = one.port
        if port is not None and not port.is_named and port.first == 0:
            yield FieldError(f"{where}[{index}].port", 0, "a port from 1 to 65535")
        if port is not None and port.is_named and not checks.is_port_name(port.name):
            expected = f"a port number (without quotes), or a port name: {checks.PORT_NAME_WORDS}"
            yield FieldError(f"{where}[{index}].port", port.name, expected)


def _peers(where: str, peers: Sequence[NetworkPolicyPeer]) -> Iterator[FieldError]:
    for index, peer in enumerate(peers):
        at = f"{where}[{index}]"
        if peer.pod_selector is None and peer.namespace_selector is None and peer.ip_block is None:
            yield FieldError(at, {}, "a podSelector, a namespaceSelector, both, or an ipBlock")
        for field, selector in (
            ("podSelector", peer.pod_selector),
            ("namespaceSelector", peer.namespace_selector),
        ):
            if selector is None:
                continue
            if peer.ip_block is not None:
                yield FieldError(f"{at}.{field}", field, "no selector beside ipBlock")
            yield from label_selector(f"{at}.{field}", selector)
        if peer.ip_block is not None:
            yield from _ip_block(f"{at}.ipBlock", peer.ip_block)


def _ip_block(where: str, block: IPBlock) -> Iterator[FieldError]:
    for index, hole in enumerate(block.excluded):
        inside = hole.version == block.cidr.version and hole != block.cidr and hole.subnet_of(block.cidr)  # type: ignore[arg-type]
        if not inside:
            yield FieldError(f"{where}.except[{index}]", str(hole), f"a prefix inside of {block.cidr}, and smaller")
