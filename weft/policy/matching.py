"""Whether a rule chooses a flow, and if not, which of its matches is the first that does not hold.

A match has two halves: what depends on an address alone (`address_mismatch`, one end at a time) and the rest. Callers
that ask about many flows may remember the first half by address; `mismatch` is both. Nothing here knows what the
rule then does."""

from collections.abc import Sequence
from enum import Enum
from typing import Protocol

from msgspec import Struct

from weft.model.address import IPAddress, IPNetwork
from weft.policy.values import Entity, Icmp, PortRange, PortSet, Rule

ICMP_PROTOCOLS = (1, 58)
PORT_PROTOCOLS = (6, 17, 132)


class Membership(Protocol):
    """Who is in which set. One end of the flow is asked for at a time."""

    def contains(self, set_id: str, address: IPAddress) -> bool: ...

    def contains_port(self, set_id: str, address: IPAddress, protocol: int, port: int) -> bool:
        """Of a set of addresses with ports."""
        ...


class Flow(Struct, frozen=True, kw_only=True):
    """The first packet of a connection; both addresses of one family.

    Ports are None for protocols without, the ICMP type and code None for all but ICMP and ICMPv6."""

    source: IPAddress
    destination: IPAddress
    protocol: int
    source_port: int | None = None
    destination_port: int | None = None
    icmp_type: int | None = None
    icmp_code: int | None = None

    def __post_init__(self) -> None:
        if self.source.version != self.destination.version:
            raise ValueError(f"a flow between two address families: {self.source} and {self.destination}")


class Mismatch(Enum):
    """A match of a rule by its name in the resource. Those of an entity are said of the end concerned."""

    IP_VERSION = "ipVersion"
    PROTOCOL = "protocol"
    NOT_PROTOCOL = "notProtocol"
    ICMP = "icmp"
    NOT_ICMP = "notICMP"
    PORTS = "ports"
    NOT_PORTS = "notPorts"
    SERVICE = "services"
    NETS = "nets"
    NOT_NETS = "notNets"
    SELECTOR = "selector"
    NOT_SELECTOR = "notSelector"


class End(Enum):
    SOURCE = "source"
    DESTINATION = "destination"


class Missed(Struct, frozen=True):
    """`end` None: of what is not said of an end."""

    what: Mismatch
    end: End | None = None


_FLOW = {what: Missed(what) for what in Mismatch}
_SOURCE = {what: Missed(what, End.SOURCE) for what in Mismatch}
_DESTINATION = {what: Missed(what, End.DESTINATION) for what in Mismatch}


def mismatch(rule: Rule, flow: Flow, members: Membership) -> Missed | None:
    """The first match of the rule that the flow does not fulfil; None: the rule chooses it."""
    missed = packet_mismatch(rule, flow, members)
    if missed is not None:
        return missed
    of_end = address_mismatch(rule.source, flow.source, members)
    if of_end is not None:
        return _SOURCE[of_end]
    of_end = address_mismatch(rule.destination, flow.destination, members)
    return None if of_end is None else _DESTINATION[of_end]


def matches(rule: Rule, flow: Flow, members: Membership) -> bool:
    """Whether the rule's matches choose the flow; what it then does is `Rule.effect`."""
    return mismatch(rule, flow, members) is None


def packet_mismatch(rule: Rule, flow: Flow, members: Membership) -> Missed | None:
    """Of everything but what an address decides by itself."""
    if rule.ip_version is not None and rule.ip_version != flow.source.version:
        return _FLOW[Mismatch.IP_VERSION]
    if rule.protocol is not None and rule.protocol != flow.protocol:
        return _FLOW[Mismatch.PROTOCOL]
    if rule.not_protocol is not None and rule.not_protocol == flow.protocol:
        return _FLOW[Mismatch.NOT_PROTOCOL]
    if rule.icmp is not None and not _is_icmp(rule.icmp, flow):
        return _FLOW[Mismatch.ICMP]
    if rule.not_icmp is not None and _is_icmp(rule.not_icmp, flow):
        return _FLOW[Mismatch.NOT_ICMP]
    of_end = _port_mismatch(rule.source, flow.source, flow.protocol, flow.source_port, members)
    if of_end is not None:
        return _SOURCE[of_end]
    of_end = _port_mismatch(rule.destination, flow.destination, flow.protocol, flow.destination_port, members)
    return None if of_end is None else _DESTINATION[of_end]


def address_mismatch(entity: Entity, address: IPAddress, members: Membership) -> Mismatch | None:
    """Of what one end's address decides by itself, whatever the protocol and the ports."""
    if entity.nets and not _in_networks(entity.nets, address):
        return Mismatch.NETS
    if entity.not_nets and _in_networks(entity.not_nets, address):
        return Mismatch.NOT_NETS
    if any(not members.contains(one.id, address) for one in entity.sets):
        return Mismatch.SELECTOR
    if any(members.contains(one.id, address) for one in entity.not_sets):
        return Mismatch.NOT_SELECTOR
    return None


def _is_icmp(wanted: Icmp, flow: Flow) -> bool:
    if flow.protocol not in ICMP_PROTOCOLS:
        return False
    return wanted.type in (None, flow.icmp_type) and wanted.code in (None, flow.icmp_code)


def _port_mismatch(
    entity: Entity, address: IPAddress, protocol: int, port: int | None, members: Membership
) -> Mismatch | None:
    if entity.ports or entity.named_ports:
        numbered = _in_ranges(entity.ports, port)
        if not numbered and not _has_name(entity.named_ports, address, protocol, port, members):
            return Mismatch.PORTS
    if _in_ranges(entity.not_ports, port) or _has_name(entity.not_named_ports, address, protocol, port, members):
        return Mismatch.NOT_PORTS
    if entity.service is not None and (
        port is None or not members.contains_port(entity.service.id, address, protocol, port)
    ):
        return Mismatch.SERVICE
    return None


def _has_name(
    named: Sequence[PortSet], address: IPAddress, protocol: int, port: int | None, members: Membership
) -> bool:
    return port is not None and any(members.contains_port(one.id, address, protocol, port) for one in named)


def _in_ranges(ranges: Sequence[PortRange], port: int | None) -> bool:
    return port is not None and any(one.first <= port <= one.last for one in ranges)


def _in_networks(networks: Sequence[IPNetwork], address: IPAddress) -> bool:
    return any(address in network for network in networks)
