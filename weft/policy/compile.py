"""From a policy or profile resource to its computed rules.

What a rule contains and cannot be enforced is never skipped silently: its match is left out, the rule says so in
`unenforced`, and `Rule.effect` then only ever refuses. Selectors are resolved to sets here; who is in a set
is not this module's business."""

from collections.abc import Sequence

from weft.model import policy as model
from weft.model.defaults import policy_types
from weft.model.keys import ResourceKey
from weft.model.values import Port, Protocol
from weft.policy.selectors import entity_selector, selector_set
from weft.policy.values import ANY, Action, Direction, Entity, Icmp, Policy, PortRange, Rule, SelectorSet
from weft.selector import SelectorError, parse

_ICMP_PROTOCOLS = (1, 58)


def compile_policy(key: ResourceKey, resource: model.Policy | model.Profile) -> Policy:
    """The rules in both directions; None where the policy's types leave a direction out."""
    spec = resource.spec
    directions = policy_directions(resource)
    return Policy(
        key=key,
        ingress=compile_rules(spec.ingress, key.namespace) if Direction.INGRESS in directions else None,
        egress=compile_rules(spec.egress, key.namespace) if Direction.EGRESS in directions else None,
    )


def policy_directions(resource: model.Policy | model.Profile) -> frozenset[Direction]:
    """Which directions it speaks about: its types, given or derived. A profile is for both."""
    if isinstance(resource, model.Profile):
        return frozenset(Direction)
    return frozenset(Direction(one.lower()) for one in policy_types(resource.spec))


def compile_rules(rules: Sequence[model.Rule], namespace: str) -> tuple[Rule, ...]:
    """`namespace` is that of the policy, "" for global ones and profiles: a rule's selectors choose in it only,
    unless the rule has a namespace selector."""
    return tuple(_compile_rule(rule, namespace) for rule in rules)


def _compile_rule(rule: model.Rule, namespace: str) -> Rule:
    problems: list[str] = []
    if rule.http is not None:
        problems.append("http: application layer matches are not supported")
    number = rule.protocol.number if rule.protocol else None
    icmp, not_icmp = _icmp(rule.icmp), _icmp(rule.not_icmp)
    if (icmp or not_icmp) and number not in _ICMP_PROTOCOLS:
        problems.append("icmp: needs protocol ICMP or ICMPv6")
        icmp = not_icmp = None
    return Rule(
        action=Action(rule.action),
        ip_version=rule.ip_version,
        protocol=number,
        not_protocol=rule.not_protocol.number if rule.not_protocol else None,
        icmp=icmp,
        not_icmp=not_icmp,
        source=_compile_entity("source", rule.source, rule.protocol, namespace, problems),
        destination=_compile_entity("destination", rule.destination, rule.protocol, namespace, problems),
        unenforced=tuple(problems),
    )


def _icmp(fields: model.IcmpFields | None) -> Icmp | None:
    if fields is None or fields.type is None:
        return None
    return Icmp(fields.type, fields.code)


def _compile_entity(
    end: str, entity: model.EntityRule, protocol: Protocol | None, namespace: str, problems: list[str]
) -> Entity:
    if entity == model.ANY_ENTITY:
        return ANY
    if entity.services is not None:
        problems.append(f"{end}.services: services are not supported yet")
    return Entity(
        nets=entity.nets,
        not_nets=entity.not_nets,
        ports=_ports(f"{end}.ports", entity.ports, protocol, problems),
        not_ports=_ports(f"{end}.notPorts", entity.not_ports, protocol, problems),
        sets=_sets(end, entity, namespace, problems),
        not_sets=_not_sets(end, entity, problems),
    )


def _ports(field: str, ports: Sequence[Port], protocol: Protocol | None, problems: list[str]) -> tuple[PortRange, ...]:
    """The ranges, or none and a problem: half of a list of ports would choose too much or too little."""
    if not ports:
        return ()
    if protocol is None or not protocol.has_ports:
        problems.append(f"{field}: needs protocol TCP, UDP or SCTP")
        return ()
    named = [port.name for port in ports if port.is_named]
    if named:
        problems.append(f"{field}: named ports are not supported yet ({', '.join(named)})")
        return ()
    return tuple(PortRange(port.first, port.last) for port in ports)


def _sets(end: str, entity: model.EntityRule, namespace: str, problems: list[str]) -> tuple[SelectorSet, ...]:
    try:
        selector = entity_selector(entity, namespace)
    except SelectorError as error:
        problems.append(f"{end}: selector that cannot be read: {error}")
        return ()
    return () if selector is None else (selector_set(selector),)


def _not_sets(end: str, entity: model.EntityRule, problems: list[str]) -> tuple[SelectorSet, ...]:
    if not entity.not_selector:
        return ()
    try:
        return (selector_set(parse(entity.not_selector)),)
    except SelectorError as error:
        problems.append(f"{end}.notSelector: selector that cannot be read: {error}")
        return ()
