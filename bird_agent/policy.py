"""What this node announces, and what it accepts.

Pure. Announced are this node's blocks as aggregates and its workloads' addresses that lie in a pool but in none of
its blocks (borrowed ones), unless their pool says `disableBGPExport`; nothing else, above all nothing learnt.
Accepted is everything, a default route too, but what can only be a mistake: link-local, loopback and multicast,
this node's own addresses, its blocks and parts of them. A single address of its blocks is none: another node may have
borrowed it, and says so with a host route."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from ipaddress import ip_network
from typing import Final

from bird_agent.bestpath import Peer
from bird_agent.exabgp.commands import Announcement
from bird_agent.exabgp.events import PathAttributes
from bird_agent.peering import SessionConfig
from weft.model.address import IPAddress, IPNetwork
from weft.model.pool import IPPool

HOST_LENGTH: Final = {4: 32, 6: 128}


@dataclass(frozen=True, slots=True)
class Own:
    """What is this node's: its addresses and its confirmed blocks."""

    addresses: frozenset[IPAddress] = frozenset()
    blocks: frozenset[IPNetwork] = frozenset()


class Networks:
    """A set of networks that answers whether one of them contains a given one, in a step per prefix length."""

    def __init__(self, networks: Iterable[IPNetwork]) -> None:
        self._known = frozenset(networks)
        self._lengths = {
            version: sorted({each.prefixlen for each in self._known if each.version == version}) for version in (4, 6)
        }

    def covers(self, prefix: IPNetwork) -> bool:
        for length in self._lengths[prefix.version]:
            if length > prefix.prefixlen:
                return False
            if prefix.supernet(new_prefix=length) in self._known:
                return True
        return False


class Exports:
    """The prefixes this node announces to every peer. Each change returns the prefixes that were added or went."""

    def __init__(self) -> None:
        self._workloads: set[IPNetwork] = set()
        self._inside = self._private = self._covered = Networks(())
        self._blocks: frozenset[IPNetwork] = frozenset()
        self.prefixes: set[IPNetwork] = set()

    def set_basis(self, blocks: frozenset[IPNetwork], pools: Iterable[IPPool]) -> set[IPNetwork]:
        """This node's blocks, and all pools."""
        known = list(pools)
        self._inside = Networks(pool.spec.cidr for pool in known)
        self._private = Networks(pool.spec.cidr for pool in known if pool.spec.disable_bgp_export)
        self._blocks, self._covered = blocks, Networks(blocks)
        wanted = {prefix for prefix in {*blocks, *self._workloads} if self._is_announced(prefix)}
        changed = wanted ^ self.prefixes
        self.prefixes = wanted
        return changed

    def change_workloads(self, added: Iterable[IPNetwork], removed: Iterable[IPNetwork]) -> set[IPNetwork]:
        """Addresses of local workloads, as host routes."""
        changed = {prefix for prefix in removed if prefix in self.prefixes and prefix not in self._blocks}
        self._workloads.difference_update(removed)
        self.prefixes -= changed
        for prefix in added:
            self._workloads.add(prefix)
            if prefix not in self.prefixes and self._is_announced(prefix):
                self.prefixes.add(prefix)
                changed ^= {prefix}
        return changed

    def _is_announced(self, prefix: IPNetwork) -> bool:
        if self._private.covers(prefix):
            return False
        return prefix in self._blocks or (self._inside.covers(prefix) and not self._covered.covers(prefix))


def announcements(session: SessionConfig, prefixes: Iterable[IPNetwork]) -> Mapping[IPNetwork, Announcement]:
    """What one peer is told: the prefixes of the session's family, by way of this node."""
    attributes = Announcement(next_hop=session.local)
    return {prefix: attributes for prefix in prefixes if prefix.version == session.peer.version}


def importer(own: Own) -> Callable[[Peer, IPNetwork, PathAttributes], str | None]:
    """The import policy: why a route is not accepted, or None."""
    blocks = Networks(own.blocks)

    def judge(peer: Peer, prefix: IPNetwork, attributes: PathAttributes) -> str | None:
        address = prefix.network_address
        if address.is_link_local or address.is_loopback or address.is_multicast:
            return "link-local, loopback and multicast prefixes are not routed"
        if prefix in own.blocks:
            return "a block of this node"
        if prefix.prefixlen < HOST_LENGTH[prefix.version]:
            return "a part of a block of this node" if blocks.covers(prefix) else None
        return "an address of this node" if address in own.addresses else None

    return judge


def concerned(before: Own, now: Own) -> Iterator[IPNetwork]:
    """The prefixes about which the import policy has changed its mind."""
    for address in before.addresses ^ now.addresses:
        yield ip_network(address)
    for block in before.blocks ^ now.blocks:
        yield block
        for length in range(block.prefixlen + 1, block.max_prefixlen):
            yield from block.subnets(new_prefix=length)
