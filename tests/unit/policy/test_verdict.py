"""The verdict of a flow and the step that decided it."""

from ipaddress import ip_address, ip_network

import pytest

from weft.model.address import IPAddress
from weft.model.keys import ResourceKey
from weft.policy.matching import Flow, matches
from weft.policy.values import (
    Action,
    Direction,
    EndpointPolicy,
    Entity,
    Icmp,
    Policy,
    PortRange,
    PortSet,
    Rule,
    SelectorSet,
    ServiceSet,
    TierPolicies,
)
from weft.policy.verdict import Step, verdict
from weft.selector import parse

A, B, P, Q = (ResourceKey(kind, name) for kind in ("GlobalNetworkPolicy", "Profile") for name in "ab")
STAGED = ResourceKey("StagedGlobalNetworkPolicy", "a")
SET = SelectorSet("s", parse("x == 'y'"))
NAMED = PortSet("p", parse("x == 'y'"), "http", 6)
SERVICE = ServiceSet("v", "one", "web")
WEB = Flow(
    source=ip_address("10.0.0.1"),
    destination=ip_address("10.0.0.2"),
    protocol=6,
    source_port=1000,
    destination_port=80,
)
PING = Flow(source=ip_address("fd00::1"), destination=ip_address("fd00::2"), protocol=58, icmp_type=128, icmp_code=0)


class Members:
    """10.0.0.1 is the only member of any set, and 10.0.0.2 with TCP port 80 of any with ports."""

    def contains(self, set_id: str, address: IPAddress) -> bool:
        return address == ip_address("10.0.0.1")

    def contains_port(self, set_id: str, address: IPAddress, protocol: int, port: int) -> bool:
        return (str(address), protocol, port) == ("10.0.0.2", 6, 80)


def rule(action: Action, **matched: object) -> Rule:
    return Rule(action=action, **matched)  # type: ignore[arg-type]


ALLOW, DENY, PASS, LOG = (rule(action) for action in Action)
NEVER = rule(Action.ALLOW, protocol=17)


def _decide(rules: dict[ResourceKey, tuple[Rule, ...]], *tiers: TierPolicies, profiles: tuple[ResourceKey, ...] = ()):  # type: ignore[no-untyped-def]
    policies = {key: Policy(key=key, ingress=found, egress=None) for key, found in rules.items()}
    return verdict(EndpointPolicy(tiers, profiles), policies, Members(), WEB, Direction.INGRESS)


def _tier(name: str, *keys: ResourceKey, end: Action = Action.DENY) -> TierPolicies:
    return TierPolicies(name, end, ingress=keys)


CASES = {
    "nothing allows": ({}, (), (), False, Step(Action.DENY)),
    "a profile allows": ({P: (ALLOW,)}, (), (P,), True, Step(Action.ALLOW, None, P, 0)),
    "the second profile": ({P: (NEVER,), Q: (ALLOW,)}, (), (P, Q), True, Step(Action.ALLOW, None, Q, 0)),
    "a profile passes": ({P: (PASS, DENY), Q: (ALLOW,)}, (), (P, Q), True, Step(Action.ALLOW, None, Q, 0)),
    "the first rule that matches": (
        {A: (NEVER, DENY, ALLOW)}, (_tier("t", A),), (), False, Step(Action.DENY, "t", A, 1),
    ),
    "the end of a tier": ({A: (NEVER,), P: (ALLOW,)}, (_tier("t", A),), (P,), False, Step(Action.DENY, "t")),
    "a tier that passes at its end": (
        {A: (NEVER,), P: (ALLOW,)}, (_tier("t", A, end=Action.PASS),), (P,), True, Step(Action.ALLOW, None, P, 0),
    ),
    "pass skips the rest of its tier": (
        {A: (PASS,), B: (DENY,), P: (ALLOW,)}, (_tier("t", A, B),), (P,), True, Step(Action.ALLOW, None, P, 0),
    ),
    "pass goes to the next tier": (
        {A: (PASS,), B: (DENY,)}, (_tier("t", A), _tier("u", B)), (), False, Step(Action.DENY, "u", B, 0),
    ),
    "log goes on": ({A: (LOG, ALLOW)}, (_tier("t", A),), (), True, Step(Action.ALLOW, "t", A, 1)),
    "a tier without a policy for the direction": (
        {P: (ALLOW,)}, (TierPolicies("t", Action.DENY, egress=(A,)),), (P,), True, Step(Action.ALLOW, None, P, 0),
    ),
    "a staged policy decides nothing": (
        {STAGED: (DENY,), A: (ALLOW,)}, (_tier("t", STAGED, A),), (), True, Step(Action.ALLOW, "t", A, 0),
    ),
    "a tier of staged policies only decides nothing at its end": (
        {STAGED: (DENY,), P: (ALLOW,)}, (_tier("t", STAGED),), (P,), True, Step(Action.ALLOW, None, P, 0),
    ),
    "an allow that cannot be enforced": (
        {A: (rule(Action.ALLOW, unenforced=("http",)),)}, (_tier("t", A),), (), False, Step(Action.DENY, "t"),
    ),
    "a pass that cannot be enforced": (
        {A: (rule(Action.PASS, unenforced=("http",)),)}, (_tier("t", A),), (), False, Step(Action.DENY, "t", A, 0),
    ),
}  # fmt: skip


