"""Our base chains, the same for every node up to the settings: which traffic is looked at, and where.

Only traffic of interfaces that are ours is ever refused. Our `accept` ends only its own base chain, so a packet
from one workload to another passes forward-from-endpoint (its sender's egress policy) and then forward-to-endpoint
(its receiver's ingress policy), with no marks between. An interface of ours that is in no map passes nothing."""

from ipaddress import IPv6Network
from typing import Literal

from felix.calc.delta import Settings
from felix.rules import render_names as names
from felix.rules.values import (
    ICMPV6,
    Accept,
    Address,
    AddressInSet,
    Chain,
    ConntrackMark,
    ConntrackState,
    Drop,
    Goto,
    Hook,
    IcmpType,
    Interface,
    InterfaceVerdict,
    Jump,
    L4Protocol,
    Masquerade,
    NetworkProtocol,
    ReversePath,
    Rule,
    Side,
    Way,
    rule,
)

WORKLOADS = "cali*"
DELETED = "weftdel*"

# What a workload may always say to its router (RFC 4861, 2710, 3810): multicast listener queries and reports,
# router and neighbour solicitations, neighbour advertisements. Not router advertisements (134) and redirects
# (137).
ICMPV6_TO_ROUTER = (130, 131, 132, 133, 135, 136, 143)

ESTABLISHED = (
    rule(ConntrackState(("established", "related")), ConntrackMark(0, names.CUT_CONNECTION), Accept()),
    rule(ConntrackMark(names.CUT_CONNECTION, names.CUT_CONNECTION), Drop(), comment="connection cut by policy"),
)
"""What every base chain, and the chain of every host endpoint, begins with: a connection that was allowed goes on, in
both directions, unless the agent marked it because policy would refuse it now. One rule for the former; what is
untracked or invalid has no mark and matches neither."""
DROP_INVALID = rule(ConntrackState(("invalid",)), Drop())


def _only_known(way: Way, verdicts: str) -> tuple[Rule, ...]:
    """What the map says about the interface; nothing for interfaces of ours that it does not know."""
    return (
        rule(InterfaceVerdict(way, verdicts)),
        _drop_unknown(way),
        _drop_deleted(way),
    )


def _drop_unknown(way: Way) -> Rule:
    return rule(Interface(way, WORKLOADS), Drop(), comment="no policy computed")


def _drop_deleted(way: Way) -> Rule:
    return rule(Interface(way, DELETED), Drop(), comment="being deleted")


def base_chains(settings: Settings, masquerade: tuple[Literal[4, 6], ...]) -> dict[str, Chain | None]:
    """`masquerade`: the address families that have a pool with natOutgoing."""
    chains = (
        _prerouting_raw(),
        Chain(
            names.FORWARD_FROM_ENDPOINT,
            (*ESTABLISHED, *_only_known(Way.IN, names.FROM_ENDPOINTS)),
            Hook("filter", "forward", 0),
        ),
        Chain(
            names.FORWARD_TO_ENDPOINT,
            (*ESTABLISHED, *_only_known(Way.OUT, names.TO_ENDPOINTS)),
            Hook("filter", "forward", 1),
        ),
        Chain(
            names.INPUT,
            (rule(Interface(Way.IN, WORKLOADS), Goto(names.WORKLOAD_TO_HOST)), _drop_deleted(Way.IN)),
            Hook("filter", "input", 0),
        ),
        Chain(names.OUTPUT, _only_known(Way.OUT, names.KNOWN_ENDPOINTS), Hook("filter", "output", 0)),
        _workload_to_host(settings),
        Chain(names.KNOWN_WORKLOAD, (rule(InterfaceVerdict(Way.IN, names.KNOWN_ENDPOINTS)), _drop_unknown(Way.IN))),
    )
    nat = _postrouting_nat(masquerade) if masquerade else None
    return {**{chain.name: chain for chain in chains}, names.POSTROUTING_NAT: nat}


def _prerouting_raw() -> Chain:
    """IPv4 senders are checked by rp_filter, which IPv6 has not.

    The unspecified and the link-local addresses are exempt: a packet with one of them is never forwarded."""
    spoofed = rule(
        Interface(Way.IN, WORKLOADS),
        NetworkProtocol(6),
        Address(Side.SOURCE, (IPv6Network("::/128"),), negated=True),
        Address(Side.SOURCE, (IPv6Network("fe80::/10"),), negated=True),
        ReversePath(exists=False),
        Drop(),
        comment="sender is not this workload",
    )
    return Chain(names.PREROUTING_RAW, (spoofed,), Hook("filter", "prerouting", -300))


def _workload_to_host(settings: Settings) -> Chain:
    """Unless the administrator opens the host (defaultEndpointToHostAction), a workload reaches only what IPv6
    needs of a router and the answers to what the host asked. Opened, its egress policy decides.

    Only one rule leads here, not an entry for each workload: older kernels check a chain again for each entry that
    leads to it, whenever a rule is added."""
    neighbour_discovery = [rule(L4Protocol(ICMPV6), IcmpType(one), Accept()) for one in ICMPV6_TO_ROUTER]
    policy = [] if settings.endpoint_to_host == "Drop" else [rule(InterfaceVerdict(Way.IN, names.FROM_ENDPOINTS))]
    known = rule(Jump(names.KNOWN_WORKLOAD))
    return Chain(
        names.WORKLOAD_TO_HOST, (known, *ESTABLISHED, *neighbour_discovery, DROP_INVALID, *policy, rule(Drop()))
    )


def _postrouting_nat(masquerade: tuple[Literal[4, 6], ...]) -> Chain:
    rules = (
        rule(
            AddressInSet(Side.SOURCE, names.masqueraded_pools(version), version),
            AddressInSet(Side.DESTINATION, names.all_pools(version), version, negated=True),
            Masquerade(fully_random=True),
        )
        for version in masquerade
    )
    return Chain(names.POSTROUTING_NAT, tuple(rules), Hook("nat", "postrouting", 100))
