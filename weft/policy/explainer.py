"""What becomes of a flow between two ends of a cluster, at both of them, and quickly for many flows.

The semantics are those of `weft.policy.verdict` and `weft.policy.matching`; what is added here is memory. Endpoints
with the same policies share a course. Which of its places an address fits is found once for each address, which of them
a packet fits once for all packets that no rule can tell apart, and what follows once for each combination of places.
Nothing here changes an answer, only how often it is computed."""

from bisect import bisect
from collections.abc import Iterable, Sequence
from enum import Enum
from typing import Final, Literal, NamedTuple

from msgspec import Struct

from weft.model.address import IPAddress
from weft.model.errors import WeftError
from weft.model.keys import ResourceKey
from weft.policy.cluster import Cluster
from weft.policy.ends import Party
from weft.policy.host import Interface, Path, host_verdict
from weft.policy.matching import Flow, address_mismatch, packet_mismatch
from weft.policy.node_settings import node_settings
from weft.policy.values import Direction, EndpointPolicy, Entity, PortRange, Stage
from weft.policy.verdict import Course, Verdict, course, follow


class NoCommonFamilyError(WeftError):
    """One end has IPv4 addresses only, the other IPv6 ones; or one has none at all."""


class Packet(NamedTuple):
    """The first packet of a connection, without its addresses. None: the protocol has none."""

    protocol: int
    source_port: int | None = None
    destination_port: int | None = None
    icmp_type: int | None = None
    icmp_code: int | None = None


class Why(Enum):
    """Why one end allows or denies."""

    POLICY = "policy"
    OUTSIDE = "no endpoint, so no policy"
    ITSELF = "an endpoint's traffic to itself never leaves it"
    SAME_NODE = "traffic between addresses of one node never leaves it"
    TO_OWN_WORKLOAD = "what a node says to a workload of its own passes without policy"
    FROM_OWN_WORKLOAD = "what a workload says to its own node does not come in by a host endpoint"
    NOT_TO_HOST = "defaultEndpointToHostAction is Drop"
    FAILSAFE = "a failsafe port, which no policy can close"


class Side(Struct, frozen=True, eq=False):
    """What one end says. `verdict` is there where policy was asked; `stage` is the one that decided then."""

    allowed: bool
    why: Why
    verdict: Verdict | None = None
    stage: Stage = Stage.NORMAL


class Answer(Struct, frozen=True):
    egress: Side
    ingress: Side

    @property
    def allowed(self) -> bool:
        return self.egress.allowed and self.ingress.allowed


_OUTSIDE = Side(True, Why.OUTSIDE)


_Spot = tuple[Party, int]
"""A party's address of one family, for a dictionary: an address takes long to hash."""


class _Ends(Struct, frozen=True, eq=False):
    """What the rules of a policy ask of one end, in one direction, and which of them an address fits: a bit for each
    rule, the lowest for the first."""

    entities: tuple[Entity, ...]
    fitting: dict[_Spot, int]


_Rules = tuple[_Ends, _Ends]
"""Source and destination."""
_SOURCE: Final = 0
_DESTINATION: Final = 1


class _Asked:
    """What endpoints with the same policies ask in one direction, with what is remembered of it. Bits are those of
    `Course.acting`."""

    def __init__(self, course: Course, rules_of: dict[ResourceKey, _Rules]) -> None:
        self.course = course
        self.runs: list[tuple[int, _Rules]] = []
        self.ends = 0
        self.by_name = 0
        """Places with a rule where an address decides which ports fit."""
        before: ResourceKey | None = None
        for number, place in enumerate(course.places):
            key = place.step.policy
            if place.rule is None:
                self.ends |= 1 << number
            elif key is not None and key != before:
                self.runs.append((number, rules_of[key]))
            before = key
            if place.rule is not None and (_asks_names(place.rule.source) or _asks_names(place.rule.destination)):
                self.by_name |= 1 << number
        rules = [place.rule for place in course.places if place.rule is not None]
        self.source_bounds = _bounds(rule.source for rule in rules)
        self.destination_bounds = _bounds(rule.destination for rule in rules)
        self.fitting: tuple[dict[_Spot, int], dict[_Spot, int]] = ({}, {})
        self.packets: dict[tuple[object, ...], int] = {}
        self.sides: dict[int, Side] = {}


class _Host(Struct, frozen=True, eq=False):
    """What is asked at a host endpoint in one direction. Nothing of it is remembered: there are few."""

    interface: Interface
    direction: Direction


_End = tuple[_Asked, int] | _Host | Side
"""What a workload asks, with the places that both addresses fit; a host endpoint; or what is said whatever is asked."""


class _Pair(Struct, frozen=True, eq=False):
    """Two ends with the addresses that they use."""

    source: IPAddress
    destination: IPAddress
    egress: _End
    ingress: _End


