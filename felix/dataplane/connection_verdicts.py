"""What policy says of very many connections at one endpoint, quickly.

Pure. The same as `weft.policy.verdict`, and held to it by a property test; the difference is what is remembered.
Protocol and ports rule out most rules of a policy at once, and few connections differ in them; what is then left asks
for addresses, or for nothing. Whoever changes a policy, or the members of a set, calls `forget`."""

from collections.abc import Sequence
from ipaddress import ip_address

from msgspec import Struct

from felix.rules.matches import PROTOCOLS_WITH_PORTS
from weft.netlink.conntrack import ICMP, ICMPV6, Seen
from weft.policy.matching import Flow, Membership, address_mismatch, mismatch, packet_mismatch
from weft.policy.values import Action, Direction, EndpointPolicy, Entity, Policies, Rule
from weft.policy.verdict import Course, course

_REMEMBERED = 100_000
"""Of each kind, at most: what follows is asked anew."""


class _Question(Struct, frozen=True):
    """What is left of a place in a course when protocol and ports are known: ask for these addresses.

    `rule`: all of it must be asked, for it looks for ports that depend on the address that has them."""

    number: int
    action: Action
    after: int
    source: Entity | None = None
    destination: Entity | None = None
    rule: Rule | None = None

    @property
    def is_open(self) -> bool:
        """Whether it is answered already: by every packet of this protocol and ports."""
        return self.source is None and self.destination is None and self.rule is None


class _Asked(Struct, frozen=True):
    """What one endpoint asks in one direction of packets of one protocol and ports.

    `always`: what becomes of all of them, where addresses make no difference. `verdicts`: by both addresses."""

    questions: tuple[_Question, ...]
    always: bool | None
    verdicts: dict[bytes, bool]


class Verdicts:
    def __init__(self, members: Membership) -> None:
        self._members = members
        self.forget()

    def forget(self) -> None:
        self._courses: dict[tuple[int, bool], tuple[EndpointPolicy, Course, bool]] = {}
        self._asked: dict[tuple[tuple[int, bool], int, int, int, int], _Asked] = {}

    def passes(self, policy: EndpointPolicy, policies: Policies, direction: Direction, seen: Seen) -> bool:
        """Whether policy allows the connection's first packet in this direction."""
        at = (id(policy), direction is Direction.INGRESS)
        found = self._courses.get(at)
        if found is None:
            made = course(policy, policies, direction)
            rules = (place.rule for place in made.places if place.rule is not None)
            # With the policy itself: as long as it is held here, nothing else has its identity.
            found = self._courses[at] = policy, made, any(_asks_ports(one.source) for one in rules)
        asks_source_port = found[2] or seen.protocol in (ICMP, ICMPV6)
        shape = (at, len(seen.source), seen.protocol, seen.first if asks_source_port else 0, seen.second)
        asked = self._asked.get(shape)
        if asked is None:
            if len(self._asked) >= _REMEMBERED:
                self._asked.clear()
            asked = self._asked[shape] = _ask(found[1], _flow(seen), self._members)
        if asked.always is not None:
            return asked.always
        ends = seen.source + seen.destination
        passes = asked.verdicts.get(ends)
        if passes is None:
            if len(asked.verdicts) >= _REMEMBERED:
                asked.verdicts.clear()
            passes = asked.verdicts[ends] = _answer(asked.questions, seen, self._members)
        return passes


def _ask(whole: Course, flow: Flow, members: Membership) -> _Asked:
    """What is left to be asked of packets like this one, whatever their addresses are."""
    questions = []
    for number, place in enumerate(whole.places):
        rule, action = place.rule, place.step.action
        if not whole.acting >> number & 1 or action is Action.LOG:
            continue
        if rule is None:
            questions.append(_Question(number, action, place.after))
        elif _asks_named(rule):
            questions.append(_Question(number, action, place.after, rule=rule))
        elif packet_mismatch(rule, flow, members) is None:
            source, destination = (one if _asks_addresses(one) else None for one in (rule.source, rule.destination))
            questions.append(_Question(number, action, place.after, source, destination))
        if questions and questions[-1].is_open and all(one.action is not Action.PASS for one in questions):
            break  # nothing gets further
    first = questions[0]
    always = first.action is Action.ALLOW if first.is_open and first.action is not Action.PASS else None
    return _Asked(tuple(questions), always, {})


def _answer(questions: Sequence[_Question], seen: Seen, members: Membership) -> bool:
    """As `weft.policy.verdict.follow` goes through a course, of which this is what has not been answered yet."""
    source, destination = ip_address(seen.source), ip_address(seen.destination)
    at = 0
    for one in questions:
        if one.number < at:
            continue
        if one.rule is not None and mismatch(one.rule, _flow(seen), members) is not None:
            continue
        if one.source is not None and address_mismatch(one.source, source, members) is not None:
            continue
        if one.destination is not None and address_mismatch(one.destination, destination, members) is not None:
            continue
        if one.action is not Action.PASS:
            return one.action is Action.ALLOW
        at = one.after
    return False


def _asks_named(rule: Rule) -> bool:
    """Whether ports are asked for that depend on the address that has them."""
    ends = (rule.source, rule.destination)
    return any(one.named_ports or one.not_named_ports or one.service is not None for one in ends)


def _asks_addresses(entity: Entity) -> bool:
    return bool(entity.nets or entity.not_nets or entity.sets or entity.not_sets)


def _asks_ports(entity: Entity) -> bool:
    named = entity.named_ports or entity.not_named_ports or entity.service is not None
    return bool(entity.ports or entity.not_ports or named)


def _flow(seen: Seen) -> Flow:
    source, destination, protocol = ip_address(seen.source), ip_address(seen.destination), seen.protocol
    if protocol in (ICMP, ICMPV6):
        return Flow(
            source=source, destination=destination, protocol=protocol, icmp_type=seen.first, icmp_code=seen.second
        )
    if protocol not in PROTOCOLS_WITH_PORTS:
        return Flow(source=source, destination=destination, protocol=protocol)
    return Flow(
        source=source,
        destination=destination,
        protocol=protocol,
        source_port=seen.first,
        destination_port=seen.second,
    )
