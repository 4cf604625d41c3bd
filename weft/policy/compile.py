"""From a policy or profile resource to its computed rules.

What a rule contains and cannot be enforced is never skipped silently: its match is left out, the rule says so in
`unenforced`, and `Rule.effect` then only ever refuses. Selectors are resolved to sets here; who is in a set
is not this module's business."""

from collections import Counter
from collections.abc import Sequence
from hashlib import sha256

import msgspec

from weft.model import policy as model
from weft.model.defaults import policy_types
from weft.model.keys import ResourceKey
from weft.model.staged import StagedPolicy
from weft.model.values import Port, Protocol
from weft.model.wire import enc_hook
from weft.policy.order import PolicyOrder
from weft.policy.selectors import entity_selector, port_set, selector_set, service_set
from weft.policy.values import (
    ANY,
    Action,
    Direction,
    Entity,
    Icmp,
    Policy,
    PortRange,
    PortSet,
    Rule,
    SelectorSet,
    ServiceSet,
    Stage,
)
from weft.selector import ALL, Selector, SelectorError, conjunction, parse
from weft.selector.nodes import Not

PolicyResource = model.Policy | StagedPolicy

_ICMP_PROTOCOLS = (1, 58)
_ENCODER = msgspec.json.Encoder(enc_hook=enc_hook, order="deterministic")


def compile_policy(key: ResourceKey, resource: PolicyResource | model.Profile) -> Policy:
    """The rules in both directions; None where the policy's types leave a direction out."""
    spec = resource.spec
    directions = policy_directions(resource)
    return Policy(
        key=key,
        ingress=compile_rules(spec.ingress, key.namespace) if Direction.INGRESS in directions else None,
        egress=compile_rules(spec.egress, key.namespace) if Direction.EGRESS in directions else None,
    )


def policy_directions(resource: PolicyResource | model.Profile) -> frozenset[Direction]:
    """Which directions it speaks about: its types, given or derived. A profile is for both."""
    if isinstance(resource, model.Profile):
        return frozenset(Direction)
    return frozenset(Direction(one.lower()) for one in policy_types(resource.spec))


def policy_stages(resource: PolicyResource) -> frozenset[Stage]:
    """At which stages of a host endpoint it is asked. Workloads know NORMAL alone."""
    spec = resource.spec
    if not isinstance(spec, model.GlobalNetworkPolicySpec):
        return frozenset({Stage.NORMAL})
    if spec.do_not_track:
        return frozenset({Stage.UNTRACKED})
    if spec.pre_dnat:
        return frozenset({Stage.PRE_DNAT})
    return frozenset({Stage.NORMAL, Stage.FORWARD} if spec.apply_on_forward else {Stage.NORMAL})


def policy_order(key: ResourceKey, resource: PolicyResource) -> PolicyOrder:
    """Where it stands at an endpoint."""
    spec = resource.spec
    tier = spec.tier or model.DEFAULT_TIER
    return PolicyOrder(key, tier, spec.order, policy_directions(resource), policy_stages(resource))


def is_evaluated(resource: PolicyResource) -> bool:
    """A staged policy whose action is another than Set has no rules of its own to evaluate."""
    return not isinstance(resource, StagedPolicy) or resource.spec.staged_action == "Set"


def compile_rules(rules: Sequence[model.Rule], namespace: str) -> tuple[Rule, ...]:
    """`namespace` is that of the policy, "" for global ones and profiles: a rule's selectors choose in it only,
    unless the rule has a namespace selector."""
    seen: Counter[str] = Counter()
    compiled = []
    for rule in rules:
        digest = sha256(_ENCODER.encode(rule)).hexdigest()[:12]
        seen[digest] += 1
        compiled.append(_compile_rule(rule, namespace, digest if seen[digest] == 1 else f"{digest}-{seen[digest]}"))
    return tuple(compiled)


def _compile_rule(rule: model.Rule, namespace: str, name: str) -> Rule:
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
        id=name,
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
    selector, excluded = _selectors(end, entity, namespace, problems)
    ports, named = _ports(f"{end}.ports", entity.ports, protocol, selector, problems)
    not_ports, not_named = _ports(f"{end}.notPorts", entity.not_ports, protocol, selector, problems)
    # Named ports alone are looked for among what the selector chooses: that it chooses is then said already.
    sets: tuple[SelectorSet | ServiceSet, ...] = ()
    if selector is not None and (ports or not named):
        sets = (selector_set(selector),)
    service = _service(end, entity, namespace)
    if service is not None and not service.with_ports:
        sets = (*sets, service)
    return Entity(
        nets=entity.nets,
        not_nets=entity.not_nets,
        ports=ports,
        not_ports=not_ports,
        sets=sets,
        not_sets=() if excluded is None else (selector_set(excluded),),
        named_ports=named,
        not_named_ports=not_named,
        service=service if service is not None and service.with_ports else None,
    )


def _service(end: str, entity: model.EntityRule, namespace: str) -> ServiceSet | None:
    """A service as destination is its addresses with their ports, as source its addresses."""
    found = entity.services
    if found is None:
        return None
    return service_set(found.namespace or namespace, found.name, with_ports=end == "destination")


def _ports(
    field: str, ports: Sequence[Port], protocol: Protocol | None, selector: Selector | None, problems: list[str]
) -> tuple[tuple[PortRange, ...], tuple[PortSet, ...]]:
    """The ranges and the named ports, or none and a problem: half of a list would choose too much or too little.

    Named ports are looked for among what the selector of the same end chooses, in `notPorts`, too: the rule asks for
    both. Without a protocol each has its own."""
    numbered = tuple(PortRange(port.first, port.last) for port in ports if not port.is_named)
    if (numbered and protocol is None) or (ports and protocol is not None and not protocol.has_ports):
        problems.append(f"{field}: needs protocol TCP, UDP or SCTP")
        return (), ()
    number = protocol.number if protocol else None
    named = dict.fromkeys(port.name for port in ports if port.is_named)
    return numbered, tuple(port_set(selector or ALL, name, number) for name in named)


def _selectors(
    end: str, entity: model.EntityRule, namespace: str, problems: list[str]
) -> tuple[Selector | None, Selector | None]:
    """What the end must be chosen by, and what it must not be.

    Where something must choose it, what must not is part of that: one endpoint or network set fulfils both, whatever
    others have its address. Alone, `notSelector` is true of addresses that nothing is known about, too."""
    chosen = excluded = None
    try:
        chosen = entity_selector(entity, namespace)
    except SelectorError as error:
        problems.append(f"{end}: selector that cannot be read: {error}")
    try:
        excluded = parse(entity.not_selector) if entity.not_selector else None
    except SelectorError as error:
        problems.append(f"{end}.notSelector: selector that cannot be read: {error}")
    if chosen is None or excluded is None:
        return chosen, excluded
    return conjunction(chosen, Selector(Not(excluded.root))), None
