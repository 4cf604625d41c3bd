"""BGPFilter: the rules that a session's routes are judged by, in order, until one matches.

Pure, and Calico's semantics as its BIRD configuration has them: all matches of a rule have to hold, the first rule
that matches accepts or rejects, a route that no rule matches is decided on elsewhere. Operations belong to the rule
that accepts. A rule that cannot be carried out matches nothing and is a problem for the administrator."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final, Literal

from msgspec import Struct
from msgspec.structs import replace

from bird_agent.exabgp.events import AsSegment
from bird_agent.session_config import Problem
from weft.model.address import IPNetwork
from weft.model.bgp import BGPFilter, BGPFilterRuleV4, BGPFilterRuleV6, FilterOperation, MatchOperator

MAX_PRIORITY: Final = (1 << 31) - 1
"""Calico carries a priority (a metric: less is better) as local preference: this number minus the priority."""

Direction = Literal["import", "export"]
Community = tuple[int, int]
LargeCommunity = tuple[int, int, int]
_COMMUNITY: Final = re.compile(r"\d{1,5}:\d{1,5}|\d{1,10}:\d{1,10}:\d{1,10}", re.ASCII)


class FilterRoute(Struct, frozen=True):
    """What a rule can ask about a route and change of it. `learnt`: from a BGP peer; `interface`: where it leads."""

    prefix: IPNetwork
    local_preference: int
    as_path: tuple[AsSegment, ...] = ()
    communities: tuple[Community, ...] = ()
    large_communities: tuple[LargeCommunity, ...] = ()
    interface: str = ""
    learnt: bool = False


class Verdict(Struct, frozen=True):
    """What a filter decided. `rule` names it: "BGPFilter/tor importV4[2]"."""

    accepted: bool
    route: FilterRoute
    rule: str


class _Rule(Struct, frozen=True):
    """One rule, taken apart. None or empty: not asked."""

    name: str
    accepts: bool
    network: IPNetwork | None = None
    operator: MatchOperator = "In"
    shortest: int = 0
    longest: int = 128
    of_remote_peers: bool = False
    internal: bool | None = None
    interface: re.Pattern[str] | None = None
    communities: tuple[Community | LargeCommunity, ...] = ()
    as_path_prefix: tuple[int, ...] = ()
    local_preference: int | None = None
    operations: tuple[FilterOperation, ...] = ()

    def matches(self, route: FilterRoute, internal: bool) -> bool:
        if self.internal is not None and self.internal != internal:
            return False
        if self.network is not None and not self._matches_prefix(route.prefix):
            return False
        if self.of_remote_peers and not route.learnt:
            return False
        if self.interface is not None and not (route.interface and self.interface.fullmatch(route.interface)):
            return False
        if self.local_preference is not None and self.local_preference != route.local_preference:
            return False
        known: Sequence[object] = (*route.communities, *route.large_communities)
        if any(wanted not in known for wanted in self.communities):
            return False
        return begins_with(route.as_path, self.as_path_prefix)

    def _matches_prefix(self, prefix: IPNetwork) -> bool:
        assert self.network is not None
        in_range = self.shortest <= prefix.prefixlen <= self.longest
        match self.operator:
            case "Equal":
                return prefix == self.network and in_range
            case "NotEqual":
                return not (prefix == self.network and in_range)
            case "In":
                return in_range and prefix.subnet_of(self.network)  # type: ignore[arg-type]
            case "NotIn":
                return not (in_range and prefix.subnet_of(self.network))  # type: ignore[arg-type]


class RuleSet(Struct, frozen=True):
    """The rules of one session, one direction and one family."""

    rules: tuple[_Rule, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.rules)

    @property
    def asks_for_interfaces(self) -> bool:
        return any(rule.interface is not None for rule in self.rules)

    @property
    def accepts_something(self) -> bool:
        return any(rule.accepts for rule in self.rules)

    def judge(self, route: FilterRoute, internal: bool) -> Verdict | None:
        """None: no rule matches. `internal`: the session is within one AS."""
        for rule in self.rules:
            if rule.matches(route, internal):
                return Verdict(rule.accepts, apply(rule.operations, route) if rule.accepts else route, rule.name)
        return None


NO_RULES: Final = RuleSet()


def rule_set(
    names: Iterable[str], filters: Mapping[str, BGPFilter], direction: Direction, version: int
) -> tuple[RuleSet, list[Problem]]:
    """The rules of the named filters, one after the other; a filter that does not exist has none."""
    rules: list[_Rule] = []
    problems: list[Problem] = []
    for name in names:
        found = filters.get(name)
        if found is None:
            continue
        field = f"{direction}V{version}"
        for number, raw in enumerate(_raw_rules(found, direction, version)):
            try:
                rules.append(_rule(f"BGPFilter/{name} {field}[{number}]", raw, version))
            except ValueError as error:
                problems.append(Problem(f"BGPFilter/{name}", f"{field}[{number}] matches nothing: {error}"))
    return RuleSet(tuple(rules)), problems


def begins_with(path: Iterable[AsSegment], prefix: Sequence[int]) -> bool:
    """Whether an AS path begins with these numbers; of a set, any one member will do."""
    members = _members(path)
    return all(number in next(members, frozenset()) for number in prefix)


def parse_community(text: str) -> Community | LargeCommunity:
    """`aa:nn` of 16 bits each or `aa:nn:mm` of 32 bits each (RFC 1997, RFC 8092). Raises ValueError."""
    numbers = tuple(map(int, text.split(":"))) if _COMMUNITY.fullmatch(text) else ()
    limit = 1 << (16 if len(numbers) == 2 else 32)
    if len(numbers) not in (2, 3) or any(number >= limit for number in numbers):
        raise ValueError(f"{text!r} is not a community: aa:nn or aa:nn:mm")
    return (numbers[0], numbers[1]) if len(numbers) == 2 else (numbers[0], numbers[1], numbers[2])


def with_communities(route: FilterRoute, added: Iterable[Community | LargeCommunity]) -> FilterRoute:
    """The route with these as well, each of them once."""
    plain, large = list(route.communities), list(route.large_communities)
    for community in added:
        if len(community) == 2:
            plain += [community] if community not in plain else []
        else:
            large += [community] if community not in large else []
    return replace(route, communities=tuple(plain), large_communities=tuple(large))


def apply(operations: Iterable[FilterOperation], route: FilterRoute) -> FilterRoute:
    """The route as the operations leave it."""
    for operation in operations:
        if operation.add_community is not None:
            route = with_communities(route, [parse_community(operation.add_community.value)])
        if operation.prepend_as_path is not None:
            numbers = tuple(map(int, operation.prepend_as_path.prefix))
            route = replace(route, as_path=_prepended(numbers, route.as_path))
        if operation.set_priority is not None:
            route = replace(route, local_preference=MAX_PRIORITY - operation.set_priority.value)
    return route


def _prepended(numbers: tuple[int, ...], path: tuple[AsSegment, ...]) -> tuple[AsSegment, ...]:
    if path and path[0].kind == "as-sequence":
        return (AsSegment("as-sequence", numbers + path[0].numbers), *path[1:])
    return (AsSegment("as-sequence", numbers), *path)


def _members(path: Iterable[AsSegment]) -> Iterator[frozenset[int]]:
    for segment in path:
        if segment.kind == "as-set":
            yield frozenset(segment.numbers)
        elif segment.kind == "as-sequence":
            yield from (frozenset({number}) for number in segment.numbers)


def _raw_rules(found: BGPFilter, direction: Direction, version: int) -> Sequence[BGPFilterRuleV4 | BGPFilterRuleV6]:
    spec = found.spec
    if version == 4:
        return spec.import_v4 if direction == "import" else spec.export_v4
    return spec.import_v6 if direction == "import" else spec.export_v6


def _rule(name: str, raw: BGPFilterRuleV4 | BGPFilterRuleV6, version: int) -> _Rule:
    """Raises ValueError for what cannot be carried out."""
    if raw.cidr is not None and raw.match_operator is None:
        raise ValueError("matchOperator is needed beside cidr")
    if raw.action == "Reject" and raw.operations:
        raise ValueError("operations belong to rules that accept")
    for operation in raw.operations:
        given = (operation.add_community, operation.prepend_as_path, operation.set_priority)
        if sum(each is not None for each in given) != 1:
            raise ValueError("an operation is exactly one of addCommunity, prependASPath and setPriority")
        if operation.add_community is not None:
            parse_community(operation.add_community.value)
    lengths = raw.prefix_length
    own_length = 0 if raw.cidr is None else raw.cidr.prefixlen
    widest = 32 if version == 4 else 128
    return _Rule(
        name,
        raw.action == "Accept",
        network=raw.cidr,
        operator=raw.match_operator or "In",
        shortest=own_length if lengths is None or lengths.min is None else max(own_length, lengths.min),
        longest=widest if lengths is None or lengths.max is None else min(widest, lengths.max),
        of_remote_peers=raw.source == "RemotePeers",
        internal=None if raw.peer_type is None else raw.peer_type == "iBGP",
        interface=interface_pattern(raw.interface) if raw.interface else None,
        communities=() if raw.communities is None else tuple(map(parse_community, raw.communities.values)),
        as_path_prefix=tuple(map(int, raw.as_path_prefix)),
        local_preference=None if raw.priority is None else MAX_PRIORITY - raw.priority,
        operations=raw.operations,
    )


def interface_pattern(text: str) -> re.Pattern[str]:
    """As BIRD has them: `*` is any text and `?` any character."""
    wild = {"*": ".*", "?": "."}
    return re.compile("".join(wild.get(character) or re.escape(character) for character in text))
