"""BGPConfiguration, BGPPeer and BGPFilter."""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import ClassVar, Final, Literal, NamedTuple

import msgspec

from weft.model.address import IPAddress, IPNetwork, parse_address
from weft.model.base import Resource, Value
from weft.model.errors import FieldError
from weft.model.values import AsNumber, Duration

BindMode = Literal["None", "NodeIP"]
SourceAddress = Literal["UseNodeIP", "None"]
NextHopMode = Literal["Auto", "Self", "Keep"]
ReversePeering = Literal["Auto", "Manual"]
FilterAction = Literal["Accept", "Reject"]
MatchOperator = Literal["Equal", "NotEqual", "In", "NotIn"]

_V4_WITH_PORT: Final = re.compile(r"([0-9.]+):(\d+)\Z")
_V6_WITH_PORT: Final = re.compile(r"\[([0-9a-fA-F:.]+)\]:(\d+)\Z")


class PeerAddress(NamedTuple):
    """Where a peer listens; port 0 means BGP's own, or the node mesh's."""

    address: IPAddress
    port: int


def parse_peer_address(text: str) -> PeerAddress:
    """`10.0.0.1`, `10.0.0.1:180`, `fd00::1` or `[fd00::1]:180`."""
    with_port = _V4_WITH_PORT.match(text) or _V6_WITH_PORT.match(text)
    expected = "an address, or an address and a port such as 10.0.0.1:180 or [fd00::1]:180"
    try:
        if with_port is None:
            return PeerAddress(parse_address(text), 0)
        if 1 <= int(with_port[2]) <= 65535:
            return PeerAddress(parse_address(with_port[1]), int(with_port[2]))
    except ValueError:
        pass
    raise ValueError(expected)


class SecretKeySelector(Value, frozen=True, kw_only=True):
    """A key of a Kubernetes secret."""

    key: str
    name: str = ""
    optional: bool | None = None


class BGPPassword(Value, frozen=True, kw_only=True):
    secret_key_ref: SecretKeySelector | None = None


class ServiceBlock(Value, frozen=True, kw_only=True):
    cidr: IPNetwork | None = None


class Community(Value, frozen=True, kw_only=True):
    name: str = ""
    value: str = ""


class PrefixAdvertisement(Value, frozen=True, kw_only=True):
    cidr: IPNetwork
    communities: tuple[str, ...] = ()


class BGPConfigurationSpec(Value, frozen=True, kw_only=True):
    """Unset means Calico's default: mesh on, AS 64512, port 179."""

    log_severity_screen: str = ""
    node_to_node_mesh_enabled: bool | None = None
    as_number: AsNumber | None = None
    service_load_balancer_ips: tuple[ServiceBlock, ...] = ()
    service_external_ips: tuple[ServiceBlock, ...] = ()
    service_cluster_ips: tuple[ServiceBlock, ...] = ()
    service_load_balancer_aggregation: Literal["Enabled", "Disabled"] | None = None
    communities: tuple[Community, ...] = ()
    prefix_advertisements: tuple[PrefixAdvertisement, ...] = ()
    listen_port: int = 0
    node_mesh_password: BGPPassword | None = None
    node_mesh_max_restart_time: Duration | None = None
    bind_mode: BindMode | None = None
    ignored_interfaces: tuple[str, ...] = ()
    local_workload_peering_ip_v4: IPv4Address | None = None
    local_workload_peering_ip_v6: IPv6Address | None = None
    program_cluster_routes: Literal["Enabled", "Disabled"] | None = None
    ipv4_normal_route_priority: int | None = None
    ipv6_normal_route_priority: int | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.listen_port <= 65535:
            raise FieldError("listenPort", self.listen_port, "a port from 1 to 65535")


class BGPConfiguration(Resource, frozen=True, kw_only=True):
    """`default` is for every node, `node.<name>` for one."""

    kind: ClassVar[str] = "BGPConfiguration"
    spec: BGPConfigurationSpec = BGPConfigurationSpec()


