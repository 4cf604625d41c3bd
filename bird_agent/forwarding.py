"""From what peers say to what the kernel should hold: the RIB, and how its next hops are reached.

Pure. A route may lead to other routes' next hops, so one change may have others; and a peer that a resource says is
`reachableBy` a gateway has a host route of ours there, which goes before what is learnt about it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from ipaddress import IPv4Address, ip_network

from bird_agent.bestpath import Local
from bird_agent.exports import Networks
from bird_agent.fib import targets_of
from bird_agent.nexthops import NextHops, Underlay
from bird_agent.rib import Best, Import, Rib
from weft.model.address import IPAddress, IPNetwork
from weft.netlink.route import Hop, Target, via

MAX_ROUNDS = 8  # of routes that change how other routes' next hops are reached, in one step


class Forwarding:
    """The RIB and everything it rests on. `rib` takes what peers say."""

    def __init__(self, accept: Import) -> None:
        self._next_hops = NextHops()
        self._next_hops.set_learnt(self._way)
        self._gateways: dict[IPNetwork, IPAddress] = {}
        self._foreign = Networks(())
        self._foreign_networks: frozenset[IPNetwork] = frozenset()
        self._underlay = Underlay()
        self._resolve_again: set[IPNetwork] = set()
        self.rib = Rib(Local(0, IPv4Address(0)), accept, self._next_hops.cost)

    @property
    def underlay(self) -> Underlay:
        return self._underlay

    def set_underlay(self, underlay: Underlay) -> None:
        """The routes and links that are not the fabric's."""
        self._underlay = underlay
        self._on_moved(self._next_hops.set_underlay(underlay))
        self._resolve_again.update(self._gateways)

    def set_gateways(self, gateways: Mapping[IPAddress, IPAddress]) -> None:
        """Peers that are reached by way of a gateway, whatever is learnt."""
        wanted = {ip_network(peer): gateway for peer, gateway in gateways.items() if peer != gateway}
        if wanted == self._gateways:
            return
        changed = {prefix for prefix, _ in self._gateways.items() ^ wanted.items()}
        self._gateways = wanted
        self._resolve_again |= changed
        self._on_moved(self._next_hops.on_learnt_changed(changed))

    def has_gateway(self, prefix: IPNetwork) -> bool:
        """Whether it is a peer that is reached by way of a gateway."""
        return prefix in self._gateways

    def look_again(self) -> None:
        """All routes may have to be otherwise in the kernel."""
        self._resolve_again.update(self.rib.best)

    def set_foreign(self, networks: frozenset[IPNetwork]) -> None:
        """What lies in these is not for the kernel: others lead there, or nobody."""
        if networks == self._foreign_networks:
            return
        before = self._foreign
        self._foreign, self._foreign_networks = Networks(networks), networks
        self._resolve_again.update(
            prefix for prefix in self.rib.best if before.covers(prefix) != self._foreign.covers(prefix)
        )

    def is_link_down(self, peer: IPAddress) -> bool:
        """The peer is on a network of ours whose link carries nothing."""
        link = self._next_hops.connected_link(peer)
        return link is not None and link not in self._underlay.links_up

    def is_adjacent(self, peer: IPAddress) -> bool:
        """The peer is on a network of ours."""
        return self._next_hops.connected_link(peer) is not None

    def interface_of(self, next_hop: IPAddress) -> str:
        """The name of the link that leads to a next hop; "" if none does."""
        reach = self._next_hops.reach(next_hop)
        link = None if reach is None or not reach.hops else reach.hops[0].link
        return "" if link is None else self._underlay.names.get(link, "")

    def cost(self, next_hop: IPAddress) -> int | None:
        """Of reaching a next hop; None: it cannot be reached."""
        return self._next_hops.cost(next_hop)

    def take_changes(self) -> dict[IPNetwork, Target | None]:
        """What the kernel should hold otherwise than before; what goes round in circles goes on at the next call."""
        changes: dict[IPNetwork, Best] = {}
        for _ in range(MAX_ROUNDS):
            found = self.rib.take_changes()
            if not found:
                break
            changes.update(found)
            self._on_moved(self._next_hops.on_learnt_changed(found))
        for prefix in self._resolve_again:
            changes.setdefault(prefix, self.rib.best.get(prefix, ()))
        self._resolve_again.clear()
        targets = targets_of(changes, self._next_hops)
        if self._foreign_networks:
            targets.update((prefix, None) for prefix in changes if self._foreign.covers(prefix))
        for prefix in self._gateways.keys() & changes.keys():
            targets[prefix] = self._through(self._gateways[prefix])
        return targets

    def _through(self, gateway: IPAddress) -> Target | None:
        link = self._next_hops.connected_link(gateway)
        return via(Hop(gateway, link)) if link is not None and link in self._underlay.links_up else None

    def _way(self, prefix: IPNetwork) -> Sequence[IPAddress]:
        """The next hops of what we lead to a prefix with: where next hops are looked up in turn."""
        gateway = self._gateways.get(prefix) if self._gateways else None
        return (gateway,) if gateway is not None else [path.next_hop for path in self.rib.best.get(prefix, ())]

    def _on_moved(self, next_hops: Iterable[IPAddress]) -> None:
        """These next hops are reached otherwise than before."""
        moved = frozenset(next_hops)
        if not moved:
            return
        self.rib.reconsider_through(moved)
        for prefix, best in self.rib.best.items():
            if any(path.next_hop in moved for path in best):
                self._resolve_again.add(prefix)
        self._resolve_again.update(prefix for prefix, gateway in self._gateways.items() if gateway in moved)
