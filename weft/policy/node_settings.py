"""What of FelixConfiguration decides whether a node's own traffic passes: as felix takes it, from `node.<name>`, then
`default`, then Calico's defaults. Configurations that a node selector chooses are not looked at."""

from collections.abc import Mapping

from msgspec import Struct

from weft.model.address import IPNetwork
from weft.model.felix_configuration import FAILSAFE_INBOUND, FAILSAFE_OUTBOUND, FelixConfiguration, ProtoPort

_TCP = 6
NO_CONFIGURATION: Mapping[str, FelixConfiguration] = {}


class OpenPort(Struct, frozen=True):
    """A failsafe port; `net`: only with peers in this prefix."""

    protocol: int
    port: int
    net: IPNetwork | None = None


class NodeSettings(Struct, frozen=True):
    """`drop_to_host`: what a workload's egress policy lets through to its own node is dropped all the same."""

    failsafe_inbound: tuple[OpenPort, ...]
    failsafe_outbound: tuple[OpenPort, ...]
    drop_to_host: bool


def node_settings(node: str, configurations: Mapping[str, FelixConfiguration] = NO_CONFIGURATION) -> NodeSettings:
    """`configurations` by name."""
    specs = [configurations[name].spec for name in (f"node.{node}", "default") if name in configurations]
    inbound = (one.failsafe_inbound_host_ports for one in specs)
    outbound = (one.failsafe_outbound_host_ports for one in specs)
    actions = (one.default_endpoint_to_host_action for one in specs)
    return NodeSettings(
        _open(next((ports for ports in inbound if ports is not None), FAILSAFE_INBOUND)),
        _open(next((ports for ports in outbound if ports is not None), FAILSAFE_OUTBOUND)),
        next((action for action in actions if action), "Drop").lower() not in ("accept", "return"),
    )


def _open(ports: tuple[ProtoPort, ...]) -> tuple[OpenPort, ...]:
    usable = (one for one in ports if one.port and (one.protocol is None or one.protocol.has_ports))
    return tuple(OpenPort(one.protocol.number if one.protocol else _TCP, one.port, one.net) for one in usable)
