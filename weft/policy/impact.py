"""Which flows between existing endpoints a change of resources would allow or deny.

Endpoints that no policy tells apart, before and after, are one group, of which one stands for all; so it is with the
packets that no rule tells apart (`packets`). Between endpoints nothing is missed. Of the addresses outside one stands
for all that no rule names, and one for each prefix of a policy or network set that changes."""

from collections.abc import Iterator, Mapping, Sequence
from ipaddress import ip_address
from typing import TypeVar

from msgspec import Struct

from weft.model.address import IPAddress, IPNetwork
from weft.model.endpoint import WorkloadEndpoint
from weft.model.keys import ResourceKey
from weft.policy.cluster import Cluster, Endpoint, addresses
from weft.policy.ends import Party
from weft.policy.explainer import Answer, Explainer, Side
from weft.policy.packets import Packets, kinds_of_packets, merged
from weft.policy.values import Direction, Entity, Rule, is_staged

K = TypeVar("K")

OUTSIDE = {
    4: tuple(map(ip_address, ("198.51.100.1", "203.0.113.1", "192.0.2.1"))),
    6: tuple(map(ip_address, ("2001:db8::1", "2001:db8:ffff::1"))),
}
"""Addresses for documentation (RFC 5737, RFC 3849), which nobody has."""

MOST_PREFIXES = 64


class Group(Struct, frozen=True, eq=False):
    """Ends that nothing tells apart, by their names. `outside`: addresses that stand for others of their kind."""

    names: tuple[str, ...]
    version: int
    outside: bool = False


class Decision(Struct, frozen=True):
    """That flows become allowed or denied, at which end, and what that end said and will say."""

    allowed: bool
    at: Direction
    was: Side
    will: Side


class FlowChange(Struct, frozen=True):
    sources: tuple[Group, ...]
    destinations: tuple[Group, ...]
    packets: tuple[Packets, ...]
    decision: Decision


class _End(Struct, frozen=True, eq=False):
    """One of a group, as it is before and after."""

    before: Party
    after: Party


_Ends = list[tuple[Group, list[_End]]]


def flow_changes(before: Cluster, after: Cluster) -> list[FlowChange]:
    """In the order of the names of destinations, then of sources."""
    kept = sorted(before.endpoints.keys() & after.endpoints.keys(), key=lambda key: (key.namespace, key.name, key.kind))
    for cluster in (before, after):
        for key in kept:
            cluster.applying(key)  # compiles what it asks
    rules = [rule for cluster in (before, after) for rule in _rules(cluster)]
    nets = list(dict.fromkeys(net for rule in rules for end in _ends(rule) for net in (*end.nets, *end.not_nets)))
    groups = [*_groups(before, after, kept, nets), *_outside(before, after, nets)]
    kinds = kinds_of_packets(rules, before.members.named_ports() | after.members.named_ports())
    compared = _Comparison(before, after, kinds)
    found: list[FlowChange] = []
    for destination, to in groups:
        for source, of in groups:
            ends = _two(of, to) if source.version == destination.version else None
            if ends is not None:
                found += compared.between(source, destination, ends)
    return _summarised(found)


def _two(of: Sequence[_End], to: Sequence[_End]) -> tuple[_End, _End] | None:
    """One of each; of one group two, None where there is nobody but itself."""
    if of[0] is not to[0]:
        return of[0], to[0]
    return (of[0], of[1]) if len(of) > 1 else None


_Named = tuple[frozenset[tuple[str, int, int]], ...]


