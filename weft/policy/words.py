"""Rules, and why they do not choose a flow, in words for people."""

from collections.abc import Iterable, Iterator

from weft.model.address import IPAddress
from weft.model.policy import EntityRule
from weft.model.policy import Rule as RuleResource
from weft.model.values import PROTOCOL_NUMBERS
from weft.policy.matching import End, Flow, Membership, Mismatch, Missed
from weft.policy.values import Entity, Icmp, PortRange, PortSet, Rule, ServiceSet

MOST_LISTED = 5
_NAMES = {number: name for name, number in PROTOCOL_NUMBERS.items()}


def protocol_name(number: int) -> str:
    return _NAMES.get(number, f"protocol {number}")


def why_missed(missed: Missed, rule: Rule, flow: Flow, members: Membership) -> str:
    """The first match that does not hold: what the flow is, and what the rule asks for."""
    if missed.end is None:
        return _of_flow(missed.what, rule, flow)
    source = missed.end is End.SOURCE
    entity = rule.source if source else rule.destination
    address, port = (flow.source, flow.source_port) if source else (flow.destination, flow.destination_port)
    end = missed.end.value
    match missed.what:
        case Mismatch.PORTS:
            return f"{end} port {_port(port)}, not {_any(_ports(entity.ports, entity.named_ports))}"
        case Mismatch.NOT_PORTS:
            return (
                f"{end} port {_port(port)} is one of notPorts {_any(_ports(entity.not_ports, entity.not_named_ports))}"
            )
        case Mismatch.SERVICE:
            service = entity.service
            named = f"{service.namespace}/{service.name}" if service else ""
            return f"{end} {address} port {_port(port)} is not behind service {named}"
        case Mismatch.NETS:
            return f"{end} {address} is not in {_any(map(str, entity.nets))}"
        case Mismatch.NOT_NETS:
            return f"{end} {address} is in notNets {_any(str(net) for net in entity.not_nets if address in net)}"
        case Mismatch.SELECTOR:
            return f"{end} {address} is not {_unchosen(entity, address, members)}"
        case _:
            chosen = (str(one.selector) for one in entity.not_sets if members.contains(one.id, address))
            return f"{end} {address} is in notSelector {_any(chosen)}"


def _of_flow(what: Mismatch, rule: Rule, flow: Flow) -> str:
    name = protocol_name(flow.protocol)
    match what:
        case Mismatch.IP_VERSION:
            return f"IPv{flow.source.version}, not IPv{rule.ip_version}"
        case Mismatch.PROTOCOL:
            return f"protocol {name}, not {protocol_name(rule.protocol or 0)}"
        case Mismatch.NOT_PROTOCOL:
            return f"protocol {name} is notProtocol"
        case Mismatch.ICMP:
            return f"{_icmp(Icmp(flow.icmp_type, flow.icmp_code))}, not {_icmp(rule.icmp or Icmp())}"
        case _:
            return f"{_icmp(Icmp(flow.icmp_type, flow.icmp_code))} is notICMP"


def _icmp(one: Icmp) -> str:
    parts = [f"type {one.type}" if one.type is not None else "any type"]
    if one.code is not None:
        parts.append(f"code {one.code}")
    return f"ICMP {' '.join(parts)}"


def _unchosen(entity: Entity, address: IPAddress, members: Membership) -> str:
    for one in entity.sets:
        if not members.contains(one.id, address):
            if isinstance(one, ServiceSet):
                return f"behind service {one.namespace}/{one.name}"
            return f"in selector {one.selector}"
    return "in the selectors"


def _ports(ranges: Iterable[PortRange], named: Iterable[PortSet]) -> Iterator[str]:
    for one in ranges:
        yield str(one.first) if one.first == one.last else f"{one.first}-{one.last}"
    for name in named:
        yield f"{name.port} of {name.selector}"


def _port(port: int | None) -> str:
    return "(not given)" if port is None else str(port)


def _any(texts: Iterable[str]) -> str:
    found = list(texts)
    more = [f"{len(found) - MOST_LISTED} more"] if len(found) > MOST_LISTED else []
    return " or ".join([*found[:MOST_LISTED], *more])


def rule_text(rule: RuleResource) -> str:
    """A rule as it is written in its policy, on one line."""
    words: list[str] = [rule.action]
    if rule.ip_version is not None:
        words.append(f"IPv{rule.ip_version}")
    if rule.protocol is not None:
        words.append(str(rule.protocol))
    if rule.not_protocol is not None:
        words.append(f"not {rule.not_protocol}")
    for name, icmp in (("", rule.icmp), ("not ", rule.not_icmp)):
        if icmp is not None:
            words.append(name + _icmp(Icmp(icmp.type, icmp.code)))
    for preposition, entity in (("from", rule.source), ("to", rule.destination)):
        text = ", ".join(_entity_parts(entity))
        if text:
            words.append(f"{preposition} {text}")
    if rule.http is not None:
        words.append("http (not supported)")
    return " ".join(words)


def _entity_parts(entity: EntityRule) -> Iterator[str]:
    if entity.services is not None:
        namespace = f"{entity.services.namespace}/" if entity.services.namespace else ""
        yield f"service {namespace}{entity.services.name}"
    if entity.namespace_selector:
        yield f"namespaces {entity.namespace_selector}"
    if entity.service_accounts is not None:
        accounts = entity.service_accounts
        if accounts.names:
            yield f"service accounts {_any(accounts.names)}"
        if accounts.selector:
            yield f"service accounts {accounts.selector}"
    if entity.selector:
        yield entity.selector
    if entity.not_selector:
        yield f"not {entity.not_selector}"
    if entity.nets:
        yield _any(map(str, entity.nets))
    if entity.not_nets:
        yield f"not {_any(map(str, entity.not_nets))}"
    if entity.ports:
        yield f"ports {_any(map(str, entity.ports))}"
    if entity.not_ports:
        yield f"not ports {_any(map(str, entity.not_ports))}"
