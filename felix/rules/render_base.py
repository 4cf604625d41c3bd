"""Our base chains, the same for every node up to the settings: which traffic is looked at, and where.

Only traffic of interfaces that are ours is ever refused. Our `accept` ends only its own base chain, so a packet
from one workload to another passes forward-from-endpoint (its sender's egress policy) and then forward-to-endpoint
(its receiver's ingress policy), with no marks between. An interface of ours that is in no map passes nothing."""

from collections.abc import Iterator
from typing import Literal

from msgspec import Struct

from felix.calc.delta import Settings
from felix.rules import render_names as names
from felix.rules.render_actions import ActionSettings, refuse
from felix.rules.render_host import HostUse, host_chains, input_rules, output_rules, raw_rules
from felix.rules.render_pieces import DELETED, DROP_INVALID, ESTABLISHED, STILL_ESTABLISHED, WORKLOADS
from felix.rules.render_senders import forged
from felix.rules.values import (
    ICMP,
    ICMPV6,
    UDP,
    Accept,
    Address,
    AddressInSet,
    Chain,
    Drop,
    Goto,
    Hook,
    IcmpType,
    Interface,
    InterfaceVerdict,
    Jump,
    L4Protocol,
    Masquerade,
    PortRange,
    Ports,
    Rule,
    Side,
    Way,
    rule,
)
from weft.model.address import IPNetwork

IPIP = 4

# What a workload may always say to its router (RFC 4861, 2710, 3810): multicast listener queries and reports,
# router and neighbour solicitations, neighbour advertisements.
ICMPV6_TO_ROUTER = (130, 131, 132, 133, 135, 136, 143)

# What it may never say, whatever its policy: that it is a router (134), or that there is a better one (137, and 5 in
# IPv4).
_OF_ROUTERS = ((ICMPV6, 134), (ICMPV6, 137), (ICMP, 5))


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


class Surroundings(Struct, frozen=True):
    """What base chains depend on besides the settings.

    masquerade: the address families that have a pool with natOutgoing. service_ranges: where packets to addresses of
    services go that are nobody's here, in order. sender_exceptions: a workload may send from other prefixes."""

    masquerade: tuple[Literal[4, 6], ...] = ()
    hosts: HostUse = HostUse()
    service_ranges: tuple[IPNetwork, ...] = ()
    sender_exceptions: bool = False


def base_chains(settings: Settings, around: Surroundings) -> dict[str, Chain | None]:
    """None: not needed now."""
    chains = (
        _prerouting_raw(around),
        Chain(
            names.FORWARD_FROM_ENDPOINT,
            (*ESTABLISHED, *_no_tunnels(settings), *_only_known(Way.IN, names.FROM_ENDPOINTS)),
            Hook("filter", "forward", 0),
        ),
        Chain(
            names.FORWARD_TO_ENDPOINT,
            (STILL_ESTABLISHED, *_only_known(Way.OUT, names.TO_ENDPOINTS), *_no_service_loops(settings, around)),
            Hook("filter", "forward", 1),
        ),
        Chain(
            names.INPUT,
            (
                rule(Interface(Way.IN, WORKLOADS), Goto(names.WORKLOAD_TO_HOST)),
                _drop_deleted(Way.IN),
                *input_rules(around.hosts),
            ),
            Hook("filter", "input", 0),
        ),
        Chain(
            names.OUTPUT,
            (*_only_known(Way.OUT, names.KNOWN_ENDPOINTS), *output_rules(around.hosts)),
            Hook("filter", "output", 0),
        ),
        _workload_to_host(settings),
        Chain(names.KNOWN_WORKLOAD, (rule(InterfaceVerdict(Way.IN, names.KNOWN_ENDPOINTS)), _drop_unknown(Way.IN))),
    )
    nat = _postrouting_nat(around.masquerade) if around.masquerade else None
    own = {chain.name: chain for chain in chains}
    return {**own, names.POSTROUTING_NAT: nat, **host_chains(around.hosts, settings)}


def _no_tunnels(settings: Settings) -> Iterator[Rule]:
    """Within a tunnel of its own making a workload could say what its egress policy refuses."""
    from_workload, end = Interface(Way.IN, WORKLOADS), refuse(ActionSettings(reject=settings.reject))
    if not settings.allow_vxlan_from_workloads:
        vxlan = Ports(Side.DESTINATION, (PortRange(settings.vxlan_port),))
        yield Rule((L4Protocol(UDP), vxlan, from_workload, end), "VXLAN from a workload")
    if not settings.allow_ipip_from_workloads:
        yield Rule((L4Protocol(IPIP), from_workload, end), "IP in IP from a workload")


def _no_service_loops(settings: Settings, around: Surroundings) -> Iterator[Rule]:
    """A packet that still has a service's address behind DNAT belongs to nobody: the uplink's router would only send
    it back."""
    if settings.service_loop_prevention == "Disabled":
        return
    end = refuse(ActionSettings(reject=settings.service_loop_prevention == "Reject"))
    for version in (4, 6):
        ranges = tuple(one for one in around.service_ranges if one.version == version)
        if ranges:
            yield Rule((Address(Side.DESTINATION, ranges), end), "no such service")


def _prerouting_raw(around: Surroundings) -> Chain:
    """IPv4 senders are checked by rp_filter, which IPv6 has not."""
    exceptions = (rule(InterfaceVerdict(Way.IN, names.SENDERS)),) if around.sender_exceptions else ()
    checks = (*exceptions, forged(6, Interface(Way.IN, WORKLOADS)))
    return Chain(names.PREROUTING_RAW, (*checks, *raw_rules(around.hosts)), Hook("filter", "prerouting", -300))


def _workload_to_host(settings: Settings) -> Chain:
    """Unless the administrator opens the host (defaultEndpointToHostAction), a workload reaches only what IPv6
    needs of a router and the answers to what the host asked. Opened, its egress policy decides.

    Only one rule leads here, not an entry for each workload: older kernels check a chain again for each entry that
    leads to it, whenever a rule is added."""
    neighbour_discovery = [rule(L4Protocol(ICMPV6), IcmpType(one), Accept()) for one in ICMPV6_TO_ROUTER]
    no_router = [
        rule(L4Protocol(protocol), IcmpType(one), Drop(), comment="not a router") for protocol, one in _OF_ROUTERS
    ]
    asked = (*no_router, *_no_tunnels(settings), rule(InterfaceVerdict(Way.IN, names.FROM_ENDPOINTS)))
    policy = () if settings.endpoint_to_host == "Drop" else asked
    invalid = (DROP_INVALID,) if settings.drop_invalid else ()
    known = rule(Jump(names.KNOWN_WORKLOAD))
    end = rule(refuse(ActionSettings(reject=settings.reject)))
    return Chain(names.WORKLOAD_TO_HOST, (known, *ESTABLISHED, *neighbour_discovery, *invalid, *policy, end))


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
