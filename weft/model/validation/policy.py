"""Policies, profiles, tiers and network sets."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Final, Literal

from weft.model.base import json_name
from weft.model.defaults import NAMESPACE_LABEL
from weft.model.errors import FieldError
from weft.model.policy import (
    DEFAULT_ALLOW_PROFILE,
    KUBE_ADMIN_TIER,
    KUBE_BASELINE_TIER,
    TIER_ORDERS,
    EntityRule,
    GlobalNetworkPolicy,
    GlobalNetworkSet,
    NetworkPolicy,
    NetworkSet,
    Profile,
    Rule,
    Tier,
)
from weft.model.staged import StagedGlobalNetworkPolicy, StagedKubernetesNetworkPolicy, StagedNetworkPolicy
from weft.model.validation import checks

Direction = Literal["ingress", "egress"]

_INHERITED: Final = re.compile(r"^pc(?:ns|sa)\.")
_ICMP: Final = 1
_ICMPV6: Final = 58


def network_policy(policy: NetworkPolicy | StagedNetworkPolicy) -> Iterator[FieldError]:
    spec = policy.spec
    yield from checks.name("spec.tier", spec.tier)
    yield from checks.selector("spec.selector", spec.selector)
    yield from checks.selector("spec.serviceAccountSelector", spec.service_account_selector)
    yield from _unique("spec.types", spec.types)
    yield from _unique("spec.performanceHints", spec.performance_hints)
    yield from _rules("ingress", spec.ingress, services_need_namespace=False)
    yield from _rules("egress", spec.egress, services_need_namespace=False)


def global_network_policy(policy: GlobalNetworkPolicy | StagedGlobalNetworkPolicy) -> Iterator[FieldError]:
    spec = policy.spec
    yield from checks.name("spec.tier", spec.tier)
    yield from checks.selector("spec.selector", spec.selector)
    yield from checks.selector("spec.namespaceSelector", spec.namespace_selector)
    yield from checks.selector("spec.serviceAccountSelector", spec.service_account_selector)
    yield from _unique("spec.types", spec.types)
    yield from _unique("spec.performanceHints", spec.performance_hints)
    if spec.do_not_track and spec.pre_dnat:
        yield FieldError("spec.preDNAT", True, "either preDNAT or doNotTrack")
    if spec.pre_dnat and spec.egress:
        yield FieldError("spec.egress", f"{len(spec.egress)} rules", "no egress rules with preDNAT")
    if spec.pre_dnat and "Egress" in spec.types:
        yield FieldError("spec.types", list(spec.types), "only Ingress with preDNAT")
    if (spec.do_not_track or spec.pre_dnat) and not spec.apply_on_forward:
        yield FieldError("spec.applyOnForward", False, "true with preDNAT or doNotTrack")
    yield from _rules("ingress", spec.ingress, services_need_namespace=True)
    yield from _rules("egress", spec.egress, services_need_namespace=True)


def staged_deletion(
    policy: StagedNetworkPolicy | StagedGlobalNetworkPolicy | StagedKubernetesNetworkPolicy,
) -> Iterator[FieldError]:
    """One that stands for the deletion of a policy says no more than which."""
    spec = policy.spec
    empty = type(spec)()
    for attribute in spec.__struct_fields__:
        value = getattr(spec, attribute)
        if attribute not in ("tier", "staged_action") and value != getattr(empty, attribute):
            yield FieldError(f"spec.{json_name(attribute)}", attribute, "nothing with stagedAction Delete")


def profile(resource: Profile) -> Iterator[FieldError]:
    spec = resource.spec
    if resource.metadata.name == DEFAULT_ALLOW_PROFILE.metadata.name:
        yield FieldError("metadata.name", resource.metadata.name, "another name: this profile is built in")
    # The prefix of a Kubernetes Namespace's or ServiceAccount's labels is no part of their names.
    for key, value in spec.labels_to_apply.items():
        yield from checks.label_map("spec.labelsToApply", {_INHERITED.sub("", key): value})
    for direction, rules in (("ingress", spec.ingress), ("egress", spec.egress)):
        for index, rule in enumerate(rules):
            yield from _rule(f"spec.{direction}[{index}]", rule)


def tier(resource: Tier) -> Iterator[FieldError]:
    name, spec = resource.metadata.name, resource.spec
    order = TIER_ORDERS.get(name)
    if order is None:
        return
    if spec.order != order:
        yield FieldError("spec.order", spec.order, f"{order:.0f} for the tier {name}")
    action = "Pass" if name in (KUBE_ADMIN_TIER, KUBE_BASELINE_TIER) else "Deny"
    if spec.default_action != action:
        yield FieldError("spec.defaultAction", spec.default_action, f"{action} for the tier {name}")


def network_set(resource: NetworkSet | GlobalNetworkSet) -> Iterator[FieldError]:
    if NAMESPACE_LABEL in resource.metadata.labels:
        yield FieldError("metadata.labels", NAMESPACE_LABEL, "other labels: this one is set by the namespace")


def _unique(field: str, values: Sequence[str]) -> Iterator[FieldError]:
    for index, value in enumerate(values):
        if value in values[:index]:
            yield FieldError(f"{field}[{index}]", value, "each value once")


def _rules(direction: Direction, rules: Sequence[Rule], *, services_need_namespace: bool) -> Iterator[FieldError]:
    """A policy's rules of one direction: services stand for the other end only."""
    for index, rule in enumerate(rules):
        where = f"spec.{direction}[{index}]"
        yield from _rule(where, rule)
        near, far = ("destination", "source") if direction == "ingress" else ("source", "destination")
        near_entity = rule.destination if direction == "ingress" else rule.source
        far_entity = rule.source if direction == "ingress" else rule.destination
        if near_entity.services is not None:
            yield FieldError(f"{where}.{near}.services", near_entity.services.name, f"services only in {far}")
        if services_need_namespace and far_entity.services and not far_entity.services.namespace:
            yield FieldError(f"{where}.{far}.services.namespace", "", "the namespace of the service")


