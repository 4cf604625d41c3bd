"""What a session of the reflector has said, for its tests to look at."""

from __future__ import annotations

import struct

from msgspec.structs import replace

from bird_agent.reflector.framing import Message
from bird_agent.reflector.negotiation import Restart
from bird_agent.reflector.outputs import (
    Down,
    Output,
    Write,
)
from bird_agent.reflector.prefixes import FAMILIES
from tests.unit.bird_agent.reflector.test_any_bytes import PEER_OPEN

NO_RESTART = replace(PEER_OPEN, restart=None)


KEEPS_ALL = replace(PEER_OPEN, restart=Restart(120, dict.fromkeys(FAMILIES, True), notification=True))


def sent(out: list[Output]) -> list[tuple[Message, bytes]]:
    data = b"".join(each.data for each in out if isinstance(each, Write))
    found = []
    while data:
        size = struct.unpack("!H", data[16:18])[0]
        found.append((Message(data[18]), data[19:size]))
        data = data[size:]
    return found


def only_down(out: list[Output]) -> Down:
    (found,) = (each for each in out if isinstance(each, Down))
    return found


def notified(out: list[Output]) -> tuple[int, int] | None:
    for kind, body in sent(out):
        if kind is Message.NOTIFICATION:
            return body[0], body[1]
    return None
