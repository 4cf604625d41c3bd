"""What the agent's watch has seen that CNI calls depend on. Synchronous, no IO.

What this agent has itself written counts at once, before the watch tells of it; nobody else writes
endpoints of this node while it runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from weft.datastore.syncer import Deleted, InSync, SyncEvent, Unreadable, Upserted
from weft.ipam.context import ContextState
from weft.ipam.pools import IPAMContext
from weft.model.endpoint import WorkloadEndpoint
from weft.model.errors import DatastoreUnavailableError
from weft.model.keys import Key, ResourceKey
from weft.model.node import ClusterInformation

_CLUSTER = ResourceKey("ClusterInformation", "default")


class NodeView:
    """Pools, profiles, readiness and local endpoints. It is also the IPAM client's `ContextSource`."""

    def __init__(self, node: str) -> None:
        self.node = node
        self._ipam = ContextState(node)
        self._in_sync = False
        self._cluster: ClusterInformation | None = None
        self._profiles: set[str] = set()
        self._seen: dict[ResourceKey, WorkloadEndpoint] = {}
        self._written: dict[ResourceKey, WorkloadEndpoint | None] = {}
        self._interfaces: dict[str, ResourceKey] = {}
        self._waiting: dict[str, list[Callable[[], None]]] = {}

    def on_events(self, events: Sequence[SyncEvent]) -> None:
        for event in events:
            match event:
                case Upserted(key, value, _):
                    self._set(key, value)
                case Deleted(key) | Unreadable(key):
                    self._set(key, None)
                case InSync():
                    self._in_sync = True

    async def context(self) -> IPAMContext:
        if not self._in_sync:
            raise DatastoreUnavailableError("the datastore has not been read completely yet")
        return self._ipam.current()

    @property
    def in_sync(self) -> bool:
        return self._in_sync

    @property
    def datastore_ready(self) -> bool:
        """Whether ADD and DEL may go on: an administrator can stop them (during an upgrade)."""
        return self._in_sync and self._cluster is not None and self._cluster.spec.datastore_ready is True

    def has_profile(self, name: str) -> bool:
        return name in self._profiles

    def when_profile(self, name: str, call: Callable[[], None]) -> None:
        """Call when the watch tells of the profile, at once if it has."""
        if name in self._profiles:
            call()
        else:
            self._waiting.setdefault(name, []).append(call)

    def endpoint(self, key: ResourceKey) -> WorkloadEndpoint | None:
        """The local endpoint of that name."""
        return self._written[key] if key in self._written else self._seen.get(key)

    def endpoints(self) -> Iterator[tuple[ResourceKey, WorkloadEndpoint]]:
        """All local endpoints."""
        for key in {**self._seen, **self._written}:
            endpoint = self.endpoint(key)
            if endpoint is not None:
                yield key, endpoint

    def by_interface(self, host_interface: str) -> tuple[ResourceKey, WorkloadEndpoint] | None:
        """The local endpoint behind a host interface."""
        key = self._interfaces.get(host_interface)
        endpoint = self.endpoint(key) if key else None
        return (key, endpoint) if key and endpoint and endpoint.spec.interface_name == host_interface else None

    def wrote(self, key: ResourceKey, endpoint: WorkloadEndpoint | None) -> None:
        """This agent stored the endpoint, or deleted it (None)."""
        self._index(self.endpoint(key), None)
        self._written[key] = endpoint
        self._index(endpoint, key)

    def _set(self, key: Key, value: object | None) -> None:
        self._ipam.set(key, value)
        if key == _CLUSTER:
            self._cluster = value if isinstance(value, ClusterInformation) else None
        elif isinstance(key, ResourceKey) and key.kind == "Profile":
            self._set_profile(key.name, value is not None)
        elif isinstance(key, ResourceKey) and key.kind == "WorkloadEndpoint":
            self._set_endpoint(key, value)

    def _set_profile(self, name: str, there: bool) -> None:
        if not there:
            self._profiles.discard(name)
            return
        self._profiles.add(name)
        for call in self._waiting.pop(name, ()):
            call()

    def _set_endpoint(self, key: ResourceKey, value: object | None) -> None:
        if isinstance(value, WorkloadEndpoint) and value.spec.node == self.node:
            self._index(self.endpoint(key), None)
            self._seen[key] = value
            mine = self._written.get(key)
            if mine is not None and mine.metadata.uid == value.metadata.uid:
                del self._written[key]
            self._index(self.endpoint(key), key)
            return
        self._index(self.endpoint(key), None)
        if self._seen.pop(key, None) is not None and self._written.get(key, value) is None:
            self._written.pop(key, None)
        self._index(self.endpoint(key), key)

    def _index(self, endpoint: WorkloadEndpoint | None, key: ResourceKey | None) -> None:
        """Find the endpoint by its interface from now on (None: no more)."""
        if endpoint is None:
            return
        if key is None:
            self._interfaces.pop(endpoint.spec.interface_name, None)
        else:
            self._interfaces[endpoint.spec.interface_name] = key
