"""How next hops are reached: over a connected network, or one step further through another route.

Pure: a snapshot of the kernel's other routes and of what BGP has learnt goes in. A next hop on a connected network is
a gateway on that link; a link-local one is on the link that leads to the peer which named it, its zone. One that is
not connected is reached as the most specific other route says: a static one, DHCP's, another
routing daemon's, or one learnt by BGP whose own next hop is connected. One step and no more, as deep as a fabric is."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from ipaddress import IPv6Address, ip_address, ip_network
from typing import Final

from msgspec import Struct, field

from weft.model.address import IPAddress, IPInterface, IPNetwork
from weft.netlink.route import RTN_UNICAST, Hop, Route, Target

CONNECTED_COST: Final = 0
RECURSIVE_COST: Final = 1


class Underlay(Struct, frozen=True):
    """The routes that are not ours: connected networks by link, and others by prefix, with their metrics; links that
    carry traffic, and what all links are called; the node's addresses with the links that have them (empty: not
    known)."""

    connected: Mapping[IPNetwork, frozenset[int]] = field(default_factory=dict)
    others: Mapping[IPNetwork, Target] = field(default_factory=dict)
    links_up: frozenset[int] = frozenset()
    metrics: Mapping[IPNetwork, int] = field(default_factory=dict)
    names: Mapping[int, str] = field(default_factory=dict)
    addresses: Mapping[IPInterface, frozenset[int]] = field(default_factory=dict)

    def cut_off(self, local: IPAddress, peer: IPAddress) -> str | None:
        """Why nothing that is sent from an address of ours reaches a peer; None: nothing speaks against it. A link that
        is switched off takes its networks along, but not its IPv4 addresses."""
        if not self.addresses:
            return None
        if all(each.ip != local for each in self.addresses):
            return f"this node no longer has the address {local}"
        around = [links for each, links in self.addresses.items() if peer in each.network]
        if around and not any(links & self.links_up for links in around):
            return "interface down"
        return None

    def name_of(self, links: Iterable[int | None]) -> str:
        """What the first of them is called."""
        return next((self.names.get(link, "") for link in links if link is not None), "")


class Reach(Struct, frozen=True):
    """How a next hop is reached. `through` is the BGP prefix that leads there, if one does."""

    cost: int
    hops: tuple[Hop, ...]
    through: IPNetwork | None = None


class NextHops:
    """Answers, remembered until something that they depend on changes."""

    def __init__(self) -> None:
        self._underlay = Underlay()
        self._lengths: dict[int, list[int]] = {4: [], 6: []}
        self._learnt: Callable[[IPNetwork], Sequence[IPAddress]] = lambda prefix: ()
        self._known: dict[IPAddress, Reach | None] = {}

    def set_underlay(self, underlay: Underlay) -> set[IPAddress]:
        """New routes below ours; the known next hops that are now reached otherwise."""
        self._underlay = underlay
        for version in (4, 6):
            prefixes: Iterable[IPNetwork] = {*underlay.connected, *underlay.others}
            lengths = {each.prefixlen for each in prefixes if each.version == version}
            self._lengths[version] = sorted(lengths, reverse=True)
        return self._answer_again(self._known)

    def set_learnt(self, learnt: Callable[[IPNetwork], Sequence[IPAddress]]) -> None:
        """Where to look BGP's own routes up: prefix -> next hops of its best paths, or none."""
        self._learnt = learnt

    def on_learnt_changed(self, changed: Collection[IPNetwork]) -> set[IPAddress]:
        """These BGP routes changed; the known next hops that are now reached otherwise."""
        lengths = {(prefix.version, prefix.prefixlen) for prefix in changed}
        touched = [
            address
            for address in self._known
            if any(version == address.version and _network(address, length) in changed for version, length in lengths)
        ]
        return self._answer_again(touched)

    def reach(self, next_hop: IPAddress) -> Reach | None:
        """None: it cannot be reached."""
        if next_hop not in self._known:
            self._known[next_hop] = self._find(next_hop)
        return self._known[next_hop]

    def cost(self, next_hop: IPAddress) -> int | None:
        found = self.reach(next_hop)
        return None if found is None else found.cost

    def connected_link(self, address: IPAddress) -> int | None:
        """The link of the connected network an address is in."""
        for length in self._lengths[address.version]:
            links = self._underlay.connected.get(_network(address, length))
            if links:
                return min(links & self._underlay.links_up or links)
        return None

    def _answer_again(self, addresses: Iterable[IPAddress]) -> set[IPAddress]:
        changed: set[IPAddress] = set()
        for address in list(addresses):
            found = self._find(address)
            if found != self._known.get(address):
                changed.add(address)
            self._known[address] = found
        return changed

    def _find(self, next_hop: IPAddress) -> Reach | None:
        if isinstance(next_hop, IPv6Address) and next_hop.scope_id is not None:
            link = self.connected_link(ip_address(next_hop.scope_id))
            if link is None or link not in self._underlay.links_up:
                return None
            return Reach(CONNECTED_COST, (Hop(IPv6Address(int(next_hop)), link),))
        learnt = self._learnt_way(next_hop)
        for length in self._lengths[next_hop.version]:
            if learnt is not None and learnt.through is not None and learnt.through.prefixlen > length:
                return learnt
            network = _network(next_hop, length)
            links = self._underlay.connected.get(network, frozenset()) & self._underlay.links_up
            if links:
                return Reach(CONNECTED_COST, (Hop(next_hop, min(links)),))
            other = self._underlay.others.get(network)
            if other is not None:
                return self._recursive(other)
        return learnt

    def _recursive(self, target: Target) -> Reach | None:
        """Through another route: its gateways are ours."""
        hops = tuple(
            hop._replace(weight=1)
            for hop in target.hops
            if hop.gateway is not None and (hop.link is None or hop.link in self._underlay.links_up)
        )
        return Reach(RECURSIVE_COST, hops) if target.kind == RTN_UNICAST and hops else None

    def _learnt_way(self, next_hop: IPAddress) -> Reach | None:
        width = 32 if next_hop.version == 4 else 128
        for length in range(width, 0, -1):
            prefix = _network(next_hop, length)
            gateways = self._learnt(prefix)
            if not gateways:
                continue
            hops = []
            for gateway in gateways:
                link = self.connected_link(gateway)
                if link is not None and link in self._underlay.links_up and gateway != next_hop:
                    hops.append(Hop(gateway, link))
            return Reach(RECURSIVE_COST, tuple(hops), prefix) if hops else None
        return None


