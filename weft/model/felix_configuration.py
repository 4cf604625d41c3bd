"""FelixConfiguration: the settings of the node agent.

Every field Calico 3.32 knows, so that its manifests apply unchanged; None means Calico's default. What
weft does with each is the node agent's business (`felix`), not decided here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Final

from weft.model.address import IPNetwork
from weft.model.base import Resource, Value
from weft.model.errors import FieldError
from weft.model.values import Dscp, Duration, Port, Protocol


class HealthTimeoutOverride(Value, frozen=True, kw_only=True):
    name: str
    timeout: Duration


class RouteTableRange(Value, frozen=True, kw_only=True):
    """Route table indices; both ends included."""

    min: int
    max: int

    def __post_init__(self) -> None:
        if not 1 <= self.min <= self.max <= 0xFFFFFFFF:
            raise FieldError("min", self.min, "a range of route tables from 1 up, the smaller index first")


class ProtoPort(Value, frozen=True, kw_only=True):
    """A failsafe port; `net` narrows it to peers in a prefix. No protocol means TCP."""

    port: int
    protocol: Protocol | None = None
    net: IPNetwork | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.port <= 65535:
            raise FieldError("port", self.port, "a port from 0 to 65535")


def _proto_ports(*words: str) -> tuple[ProtoPort, ...]:
    pairs = (word.split(":") for word in words)
    return tuple(ProtoPort(protocol=Protocol.parse(protocol), port=int(port)) for protocol, port in pairs)


_BOTH_WAYS: Final = ("tcp:179", "tcp:2379", "tcp:2380", "tcp:5473", "tcp:6443", "tcp:6666", "tcp:6667")
FAILSAFE_INBOUND: Final = _proto_ports("tcp:22", "udp:68", *_BOTH_WAYS)
"""What stays open to a node whatever policy says, where no configuration says otherwise: SSH, DHCP, BGP, etcd, Typha,
the Kubernetes API. Calico 3.32's."""
FAILSAFE_OUTBOUND: Final = _proto_ports("udp:53", "udp:67", *_BOTH_WAYS)
"""Likewise for what the node itself asks of others: DNS and DHCP first."""


class BpfConntrackTimeouts(Value, frozen=True, kw_only=True):
    """Durations, or `Auto`."""

    creation_grace_period: str | None = None
    tcp_syn_sent: str | None = None
    tcp_established: str | None = None
    tcp_fins_seen: str | None = None
    tcp_reset_seen: str | None = None
    udp_timeout: str | None = None
    generic_timeout: str | None = None
    icmp_timeout: str | None = None


