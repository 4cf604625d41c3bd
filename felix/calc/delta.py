"""What the graph tells the dataplane: what this node must have, as far as it changed since the last flush.

In every mapping None (or False) means: no more. A key that is missing has not changed."""

from collections.abc import Mapping
from typing import Literal

from msgspec import Struct

from felix.calc.ip_sets import SetChange, SetKey
from weft.model.address import IPNetwork
from weft.model.keys import ResourceKey
from weft.policy.values import EndpointPolicy, Policy

EndpointToHost = Literal["Drop", "Return", "Accept"]


class LocalEndpoint(Struct, frozen=True):
    """A workload on this node behind a host interface of ours."""

    key: ResourceKey
    interface: str
    addresses: tuple[IPNetwork, ...]
    mac: str
    policy: EndpointPolicy


class Settings(Struct, frozen=True):
    """What of FelixConfiguration matters to rules now."""

    endpoint_to_host: EndpointToHost = "Drop"
    log_prefix: str = "calico-packet"


class NodeDelta(Struct, frozen=True, kw_only=True):
    """endpoints: by host interface. policies: the policies and profiles that local endpoints use.
    sets: what these look into. routes: prefix -> host interface of the local workload that has it.
    blackholes: this node's own blocks. pools: CIDR -> whether its workloads are masqueraded outside of all pools.
    not_enforced: what a resource asks for and does not get, in words."""

    endpoints: Mapping[str, LocalEndpoint | None] = {}
    policies: Mapping[ResourceKey, Policy | None] = {}
    sets: Mapping[SetKey, SetChange] = {}
    routes: Mapping[IPNetwork, str | None] = {}
    blackholes: Mapping[IPNetwork, bool | None] = {}
    pools: Mapping[IPNetwork, bool | None] = {}
    settings: Settings | None = None
    not_enforced: Mapping[ResourceKey, tuple[str, ...] | None] = {}

    def __bool__(self) -> bool:
        """Whether anything changed."""
        return bool(
            self.endpoints
            or self.policies
            or self.sets
            or self.routes
            or self.blackholes
            or self.pools
            or self.settings
            or self.not_enforced
        )
