"""BGP configuration, peers and filters."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Final

from weft.model.bgp import (
    BGPConfiguration,
    BGPFilter,
    BGPFilterRuleV4,
    BGPFilterRuleV6,
    BGPPeer,
    FilterOperation,
)
from weft.model.errors import FieldError
from weft.model.validation import checks

MAX_PRIORITY: Final = 2147483646
LOG_LEVELS: Final = ("Trace", "Debug", "Info", "Warning", "Error", "Fatal")
_INTERFACE_PATTERN: Final = re.compile(r"[a-zA-Z0-9_.*-]{1,15}\Z")
_PATTERN_WORDS: Final = "an interface name, in which * stands for anything"


def configuration(resource: BGPConfiguration) -> Iterator[FieldError]:
    spec = resource.spec
    if spec.log_severity_screen not in ("", *LOG_LEVELS):
        expected = f"one of {', '.join(LOG_LEVELS)}"
        yield FieldError("spec.logSeverityScreen", spec.log_severity_screen, expected)
    defined = {community.name for community in spec.communities}
    for index, community in enumerate(spec.communities):
        where = f"spec.communities[{index}]"
        if not checks.is_subdomain(community.name):
            yield FieldError(f"{where}.name", community.name, checks.SUBDOMAIN_WORDS)
        if not checks.is_community(community.value):
            yield FieldError(f"{where}.value", community.value, checks.COMMUNITY_WORDS)
    if spec.communities and not spec.prefix_advertisements:
        yield FieldError("spec.communities", sorted(defined), "prefixAdvertisements that use them")
    for index, advertisement in enumerate(spec.prefix_advertisements):
        where = f"spec.prefixAdvertisements[{index}].communities"
        if not advertisement.communities:
            yield FieldError(where, None, "at least one community")
        for place, value in enumerate(advertisement.communities):
            if value not in defined and not checks.is_community(value):
                expected = f"{checks.COMMUNITY_WORDS}, or the name of one in spec.communities"
                yield FieldError(f"{where}[{place}]", value, expected)
    for index, pattern in enumerate(spec.ignored_interfaces):
        if pattern == "*" or not _INTERFACE_PATTERN.match(pattern):
            yield FieldError(f"spec.ignoredInterfaces[{index}]", pattern, f"{_PATTERN_WORDS}, but not * alone")
    yield from checks.within("spec.ipv4NormalRoutePriority", spec.ipv4_normal_route_priority, 1, MAX_PRIORITY)
    yield from checks.within("spec.ipv6NormalRoutePriority", spec.ipv6_normal_route_priority, 1, MAX_PRIORITY)
    yield from _mesh(resource)


def _mesh(resource: BGPConfiguration) -> Iterator[FieldError]:
    """Settings of the mesh need a mesh, and some are for the whole cluster only."""
    spec = resource.spec
    mesh_only: dict[str, object] = {
        "nodeMeshPassword": spec.node_mesh_password,
        "nodeMeshMaxRestartTime": spec.node_mesh_max_restart_time,
    }
    for field, value in mesh_only.items():
        if value is not None and spec.node_to_node_mesh_enabled is False:
            yield FieldError(f"spec.{field}", str(value), "nothing while nodeToNodeMeshEnabled is false")
    default_only: dict[str, object] = {
        "nodeToNodeMeshEnabled": spec.node_to_node_mesh_enabled,
        "asNumber": spec.as_number,
        "serviceLoadBalancerIPs": spec.service_load_balancer_ips or None,
        "serviceExternalIPs": spec.service_external_ips or None,
        "serviceClusterIPs": spec.service_cluster_ips or None,
        **mesh_only,
    }
    for field, value in default_only.items():
        if value is not None and resource.metadata.name != "default":
            yield FieldError(f"spec.{field}", str(value), "nothing here: only the configuration default has it")


def peer(resource: BGPPeer) -> Iterator[FieldError]:
    spec = resource.spec
    yield from checks.name("spec.node", spec.node)
    yield from checks.names("spec.filters", spec.filters)
    yield from checks.selector("spec.nodeSelector", spec.node_selector)
    yield from checks.selector("spec.peerSelector", spec.peer_selector)
    yield from checks.selector("spec.localWorkloadSelector", spec.local_workload_selector)
    if spec.node and spec.node_selector:
        yield FieldError("spec.node", spec.node, "either node or nodeSelector")
    if spec.peer_ip and spec.peer_selector:
        yield FieldError("spec.peerIP", spec.peer_ip, "either peerIP or peerSelector")
    if spec.as_number and spec.peer_selector:
        yield FieldError("spec.asNumber", int(spec.as_number), "none with peerSelector: the nodes have their own")
    if spec.local_workload_selector:
        if not spec.as_number:
            yield FieldError("spec.asNumber", None, "the workloads' AS number, with localWorkloadSelector")
        if spec.peer_ip or spec.peer_selector:
            field, value = ("peerIP", spec.peer_ip) if spec.peer_ip else ("peerSelector", spec.peer_selector)
            yield FieldError(f"spec.{field}", value, "nothing with localWorkloadSelector")
    if spec.reachable_by is not None:
        address = spec.peer_address
        if address is None:
            yield FieldError("spec.reachableBy", str(spec.reachable_by), "nothing without peerIP")
        elif address.address.version != spec.reachable_by.version:
            expected = f"an IPv{address.address.version} address, as peerIP is"
            yield FieldError("spec.reachableBy", str(spec.reachable_by), expected)
    if spec.keep_original_next_hop and spec.next_hop_mode is not None:
        yield FieldError("spec.keepOriginalNextHop", True, "nextHopMode alone")


def bgp_filter(resource: BGPFilter) -> Iterator[FieldError]:
    spec = resource.spec
    rules_of: dict[str, Sequence[BGPFilterRuleV4 | BGPFilterRuleV6]] = {
        "exportV4": spec.export_v4,
        "importV4": spec.import_v4,
        "exportV6": spec.export_v6,
        "importV6": spec.import_v6,
    }
    for field, rules in rules_of.items():
        for index, rule in enumerate(rules):
            yield from _filter_rule(f"spec.{field}[{index}]", rule)


def _filter_rule(where: str, rule: BGPFilterRuleV4 | BGPFilterRuleV6) -> Iterator[FieldError]:
    longest = 32 if isinstance(rule, BGPFilterRuleV4) else 128
    if rule.cidr is not None and rule.match_operator is None:
        yield FieldError(f"{where}.matchOperator", None, "Equal, NotEqual, In or NotIn, because cidr is given")
    if rule.cidr is None and rule.match_operator is not None:
        yield FieldError(f"{where}.cidr", None, "a prefix, because matchOperator is given")
    if rule.prefix_length is not None:
        if rule.cidr is None:
            yield FieldError(f"{where}.cidr", None, "a prefix, because prefixLength is given")
        yield from checks.within(f"{where}.prefixLength.min", rule.prefix_length.min, 0, longest)
        yield from checks.within(f"{where}.prefixLength.max", rule.prefix_length.max, 0, longest)
    if rule.interface and not _INTERFACE_PATTERN.match(rule.interface):
        yield FieldError(f"{where}.interface", rule.interface, _PATTERN_WORDS)
    yield from checks.within(f"{where}.priority", rule.priority, 1, MAX_PRIORITY)
    if rule.communities is not None:
        for index, value in enumerate(rule.communities.values):
            if not checks.is_community(value):
                yield FieldError(f"{where}.communities.values[{index}]", value, checks.COMMUNITY_WORDS)
    if rule.operations and rule.action != "Accept":
        yield FieldError(f"{where}.operations", rule.action, "operations only with action Accept")
    for index, operation in enumerate(rule.operations):
        yield from _operation(f"{where}.operations[{index}]", operation)


def _operation(where: str, operation: FilterOperation) -> Iterator[FieldError]:
    given = [
        field
        for field, value in (
            ("addCommunity", operation.add_community),
            ("prependASPath", operation.prepend_as_path),
            ("setPriority", operation.set_priority),
        )
        if value is not None
    ]
    if len(given) != 1:
        yield FieldError(where, given, "exactly one of addCommunity, prependASPath and setPriority")
    if operation.add_community is not None and not checks.is_community(operation.add_community.value):
        yield FieldError(f"{where}.addCommunity.value", operation.add_community.value, checks.COMMUNITY_WORDS)
    if operation.set_priority is not None:
        yield from checks.within(f"{where}.setPriority.value", operation.set_priority.value, 1, MAX_PRIORITY)
