"""FelixConfiguration: words from closed lists, numbers with limits, settings that exclude each other."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Final

from weft.model.address import parse_address, parse_masked_network
from weft.model.base import json_name
from weft.model.errors import FieldError
from weft.model.felix_configuration import FelixConfiguration, FelixConfigurationSpec
from weft.model.validation import checks
from weft.model.validation.bgp import LOG_LEVELS, MAX_PRIORITY

_ON_OFF: Final = ("Enabled", "Disabled")
_WORDS: Final[Mapping[str, tuple[str, ...]]] = {
    "iptables_backend": ("Auto", "NFT", "Legacy"),
    "nftables_mode": ("Auto", "Enabled", "Disabled"),
    "chain_insert_mode": ("Insert", "Append", "insert", "append"),
    "default_endpoint_to_host_action": ("Drop", "Accept", "Return"),
    "iptables_filter_allow_action": ("Accept", "Return"),
    "iptables_mangle_allow_action": ("Accept", "Return"),
    "iptables_filter_deny_action": ("Drop", "Reject"),
    "nftables_filter_allow_action": ("Accept", "Return"),
    "nftables_mangle_allow_action": ("Accept", "Return"),
    "nftables_filter_deny_action": ("Drop", "Reject"),
    "log_severity_file": LOG_LEVELS,
    "log_severity_screen": LOG_LEVELS,
    "log_severity_sys": LOG_LEVELS,
    "prometheus_metrics_client_auth": (
        "RequireAndVerifyClientCert",
        "RequireAnyClientCert",
        "VerifyClientCertIfGiven",
        "NoClientCert",
    ),
    "nat_outgoing_exclusions": ("IPPoolsOnly", "IPPoolsAndHostIPs"),
    "bpf_jit_hardening": ("Auto", "Strict"),
    "bpf_log_level": ("Off", "Info", "Debug"),
    "bpf_conntrack_log_level": ("Off", "Debug"),
    "bpf_conntrack_mode": ("Auto", "Userspace", "BPFProgram"),
    "bpf_connect_time_load_balancing": ("TCP", *_ON_OFF),
    "bpf_host_networked_nat_without_ctlb": _ON_OFF,
    "bpf_external_service_mode": ("Tunnel", "DSR"),
    "bpf_attach_type": ("TC", "TCX"),
    "bpf_profiling": _ON_OFF,
    "bpf_redirect_to_peer": _ON_OFF,
    "flow_logs_local_reporter": _ON_OFF,
    "istio_ambient_mode": _ON_OFF,
    "program_cluster_routes": _ON_OFF,
    "ip_forwarding": _ON_OFF,
    "route_source": ("WorkloadIPs", "CalicoIPAM"),
    "aws_src_dst_check": ("DoNothing", "Enable", "Disable"),
    "service_loop_prevention": ("Drop", "Reject", "Disabled"),
    "workload_source_spoofing": ("Disabled", "Any"),
    "floating_ips": _ON_OFF,
    "windows_manage_firewall_rules": _ON_OFF,
    "flow_logs_policy_evaluation_mode": ("None", "Continuous"),
}
_PORT: Final = (0, 65535)
_LIMITS: Final[Mapping[str, tuple[int, int]]] = {
    "debug_port": _PORT,
    "bpf_kube_proxy_healthz_port": _PORT,
    "wireguard_listening_port": (1, 65535),
    "wireguard_listening_port_v6": (1, 65535),
    "wireguard_routing_rule_priority": (1, 32765),
    "bpf_ext_to_service_connmark": (0, 0xFFFFFFFF),
    "iptables_mark_mask": (0, 0xFFFFFFFF),
    "nftables_mark_mask": (0, 0xFFFFFFFF),
    "ipv4_normal_route_priority": (1, MAX_PRIORITY),
    "ipv4_elevated_route_priority": (1, MAX_PRIORITY),
    "ipv6_normal_route_priority": (1, MAX_PRIORITY),
    "ipv6_elevated_route_priority": (1, MAX_PRIORITY),
    "bpf_maglev_max_endpoints_per_service": (1, 3000),
    "bpf_maglev_max_services": (1, 3000),
    "health_port": _PORT,
    "prometheus_metrics_port": _PORT,
    "metadata_port": _PORT,
    "vxlan_port": _PORT,
    "device_route_protocol": (0, 255),
}
_PATTERNS: Final = (
    "bpf_data_iface_pattern",
    "bpf_l3_iface_pattern",
    "bpf_disable_gro_for_ifaces",
    "mtu_iface_pattern",
    "log_debug_filename_regex",
)
_ADDRESSES: Final = {
    "nat_outgoing_address": 4,
    "device_route_source_address": 4,
    "device_route_source_address_ipv6": 6,
}
_CIDR_LISTS: Final = ("external_nodes_list", "bpf_dsr_optout_cidrs", "bpf_exclude_cidrs_from_nat")


def configuration(resource: FelixConfiguration) -> Iterator[FieldError]:
    spec, name = resource.spec, resource.metadata.name
    for attribute, words in _WORDS.items():
        value = getattr(spec, attribute)
        if value and value not in words:
            yield FieldError(_field(attribute), value, f"one of {', '.join(words)}")
    for attribute, (low, high) in _LIMITS.items():
        yield from checks.within(_field(attribute), getattr(spec, attribute), low, high)
    for attribute in _PATTERNS:
        try:
            re.compile(getattr(spec, attribute))
        except re.error as error:
            yield FieldError(_field(attribute), getattr(spec, attribute), f"a regular expression ({error})")
    yield from _addresses(spec)
    if spec.node_selector is not None:
        yield from checks.selector("spec.nodeSelector", spec.node_selector)
        if name == "default" or name.startswith("node."):
            yield FieldError("spec.nodeSelector", spec.node_selector, f"no selector on {name}")
    if spec.route_table_range is not None and spec.route_table_ranges is not None:
        yield FieldError("spec.routeTableRange", "routeTableRange", "either routeTableRange or routeTableRanges")
    yield from _ports(spec)


def _addresses(spec: FelixConfigurationSpec) -> Iterator[FieldError]:
    for attribute, version in _ADDRESSES.items():
        value = getattr(spec, attribute)
        if value and not _is_version(value, version):
            yield FieldError(_field(attribute), value, f"an IPv{version} address")
    for attribute in _CIDR_LISTS:
        for index, value in enumerate(getattr(spec, attribute) or ()):
            try:
                parse_masked_network(value)
            except ValueError as error:
                yield FieldError(f"{_field(attribute)}[{index}]", value, str(error))


def _is_version(text: str, version: int) -> bool:
    try:
        return parse_address(text).version == version
    except ValueError:
        return False


def _ports(spec: FelixConfigurationSpec) -> Iterator[FieldError]:
    for attribute in ("failsafe_inbound_host_ports", "failsafe_outbound_host_ports"):
        for index, port in enumerate(getattr(spec, attribute) or ()):
            if port.protocol is not None and not port.protocol.has_ports:
                where = f"{_field(attribute)}[{index}].protocol"
                yield FieldError(where, str(port.protocol), "TCP, UDP or SCTP")
    ranges = spec.kube_node_port_ranges or ()
    if len(ranges) > 7:
        yield FieldError("spec.kubeNodePortRanges", len(ranges), "at most 7 ranges")
    for index, port in enumerate(ranges):
        if port.is_named:
            yield FieldError(f"spec.kubeNodePortRanges[{index}]", port.name, "a port number or a range of them")


def _field(attribute: str) -> str:
    return f"spec.{json_name(attribute)}"