class FelixConfigurationSpec(Value, frozen=True, kw_only=True):
    """Unset means the built-in default. A `node_selector` limits a configuration to some nodes."""

    node_selector: str | None = None
    use_internal_dataplane_driver: bool | None = None
    dataplane_driver: str = ""
    dataplane_watchdog_timeout: Duration | None = None
    ipv6_support: bool | None = None
    route_refresh_interval: Duration | None = None
    interface_refresh_interval: Duration | None = None
    iptables_refresh_interval: Duration | None = None
    iptables_post_write_check_interval: Duration | None = None
    iptables_lock_probe_interval: Duration | None = None
    feature_detect_override: str = ""
    feature_gates: str = ""
    ipsets_refresh_interval: Duration | None = None
    max_ipset_size: int | None = None
    iptables_backend: str | None = None
    xdp_refresh_interval: Duration | None = None
    netlink_timeout: Duration | None = None
    metadata_addr: str = ""
    metadata_port: int | None = None
    openstack_region: str = ""
    interface_prefix: str = ""
    interface_exclude: str = ""
    chain_insert_mode: str = ""
    default_endpoint_to_host_action: str = ""
    iptables_filter_allow_action: str = ""
    iptables_mangle_allow_action: str = ""
    iptables_filter_deny_action: str = ""
    log_prefix: str = ""
    log_action_rate_limit: str | None = None
    log_action_rate_limit_burst: int | None = None
    log_file_path: str = ""
    log_severity_file: str = ""
    log_severity_screen: str = ""
    log_severity_sys: str = ""
    log_debug_filename_regex: str = ""
    ipip_enabled: bool | None = None
    ipip_mtu: int | None = None
    vxlan_enabled: bool | None = None
    vxlan_mtu: int | None = None
    vxlan_mtu_v6: int | None = None
    vxlan_port: int | None = None
    vxlan_vni: int | None = None
    allow_vxlan_packets_from_workloads: bool | None = None
    allow_ipip_packets_from_workloads: bool | None = None
    reporting_interval: Duration | None = None
    reporting_ttl: Duration | None = None
    endpoint_reporting_enabled: bool | None = None
    endpoint_reporting_delay: Duration | None = None
    endpoint_status_path_prefix: str = ""
    iptables_mark_mask: int | None = None
    disable_conntrack_invalid_check: bool | None = None
    health_enabled: bool | None = None
    health_host: str | None = None
    health_port: int | None = None
    health_timeout_overrides: tuple[HealthTimeoutOverride, ...] = ()
    prometheus_metrics_enabled: bool | None = None
    prometheus_metrics_host: str = ""
    prometheus_metrics_port: int | None = None
    prometheus_go_metrics_enabled: bool | None = None
    prometheus_process_metrics_enabled: bool | None = None
    prometheus_wire_guard_metrics_enabled: bool | None = None
    prometheus_metrics_ca_file: str | None = None
    prometheus_metrics_cert_file: str | None = None
    prometheus_metrics_key_file: str | None = None
    prometheus_metrics_client_auth: str | None = None
    failsafe_inbound_host_ports: tuple[ProtoPort, ...] | None = None
    failsafe_outbound_host_ports: tuple[ProtoPort, ...] | None = None
    kube_node_port_ranges: tuple[Port, ...] | None = None
    policy_sync_path_prefix: str = ""
    usage_reporting_enabled: bool | None = None
    usage_reporting_initial_delay: Duration | None = None
    usage_reporting_interval: Duration | None = None
    nat_port_range: Port | None = None
    nat_outgoing_address: str = ""
    nat_outgoing_exclusions: str | None = None
    device_route_source_address: str = ""
    device_route_source_address_ipv6: str = ""
    device_route_protocol: int | None = None
    remove_external_routes: bool | None = None
    program_cluster_routes: str | None = None
    ip_forwarding: str = ""
    external_nodes_list: tuple[str, ...] | None = None
    debug_memory_profile_path: str = ""
    debug_disable_log_dropping: bool | None = None
    debug_simulate_calc_graph_hang_after: Duration | None = None
    debug_simulate_dataplane_hang_after: Duration | None = None
    debug_simulate_dataplane_apply_delay: Duration | None = None
    debug_host: str | None = None
    debug_port: int | None = None
    iptables_nat_outgoing_interface_filter: str = ""
    sidecar_acceleration_enabled: bool | None = None
    xdp_enabled: bool | None = None
    generic_xdp_enabled: bool | None = None
    nftables_mode: str | None = None
    nftables_refresh_interval: Duration | None = None
    nftables_filter_allow_action: str = ""
    nftables_mangle_allow_action: str = ""
    nftables_filter_deny_action: str = ""
    nftables_mark_mask: int | None = None
    bpf_enabled: bool | None = None
    bpf_disable_unprivileged: bool | None = None
    bpf_jit_hardening: str | None = None
    bpf_log_level: str = ""
    bpf_conntrack_log_level: str = ""
    bpf_conntrack_mode: str | None = None
    bpf_conntrack_timeouts: BpfConntrackTimeouts | None = None
    bpf_log_filters: Mapping[str, str] | None = None
    bpf_ctlb_log_filter: str = ""
    bpf_data_iface_pattern: str = ""
    bpf_l3_iface_pattern: str = ""
    bpf_connect_time_load_balancing_enabled: bool | None = None
    bpf_connect_time_load_balancing: str | None = None
    bpf_host_networked_nat_without_ctlb: str | None = None
    bpf_external_service_mode: str = ""
    bpf_dsr_optout_cidrs: tuple[str, ...] | None = None
    bpf_ext_to_service_connmark: int | None = None
    bpf_kube_proxy_iptables_cleanup_enabled: bool | None = None
    bpf_kube_proxy_min_sync_period: Duration | None = None
    bpf_kube_proxy_healthz_port: int | None = None
    bpf_psnat_ports: Port | None = None
    bpf_map_size_nat_frontend: int | None = None
    bpf_map_size_nat_backend: int | None = None
    bpf_map_size_nat_affinity: int | None = None
    bpf_map_size_route: int | None = None
    bpf_map_size_conntrack: int | None = None
    bpf_map_size_per_cpu_conntrack: int | None = None
    bpf_map_size_conntrack_scaling: str = ""
    bpf_map_size_conntrack_cleanup_queue: int | None = None
    bpf_map_size_ip_sets: int | None = None
    bpf_map_size_if_state: int | None = None
    bpf_host_conntrack_bypass: bool | None = None
    bpf_enforce_rpf: str = ""
    bpf_policy_debug_enabled: bool | None = None
    bpf_force_track_packets_from_ifaces: tuple[str, ...] | None = None
    bpf_disable_gro_for_ifaces: str = ""
    bpf_exclude_cidrs_from_nat: tuple[str, ...] | None = None
    bpf_export_buffer_size_mb: int | None = None
    istio_ambient_mode: str | None = None
    istio_dscp_mark: Dscp | None = None
    cgroup_v2_path: str = ""
    flow_logs_policy_evaluation_mode: str | None = None
    bpf_redirect_to_peer: str = ""
    bpf_attach_type: str | None = None
    flow_logs_flush_interval: Duration | None = None
    flow_logs_collector_debug_trace: bool | None = None
    flow_logs_goldmane_server: str | None = None
    flow_logs_local_reporter: str | None = None
    bpf_profiling: str = ""
    route_source: str = ""
    route_table_ranges: tuple[RouteTableRange, ...] | None = None
    route_table_range: RouteTableRange | None = None
    route_sync_disabled: bool | None = None
    ipv4_normal_route_priority: int | None = None
    ipv4_elevated_route_priority: int | None = None
    ipv6_normal_route_priority: int | None = None
    ipv6_elevated_route_priority: int | None = None
    live_migration_route_convergence_time: Duration | None = None
    wireguard_enabled: bool | None = None
    wireguard_enabled_v6: bool | None = None
    wireguard_threading_enabled: bool | None = None
    wireguard_listening_port: int | None = None
    wireguard_listening_port_v6: int | None = None
    wireguard_routing_rule_priority: int | None = None
    wireguard_interface_name: str = ""
    wireguard_interface_name_v6: str = ""
    wireguard_mtu: int | None = None
    wireguard_mtu_v6: int | None = None
    wireguard_host_encryption_enabled: bool | None = None
    wireguard_keep_alive: Duration | None = None
    aws_src_dst_check: str | None = None
    service_loop_prevention: str = ""
    workload_source_spoofing: str = ""
    mtu_iface_pattern: str = ""
    floating_ips: str | None = None
    windows_manage_firewall_rules: str | None = None
    go_gc_threshold: int | None = None
    go_memory_limit_mb: int | None = None
    go_max_procs: int | None = None
    require_mtu_file: bool | None = None
    bpf_maglev_max_endpoints_per_service: int | None = None
    bpf_maglev_max_services: int | None = None


class FelixConfiguration(Resource, frozen=True, kw_only=True):
    """`default` is for every node, `node.<name>` for one, others for the nodes they select."""

    kind: ClassVar[str] = "FelixConfiguration"
    spec: FelixConfigurationSpec = FelixConfigurationSpec()
