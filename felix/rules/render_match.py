"""One computed policy rule as nft rules: cheap tests first, and each address family for itself.

A rule that asks nothing of addresses is one nft rule for both families. One that does becomes up to two; a family in
which it cannot match (an empty set, prefixes of the other family only) gets none. Ports that may be numbered or named
become a rule for the numbers and one for each name. What follows the matches is the caller's to say
(`render_actions`)."""

from collections.abc import Callable, Iterable, Sequence
from ipaddress import IPv4Network, IPv6Network, collapse_addresses
from typing import Literal

from msgspec.structs import replace

from felix.calc.ip_sets import SetKey, SetKind
from felix.rules import values as nft
from felix.rules.render_actions import Endings
from felix.rules.render_names import selector_set
from weft.model.address import IPNetwork
from weft.policy.values import Entity, PortRange, PortSet, Rule, ServiceSet

KindOf = Callable[[SetKey], SetKind | None]
"""What kind of kernel set holds a family of a selector's set; None: it has no members and no kernel set."""

_VERSIONS: tuple[Literal[4, 6], ...] = (4, 6)


def render_rule(rule: Rule, kind_of: KindOf, endings: Endings) -> list[nft.Rule]:
    """The matches of the rule before each of the endings; nothing for a rule that can match nothing.

    A packet gets to the last ending once: where that does not end the chain, no two of the rules match the same."""
    if not endings:
        return []
    if not rule.source.named_ports and not rule.destination.named_ports:
        return _render_one(rule, kind_of, endings)
    disjoint = not isinstance(endings[-1][-1], nft.FINAL)
    return [
        rendered
        for source in _one_way_each(rule.source, disjoint)
        for destination in _one_way_each(rule.destination, disjoint)
        for rendered in _render_one(replace(rule, source=source, destination=destination), kind_of, endings)
    ]


def _one_way_each(entity: Entity, disjoint: bool) -> list[Entity]:
    """The entity once for its numbered ports and once for each named one."""
    ways = [replace(entity, named_ports=())] if entity.ports or not entity.named_ports else []
    for number, named in enumerate(entity.named_ports):
        before = entity.named_ports[:number] if disjoint else ()
        not_ports = (*entity.not_ports, *entity.ports) if disjoint else entity.not_ports
        not_named = (*entity.not_named_ports, *before)
        ways.append(replace(entity, ports=(), named_ports=(named,), not_ports=not_ports, not_named_ports=not_named))
    return ways


def _render_one(rule: Rule, kind_of: KindOf, endings: Endings) -> list[nft.Rule]:
    """Of a rule whose ends have numbered ports or one named port, not both."""
    ports = _protocol_and_ports(rule)
    by_version: list[tuple[nft.Statement, ...]] = []
    for version in _VERSIONS:
        if rule.ip_version in (None, version):
            addresses = _addresses(rule, version, kind_of)
            if addresses is not None:
                by_version.append((nft.NetworkProtocol(version), *addresses))
    if [matches[1:] for matches in by_version] == [(), ()]:
        return [nft.Rule((*ports, *ending)) for ending in endings]
    return [
        nft.Rule((*ports, *_without_implied_family(matches), *ending)) for matches in by_version for ending in endings
    ]


def _without_implied_family(matches: tuple[nft.Statement, ...]) -> tuple[nft.Statement, ...]:
    """An address match tests the family itself."""
    return matches[1:] or matches


def _protocol_and_ports(rule: Rule) -> tuple[nft.Statement, ...]:
    matches: list[nft.Statement] = []
    if rule.protocol is not None:
        matches.append(nft.L4Protocol(rule.protocol))
    if rule.not_protocol is not None:
        matches.append(nft.L4Protocol(rule.not_protocol, negated=True))
    for icmp, negated in ((rule.icmp, False), (rule.not_icmp, True)):
        if icmp is not None and icmp.type is not None:
            matches.append(nft.IcmpType(icmp.type, icmp.code, negated))
    for side, entity in ((nft.Side.DESTINATION, rule.destination), (nft.Side.SOURCE, rule.source)):
        if entity.ports:
            matches.append(nft.Ports(side, merged_ports(entity.ports)))
        if entity.not_ports:
            matches.append(nft.Ports(side, merged_ports(entity.not_ports), negated=True))
    return tuple(matches)


def merged_ports(ranges: Iterable[PortRange]) -> tuple[nft.PortRange, ...]:
    """The same ports as ranges that neither overlap nor touch."""
    merged: list[PortRange] = []
    for one in sorted(ranges):
        if merged and one.first <= merged[-1].last + 1:
            merged[-1] = PortRange(merged[-1].first, max(merged[-1].last, one.last))
        else:
            merged.append(one)
    return tuple(nft.PortRange(one.first, one.last) for one in merged)


def _addresses(rule: Rule, version: Literal[4, 6], kind_of: KindOf) -> tuple[nft.Statement, ...] | None:
    """Prefixes before sets, which cost more, and named ports before other sets. None: nothing of this family can
    match."""
    prefixes: list[nft.Statement] = []
    ports: list[nft.Statement] = []
    sets: list[nft.Statement] = []
    for side, entity in ((nft.Side.SOURCE, rule.source), (nft.Side.DESTINATION, rule.destination)):
        if not (
            _add_prefixes(prefixes, side, entity, version)
            and _add_named_ports(ports, side, entity, version, kind_of)
            and _add_sets(sets, side, entity, version, kind_of)
        ):
            return None
    return (*prefixes, *ports, *sets)


def _add_prefixes(matches: list[nft.Statement], side: nft.Side, entity: Entity, version: Literal[4, 6]) -> bool:
    """False: no address of this family is in `nets` and outside of `not_nets`."""
    if entity.nets:
        networks = _of_version(entity.nets, version)
        if not networks:
            return False
        if networks[0].prefixlen > 0:
            matches.append(nft.Address(side, networks))
    networks = _of_version(entity.not_nets, version)
    if networks and networks[0].prefixlen == 0:
        return False
    if networks:
        matches.append(nft.Address(side, networks, negated=True))
    return True


def _add_named_ports(
    matches: list[nft.Statement], side: nft.Side, entity: Entity, version: Literal[4, 6], kind_of: KindOf
) -> bool:
    """False: no port of this family has the name, or is of the service."""
    wanted: tuple[PortSet | ServiceSet, ...] = entity.named_ports
    if entity.service is not None:
        wanted = (*wanted, entity.service)
    for negated, sets in ((False, wanted), (True, entity.not_named_ports)):
        for one in sets:
            key = SetKey(one.id, version)
            kind = kind_of(key)
            if kind is not None:
                matches.append(nft.ServiceInSet(side, selector_set(key, kind), version, negated))
            elif not negated:
                return False
    return True


def _add_sets(
    matches: list[nft.Statement], side: nft.Side, entity: Entity, version: Literal[4, 6], kind_of: KindOf
) -> bool:
    """False: one of `sets` has no member of this family."""
    for negated, sets in ((False, entity.sets), (True, entity.not_sets)):
        for one in sets:
            key = SetKey(one.id, version)
            kind = kind_of(key)
            if kind is not None:
                matches.append(nft.AddressInSet(side, selector_set(key, kind), version, negated))
            elif not negated:
                return False
    return True


def _of_version(networks: Sequence[IPNetwork], version: int) -> tuple[IPNetwork, ...]:
    """Those of one family, without overlaps, in order."""
    if version == 4:
        return tuple(collapse_addresses(network for network in networks if isinstance(network, IPv4Network)))
    return tuple(collapse_addresses(network for network in networks if isinstance(network, IPv6Network)))