class _Comparison:
    """Two clusters, asked about the same pairs and packets. What an end says is compared once for all pairs that are
    alike to it; only packets of which one end says something else are looked at for both."""

    def __init__(self, before: Cluster, after: Cluster, kinds: Sequence[Packets]) -> None:
        self._members = (before.members, after.members)
        self._kinds = {version: [kind for kind in kinds if kind.version in (None, version)] for version in (4, 6)}
        self._then, self._now = Explainer(before), Explainer(after)
        self._named: dict[_End, _Named] = {}
        self._differing: dict[tuple[object, ...], list[Packets]] = {}

    def between(self, source: Group, destination: Group, ends: tuple[_End, _End]) -> Iterator[FlowChange]:
        was_at, will_at = (ends[0].before, ends[1].before), (ends[0].after, ends[1].after)
        differing = [set(self._packets(direction, ends, source.version)) for direction in Direction]
        decisions: dict[tuple[object, ...], tuple[Decision, list[Packets]]] = {}
        for kind in self._kinds[source.version] if any(differing) else ():
            if not any(kind in one for one in differing):
                continue
            was, will = self._then.explain(*was_at, kind.packet), self._now.explain(*will_at, kind.packet)
            if was.allowed != will.allowed:
                one = _decision(was, will)
                decisions.setdefault(_alike(one), (one, []))[1].append(kind)
        for decision, changed in decisions.values():
            yield FlowChange((source,), (destination,), tuple(merged(changed)), decision)

    def _packets(self, direction: Direction, ends: tuple[_End, _End], version: int) -> list[Packets]:
        """Of which this end says something else."""
        was_at, will_at = (ends[0].before, ends[1].before), (ends[0].after, ends[1].after)
        difference = self._now.difference(direction, will_at, self._then, was_at)
        names = tuple(map(self._names, ends))
        if difference is None and all(before == after for before, after in names):
            return []
        alike = (direction, difference or (*was_at, *will_at), names)
        found = self._differing.get(alike)
        if found is None:
            found = self._differing[alike] = [
                kind
                for kind in self._kinds[version]
                if self._then.side(direction, was_at, kind.packet).allowed
                != self._now.side(direction, will_at, kind.packet).allowed
            ]
        return found

    def _names(self, end: _End) -> _Named:
        """The named ports of an end, before and after."""
        found = self._named.get(end)
        if found is None:
            parties = zip(self._members, (end.before, end.after), strict=True)
            found = self._named[end] = tuple(members.names_of(party.addresses[0]) for members, party in parties)
        return found


def _decision(was: Answer, will: Answer) -> Decision:
    """The first end that says something else now."""
    if was.egress.allowed != will.egress.allowed:
        return Decision(will.allowed, Direction.EGRESS, was.egress, will.egress)
    return Decision(will.allowed, Direction.INGRESS, was.ingress, will.ingress)


def _alike(decision: Decision) -> tuple[object, ...]:
    """The same for decisions that a person would call the same."""
    said = ((side.why, side.verdict.decided if side.verdict else None) for side in (decision.was, decision.will))
    return (decision.allowed, decision.at, *said)


def _summarised(changes: Sequence[FlowChange]) -> list[FlowChange]:
    """Flows from several groups to one that change alike are one entry, and so are those to several."""
    by_source: dict[tuple[object, ...], FlowChange] = {}
    for one in changes:
        key = (one.destinations, one.packets, _alike(one.decision))
        before = by_source.get(key)
        sources = (*before.sources, *one.sources) if before else one.sources
        by_source[key] = FlowChange(sources, one.destinations, one.packets, one.decision)
    by_destination: dict[tuple[object, ...], FlowChange] = {}
    for one in by_source.values():
        key = (one.sources, one.packets, _alike(one.decision))
        before = by_destination.get(key)
        destinations = (*before.destinations, *one.destinations) if before else one.destinations
        by_destination[key] = FlowChange(one.sources, destinations, one.packets, one.decision)
    return list(by_destination.values())


# --- who ------------------------------------------------------------------------------------------------------------


def _groups(before: Cluster, after: Cluster, kept: Sequence[ResourceKey], nets: Sequence[IPNetwork]) -> _Ends:
    signatures = (_Signatures(before, nets), _Signatures(after, nets))
    found: dict[tuple[object, ...], tuple[list[str], list[_End]]] = {}
    for key in kept:
        endpoints = (before.endpoints[key], after.endpoints[key])
        for version in (4, 6):
            used = [next((one for one in addresses(end) if one.version == version), None) for end in endpoints]
            if used[0] is None or used[1] is None:
                continue
            alike = (version, signatures[0].of(key, used[0]), signatures[1].of(key, used[1]))
            names, ends = found.setdefault(alike, ([], []))
            name = _name(endpoints[1])
            names.append(name)
            parties = (Party(name, (used[n],), key, end.spec.node) for n, end in enumerate(endpoints))  # type: ignore[arg-type]
            ends.append(_End(*parties))
    return [(Group(tuple(names), ends[0].before.addresses[0].version), ends) for names, ends in found.values()]


