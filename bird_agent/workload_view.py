"""This node's workloads, as far as BGP may peer with them, kept up to date from sync events.

Pure. What is read: WorkloadEndpoints, of which those of other nodes pass by, and the labels that profiles give them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from bird_agent.workload_peers import LocalWorkload
from weft.datastore.syncer import Deleted, InSync, SyncEvent, Unreadable, Upserted
from weft.model import keys
from weft.model.address import IPAddress
from weft.model.endpoint import WorkloadEndpoint
from weft.model.keys import Key, ResourceKey
from weft.model.policy import Profile
from weft.policy.selectors import endpoint_labels

KINDS: Final = ("WorkloadEndpoint", "Profile")


def watched_prefixes() -> list[str]:
    """What has to be read and watched while some BGPPeer asks for workloads."""
    return [keys.prefix(kind) for kind in KINDS]


class LocalWorkloads:
    """The present state of what was watched."""

    def __init__(self, node_name: str) -> None:
        self._node_name = node_name
        self._endpoints: dict[Key, WorkloadEndpoint] = {}
        self._profiles: dict[str, Profile] = {}
        self.in_sync = False

    def on_events(self, batch: Sequence[SyncEvent]) -> bool:
        """Take them over; whether something changed that may matter here."""
        changed = False
        for event in batch:
            match event:
                case Upserted():
                    changed |= self._put(event.key, event.value)
                case Deleted() | Unreadable():
                    changed |= self._remove(event.key)
                case InSync():
                    changed |= not self.in_sync
                    self.in_sync = True
        return changed

    def workloads(self) -> tuple[LocalWorkload, ...]:
        """By name, for an order that does not depend on the one in which they came."""
        found = [self._workload(endpoint) for endpoint in self._endpoints.values()]
        return tuple(sorted(found, key=lambda each: each.name))

    def _workload(self, endpoint: WorkloadEndpoint) -> LocalWorkload:
        inherited: dict[str, str] = {}
        for name in endpoint.spec.profiles:
            if (profile := self._profiles.get(name)) is not None:
                inherited.update(profile.spec.labels_to_apply)
        first: dict[int, IPAddress] = {}
        for network in endpoint.spec.ip_networks:
            first.setdefault(network.version, network.network_address)
        labels = {**inherited, **endpoint_labels(endpoint)}
        return LocalWorkload(f"{endpoint.namespace}/{endpoint.name}", labels, tuple(first.values()))

    def _put(self, key: Key, value: object) -> bool:
        match value:
            case WorkloadEndpoint():
                if value.spec.node != self._node_name:
                    return self._remove(key)
                self._endpoints[key] = value
                return True
            case Profile():
                self._profiles[value.name] = value
                return bool(self._endpoints)
        return False

    def _remove(self, key: Key) -> bool:
        if isinstance(key, ResourceKey) and key.kind == "Profile":
            return self._profiles.pop(key.name, None) is not None and bool(self._endpoints)
        return self._endpoints.pop(key, None) is not None
