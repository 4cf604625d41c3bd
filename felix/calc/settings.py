"""What of FelixConfiguration, pools and blocks this node needs, resolved from several resources.

A field of `node.<name>` goes before the one of `default`; unset fields have Calico's defaults."""

from msgspec import structs

from felix.calc.delta import EndpointToHost, Settings
from felix.calc.output import Output
from weft.model.address import IPNetwork
from weft.model.felix_configuration import FelixConfiguration, FelixConfigurationSpec
from weft.model.keys import ResourceKey
from weft.model.pool import IPPool

_TAKEN_IN = {"default_endpoint_to_host_action", "log_prefix", "interface_prefix", "node_selector"}
"""Fields that are computed from, or have words of their own."""

# What says how Calico's own processes and its other dataplanes do their work, and nothing about which packet passes
# or where it goes: whoever sets it misses nothing here.
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
    *(
        "cgroup_v2_path",
        "chain_insert_mode",
        "dataplane_driver",
        "dataplane_watchdog_timeout",
        "feature_detect_override",
    ),
    *("feature_gates", "generic_xdp_enabled", "interface_exclude", "interface_refresh_interval", "iptables_backend"),
    *("iptables_filter_allow_action", "iptables_lock_probe_interval", "iptables_mangle_allow_action"),
    *("iptables_mark_mask", "iptables_post_write_check_interval", "iptables_refresh_interval"),
    *(
        "ipsets_refresh_interval",
        "kube_node_port_ranges",
        "log_debug_filename_regex",
        "log_file_path",
        "max_ipset_size",
    ),
    *("netlink_timeout", "nftables_filter_allow_action", "nftables_mangle_allow_action", "nftables_mark_mask"),
    *("nftables_mode", "nftables_refresh_interval", "reporting_interval", "reporting_ttl", "require_mtu_file"),
    *("route_refresh_interval", "route_table_range", "route_table_ranges", "sidecar_acceleration_enabled"),
    *("use_internal_dataplane_driver", "xdp_enabled", "xdp_refresh_interval"),
}
_AS_WE_DO: dict[str, object] = {
    "allow_ipip_packets_from_workloads": True,
    "allow_vxlan_packets_from_workloads": True,
    "aws_src_dst_check": "DoNothing",
    "disable_conntrack_invalid_check": False,
    "endpoint_reporting_enabled": False,
    "floating_ips": "Disabled",
    "ip_forwarding": "Enabled",
    "ipip_enabled": False,
    "iptables_filter_deny_action": "Drop",
    "ipv6_support": True,
    "istio_ambient_mode": "Disabled",
    "nat_outgoing_exclusions": "IPPoolsOnly",
    "nftables_filter_deny_action": "Drop",
    "remove_external_routes": False,
    "route_source": "CalicoIPAM",
    "route_sync_disabled": False,
    "service_loop_prevention": "Disabled",
    "vxlan_enabled": False,
    "wireguard_enabled": False,
    "wireguard_enabled_v6": False,
    "workload_source_spoofing": "Disabled",
}
"""A setting that asks for what we do anyway is enforced. Every other field that is set is reported."""


def is_irrelevant(field: str) -> bool:
    return field in _IRRELEVANT or field.startswith(_IRRELEVANT_PREFIXES)


_FIELDS = {
    one.encode_name: (one.name, one.default)
    for one in structs.fields(FelixConfigurationSpec)
    if one.name not in _TAKEN_IN and not is_irrelevant(one.name)
}
_ENDPOINT_TO_HOST: dict[str, EndpointToHost] = {"drop": "Drop", "return": "Return", "accept": "Accept"}


class FelixSettings:
    def __init__(self, node: str) -> None:
        self._names = (f"node.{node}", "default")
        self._configurations: dict[str, FelixConfiguration] = {}
        self.output: Output[str, Settings] = Output(self._compute)
        self.problems: Output[ResourceKey, tuple[str, ...]] = Output(self._compute_problems)
        self.output.touch("")

    def set_configuration(self, key: ResourceKey, configuration: FelixConfiguration | None) -> None:
        if configuration is None:
            self._configurations.pop(key.name, None)
        else:
            self._configurations[key.name] = configuration
        self.output.touch("")
        self.problems.touch(key)

    def flush(self) -> Settings | None:
        """The settings if they changed."""
        return self.output.flush().get("")

    def _compute(self, _: str) -> Settings:
        specs = [self._configurations[name].spec for name in self._names if name in self._configurations]
        action = next((s.default_endpoint_to_host_action for s in specs if s.default_endpoint_to_host_action), "Drop")
        prefix = next((s.log_prefix for s in specs if s.log_prefix), Settings().log_prefix)
        return Settings(_ENDPOINT_TO_HOST.get(action.lower(), "Drop"), prefix)

    def _compute_problems(self, key: ResourceKey) -> tuple[str, ...] | None:
        configuration = self._configurations.get(key.name)
        if configuration is None:
            return None
        spec, found = configuration.spec, []
        if spec.node_selector is not None:
            found.append("nodeSelector: not supported yet, the configuration is not used")
        if key.name not in self._names:
            return tuple(found) or None
        action = spec.default_endpoint_to_host_action
        if action and action.lower() not in _ENDPOINT_TO_HOST:
            found.append(f"defaultEndpointToHostAction: {action} is none of Drop, Return, Accept; Drop is taken")
        if spec.interface_prefix not in ("", "cali"):
            found.append(f"interfacePrefix: {spec.interface_prefix}: workloads' interfaces are called cali… only")
        for name, (field, default) in _FIELDS.items():
            value = getattr(spec, field)
            if value != default and value != _AS_WE_DO.get(field, default):
                found.append(f"{name}: not supported yet")
        return tuple(found) or None


class Pools:
    """Pools by CIDR, and whether what leaves them is masqueraded."""

    def __init__(self) -> None:
        self._pools: dict[ResourceKey, IPPool] = {}
        self.output: Output[IPNetwork, bool] = Output(self._compute)
        self.problems: Output[ResourceKey, tuple[str, ...]] = Output(self._compute_problems)

    def set_pool(self, key: ResourceKey, pool: IPPool | None) -> None:
        before = self._pools.pop(key, None)
        if before is not None:
            self.output.touch(before.spec.cidr)
        if pool is not None:
            self._pools[key] = pool
            self.output.touch(pool.spec.cidr)
        self.problems.touch(key)

    def _compute(self, cidr: IPNetwork) -> bool | None:
        same = [pool.spec.nat_outgoing for pool in self._pools.values() if pool.spec.cidr == cidr]
        return any(same) if same else None

    def _compute_problems(self, key: ResourceKey) -> tuple[str, ...] | None:
        pool = self._pools.get(key)
        if pool is None:
            return None
        modes = {"ipipMode": pool.spec.ipip_mode, "vxlanMode": pool.spec.vxlan_mode}
        found = [f"{name} {mode}: overlays are not supported yet" for name, mode in modes.items() if mode != "Never"]
        return tuple(found) or None