def underlay(
    routes: Iterable[Route],
    links_up: Iterable[int],
    own_protocols: frozenset[int],
    names: Mapping[int, str] | None = None,
    addresses: Mapping[IPInterface, frozenset[int]] | None = None,
) -> Underlay:
    """Sort the main table's routes. `own_protocols` are the fabric's, which lead to workloads or come of this very
    calculation. Of several routes to a prefix the one with the lowest metric counts."""
    connected: dict[IPNetwork, set[int]] = {}
    others: dict[IPNetwork, tuple[int, Target]] = {}
    for route in routes:
        if route.protocol in own_protocols:
            continue
        if all(hop.gateway is None for hop in route.target.hops) and route.target.kind == RTN_UNICAST:
            links = {hop.link for hop in route.target.hops if hop.link is not None}
            connected.setdefault(route.destination, set()).update(links)
        elif route.destination not in others or route.metric < others[route.destination][0]:
            others[route.destination] = route.metric, route.target
    return Underlay(
        {prefix: frozenset(links) for prefix, links in connected.items()},
        {prefix: target for prefix, (_, target) in others.items()},
        frozenset(links_up),
        {prefix: metric for prefix, (metric, _) in others.items()},
        names or {},
        addresses or {},
    )


def _network(address: IPAddress, length: int) -> IPNetwork:
    return ip_network((address, length), strict=False)
