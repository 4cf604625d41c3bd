"""Keep the speaker's configuration equal to the sessions there should be.

A speaker that is attached is told to read it again; one that is yet to attach says what it runs with. A session that
the speaker's configuration cannot say is left out; what fails is tried again."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Final

from bird_agent.exabgp.client import LinkClient
from bird_agent.exabgp.configuration import UnrenderableSessionError, render
from bird_agent.exabgp.supervisor import InvalidConfigurationError, SpeakerPaths, SpeakerSupervisor
from bird_agent.session_config import Peering
from bird_agent.speaker_config import neighbor_of
from bird_agent.status import BirdAgentStatus

log = logging.getLogger("weft-bird-agent")

BETWEEN_RELOADS_S: Final = 0.25
RETRY_S: Final = 5.0


class Configurator:
    """`on_written`: there is a new configuration; `on_taken`: an attached speaker runs with it."""

    def __init__(
        self,
        paths: SpeakerPaths,
        supervisor: SpeakerSupervisor,
        client: LinkClient,
        status: BirdAgentStatus,
        on_written: Callable[[float], None],
        on_taken: Callable[[], None],
    ) -> None:
        self._paths = paths
        self._supervisor = supervisor
        self._client = client
        self._status = status
        self._on_written = on_written
        self._on_taken = on_taken
        self._wanted: Peering | None = None
        self._again = asyncio.Event()
        self.configured = asyncio.Event()
        """A configuration has been written once."""

    def set_wanted(self, wanted: Peering) -> None:
        self._wanted = wanted
        self._again.set()

    def on_speaker_synced(self) -> None:
        """The speaker has said what it runs with."""
        if self._supervisor.up_to_date:
            self._status.speaker_error = ""
        else:
            self._again.set()

    async def run(self) -> None:
        """For ever."""
        while True:
            await self._again.wait()
            await asyncio.sleep(BETWEEN_RELOADS_S if self.configured.is_set() else 0)
            self._again.clear()
            wanted = self._wanted
            if wanted is None:
                continue
            try:
                await self._configure(wanted)
            except (InvalidConfigurationError, OSError, TimeoutError) as error:
                self._status.speaker_error = f"the speaker's configuration was not changed: {error}"
                log.error("%s", self._status.speaker_error)
                asyncio.get_running_loop().call_later(RETRY_S, self._again.set)

    async def _configure(self, wanted: Peering) -> None:
        neighbors, left_out = [], {}
        for session in wanted.sessions.values():
            try:
                neighbors.append(neighbor_of(wanted, session))
            except UnrenderableSessionError as error:
                left_out[session.resource] = str(error)
                log.error("%s is left out: %s", session.resource, error)
        self._status.left_out = left_out
        text = render(neighbors, self._paths.helper())
        await self._supervisor.configure(text, wanted.listen, wanted.port)
        self.configured.set()
        self._on_written(time.time())
        if not self._client.attached or self._supervisor.replacing:
            return  # a speaker that is attached to later says what it runs with
        if await self._supervisor.reload():
            self._status.speaker_error = ""
            self._on_taken()
        else:
            self._status.speaker_error = self._supervisor.last_error or "the speaker does not answer"
            asyncio.get_running_loop().call_later(RETRY_S, self._again.set)