@pytest.mark.parametrize(("rules", "tiers", "profiles", "allowed", "decided"), CASES.values(), ids=CASES)
def test_what_decides(
    rules: dict[ResourceKey, tuple[Rule, ...]],
    tiers: tuple[TierPolicies, ...],
    profiles: tuple[ResourceKey, ...],
    allowed: bool,
    decided: Step,
) -> None:
    found = _decide(rules, *tiers, profiles=profiles)
    assert (found.allowed, found.decided) == (allowed, decided)


def test_the_steps_on_the_way_are_told() -> None:
    found = _decide({A: (LOG, PASS), P: (ALLOW,)}, _tier("t", A), profiles=(P,))
    assert found.before == (Step(Action.LOG, "t", A, 0), Step(Action.PASS, "t", A, 1))


MATCHES = {
    "everything": ({}, True, True),
    "IPv4 only": ({"ip_version": 4}, True, False),
    "protocol": ({"protocol": 6}, True, False),
    "not protocol": ({"not_protocol": 6}, False, True),
    "icmp type": ({"protocol": 58, "icmp": Icmp(128)}, False, True),
    "another icmp code": ({"protocol": 58, "icmp": Icmp(128, 1)}, False, False),
    "not an icmp type": ({"protocol": 58, "not_icmp": Icmp(128)}, False, False),
    "port": ({"destination": Entity(ports=(PortRange(80, 90),))}, True, False),
    "another end's port": ({"source": Entity(ports=(PortRange(80, 90),))}, False, False),
    "not a port": ({"destination": Entity(not_ports=(PortRange(80, 90),))}, False, True),
    "prefixes of one family": ({"source": Entity(nets=(ip_network("10.0.0.0/8"),))}, True, False),
    "not in prefixes of one family": ({"source": Entity(not_nets=(ip_network("10.0.0.0/8"),))}, False, True),
    "in the set": ({"source": Entity(sets=(SET,))}, True, False),
    "not in the set": ({"source": Entity(not_sets=(SET,))}, False, True),
    "a named port": ({"destination": Entity(named_ports=(NAMED,))}, True, False),
    "a named port of the other end": ({"source": Entity(named_ports=(NAMED,))}, False, False),
    "a named port or a numbered one": (
        {"destination": Entity(ports=(PortRange(22, 22),), named_ports=(NAMED,))}, True, False,
    ),
    "not a named port": ({"destination": Entity(not_named_ports=(NAMED,))}, False, True),
    "neither a numbered nor a named port": (
        {"destination": Entity(not_ports=(PortRange(22, 22),), not_named_ports=(NAMED,))}, False, True,
    ),
    "a service": ({"destination": Entity(service=SERVICE)}, True, False),
    "in the set and not in it": ({"source": Entity(sets=(SET,), not_sets=(SET,))}, False, False),
}  # fmt: skip


@pytest.mark.parametrize(("matched", "web", "ping"), MATCHES.values(), ids=MATCHES)
def test_which_flows_a_rule_chooses(matched: dict[str, object], web: bool, ping: bool) -> None:
    one = rule(Action.ALLOW, **matched)
    assert (matches(one, WEB, Members()), matches(one, PING, Members())) == (web, ping)


def test_a_flow_is_of_one_family() -> None:
    with pytest.raises(ValueError, match="two address families"):
        Flow(source=ip_address("10.0.0.1"), destination=ip_address("fd00::1"), protocol=6)
