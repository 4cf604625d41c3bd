"""What each field of FelixConfiguration is to us: taken in, what we do anyway, or irrelevant to which packet passes.

Every other field that is set is reported."""

from collections.abc import Mapping
from typing import Any, Final, NamedTuple


class Words(NamedTuple):
    """`taken` is the word that holds where another is given, in place of one that might open more."""

    meaning: Mapping[str, Any]
    taken: str


WORDS: Final[Mapping[str, Words]] = {
    "default_endpoint_to_host_action": Words({"Drop": "Drop", "Return": "Return", "Accept": "Accept"}, "Drop"),
    "service_loop_prevention": Words({"Drop": "Drop", "Reject": "Reject", "Disabled": "Disabled"}, "Drop"),
    "workload_source_spoofing": Words({"Disabled": False, "Any": True}, "Disabled"),
    "nftables_filter_deny_action": Words({"Drop": False, "Reject": True}, "Drop"),
    "iptables_filter_deny_action": Words({"Drop": False, "Reject": True}, "Drop"),
}
"""Fields that say one of a few words, in any case."""


def word_of(field: str, text: str) -> str | None:
    """The word as it is written here; None if it is none of the field's."""
    return next((word for word in WORDS[field].meaning if word.lower() == text.lower()), None)


REJECTS: Final = ("nftables_filter_deny_action", "iptables_filter_deny_action")
"""Whether Deny rejects: the first that is given says."""

FLAGS: Final = (
    "allow_ipip_packets_from_workloads",
    "allow_vxlan_packets_from_workloads",
    "disable_conntrack_invalid_check",
)

TAKEN_IN: Final = {
    *WORDS,
    *FLAGS,
    "failsafe_inbound_host_ports",
    "failsafe_outbound_host_ports",
    "interface_prefix",
    "log_action_rate_limit",
    "log_action_rate_limit_burst",
    "log_prefix",
    "node_selector",
    "vxlan_port",
}
"""Fields that are computed from, or have words of their own."""

# What says how Calico's own processes and its other dataplanes do their work, and nothing about which packet passes
# or where it goes: whoever sets it misses nothing here. The chain insert mode says whether Calico's rules stand before
# or behind others in chains that both share: our table is our own.
_IRRELEVANT_PREFIXES = (
    "bpf_",
    "debug_",
    "go_",
    "health_",
    "log_severity_",
    "prometheus_",
    "usage_reporting_",
    "windows_",
)
_IRRELEVANT = {
    *("cgroup_v2_path", "chain_insert_mode", "dataplane_driver", "dataplane_watchdog_timeout"),
    *("feature_detect_override", "feature_gates", "generic_xdp_enabled", "interface_exclude"),
    *("interface_refresh_interval", "ipsets_refresh_interval", "iptables_backend", "iptables_filter_allow_action"),
    *("iptables_lock_probe_interval", "iptables_mangle_allow_action", "iptables_mark_mask"),
    *("iptables_post_write_check_interval", "iptables_refresh_interval", "kube_node_port_ranges"),
    *("log_debug_filename_regex", "log_file_path", "max_ipset_size", "netlink_timeout"),
    *("nftables_filter_allow_action", "nftables_mangle_allow_action", "nftables_mark_mask", "nftables_mode"),
    *("nftables_refresh_interval", "reporting_interval", "reporting_ttl", "require_mtu_file"),
    *("route_refresh_interval", "route_table_range", "route_table_ranges", "sidecar_acceleration_enabled"),
    *("use_internal_dataplane_driver", "xdp_enabled", "xdp_refresh_interval"),
}

AS_WE_DO: Final[Mapping[str, object]] = {
    "aws_src_dst_check": "DoNothing",
    "endpoint_reporting_enabled": False,
    "floating_ips": "Disabled",
    "ip_forwarding": "Enabled",
    "ipip_enabled": False,
    "ipv6_support": True,
    "istio_ambient_mode": "Disabled",
    "nat_outgoing_exclusions": "IPPoolsOnly",
    "remove_external_routes": False,
    "route_source": "CalicoIPAM",
    "route_sync_disabled": False,
    "vxlan_enabled": False,
    "wireguard_enabled": False,
    "wireguard_enabled_v6": False,
}
"""A setting that asks for what we do anyway is enforced."""


def is_irrelevant(field: str) -> bool:
    return field in _IRRELEVANT or field.startswith(_IRRELEVANT_PREFIXES)
