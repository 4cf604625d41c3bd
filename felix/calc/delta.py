"""What the graph tells the dataplane: what this node must have, as far as it changed since the last flush.

In every mapping None (or False) means: no more. A key that is missing has not changed."""

from collections.abc import Mapping
from typing import Literal

from msgspec import Struct

from felix.calc.ip_sets import SetChange, SetKey
from weft.model.address import IPNetwork
from weft.model.keys import ResourceKey
from weft.policy.values import EndpointPolicy, HostPolicy, Policy

EndpointToHost = Literal["Drop", "Return", "Accept"]
FlowLogs = Literal["Denied", "All", "Disabled"]


class LocalEndpoint(Struct, frozen=True):
    """A workload on this node behind a host interface of ours."""

    key: ResourceKey
    interface: str
    addresses: tuple[IPNetwork, ...]
    mac: str
    policy: EndpointPolicy
    may_send_as: tuple[IPNetwork, ...] = ()
    """Prefixes it may send from besides its own addresses (allowedSourcePrefixes)."""


ANY_INTERFACE = "*"


class LocalHostEndpoint(Struct, frozen=True):
    """An interface of this node itself that policy protects.

    `interface` is "*" for every interface that has no host endpoint of its own and is not a workload's."""

    key: ResourceKey
    interface: str
    policy: HostPolicy


class Failsafe(Struct, frozen=True):
    """A port of the node (inbound) or of its peer (outbound) that no host endpoint's policy can close.

    `net`: only with peers in this prefix."""

    protocol: int
    port: int
    net: IPNetwork | None = None


class LogLimit(Struct, frozen=True):
    """So many packets in so many seconds, and `burst` of them at once."""

    packets: int
    seconds: int
    burst: int


class Settings(Struct, frozen=True):
    """What of FelixConfiguration matters to rules now; the defaults are Calico's, but for the failsafes, which
    `felix.calc.settings` always gives."""

    endpoint_to_host: EndpointToHost = "Drop"
    log_prefix: str = "calico-packet"
    log_limit: LogLimit | None = None
    """How often each Log rule logs; None: always."""
    failsafe_inbound: tuple[Failsafe, ...] = ()
    failsafe_outbound: tuple[Failsafe, ...] = ()
    vxlan_port: int = 4789
    allow_vxlan_from_workloads: bool = False
    allow_ipip_from_workloads: bool = False
    drop_invalid: bool = True
    reject: bool = False
    """Deny rejects instead of dropping."""
    service_loop_prevention: Literal["Drop", "Reject", "Disabled"] = "Drop"
    flow_logs: FlowLogs = "Denied"


class NodeDelta(Struct, frozen=True, kw_only=True):
    """endpoints: by host interface. host_endpoints: by interface, "*" for the rest. policies: the policies and profiles
    that local endpoints of both kinds use. service_ranges: prefixes of service addresses (for loop prevention).
    sets: what these look into. routes: prefix -> host interface of the local workload that has it.
    blackholes: this node's own blocks. pools: CIDR -> whether its workloads are masqueraded outside of all pools.
    not_enforced: what a resource asks for and does not get, in words."""

    endpoints: Mapping[str, LocalEndpoint | None] = {}
    host_endpoints: Mapping[str, LocalHostEndpoint | None] = {}
    policies: Mapping[ResourceKey, Policy | None] = {}
    sets: Mapping[SetKey, SetChange] = {}
    routes: Mapping[IPNetwork, str | None] = {}
    blackholes: Mapping[IPNetwork, bool | None] = {}
    pools: Mapping[IPNetwork, bool | None] = {}
    settings: Settings | None = None
    service_ranges: Mapping[IPNetwork, bool | None] = {}
    not_enforced: Mapping[ResourceKey, tuple[str, ...] | None] = {}

    def __bool__(self) -> bool:
        """Whether anything changed."""
        return bool(
            self.endpoints
            or self.host_endpoints
            or self.service_ranges
            or self.policies
            or self.sets
            or self.routes
            or self.blackholes
            or self.pools
            or self.settings
            or self.not_enforced
        )
