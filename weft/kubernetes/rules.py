"""From the rules of a Kubernetes policy to Calico's: one for each protocol and peer, with all ports of the protocol.

Together they match exactly what the one rule matches: any of its peers at any of its ports."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Literal

from msgspec.structs import replace

from weft.model.policy import ANY_ENTITY, Action, EntityRule, Rule, RuleMetadata
from weft.model.values import Port, Protocol

Direction = Literal["ingress", "egress"]
Ports = Mapping[str, tuple[Port, ...] | None]
"""By name of the protocol ("": any) the ports a rule is for; None: all of them."""

EVERYTHING: Ports = {"": None}


def rules(
    direction: Direction,
    action: Action,
    peers: Sequence[EntityRule],
    ports: Ports,
    metadata: RuleMetadata | None = None,
) -> Iterator[Rule]:
    """`peers` are the other ends; none: everybody. Ports are the destination's in both directions."""
    for name, wanted in sorted(ports.items()):
        protocol = Protocol.parse(name) if name else None
        simplified = simplify_ports(wanted or ())
        for peer in peers or (ANY_ENTITY,):
            if direction == "ingress":
                source, destination = peer, EntityRule(ports=simplified)
            else:
                source, destination = ANY_ENTITY, replace(peer, ports=simplified)
            yield Rule(action=action, protocol=protocol, source=source, destination=destination, metadata=metadata)


def gather_ports(ports: Iterable[tuple[str, Port | None]]) -> Ports:
    """Pairs of protocol and port (None: every port) by protocol. No pairs: everything."""
    found: dict[str, tuple[Port, ...] | None] = {}
    for protocol, port in ports:
        known = found.get(protocol, ())
        found[protocol] = None if port is None or known is None else (*known, port)
    return found or EVERYTHING


def simplify_ports(ports: Sequence[Port]) -> tuple[Port, ...]:
    """The same ports with touching ranges joined, in order, after the named ones."""
    numbered = sorted((port.first, port.last) for port in ports if not port.is_named)
    if len(ports) <= 1 or (len(numbered) == 1 and numbered[0][0] == numbered[0][1]):
        return tuple(ports)
    joined: list[tuple[int, int]] = []
    for first, last in numbered:
        if joined and first <= joined[-1][1] + 1:
            joined[-1] = (joined[-1][0], max(joined[-1][1], last))
        else:
            joined.append((first, last))
    return (*(port for port in ports if port.is_named), *(Port(first, last) for first, last in joined))
