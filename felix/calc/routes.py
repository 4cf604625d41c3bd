"""Routes to this node's workloads, and the blackholes that keep unused addresses of its blocks here.

An address that two endpoints claim goes to the first by namespace and name. A block that is itself one workload's
prefix (a block of one address) is no blackhole: both would be the same route."""

from felix.calc.endpoints import interface_of, rank
from felix.calc.output import Claims, Output
from weft.model.address import IPNetwork
from weft.model.endpoint import WorkloadEndpoint
from weft.model.keys import ResourceKey


class LocalRoutes:
    def __init__(self) -> None:
        self._interfaces: dict[ResourceKey, str] = {}
        self._prefixes: dict[ResourceKey, tuple[IPNetwork, ...]] = {}
        self._claims: Claims[IPNetwork, ResourceKey] = Claims(rank)
        self._blocks: set[IPNetwork] = set()
        self.output: Output[IPNetwork, str] = Output(self._compute)
        self.blackholes: Output[IPNetwork, bool] = Output(self._compute_blackhole)

    def set_endpoint(self, key: ResourceKey, endpoint: WorkloadEndpoint | None) -> None:
        """A local endpoint, or None where there is none any more."""
        for prefix in self._prefixes.pop(key, ()):
            self._claims.release(prefix, key)
            self._touch(prefix)
        self._interfaces.pop(key, None)
        interface = interface_of(endpoint)
        if endpoint is None or not interface:
            return
        self._interfaces[key] = interface
        self._prefixes[key] = tuple(dict.fromkeys(endpoint.spec.ip_networks))
        for prefix in self._prefixes[key]:
            self._claims.claim(prefix, key)
            self._touch(prefix)

    def set_block(self, cidr: IPNetwork, own: bool) -> None:
        if own:
            self._blocks.add(cidr)
        else:
            self._blocks.discard(cidr)
        self.blackholes.touch(cidr)

    def _touch(self, prefix: IPNetwork) -> None:
        self.output.touch(prefix)
        self.blackholes.touch(prefix)

    def _compute(self, prefix: IPNetwork) -> str | None:
        winner = self._claims.winner(prefix)
        return self._interfaces[winner] if winner else None

    def _compute_blackhole(self, cidr: IPNetwork) -> bool | None:
        return True if cidr in self._blocks and self._claims.winner(cidr) is None else None