class BGPPeerSpec(Value, frozen=True, kw_only=True):
    """`node` or `node_selector` say whose session it is (neither: every node's), `peer_ip` or
    `peer_selector` with whom."""

    node: str = ""
    node_selector: str = ""
    peer_ip: str = ""
    as_number: AsNumber | None = None
    local_as_number: AsNumber | None = None
    peer_selector: str = ""
    keep_original_next_hop: bool = False
    next_hop_mode: NextHopMode | None = None
    password: BGPPassword | None = None
    source_address: SourceAddress | None = None
    max_restart_time: Duration | None = None
    keepalive_time: Duration | None = None
    num_allowed_local_as_numbers: int | None = None
    ttl_security: int | None = None
    reachable_by: IPAddress | None = None
    filters: tuple[str, ...] = ()
    local_workload_selector: str = ""
    reverse_peering: ReversePeering | None = None

    def __post_init__(self) -> None:
        if self.peer_ip:
            try:
                parse_peer_address(self.peer_ip)
            except ValueError as error:
                raise FieldError("peerIP", self.peer_ip, str(error)) from None
        if self.ttl_security is not None and not 0 <= self.ttl_security <= 255:
            raise FieldError("ttlSecurity", self.ttl_security, "a number of hops from 0 to 255")

    @property
    def peer_address(self) -> PeerAddress | None:
        """`peer_ip` taken apart; None where `peer_selector` chooses."""
        return parse_peer_address(self.peer_ip) if self.peer_ip else None


class BGPPeer(Resource, frozen=True, kw_only=True):
    kind: ClassVar[str] = "BGPPeer"
    spec: BGPPeerSpec = BGPPeerSpec()


class PrefixLengthRange(Value, frozen=True, kw_only=True):
    min: int | None = None
    max: int | None = None


class CommunityMatch(Value, frozen=True, kw_only=True):
    values: tuple[str, ...]


class AddCommunity(Value, frozen=True, kw_only=True):
    value: str


class PrependAsPath(Value, frozen=True, kw_only=True):
    prefix: tuple[AsNumber, ...]


class SetPriority(Value, frozen=True, kw_only=True):
    value: int


class FilterOperation(Value, frozen=True, kw_only=True):
    """Exactly one of the three."""

    add_community: AddCommunity | None = None
    prepend_as_path: PrependAsPath | None = msgspec.field(default=None, name="prependASPath")
    set_priority: SetPriority | None = None


class _FilterRule(Value, frozen=True, kw_only=True):
    """What both families have in common; no match given matches every route."""

    action: FilterAction
    prefix_length: PrefixLengthRange | None = None
    source: Literal["RemotePeers"] | None = None
    interface: str = ""
    match_operator: MatchOperator | None = None
    peer_type: Literal["eBGP", "iBGP"] | None = None
    communities: CommunityMatch | None = None
    as_path_prefix: tuple[AsNumber, ...] = ()
    priority: int | None = None
    operations: tuple[FilterOperation, ...] = ()


class BGPFilterRuleV4(_FilterRule, frozen=True, kw_only=True):
    cidr: IPv4Network | None = None


class BGPFilterRuleV6(_FilterRule, frozen=True, kw_only=True):
    cidr: IPv6Network | None = None


class BGPFilterSpec(Value, frozen=True, kw_only=True):
    """Rules in order, the first that matches decides; routes that match none are accepted."""

    export_v4: tuple[BGPFilterRuleV4, ...] = ()
    import_v4: tuple[BGPFilterRuleV4, ...] = ()
    export_v6: tuple[BGPFilterRuleV6, ...] = ()
    import_v6: tuple[BGPFilterRuleV6, ...] = ()


class BGPFilter(Resource, frozen=True, kw_only=True):
    kind: ClassVar[str] = "BGPFilter"
    spec: BGPFilterSpec = BGPFilterSpec()
