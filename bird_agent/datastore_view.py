"""What of the datastore concerns the BGP agent of one node, kept up to date from sync events.

Pure. It holds nodes, BGP configuration and peers, pools, and this node's confirmed blocks; the rest passes by."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from ipaddress import IPv4Address
from typing import Any, Final, Literal

from bird_agent.peering import Peering, peering
from weft.datastore.syncer import Deleted, InSync, SyncEvent, Unreadable, Upserted
from weft.model import keys
from weft.model.address import IPNetwork
from weft.model.bgp import BGPConfiguration, BGPPeer
from weft.model.ipam import AffinityValue
from weft.model.keys import AffinityKey, Key, Owner, ResourceKey
from weft.model.node import Node
from weft.model.pool import IPPool

KINDS: Final = ("Node", "BGPConfiguration", "BGPPeer", "IPPool")


def watched_prefixes(node_name: str) -> list[str]:
    """What the agent reads and watches."""
    return [*(keys.prefix(kind) for kind in KINDS), keys.affinity_prefix(Owner("host", node_name))]


class DatastoreView:
    """The present state of what was watched."""

    def __init__(self, node_name: str, router_id: IPv4Address | Literal["hash"] | None) -> None:
        self._node_name = node_name
        self._router_id = router_id
        self._nodes: dict[str, Node] = {}
        self._configurations: dict[str, BGPConfiguration] = {}
        self._peers: dict[str, BGPPeer] = {}
        self._pools: dict[str, IPPool] = {}
        self._blocks: set[IPNetwork] = set()
        self.in_sync = False

    @property
    def blocks(self) -> frozenset[IPNetwork]:
        """This node's confirmed blocks."""
        return frozenset(self._blocks)

    @property
    def pools(self) -> Iterable[IPPool]:
        return self._pools.values()

    def peering(self) -> Peering | None:
        return peering(self._node_name, self._nodes, self._configurations, self._peers, self._router_id)

    def on_events(self, batch: Sequence[SyncEvent]) -> bool:
        """True if something changed that decides about sessions."""
        concerns_peering = False
        for event in batch:
            match event:
                case Upserted():
                    self._put(event.key, event.value)
                    concerns_peering |= _decides_about_sessions(event.key)
                case Deleted() | Unreadable():  # for routing, what cannot be read is not there
                    self._remove(event.key)
                    concerns_peering |= _decides_about_sessions(event.key)
                case InSync():
                    self.in_sync = True
        return concerns_peering

    def _put(self, key: Key, value: object) -> None:
        match value:
            case Node():
                self._nodes[value.name] = value
            case BGPConfiguration():
                self._configurations[value.name] = value
            case BGPPeer():
                self._peers[value.name] = value
            case IPPool():
                self._pools[value.name] = value
            case AffinityValue() if isinstance(key, AffinityKey):
                if value.state == "confirmed" and not value.deleted:
                    self._blocks.add(key.cidr)
                else:
                    self._blocks.discard(key.cidr)

    def _remove(self, key: Key) -> None:
        if isinstance(key, AffinityKey):
            self._blocks.discard(key.cidr)
        elif isinstance(key, ResourceKey):
            holders: dict[str, dict[str, Any]] = {
                "Node": self._nodes,
                "BGPConfiguration": self._configurations,
                "BGPPeer": self._peers,
                "IPPool": self._pools,
            }
            holders.get(key.kind, {}).pop(key.name, None)


def _decides_about_sessions(key: Key) -> bool:
    return isinstance(key, ResourceKey) and key.kind in ("Node", "BGPConfiguration", "BGPPeer")
