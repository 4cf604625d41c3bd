"""Where host endpoints are asked: base chains of their own, which exist only while something is asked there, and rules
in the base chains that every node has.

A packet meets the stages in the order of the hooks: UNTRACKED before connection tracking, PRE_DNAT before its
destination is translated, then FORWARD or NORMAL. What UNTRACKED or PRE_DNAT allows carries a mark to the chain that
would ask next. Each place has a verdict map by interface; what is in no map goes to the chain of the host endpoint
for all interfaces ("*"), if there is one. The loopback interface is never asked about.

What "*" means for interfaces of workloads is Calico's (felix/rules/dispatch.go, static.go): FORWARD and PRE_DNAT ask
about them, too; what a workload and its host say to each other is for the workload's policy alone."""

from collections.abc import Iterable, Iterator, Mapping
from itertools import groupby

from msgspec import Struct

from felix.calc.delta import ANY_INTERFACE, Failsafe, LocalHostEndpoint, Settings
from felix.rules import render_names as names
from felix.rules import values as nft
from felix.rules.render_chains import EndpointPlan, Where, endpoint_plan
from felix.rules.render_match import merged_ports
from felix.rules.render_pieces import DELETED, ESTABLISHED, WORKLOADS
from weft.policy.values import Direction, HostPolicy, PortRange, Stage

AskedAt = tuple[Where, Direction]
LOOPBACK = "lo"

_STAGES: Mapping[AskedAt, Stage] = {
    (Where.UNTRACKED, Direction.INGRESS): Stage.UNTRACKED,
    (Where.UNTRACKED, Direction.EGRESS): Stage.UNTRACKED,
    (Where.PRE_DNAT, Direction.INGRESS): Stage.PRE_DNAT,
    (Where.FORWARD, Direction.INGRESS): Stage.FORWARD,
    (Where.FORWARD, Direction.EGRESS): Stage.FORWARD,
    (Where.HOST, Direction.INGRESS): Stage.NORMAL,
    (Where.HOST, Direction.EGRESS): Stage.NORMAL,
    (Where.DNATTED, Direction.EGRESS): Stage.NORMAL,
}
HOST_MAPS: Mapping[str, AskedAt] = {
    names.host_map(direction, where.value): (where, direction) for where, direction in _STAGES
}

# Without these an IPv6 node knows no neighbours and no router, whatever its failsafe ports: multicast listener
# messages, router and neighbour solicitations and advertisements (RFC 4861, 2710, 3810).
_NEIGHBOURS = (130, 131, 132, 133, 134, 135, 136, 143)


def host_plan(policy: HostPolicy, at: AskedAt) -> EndpointPlan | None:
    """None where the endpoint has nothing to say."""
    where, direction = at
    stage = _STAGES[at]
    asked = policy.of(stage)
    if stage is not Stage.NORMAL and not asked.tiers_of(direction):
        return None
    return endpoint_plan(direction, asked, where)


def host_plans(policy: HostPolicy) -> Iterator[EndpointPlan]:
    for at in _STAGES:
        plan = host_plan(policy, at)
        if plan is not None:
            yield plan


class HostUse(Struct, frozen=True):
    """What base chains need to know of the node's host endpoints.

    places: where any of them is asked. rest: the chains of the one for all interfaces."""

    places: frozenset[AskedAt] = frozenset()
    rest: Mapping[AskedAt, str] = {}

    @classmethod
    def of(cls, endpoints: Mapping[str, LocalHostEndpoint]) -> "HostUse":
        plans = {interface: tuple(host_plans(endpoint.policy)) for interface, endpoint in endpoints.items()}
        return cls(
            frozenset((plan.where, plan.direction) for found in plans.values() for plan in found),
            {(plan.where, plan.direction): plan.name for plan in plans.get(ANY_INTERFACE, ())},
        )

    def ask(self, where: Where, direction: Direction) -> Iterator[nft.Rule]:
        """The last rules of a base chain: what the interface's endpoint says."""
        if (where, direction) not in self.places:
            return
        way = nft.Way.IN if direction is Direction.INGRESS else nft.Way.OUT
        yield nft.rule(nft.InterfaceVerdict(way, names.host_map(direction, where.value)))
        rest = self.rest.get((where, direction))
        if rest is None:
            return
        if where in (Where.UNTRACKED, Where.DNATTED):
            yield from (nft.rule(nft.Interface(way, one), nft.Accept()) for one in (LOOPBACK, WORKLOADS, DELETED))
        yield nft.rule(nft.Goto(rest))

    def allows_early(self, direction: Direction) -> bool:
        return bool(self.places & {(Where.UNTRACKED, direction), (Where.PRE_DNAT, direction)})


def raw_rules(use: HostUse) -> tuple[nft.Rule, ...]:
    """For prerouting before connection tracking."""
    return tuple(use.ask(Where.UNTRACKED, Direction.INGRESS))


def input_rules(use: HostUse) -> tuple[nft.Rule, ...]:
    """For input, behind what it does with workloads."""
    if not use.places:
        return ()
    early = _allowed_early() if use.allows_early(Direction.INGRESS) else ()
    return _loopback(nft.Way.IN), *ESTABLISHED, *early, *use.ask(Where.HOST, Direction.INGRESS)


def output_rules(use: HostUse) -> tuple[nft.Rule, ...]:
    """For output, behind what it does with workloads. Of a packet that was given another destination, output still
    sees the old interface: postrouting asks about it."""
    if not use.places:
        return ()
    early = _allowed_early() if use.allows_early(Direction.EGRESS) else ()
    translated = nft.rule(nft.ConntrackStatus(("dnat",)), nft.Accept())
    return _loopback(nft.Way.OUT), *ESTABLISHED, *early, translated, *use.ask(Where.HOST, Direction.EGRESS)