def _rule(where: str, rule: Rule) -> Iterator[FieldError]:
    yield from _entity(f"{where}.source", rule.source)
    yield from _entity(f"{where}.destination", rule.destination)
    yield from _ports(where, rule)
    yield from _icmp(where, rule)
    yield from _families(where, rule)
    if rule.metadata is not None:
        yield from checks.annotation_map(f"{where}.metadata.annotations", rule.metadata.annotations)
    if rule.http is not None:
        yield FieldError(f"{where}.http", "http", "no http: matches on the application layer are not enforced")
    services = rule.destination.services
    if services is not None and (rule.destination.ports or rule.destination.not_ports):
        yield FieldError(f"{where}.destination.ports", services.name, "no ports with services, which have their own")


def _ports(where: str, rule: Rule) -> Iterator[FieldError]:
    """Numbered ports need a protocol that has ports; named ports bring their own."""
    for side, entity in (("source", rule.source), ("destination", rule.destination)):
        for field, ports in (("ports", entity.ports), ("notPorts", entity.not_ports)):
            for index, port in enumerate(ports):
                at = f"{where}.{side}.{field}[{index}]"
                if not port.is_named and port.first == 0:
                    yield FieldError(at, port.to_json(), "a port from 1 to 65535")
            numbered = [port for port in ports if not port.is_named]
            if (rule.protocol is None and numbered) or (
                rule.protocol is not None and ports and not rule.protocol.has_ports
            ):
                found = None if rule.protocol is None else str(rule.protocol)
                yield FieldError(f"{where}.protocol", found, f"TCP, UDP or SCTP, because {side}.{field} is given")


def _icmp(where: str, rule: Rule) -> Iterator[FieldError]:
    number = 0 if rule.protocol is None else rule.protocol.number
    found = None if rule.protocol is None else str(rule.protocol)
    for field, fields in (("icmp", rule.icmp), ("notICMP", rule.not_icmp)):
        if fields is not None and number not in (_ICMP, _ICMPV6):
            yield FieldError(f"{where}.protocol", found, f"ICMP or ICMPv6, because {field} is given")
    excluded = 0 if rule.not_protocol is None else rule.not_protocol.number
    for protocol, version in ((_ICMP, 4), (_ICMPV6, 6)):
        if protocol in (number, excluded) and rule.ip_version not in (None, version):
            yield FieldError(f"{where}.ipVersion", rule.ip_version, f"{version}, or none, with this protocol")


def _families(where: str, rule: Rule) -> Iterator[FieldError]:
    """All prefixes of a rule are of one IP version, which is the rule's if it says one."""
    seen = rule.ip_version
    for side, entity in (("source", rule.source), ("destination", rule.destination)):
        for field, nets in (("nets", entity.nets), ("notNets", entity.not_nets)):
            for index, net in enumerate(nets):
                at = f"{where}.{side}.{field}[{index}]"
                if seen is not None and net.version != seen:
                    yield FieldError(at, str(net), f"an IPv{seen} prefix: a rule is for one IP version")
                seen = seen or (4 if net.version == 4 else 6)
                if field == "notNets" and net.prefixlen == 0:
                    yield FieldError(at, str(net), "a smaller prefix: without it no traffic is left")


def _entity(where: str, entity: EntityRule) -> Iterator[FieldError]:
    yield from checks.selector(f"{where}.selector", entity.selector)
    yield from checks.selector(f"{where}.notSelector", entity.not_selector)
    yield from checks.selector(f"{where}.namespaceSelector", entity.namespace_selector, may_be_global=True)
    if entity.service_accounts is not None:
        yield from checks.selector(f"{where}.serviceAccounts.selector", entity.service_accounts.selector)
    if entity.services is None:
        return
    if not entity.services.name:
        yield FieldError(f"{where}.services.name", "", "the name of a service")
    yield from checks.name(f"{where}.services.name", entity.services.name)
    yield from checks.name(f"{where}.services.namespace", entity.services.namespace)
    others = {
        "namespaceSelector": entity.namespace_selector,
        "selector": entity.selector,
        "notSelector": entity.not_selector,
        "serviceAccounts": entity.service_accounts,
        "nets": entity.nets,
        "notNets": entity.not_nets,
    }
    for field, value in others.items():
        if value:
            yield FieldError(f"{where}.{field}", field, "nothing but ports beside services")
