"""Kinds of packets that some rules cannot tell apart, each with one packet that stands for it."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, product

from msgspec import Struct
from msgspec.structs import replace

from weft.policy.explainer import Packet
from weft.policy.matching import ICMP_PROTOCOLS, PORT_PROTOCOLS
from weft.policy.values import Rule

ICMP, ICMPV6 = ICMP_PROTOCOLS
LAST_PORT = 65535
ALWAYS = PORT_PROTOCOLS
"""Tried even if no rule names them."""

UNNAMED = (253, 254)
"""Numbers for experiments (RFC 3692): what protocols that no rule names do."""

ECHO_REQUEST = {ICMP: 8, ICMPV6: 128}


class Packets(Struct, frozen=True):
    """`first` to `last`: destination ports; `source_first` to `source_last`: source ports, None where no rule asks for
    them. `version` None: of both address families."""

    protocol: int
    first: int | None = None
    last: int | None = None
    source_first: int | None = None
    source_last: int | None = None
    icmp_type: int | None = None
    icmp_code: int | None = None
    version: int | None = None

    @property
    def packet(self) -> Packet:
        return Packet(self.protocol, self.source_first, self.first, self.icmp_type, self.icmp_code)


def kinds_of_packets(rules: Sequence[Rule], named_ports: Iterable[int]) -> list[Packets]:
    """Every packet is of the kind of one of these, for all of the rules. `named_ports`: numbers that have a name."""
    named = {rule.protocol for rule in rules} | {rule.not_protocol for rule in rules}
    protocols = sorted({*ALWAYS, *(one for one in named if one is not None)})
    found: list[Packets] = []
    for protocol in protocols:
        if protocol in PORT_PROTOCOLS:
            found += _with_ports(protocol, rules, named_ports)
        elif protocol not in ICMP_PROTOCOLS:
            found.append(Packets(protocol))
    for protocol, version in ((ICMP, 4), (ICMPV6, 6)):
        found += (Packets(protocol, icmp_type=t, icmp_code=c, version=version) for t, c in _icmp(protocol, rules))
    return [*found, *(Packets(one) for one in UNNAMED if one not in named)][: len(found) + 1]


def merged(kinds: Sequence[Packets]) -> Iterator[Packets]:
    """With neighbouring ranges of destination ports as one."""
    last: Packets | None = None
    for kind in kinds:
        if (
            last is not None
            and last.last is not None
            and last == replace(kind, first=last.first, last=last.last)
            and kind.first == last.last + 1
        ):
            last = replace(last, last=kind.last)
            continue
        if last is not None:
            yield last
        last = kind
    if last is not None:
        yield last


def _with_ports(protocol: int, rules: Sequence[Rule], named_ports: Iterable[int]) -> Iterator[Packets]:
    asking = [rule for rule in rules if rule.protocol in (None, protocol)]
    names = any(
        end.named_ports or end.not_named_ports or end.service
        for rule in asking
        for end in (rule.source, rule.destination)
    )
    singles = set(named_ports) if names else set()
    to = [(one.first, one.last) for rule in asking for one in (*rule.destination.ports, *rule.destination.not_ports)]
    of = [(one.first, one.last) for rule in asking for one in (*rule.source.ports, *rule.source.not_ports)]
    if any(rule.source.named_ports or rule.source.not_named_ports for rule in asking):
        of += [(one, one) for one in singles]
    sources: list[tuple[int | None, int | None]] = list(_between(of)) if of else [(None, None)]
    for source, destination in product(sources, _between([*to, *((one, one) for one in singles)])):
        yield Packets(protocol, *destination, *source)


def _between(ranges: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """All ports, cut where a range begins or has ended."""
    cuts = sorted({1, *(cut for first, last in ranges for cut in (first, last + 1) if 1 <= cut <= LAST_PORT)})
    return zip(cuts, chain((cut - 1 for cut in cuts[1:]), (LAST_PORT,)), strict=True)


def _icmp(protocol: int, rules: Sequence[Rule]) -> Iterator[tuple[int, int]]:
    """Type and code: those that are named, another code of each type, and a type that nobody names."""
    asked = [one for rule in rules if rule.protocol == protocol for one in (rule.icmp, rule.not_icmp) if one]
    codes: dict[int, set[int]] = {}
    for one in asked:
        if one.type is not None:
            codes.setdefault(one.type, set()).update(() if one.code is None else (one.code,))
    for type_, of_type in sorted(codes.items()):
        yield from ((type_, code) for code in sorted(of_type))
        yield type_, next(code for code in range(256) if code not in of_type)
    preferred = (ECHO_REQUEST[protocol], *range(255))
    yield next(type_ for type_ in preferred if type_ not in codes), 0
