"""Routes to this node's workloads, and the blackholes that keep unused addresses of its blocks here.

An address that two endpoints claim goes to the first by namespace and name. A block that is itself one workload's
prefix (a block of one address) is no blackhole: both would be the same route."""

from collections.abc import Iterable

from felix.calc.endpoints import rank
from felix.calc.output import Claims, Output
from weft.model.address import IPNetwork
from weft.model.endpoint import WorkloadEndpoint
from weft.model.keys import ResourceKey


class LocalRoutes:
    def __init__(self) -> None:
        self._interfaces: dict[ResourceKey, str] = {}
        self._claims: Claims[IPNetwork, ResourceKey] = Claims(rank)
        self._blocks: set[IPNetwork] = set()
        self.output: Output[IPNetwork, str] = Output(self._compute)
        self.blackholes: Output[IPNetwork, bool] = Output(self._compute_blackhole)

    def set_endpoint(
        self, key: ResourceKey, before: WorkloadEndpoint | None, endpoint: WorkloadEndpoint | None
    ) -> None:
        """A local endpoint became another (None: none)."""
        for prefix in _routed(before):
            self._claims.release(prefix, key)
            self._touch(prefix)
        self._interfaces.pop(key, None)
        for prefix in _routed(endpoint):
            self._claims.claim(prefix, key)
            self._touch(prefix)
        if endpoint is not None:
            self._interfaces[key] = endpoint.spec.interface_name

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


def _routed(endpoint: WorkloadEndpoint | None) -> Iterable[IPNetwork]:
    if endpoint is None or not endpoint.spec.interface_name:
        return ()
    return dict.fromkeys(endpoint.spec.ip_networks)
