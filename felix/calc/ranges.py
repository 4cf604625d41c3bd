"""Prefixes that the whole cluster uses: its pools, and the addresses of its services."""

from felix.calc.output import Output
from weft.model.address import IPNetwork
from weft.model.bgp import BGPConfiguration
from weft.model.keys import ResourceKey
from weft.model.pool import IPPool


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


class ServiceRanges:
    """Where services have their addresses, as the BGPConfiguration `default` says. No workload and no node has any of
    these: a packet to one that is not translated would go round in circles."""

    def __init__(self) -> None:
        self._ranges: frozenset[IPNetwork] = frozenset()
        self.output: Output[IPNetwork, bool] = Output(lambda prefix: prefix in self._ranges or None)

    def set_configuration(self, key: ResourceKey, configuration: BGPConfiguration | None) -> None:
        if key.name != "default":
            return
        before, self._ranges = self._ranges, frozenset[IPNetwork]()
        if configuration is not None:
            spec = configuration.spec
            blocks = (*spec.service_cluster_ips, *spec.service_external_ips, *spec.service_load_balancer_ips)
            self._ranges = frozenset(block.cidr for block in blocks if block.cidr is not None)
        for prefix in before ^ self._ranges:
            self.output.touch(prefix)
