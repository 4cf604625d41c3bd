"""What of the datastore concerns the BGP agent of one node, kept up to date from sync events.

Pure. It holds nodes, BGP configuration and peers, pools, felix's default configuration, and this node's confirmed
blocks; the rest passes by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import Flag, auto
from ipaddress import IPv4Address
from typing import Any, Final, Literal

from bird_agent.automatic.client import AutomaticSessions
from bird_agent.automatic.view import RecordsView
from bird_agent.exports import Advertising, advertising
from bird_agent.peering import peering
from bird_agent.policy import Policies, policies
from bird_agent.session_config import Peering, Problem, Surroundings
from bird_agent.settings import DEFAULT_CONFIGURATION, default_configuration
from bird_agent.survey import DEFAULT_AS, NO_REFLECTORS, BgpResources
from bird_agent.workload_view import LocalWorkloads
from weft.datastore.syncer import Deleted, InSync, SyncEvent, Unreadable, Upserted
from weft.model import drain, keys
from weft.model.address import IPNetwork
from weft.model.bgp import BGPConfiguration, BGPFilter, BGPPeer
from weft.model.felix_configuration import FelixConfiguration
from weft.model.ipam import AffinityValue
from weft.model.keys import AffinityKey, Key, Owner, ReflectorKey, ResourceKey
from weft.model.node import Node
from weft.model.node_status import CalicoNodeStatus
from weft.model.pool import IPPool
from weft.reflectors.plan import Fabric

KINDS: Final = ("Node", "BGPConfiguration", "BGPPeer", "BGPFilter", "IPPool", "FelixConfiguration", "CalicoNodeStatus")


class Concern(Flag):
    """What a change may have consequences for."""

    NOTHING = 0
    SESSIONS = auto()
    POLICY = auto()
    EXPORTS = auto()
    REFLECTORS = auto()


_CONCERNS: Final = {
    "Node": Concern.SESSIONS | Concern.EXPORTS,
    "BGPConfiguration": Concern.SESSIONS | Concern.EXPORTS,
    "BGPPeer": Concern.SESSIONS,
    "BGPFilter": Concern.SESSIONS | Concern.POLICY,
    "IPPool": Concern.EXPORTS,
    "FelixConfiguration": Concern.EXPORTS,
}


def watched_prefixes(node_name: str) -> list[str]:
    """What the agent reads and watches."""
    return [*(keys.prefix(kind) for kind in KINDS), keys.affinity_prefix(Owner("host", node_name)), keys.REFLECTORS]


class DatastoreView:
    """The present state of what was watched."""

    def __init__(
        self,
        node_name: str,
        router_id: IPv4Address | Literal["hash"] | None,
        records: RecordsView | None = None,
    ) -> None:
        """What is said about automatic reflectors goes into `records`."""
        self._node_name = node_name
        self._records = records or RecordsView()
        self._router_id = router_id
        self._nodes: dict[str, Node] = {}
        self._configurations: dict[str, BGPConfiguration] = {}
        self._peers: dict[str, BGPPeer] = {}
        self._filters: dict[str, BGPFilter] = {}
        self._pools: dict[str, IPPool] = {}
        self._felix: dict[str, FelixConfiguration] = {}
        self._blocks: set[IPNetwork] = set()
        self.node_statuses: dict[str, CalicoNodeStatus] = {}
        """Those that want to be told of this node."""
        self._read = False
        self.workloads = LocalWorkloads(node_name)
        self.in_sync = False
        """Everything has been read once: where a BGPPeer asks for this node's workloads, those too. Without them a
        session that an earlier agent has would be taken for one that nobody wants."""

    @property
    def wants_workloads(self) -> bool:
        """Some BGPPeer asks for local workloads, whichever nodes it is for."""
        return any(peer.spec.local_workload_selector for peer in self._peers.values())

    @property
    def blocks(self) -> frozenset[IPNetwork]:
        """This node's confirmed blocks."""
        return frozenset(self._blocks)

    def advertising(self) -> Advertising:
        node, felix = self._nodes.get(self._node_name), self._felix.get(DEFAULT_CONFIGURATION)
        spec = None if felix is None else felix.spec
        return advertising(node, self._configurations, self._pools.values(), spec)

    @property
    def nodes(self) -> Mapping[str, Node]:
        return self._nodes

    @property
    def configurations(self) -> Mapping[str, BGPConfiguration]:
        return self._configurations

    @property
    def pools(self) -> Mapping[str, IPPool]:
        return self._pools

    def fabric(self) -> Fabric:
        """What the choice of reflectors rests on."""
        spec = default_configuration(self._configurations)
        return Fabric(self._nodes, int(spec.as_number or DEFAULT_AS), spec.node_to_node_mesh_enabled is not False)

    def peering(self, surroundings: Surroundings, automatic: AutomaticSessions = NO_REFLECTORS) -> Peering | None:
        workloads = self.workloads.workloads()
        resources = BgpResources(self._nodes, self._configurations, self._peers, self._filters, workloads, automatic)
        return peering(self._node_name, resources, self._router_id, surroundings)

    @property
    def drain_wait_s(self) -> float | None:
        """How long peers get where this node is wished to drain; None: it is not."""
        text = self._annotation(drain.WISH)
        try:
            return None if text is None else drain.parse_wait(text)
        except ValueError:
            return drain.DEFAULT_WAIT_S

    @property
    def drain_state(self) -> str | None:
        """What this node's resource says of its draining."""
        return self._annotation(drain.STATE)

    @property
    def problems(self) -> list[Problem]:
        """What is wished of this node in words that make no sense."""
        text = self._annotation(drain.WISH)
        try:
            drain.parse_wait(text or "0")
        except ValueError as error:
            text = f"annotation {drain.WISH}: {error}: {drain.DEFAULT_WAIT_S:g}s"
            return [Problem(f"Node/{self._node_name}", text), *self._records.problems]
        return self._records.problems

    def _annotation(self, name: str) -> str | None:
        node = self._nodes.get(self._node_name)
        return None if node is None else node.metadata.annotations.get(name)

    def policies(self, planned: Peering | None) -> Policies:
        """The filters of the planned sessions."""
        return policies(() if planned is None else planned.sessions.values(), self._filters)

    def on_workload_endpoints(self, batch: Sequence[SyncEvent]) -> Concern:
        """What was read because `wants_workloads`, and what it may have consequences for."""
        changed = self.workloads.on_events(batch)
        self._settle()
        return Concern.SESSIONS if changed else Concern.NOTHING

    def _settle(self) -> None:
        self.in_sync = self.in_sync or (self._read and (self.workloads.in_sync or not self.wants_workloads))

    def on_events(self, batch: Sequence[SyncEvent]) -> Concern:
        """Take them over; what they may have consequences for."""
        concern = Concern.NOTHING
        for event in batch:
            match event:
                case Upserted(ReflectorKey() as key, value, revision):
                    self._records.put(key, value, revision)
                    concern |= Concern.REFLECTORS
                case Unreadable(ReflectorKey() as key, _, reason):
                    self._records.on_unreadable(key, reason)
                    concern |= Concern.REFLECTORS
                case Deleted(ReflectorKey() as key):
                    self._records.remove(key)
                    concern |= Concern.REFLECTORS
                case Upserted():
                    self._put(event.key, event.value)
                    concern |= _concern(event.key)
                case Deleted() | Unreadable():  # for routing, what cannot be read is not there
                    self._remove(event.key)
                    concern |= _concern(event.key)
                case InSync():
                    if not self._read:
                        concern |= ~Concern.NOTHING
                    self._read = True
        self._settle()
        return concern

    def _put(self, key: Key, value: object) -> None:
        match value:
            case Node():
                self._nodes[value.name] = value
            case BGPConfiguration():
                self._configurations[value.name] = value
            case BGPPeer():
                self._peers[value.name] = value
            case BGPFilter():
                self._filters[value.name] = value
            case IPPool():
                self._pools[value.name] = value
            case FelixConfiguration():
                self._felix[value.name] = value
            case CalicoNodeStatus() if value.spec.node == self._node_name:
                self.node_statuses[value.name] = value
            case CalicoNodeStatus():
                self.node_statuses.pop(value.name, None)
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
                "BGPFilter": self._filters,
                "IPPool": self._pools,
                "FelixConfiguration": self._felix,
                "CalicoNodeStatus": self.node_statuses,
            }
            holders.get(key.kind, {}).pop(key.name, None)


def _concern(key: Key) -> Concern:
    if isinstance(key, AffinityKey):
        return Concern.EXPORTS
    return _CONCERNS.get(key.kind, Concern.NOTHING) if isinstance(key, ResourceKey) else Concern.NOTHING