class Explainer:
    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._names = cluster.members.named_ports()
        self._rules: dict[Direction, dict[ResourceKey, _Rules]] = {direction: {} for direction in Direction}
        self._asked: dict[tuple[Direction, EndpointPolicy], _Asked] = {}
        self._asked_at: dict[Direction, dict[Party, _Asked]] = {direction: {} for direction in Direction}
        self._pairs: dict[tuple[Party, Party], _Pair] = {}
        self._same: dict[tuple[_Asked, _Asked], bool] = {}

    def explain(self, source: Party, destination: Party, packet: Packet) -> Answer:
        """Raises NoCommonFamilyError."""
        pair = self._pair_of(source, destination)
        return Answer(self._side(pair, pair.egress, packet), self._side(pair, pair.ingress, packet))

    def difference(
        self,
        direction: Direction,
        ends: tuple[Party, Party],
        other: "Explainer",
        others: tuple[Party, Party],
    ) -> tuple[object, ...] | None:
        """None: whatever the packet, this end says the same as that one for the other explainer, if named ports are the
        same for both. Otherwise what it depends on besides these: where that is the same, so are the answers."""
        mine, theirs = self._pair_of(*ends), other._pair_of(*others)
        ours, there = (mine.egress, theirs.egress) if direction is Direction.EGRESS else (mine.ingress, theirs.ingress)
        if isinstance(ours, Side) and isinstance(there, Side):
            return None if ours.allowed == there.allowed else (ours.why, there.why)
        if not isinstance(ours, tuple) or not isinstance(there, tuple):
            return (mine, theirs)
        same = self._same.get((ours[0], there[0]))
        if same is None:
            same = self._same[ours[0], there[0]] = ours[0].course == there[0].course
        return None if same and ours[1] == there[1] else (*ours, *there, mine.source.version)

    def side(self, direction: Direction, ends: tuple[Party, Party], packet: Packet) -> Side:
        """What one end says. Raises NoCommonFamilyError."""
        pair = self._pair_of(*ends)
        return self._side(pair, pair.egress if direction is Direction.EGRESS else pair.ingress, packet)

    def _pair_of(self, source: Party, destination: Party) -> _Pair:
        return self._pairs.get((source, destination)) or self._pair(source, destination)

    # --- a packet ------------------------------------------------------------------------------------------------

    def _side(self, pair: _Pair, asked: _End, packet: Packet) -> Side:
        if isinstance(asked, Side):
            return asked
        if isinstance(asked, _Host):
            return self._host_side(asked, flow_of(pair.source, pair.destination, packet))
        at, fitting = asked
        protocol, source_port, destination_port, icmp_type, icmp_code = packet
        named = at.by_name != 0 and (destination_port in self._names or source_port in self._names)
        alike = (
            pair.source.version,
            protocol,
            None if source_port is None else bisect(at.source_bounds, source_port),
            None if destination_port is None else bisect(at.destination_bounds, destination_port),
            icmp_type,
            icmp_code,
            named,
        )
        passing = at.packets.get(alike)
        if passing is None:
            passing = at.packets[alike] = self._passing(at, flow_of(pair.source, pair.destination, packet), named=named)
        possible = fitting & passing & at.course.acting
        if named and possible & at.by_name:
            return self._follow(at, flow_of(pair.source, pair.destination, packet), possible, possible & ~at.by_name)
        side = at.sides.get(possible)
        if side is None:
            side = at.sides[possible] = self._follow(
                at, flow_of(pair.source, pair.destination, packet), possible, possible
            )
        return side

    def _passing(self, at: _Asked, flow: Flow, *, named: bool) -> int:
        """The places that such a packet fits, as far as it decides; those where names decide are among them if they
        may. Of a port that nothing has a name for, no address makes a difference."""
        found = 0
        for number, place in enumerate(at.course.places):
            bit = 1 << number
            if (
                place.rule is None
                or (named and bit & at.by_name)
                or packet_mismatch(place.rule, flow, self._cluster.members) is None
            ):
                found |= bit
        return found

    def _follow(self, at: _Asked, flow: Flow, possible: int, certain: int) -> Side:
        found = follow(at.course, flow, self._cluster.members, possible, certain)
        assert found is not None  # a course of Stage.NORMAL has an end
        return Side(found.allowed, Why.POLICY, found)

    def _host_side(self, asked: _Host, flow: Flow) -> Side:
        policies, members = self._cluster.policies, self._cluster.members
        found = host_verdict(asked.interface, policies, members, flow, asked.direction, Path.LOCAL)
        return Side(found.allowed, Why.POLICY if found.verdict else Why.FAILSAFE, found.verdict, found.stage)

    # --- two ends ------------------------------------------------------------------------------------------------

    def _pair(self, source: Party, destination: Party) -> _Pair:
        addresses = common_addresses(source, destination)
        egress, ingress = self._unasked(source, destination)
        pair = self._pairs[source, destination] = _Pair(
            *addresses,
            egress or self._end(source, Direction.EGRESS, (source, destination), addresses),
            ingress or self._end(destination, Direction.INGRESS, (source, destination), addresses),
        )
        return pair

    def _unasked(self, source: Party, destination: Party) -> tuple[Side | None, Side | None]:
        """What is said at the ends without asking policy, whatever the packet."""
        if source.key is not None and source.key == destination.key:
            return Side(True, Why.ITSELF), Side(True, Why.ITSELF)
        if source.node and source.node == destination.node:
            match source.is_node, destination.is_node:
                case True, True:
                    return Side(True, Why.SAME_NODE), Side(True, Why.SAME_NODE)
                case True, False:
                    return Side(True, Why.TO_OWN_WORKLOAD), Side(True, Why.TO_OWN_WORKLOAD)
                case False, True:
                    dropped = node_settings(source.node, self._cluster.configurations).drop_to_host
                    return Side(False, Why.NOT_TO_HOST) if dropped else None, Side(True, Why.FROM_OWN_WORKLOAD)
                case _:
                    pass
        return None if source.key else _OUTSIDE, None if destination.key else _OUTSIDE

    def _end(
        self,
        party: Party,
        direction: Direction,
        ends: tuple[Party, Party],
        addresses: tuple[IPAddress, IPAddress],
    ) -> _End:
        assert party.key is not None  # an address outside is asked nothing
        if party.is_host:
            settings = node_settings(party.node, self._cluster.configurations)
            inbound = direction is Direction.INGRESS
            failsafes = settings.failsafe_inbound if inbound else settings.failsafe_outbound
            return _Host(Interface(self._cluster.host_policy(party.key), failsafes), direction)
        asked = self._asked_at[direction].get(party)
        if asked is None:
            asked = self._asked_at[direction][party] = self._ask(party.key, direction)
        fitting = self._fits(asked, _SOURCE, ends[0], addresses[0])
        return asked, fitting & self._fits(asked, _DESTINATION, ends[1], addresses[1])

    def _ask(self, endpoint: ResourceKey, direction: Direction) -> _Asked:
        policy = self._cluster.endpoint_policy(endpoint)
        asked = self._asked.get((direction, policy))
        if asked is None:
            rules_of = self._rules[direction]
            for key in policy.asked():
                if key not in rules_of:
                    rules = self._cluster.policies[key].rules(direction) or ()
                    sources, destinations = (one.source for one in rules), (one.destination for one in rules)
                    rules_of[key] = _Ends(tuple(sources), {}), _Ends(tuple(destinations), {})
            asked = _Asked(course(policy, self._cluster.policies, direction), rules_of)
            self._asked[direction, policy] = asked
        return asked

    def _fits(self, asked: _Asked, end: Literal[0, 1], party: Party, address: IPAddress) -> int:
        spot = (party, address.version)
        found = asked.fitting[end].get(spot)
        if found is None:
            found = asked.ends
            for start, policy in asked.runs:
                ends = policy[end]
                bits = ends.fitting.get(spot)
                if bits is None:
                    bits = ends.fitting[spot] = self._fitting(ends.entities, address)
                found |= bits << start
            asked.fitting[end][spot] = found
        return found

    def _fitting(self, ends: Iterable[Entity], address: IPAddress) -> int:
        members = self._cluster.members
        return sum(1 << n for n, end in enumerate(ends) if address_mismatch(end, address, members) is None)


