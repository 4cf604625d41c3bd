"""The stages of a host endpoint: which are asked on which path, and what each does at its end."""

from ipaddress import ip_address, ip_network

import pytest
from msgspec import Struct

from weft.model.address import IPAddress, IPNetwork
from weft.model.keys import ResourceKey
from weft.policy.host import HostVerdict, Interface, Path, host_verdict
from weft.policy.matching import Flow
from weft.policy.values import Action, Direction, EndpointPolicy, HostPolicy, Policy, Rule, Stage, TierPolicies

ALLOWS, DENIES, SILENT = (ResourceKey("GlobalNetworkPolicy", name) for name in ("allows", "denies", "silent"))
RULES = {
    ALLOWS: (Rule(action=Action.ALLOW),),
    DENIES: (Rule(action=Action.DENY),),
    SILENT: (Rule(action=Action.DENY, protocol=17),),
}
POLICIES = {key: Policy(key=key, ingress=rules, egress=rules) for key, rules in RULES.items()}
SSH = Flow(
    source=ip_address("192.0.2.1"), destination=ip_address("192.0.2.9"), protocol=6, source_port=1, destination_port=22
)
IN, OUT = Direction.INGRESS, Direction.EGRESS
LOCAL, FORWARDED = Path.LOCAL, Path.FORWARDED


class Port(Struct, frozen=True):
    protocol: int
    port: int
    net: IPNetwork | None = None


class Nobody:
    def contains(self, set_id: str, address: IPAddress) -> bool:
        return False

    def contains_port(self, set_id: str, address: IPAddress, protocol: int, port: int) -> bool:
        return False


def of(*keys: ResourceKey, end: Action = Action.DENY) -> EndpointPolicy:
    return EndpointPolicy((TierPolicies("default", end, keys, keys),)) if keys else EndpointPolicy()


def decided(policy: HostPolicy, direction: Direction, path: Path, *failsafes: Port) -> HostVerdict:
    return host_verdict(Interface(policy, failsafes), POLICIES, Nobody(), SSH, direction, path)


CASES = {
    "nothing applies to what is the node's own": (HostPolicy(), IN, LOCAL, False, Stage.NORMAL),
    "nothing applies to what is forwarded": (HostPolicy(), IN, FORWARDED, True, Stage.FORWARD),
    "normal policy is not asked about what is forwarded": (
        HostPolicy(normal=of(DENIES)), OUT, FORWARDED, True, Stage.FORWARD,
    ),
    "forward policy denies at the end of its tier": (
        HostPolicy(forward=of(SILENT)), IN, FORWARDED, False, Stage.FORWARD,
    ),
    "a forward tier that passes at its end lets everything through": (
        HostPolicy(forward=of(SILENT, end=Action.PASS)), IN, FORWARDED, True, Stage.FORWARD,
    ),
    "untracked policy decides first": (
        HostPolicy(normal=of(DENIES), untracked=of(ALLOWS)), IN, LOCAL, True, Stage.UNTRACKED,
    ),
    "the end of an untracked tier decides nothing": (
        HostPolicy(normal=of(ALLOWS), untracked=of(SILENT)), OUT, LOCAL, True, Stage.NORMAL,
    ),
    "preDNAT decides what comes in": (
        HostPolicy(normal=of(ALLOWS), pre_dnat=of(DENIES)), IN, LOCAL, False, Stage.PRE_DNAT,
    ),
    "preDNAT decides what is forwarded, too": (
        HostPolicy(pre_dnat=of(DENIES)), IN, FORWARDED, False, Stage.PRE_DNAT,
    ),
    "preDNAT is not asked about what goes out": (
        HostPolicy(normal=of(ALLOWS), pre_dnat=of(DENIES)), OUT, LOCAL, True, Stage.NORMAL,
    ),
    "the end of a preDNAT tier decides nothing": (
        HostPolicy(normal=of(ALLOWS), pre_dnat=of(SILENT)), IN, LOCAL, True, Stage.NORMAL,
    ),
}  # fmt: skip


@pytest.mark.parametrize(("policy", "direction", "path", "allowed", "stage"), CASES.values(), ids=CASES)
def test_which_stage_decides(policy: HostPolicy, direction: Direction, path: Path, allowed: bool, stage: Stage) -> None:
    found = decided(policy, direction, path)
    assert (found.allowed, found.stage) == (allowed, stage)


EVERYTHING_CLOSED = HostPolicy(normal=of(DENIES), forward=of(DENIES), pre_dnat=of(DENIES), untracked=of(DENIES))


def test_a_failsafe_port_cannot_be_closed() -> None:
    assert decided(EVERYTHING_CLOSED, IN, LOCAL, Port(6, 22)).allowed
    assert decided(EVERYTHING_CLOSED, OUT, LOCAL, Port(6, 22)).allowed


def test_forward_policy_closes_what_a_failsafe_leaves_open_before() -> None:
    found = decided(EVERYTHING_CLOSED, IN, FORWARDED, Port(6, 22))
    assert (found.allowed, found.stage) == (False, Stage.FORWARD)


@pytest.mark.parametrize("failsafe", [Port(6, 23), Port(17, 22), Port(6, 22, ip_network("192.0.2.8/29"))])
def test_another_port_protocol_or_peer_is_no_failsafe(failsafe: Port) -> None:
    assert not decided(EVERYTHING_CLOSED, IN, LOCAL, failsafe).allowed


def test_the_peer_of_a_failsafe_is_the_source_of_what_comes_in_and_the_destination_of_what_goes_out() -> None:
    source, destination = Port(6, 22, ip_network("192.0.2.1/32")), Port(6, 22, ip_network("192.0.2.9/32"))
    assert decided(EVERYTHING_CLOSED, IN, LOCAL, source).allowed
    assert not decided(EVERYTHING_CLOSED, OUT, LOCAL, source).allowed
    assert decided(EVERYTHING_CLOSED, OUT, LOCAL, destination).allowed