def _name(endpoint: Endpoint) -> str:
    if not isinstance(endpoint, WorkloadEndpoint):
        return endpoint.name
    return f"{endpoint.namespace}/{endpoint.spec.pod or endpoint.spec.workload or endpoint.name}"


class _Signatures:
    """What policy can tell of an endpoint: what applies to it, and who it is to the rules of others."""

    def __init__(self, cluster: Cluster, nets: Sequence[IPNetwork]) -> None:
        self._cluster = cluster
        self._nets = nets
        self._asked = cluster.members.labels_asked()
        self._with_hosts = any(key.kind == "HostEndpoint" for key in cluster.endpoints)

    def of(self, key: ResourceKey, address: IPAddress) -> tuple[object, ...]:
        cluster, members = self._cluster, self._cluster.members
        items = sorted(
            (
                sorted((label, value) for label, value in item.labels.items() if label in self._asked),
                sorted((port.name, port.protocol.number, port.port) for port in item.ports),
            )
            for item in members.at(address)
        )
        return (
            key.kind,
            cluster.applying(key),
            str(items),
            members.services_of(address),
            tuple(number for number, net in enumerate(self._nets) if address in net),
            cluster.endpoints[key].spec.node if self._with_hosts else "",
        )


def _outside(before: Cluster, after: Cluster, nets: Sequence[IPNetwork]) -> _Ends:
    owned = {one for cluster in (before, after) for end in cluster.endpoints.values() for one in addresses(end)}
    chosen = [min(some, key=lambda one: sum(one in net for net in nets)) for some in OUTSIDE.values()]
    prefixes = (_within(net, owned) for net in _changed_nets(before, after))
    chosen += [address for address in prefixes if address is not None]
    found: _Ends = []
    for address in dict.fromkeys(chosen):
        party = Party(str(address), (address,))
        found.append((Group((str(address),), address.version, outside=True), [_End(party, party)]))
    return found


def _within(net: IPNetwork, owned: set[IPAddress]) -> IPAddress | None:
    """An address of the prefix that no endpoint has, of the first few."""
    few = (net.network_address + offset for offset in range(min(8, net.num_addresses)))
    return next((address for address in few if address not in owned), None)


def _changed_nets(before: Cluster, after: Cluster) -> list[IPNetwork]:
    """The prefixes of policies and network sets that differ."""
    found: dict[IPNetwork, None] = {}
    for key in _differing(before.policies, after.policies):
        for cluster in (before, after):
            policy = cluster.policies.get(key)
            rules = (*(policy.ingress or ()), *(policy.egress or ())) if policy else ()
            found |= dict.fromkeys(net for rule in rules for end in _ends(rule) for net in (*end.nets, *end.not_nets))
    for key in _differing(before.networks, after.networks):
        mine, other = set(before.networks.get(key, ())), set(after.networks.get(key, ()))
        found |= dict.fromkeys(sorted(mine ^ other, key=lambda net: (net.version, net)))
    return list(found)[:MOST_PREFIXES]


def _differing(before: Mapping[K, object], after: Mapping[K, object]) -> list[K]:
    return [key for key in dict.fromkeys((*before, *after)) if before.get(key) != after.get(key)]


def _rules(cluster: Cluster) -> Iterator[Rule]:
    for key, policy in cluster.policies.items():
        if not is_staged(key):
            yield from (*(policy.ingress or ()), *(policy.egress or ()))


def _ends(rule: Rule) -> tuple[Entity, Entity]:
    return (rule.source, rule.destination)
