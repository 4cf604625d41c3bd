"""Write to the datastore what this node says of itself: compare-and-swap, and only where something has changed.

An adapter: what is said is decided elsewhere. A datastore that does not answer costs nothing but time."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from datetime import UTC, datetime
from importlib.metadata import version

import msgspec

from bird_agent.agent import Agent
from bird_agent.node_status import Daemon, Schedule, status_of
from weft.datastore.base import Datastore
from weft.model import codec, drain, keys
from weft.model.base import Resource
from weft.model.errors import ConflictError, NotFoundError, ValidationError, WeftError
from weft.model.keys import ResourceKey
from weft.model.node_status import CalicoNodeStatus

log = logging.getLogger("weft-bird-agent")

ATTEMPTS = 5
AFTER_WRITING_S = 0.2  # a progress that changes faster is of no use to anybody
AFTER_FAILURE_S = 5.0
LOOK_AGAIN_S = 1.0  # the shortest period
SETTLE_S = 10.0


class Reporter:
    """Of one node."""

    def __init__(self, store: Datastore, node_name: str, agent: Agent, started_at: float) -> None:
        self._store = store
        self._node = ResourceKey("Node", node_name)
        self._agent = agent
        self._due = asyncio.Event()
        self._schedule = Schedule()
        self._started_at = started_at
        self._version = f"weft {version('weft')} (ExaBGP {version('exabgp')})"
        self.configured_at = 0.0

    def wake(self) -> None:
        """After every step: is there something to say?"""
        said, stored = self._agent.drain_state
        if self._agent.conversation.synced and said != stored:
            self._due.set()

    async def run_node_statuses(self) -> None:
        """Keep the CalicoNodeStatus resources about this node up to date, each at its period."""
        while True:
            await asyncio.sleep(LOOK_AGAIN_S)
            now = time.time()
            settling = now - self._started_at < SETTLE_S and not self._agent.conversation.synced
            if not self._agent.in_sync or settling:
                continue  # what a restart makes look otherwise for a moment is no news
            for resource in self._schedule.due(self._agent.node_statuses, now):
                try:
                    await self._write_status(resource, now)
                except WeftError as error:
                    log.warning("CalicoNodeStatus %s could not be written, trying again: %s", resource.name, error)
                    self._schedule.try_again(resource.name, now + AFTER_FAILURE_S)

    async def _write_status(self, resource: CalicoNodeStatus, now: float) -> None:
        daemon = Daemon(self._version, self._started_at, self.configured_at)
        said = status_of(self._agent, resource.spec, daemon, now)
        if said == msgspec.structs.replace(resource.status, last_updated=None):
            return
        said = msgspec.structs.replace(said, last_updated=datetime.fromtimestamp(int(now), UTC))

        def change(stored: Resource) -> Resource:
            if not isinstance(stored, CalicoNodeStatus) or stored.spec != resource.spec:
                return stored  # somebody asks for something else meanwhile, and gets that next
            return msgspec.structs.replace(stored, status=said)

        await update(self._store, ResourceKey("CalicoNodeStatus", resource.name), change)

    async def run(self) -> None:
        while True:
            await self._due.wait()
            self._due.clear()
            try:
                await self._write_drain_state()
            except WeftError as error:
                log.warning("the state of the drain could not be stored, trying again: %s", error)
                await asyncio.sleep(AFTER_FAILURE_S)
            else:
                await asyncio.sleep(AFTER_WRITING_S)

    async def _write_drain_state(self) -> None:
        said, _ = self._agent.drain_state

        def change(node: Resource) -> Resource:
            annotations = {name: text for name, text in node.metadata.annotations.items() if name != drain.STATE}
            if said is not None:
                annotations[drain.STATE] = said
            return msgspec.structs.replace(
                node, metadata=msgspec.structs.replace(node.metadata, annotations=annotations)
            )

        await update(self._store, self._node, change)


async def update(store: Datastore, key: ResourceKey, change: Callable[[Resource], Resource]) -> None:
    """Write what `change` makes of the stored resource; nothing for one that is gone or stays the same.

    Raises `ConflictError` after several lost races, `ValidationError` where it cannot be read,
    `DatastoreUnavailableError`."""
    for _ in range(ATTEMPTS):
        kv = await store.get(keys.path(key))
        if kv is None:
            return
        stored = codec.decode_stored(key, kv.value)
        if not isinstance(stored, Resource):
            raise ValidationError(kv.key, 0, "kind", type(stored).__name__, key.kind)
        raw = codec.encode_stored(change(stored), kv.value)
        if raw == kv.value:
            return
        try:
            await store.update(kv.key, raw, kv.revision)
        except NotFoundError:
            return
        except ConflictError:
            continue
        return
    raise ConflictError(keys.path(key))