def host_chains(use: HostUse, settings: Settings) -> dict[str, nft.Chain | None]:
    """None: not needed now. `forward-from-host` comes before the workloads' chains and `forward-to-host` after them."""
    failsafes = _failsafe_chains(settings) if use.places else ()
    chains = (*_asking_chains(use), *failsafes)
    return {**dict.fromkeys(_ALL), **{chain.name: chain for chain in chains}}


_ALL = (
    names.PREROUTING_HOST,
    names.OUTPUT_RAW,
    names.FORWARD_FROM_HOST,
    names.FORWARD_TO_HOST,
    names.POSTROUTING_HOST,
    names.TRANSLATED_BY_HOST,
    names.FAILSAFE_IN,
    names.FAILSAFE_OUT,
    names.FAILSAFE_IN_RAW,
    names.FAILSAFE_OUT_RAW,
    names.HOST_NEIGHBOURS,
)


def _asking_chains(use: HostUse) -> Iterator[nft.Chain]:
    if (Where.UNTRACKED, Direction.EGRESS) in use.places:
        rules = use.ask(Where.UNTRACKED, Direction.EGRESS)
        yield nft.Chain(names.OUTPUT_RAW, tuple(rules), nft.Hook("filter", "output", -300))
    if (Where.PRE_DNAT, Direction.INGRESS) in use.places:
        already = nft.rule(nft.Mark(names.ALLOWED_EARLY, names.ALLOWED_EARLY), nft.Accept())
        rules = use.ask(Where.PRE_DNAT, Direction.INGRESS)
        all_rules = (_loopback(nft.Way.IN), *ESTABLISHED, already, *rules)
        yield nft.Chain(names.PREROUTING_HOST, all_rules, nft.Hook("filter", "prerouting", -150))
    early = _allowed_early() if use.allows_early(Direction.INGRESS) else ()
    forward_from = (*early, *use.ask(Where.FORWARD, Direction.INGRESS))
    if forward_from:
        yield nft.Chain(names.FORWARD_FROM_HOST, (*ESTABLISHED, *forward_from), nft.Hook("filter", "forward", -1))
    forward_to = tuple(use.ask(Where.FORWARD, Direction.EGRESS))
    if forward_to:
        yield nft.Chain(names.FORWARD_TO_HOST, (*ESTABLISHED, *forward_to), nft.Hook("filter", "forward", 2))
    if (Where.DNATTED, Direction.EGRESS) in use.places:
        translated = nft.ConntrackStatus(("dnat",)), nft.AddressType(nft.Side.SOURCE, "local")
        ask = nft.rule(*translated, nft.Goto(names.TRANSLATED_BY_HOST))
        hook = nft.Hook("filter", "postrouting", 0)
        yield nft.Chain(names.POSTROUTING_HOST, (*ESTABLISHED, ask), hook)
        yield nft.Chain(names.TRANSLATED_BY_HOST, tuple(use.ask(Where.DNATTED, Direction.EGRESS)))


def _loopback(way: nft.Way) -> nft.Rule:
    return nft.rule(nft.Interface(way, LOOPBACK), nft.Accept())


def _allowed_early() -> tuple[nft.Rule, ...]:
    """The mark ends here: a tunnel would copy it to the packet around this one."""
    mark = nft.Mark(names.ALLOWED_EARLY, names.ALLOWED_EARLY)
    return (nft.rule(mark, nft.SetMark(0, names.ALLOWED_EARLY), nft.Accept(), comment="allowed before"),)


def _failsafe_chains(settings: Settings) -> Iterator[nft.Chain]:
    """Before connection tracking answers are exempt, too: half of a connection must not become untracked."""
    here, there = nft.Side.SOURCE, nft.Side.DESTINATION
    inbound, outbound = settings.failsafe_inbound, settings.failsafe_outbound
    neighbours = nft.rule(nft.L4Protocol(nft.ICMPV6), nft.Jump(names.HOST_NEIGHBOURS))
    messages = (nft.rule(nft.L4Protocol(nft.ICMPV6), nft.IcmpType(one), nft.Accept()) for one in _NEIGHBOURS)
    to_node, to_peers = _failsafes(inbound, there, peer=here), _failsafes(outbound, there, peer=there)
    answers_of_peers, answers_of_node = _failsafes(outbound, here, peer=here), _failsafes(inbound, here, peer=there)
    yield nft.Chain(names.HOST_NEIGHBOURS, tuple(messages))
    yield nft.Chain(names.FAILSAFE_IN, (neighbours, *to_node))
    yield nft.Chain(names.FAILSAFE_OUT, (neighbours, *to_peers))
    yield nft.Chain(names.FAILSAFE_IN_RAW, (neighbours, *to_node, *answers_of_peers))
    yield nft.Chain(names.FAILSAFE_OUT_RAW, (neighbours, *to_peers, *answers_of_node))


def _failsafes(ports: Iterable[Failsafe], side: nft.Side, peer: nft.Side) -> tuple[nft.Rule, ...]:
    """One rule for all ports of a protocol with the same peers."""
    found = []
    for (protocol, net), group in groupby(sorted(ports, key=_failsafe_order), key=lambda one: (one.protocol, one.net)):
        ranges = merged_ports(PortRange(one.port, one.port) for one in group)
        peers = () if net is None else (nft.Address(peer, (net,)),)
        found.append(nft.rule(nft.L4Protocol(protocol), nft.Ports(side, ranges), *peers, nft.Accept()))
    return tuple(found)


def _failsafe_order(one: Failsafe) -> tuple[int, str, int]:
    return one.protocol, str(one.net or ""), one.port
