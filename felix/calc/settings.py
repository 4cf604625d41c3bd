"""What of FelixConfiguration, pools and blocks this node needs, resolved from several resources.

A field of `node.<name>` goes before the one of `default`; unset fields have Calico's defaults."""

from felix.calc.delta import EndpointToHost, Settings
from felix.calc.output import Output
from weft.model.address import IPNetwork
from weft.model.felix_configuration import FelixConfiguration
from weft.model.keys import ResourceKey
from weft.model.pool import IPPool

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
        action = spec.default_endpoint_to_host_action
        if action and action.lower() not in _ENDPOINT_TO_HOST:
            found.append(f"defaultEndpointToHostAction: {action} is none of Drop, Return, Accept; Drop is taken")
        if spec.interface_prefix not in ("", "cali"):
            found.append(f"interfacePrefix: {spec.interface_prefix}: workloads' interfaces are called cali… only")
        if spec.node_selector is not None:
            found.append("nodeSelector: not supported yet, the configuration is not used")
        if spec.nat_outgoing_address or spec.nat_port_range is not None:
            found.append("natOutgoingAddress, natPortRange: not supported yet, masquerading chooses")
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