def common_addresses(source: Party, destination: Party) -> tuple[IPAddress, IPAddress]:
    """The first address of the source whose family the destination has, too. Raises NoCommonFamilyError."""
    for mine in source.addresses:
        for other in destination.addresses:
            if mine.version == other.version:
                return mine, other
    for party in (source, destination):
        if not party.addresses:
            raise NoCommonFamilyError(f"{party.text} has no address")
    raise NoCommonFamilyError(f"{source.text} and {destination.text} have no address family in common")


def flow_of(source: IPAddress, destination: IPAddress, packet: Packet) -> Flow:
    return Flow(
        source=source,
        destination=destination,
        protocol=packet.protocol,
        source_port=packet.source_port,
        destination_port=packet.destination_port,
        icmp_type=packet.icmp_type,
        icmp_code=packet.icmp_code,
    )


def _asks_names(end: Entity) -> bool:
    """Whether an address decides which ports fit."""
    return bool(end.named_ports or end.not_named_ports or end.service is not None)


def _bounds(ends: Iterable[Entity]) -> Sequence[int]:
    """Where ranges of ports begin and where they have ended: between two of them all ports are alike."""
    ranges: set[PortRange] = set().union(*((*end.ports, *end.not_ports) for end in ends))
    return sorted({one.first for one in ranges} | {one.last + 1 for one in ranges})
