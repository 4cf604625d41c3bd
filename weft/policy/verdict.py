"""The verdict of a flow at one endpoint, and why.

Evaluates exactly the values that the renderer turns into kernel rules. It does not look at connection tracking: it
is the verdict of a connection's first packet."""

from collections.abc import Sequence
from typing import Protocol

from msgspec import Struct

from weft.model.address import IPAddress, IPNetwork
from weft.model.keys import ResourceKey
from weft.policy.values import Action, Direction, EndpointPolicy, Entity, Icmp, Policies, PortRange, Rule

ICMP_PROTOCOLS = (1, 58)


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


class Step(Struct, frozen=True):
    """A place where something was decided.

    `rule` None: not a rule but what follows the last one: the end of the tier, or, with no tier either, the end of
    everything. `policy` None with a tier: the tier's default action."""

    action: Action
    tier: str | None = None
    policy: ResourceKey | None = None
    rule: int | None = None


class Verdict(Struct, frozen=True):
    """`decided` is the step that allowed or denied; `before` the matching Log and Pass steps on the way."""

    allowed: bool
    decided: Step
    before: tuple[Step, ...] = ()


def verdict(
    endpoint: EndpointPolicy, policies: Policies, members: Membership, flow: Flow, direction: Direction
) -> Verdict:
    """Tiers in order, then profiles, then deny. `policies` must hold every policy the endpoint names."""
    before: list[Step] = []
    for tier in endpoint.tiers_of(direction):
        step = _ask(tier.policies(direction), tier.name, policies, members, flow, direction, before)
        if step is None:
            step = Step(tier.default_action, tier.name)
        if step.action is not Action.PASS:
            return Verdict(step.action is Action.ALLOW, step, tuple(before))
        before.append(step)
    for profile in endpoint.profiles:
        step = _ask((profile,), None, policies, members, flow, direction, before)
        if step is not None and step.action is not Action.PASS:
            return Verdict(step.action is Action.ALLOW, step, tuple(before))
        if step is not None:
            before.append(step)
    return Verdict(False, Step(Action.DENY), tuple(before))


def _ask(
    keys: Sequence[ResourceKey],
    tier: str | None,
    policies: Policies,
    members: Membership,
    flow: Flow,
    direction: Direction,
    before: list[Step],
) -> Step | None:
    """The first rule of these policies that allows, denies or passes the flow; Log steps go to `before`."""
    for key in keys:
        for number, rule in enumerate(policies[key].rules(direction) or ()):
            effect = rule.effect
            if effect is None or not matches(rule, flow, members):
                continue
            step = Step(effect, tier, key, number)
            if effect is not Action.LOG:
                return step
            before.append(step)
    return None


def matches(rule: Rule, flow: Flow, members: Membership) -> bool:
    """Whether the rule's matches choose the flow; what it then does is `Rule.effect`."""
    if rule.ip_version is not None and rule.ip_version != flow.source.version:
        return False
    if rule.protocol is not None and rule.protocol != flow.protocol:
        return False
    if rule.not_protocol is not None and rule.not_protocol == flow.protocol:
        return False
    if rule.icmp is not None and not _is_icmp(rule.icmp, flow):
        return False
    if rule.not_icmp is not None and _is_icmp(rule.not_icmp, flow):
        return False
    return _entity_matches(rule.source, flow.source, flow.source_port, members) and _entity_matches(
        rule.destination, flow.destination, flow.destination_port, members
    )


def _is_icmp(wanted: Icmp, flow: Flow) -> bool:
    if flow.protocol not in ICMP_PROTOCOLS:
        return False
    return wanted.type in (None, flow.icmp_type) and wanted.code in (None, flow.icmp_code)


def _entity_matches(entity: Entity, address: IPAddress, port: int | None, members: Membership) -> bool:
    if entity.ports and not _in_ranges(entity.ports, port):
        return False
    if entity.not_ports and _in_ranges(entity.not_ports, port):
        return False
    if entity.nets and not _in_networks(entity.nets, address):
        return False
    if entity.not_nets and _in_networks(entity.not_nets, address):
        return False
    if any(not members.contains(one.id, address) for one in entity.sets):
        return False
    return not any(members.contains(one.id, address) for one in entity.not_sets)


def _in_ranges(ranges: Sequence[PortRange], port: int | None) -> bool:
    return port is not None and any(one.first <= port <= one.last for one in ranges)


def _in_networks(networks: Sequence[IPNetwork], address: IPAddress) -> bool:
    return any(address in network for network in networks)
