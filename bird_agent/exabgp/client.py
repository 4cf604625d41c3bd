"""The agent's connection to the speaker link: attach, read, attach again.

An adapter: bytes become frames and events in `link.AgentSide` and `decoder.Decoder`, and everything is handed to one
sink in the order in which it came. It decides nothing, and it never gives up: without a speaker it keeps trying."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

from bird_agent.exabgp import link
from bird_agent.exabgp.decoder import Decoder
from bird_agent.exabgp.events import SpeakerEvent

log = logging.getLogger(__name__)

READ_BYTES = 1 << 17
RETRY_S = 0.1


class SpeakerSink(Protocol):
    """Who is told. Called on the loop's thread, one after the other."""

    def on_attached(self, hello: link.Hello) -> None: ...
    def on_replaying(self, peer: link.Replaying) -> None: ...
    def on_live(self) -> None: ...
    def on_event(self, event: SpeakerEvent) -> None: ...
    def on_batch_end(self) -> None: ...
    def on_detached(self) -> None: ...


class LinkClient:
    """At most one connection at a time; `send` while detached is refused by returning False."""

    def __init__(self, path: Path, sink: SpeakerSink) -> None:
        self._path = path
        self._sink = sink
        self._writer: asyncio.StreamWriter | None = None

    @property
    def attached(self) -> bool:
        return self._writer is not None

    def send(self, lines: Iterable[bytes]) -> bool:
        """Queue whole lines. False if there is nobody to send to: everything is announced anew on attaching."""
        if self._writer is None:
            return False
        self._writer.write(b"".join(lines))
        return True

    async def run(self) -> None:
        while True:
            try:
                reader, writer = await asyncio.open_unix_connection(str(self._path))
            except OSError:
                await asyncio.sleep(RETRY_S)
                continue
            self._writer = writer
            try:
                await self._serve(reader)
            except (OSError, link.LinkProtocolError) as error:
                log.warning("speaker link: %s; attaching again", error)
            finally:
                self._writer = None
                writer.close()
                self._sink.on_detached()
            await asyncio.sleep(RETRY_S)

    async def _serve(self, reader: asyncio.StreamReader) -> None:
        frames, decoder = link.AgentSide(), Decoder()
        while data := await reader.read(READ_BYTES):
            for frame in frames.receive_data(data):
                match frame:
                    case link.SpeakerLine():
                        for event in decoder.decode(frame.line):
                            self._sink.on_event(event)
                    case link.Hello():
                        self._sink.on_attached(frame)
                    case link.Replaying():
                        self._sink.on_replaying(frame)
                    case link.Live():
                        self._sink.on_live()
            self._sink.on_batch_end()
            await asyncio.sleep(0)  # a flood of updates must not starve the rest of the agent
