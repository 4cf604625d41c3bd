"""Tell the datastore what this node says about automatic reflectors, read the signs of life it asks for, and see that
its own reflector runs where it is chosen.

An adapter: what is said is decided in bird_agent/automatic/client.py. A write of the shared state that loses its race
is dropped, because what won comes by the watch and is decided on again."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Final

from bird_agent.automatic import loopback
from bird_agent.automatic.client import Automatic
from bird_agent.automatic.runner import ReflectorRunner
from bird_agent.automatic.stored import put
from weft.config import AgentConfig
from weft.datastore.base import Create, Datastore, Delete, Update
from weft.datastore.base import Plan as Writes
from weft.model import codec, keys
from weft.model.errors import AlreadyExistsError, ConflictError, DatastoreUnavailableError, NotFoundError
from weft.model.keys import ReflectorKey
from weft.model.reflectors import AttachmentRecord, ReflectorState
from weft.netlink.socket import DumpInterruptedError

log = logging.getLogger("weft-bird-agent")

TICK_S: Final = 0.25


class Publisher:
    """Of one node."""

    def __init__(self, store: Datastore, config: AgentConfig, automatic: Automatic) -> None:
        self._store = store
        self._own = ReflectorKey("attached", config.node_name)
        self._reflector = ReflectorRunner(config.run_dir)
        self._automatic = automatic
        self._written: AttachmentRecord | None = None

    async def run(self) -> None:
        self._take_back()
        while True:
            await asyncio.sleep(TICK_S)
            if self._automatic.chosen:
                self._reflector.ensure(time.monotonic())
            try:
                await self._say_own()
                await self._write_state()
                await self._read_beats()
                await self._remove_leftovers()
            except DatastoreUnavailableError as error:
                self._automatic.suspicions.on_unread()
                log.debug("what is said about reflectors waits for the datastore: %s", error)
            except (ConflictError, AlreadyExistsError, NotFoundError) as error:
                log.debug("somebody else was first: %s", error)

    async def _say_own(self) -> None:
        record, heard = self._automatic.record, self._automatic.records.attached.get(self._own.node)
        if record is None or record == heard:
            self._written = None
            return
        if record != self._written:
            await put(self._store, self._own, record)
            self._written = record

    async def _write_state(self) -> None:
        automatic = self._automatic
        before, revision = automatic.records.state, automatic.records.state_revision
        state = automatic.next_state(time.monotonic(), time.time())
        if state is None:
            return
        key, value = keys.path(ReflectorKey("state")), codec.encode_stored(state)
        write = Update(key, value, revision) if revision else Create(key, value)
        gone = {each.node for each in state.replaced} - {each.node for each in before.replaced}
        # What a dead reflector said of itself must not be believed any longer; one that lives says it again.
        obsolete = [Delete(keys.path(ReflectorKey("serving", name))) for name in sorted(gone)]
        await self._store.commit(Writes.of(write, *obsolete))
        for line in _news(before, state):
            log.warning("%s", line)

    async def _read_beats(self) -> None:
        suspicions, settings = self._automatic.suspicions, self._automatic.records.settings
        for name in suspicions.to_read(settings.replace_after_seconds, time.monotonic()):
            found = await self._store.get(keys.path(ReflectorKey("beats", name)))
            suspicions.on_beat(name, 0 if found is None else found.revision, time.monotonic())

    def _take_back(self) -> None:
        """Addresses without a process are of one that died; its record may be gone. Another takes them back."""
        try:
            if loopback.read():
                self._reflector.ensure(time.monotonic())
        except (OSError, DumpInterruptedError) as error:
            log.warning("the addresses of an earlier reflector could not be read: %s", error)

    async def _remove_leftovers(self) -> None:
        """What the dead node had beside its record, it takes back itself when it returns."""
        for name in self._automatic.leftovers(time.monotonic()):
            log.info("the reflector on %s was no longer chosen, and is dead: its record goes", name)
            await self._store.delete(keys.path(ReflectorKey("serving", name)))


def _news(before: ReflectorState, after: ReflectorState) -> list[str]:
    lines = []
    if before.mode != after.mode:
        what = "a full mesh" if after.mode == "mesh" else "route reflectors"
        lines.append(f"the fabric turns to {what}: {after.why}")
    known = {each.node for each in before.replaced}
    lines += [f"the reflector on {one.node} is replaced: {one.why}" for one in after.replaced if one.node not in known]
    return lines
