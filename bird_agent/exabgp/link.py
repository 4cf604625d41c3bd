"""The speaker link's protocol, both ends, as bytes in and frames out (docs/design/speaker-link.md).

Everything is whole lines. A line that begins with `!` is the link's own; any other line from the link is ExaBGP's
(JSON), and any other line to it is a command for ExaBGP, passed on unread. This module opens no socket, and it
imports next to nothing, because the link process starts with it."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

PROTOCOL_VERSION = 1
MAX_LINE_BYTES = 1 << 20


class LinkProtocolError(Exception):
    """The other end does not speak this protocol: close, and attach again."""


class Hello(NamedTuple):
    """First frame: who is at the other end. `speaker_pid` is ExaBGP's, `link_pid` the link's own."""

    version: int
    speaker_pid: int
    link_pid: int


class Replaying(NamedTuple):
    """The lines that follow are the history of this peer; `complete` if none is missing from its session."""

    peer: str
    complete: bool


class Live(NamedTuple):
    """The history is over: from here on lines come as ExaBGP writes them."""


class SpeakerLine(NamedTuple):
    """A line as ExaBGP wrote it."""

    line: bytes


Frame = Hello | Replaying | Live | SpeakerLine


class LineBuffer:
    """Cut a byte stream into lines, keeping the unfinished last one."""

    __slots__ = ("_unread",)

    def __init__(self) -> None:
        self._unread = b""

    def feed(self, data: bytes) -> list[bytes]:
        """The lines completed by `data`, without their newline. Raises LinkProtocolError on an endless line."""
        *lines, self._unread = (self._unread + data).split(b"\n")
        if len(self._unread) > MAX_LINE_BYTES:
            raise LinkProtocolError(f"a line of more than {MAX_LINE_BYTES} bytes")
        return lines


def hello(speaker_pid: int, link_pid: int) -> bytes:
    return b"!hello %d %d %d\n" % (PROTOCOL_VERSION, speaker_pid, link_pid)


def replaying(peer: bytes, complete: bool) -> bytes:
    return b"!peer %s %s\n" % (peer, b"complete" if complete else b"gap")


def live() -> bytes:
    return b"!live\n"


def forget(peer: str) -> bytes:
    """From the agent: this peer's history starts anew (a refresh is about to bring all of it again)."""
    return b"!forget %s\n" % peer.encode("ascii")


class AgentSide:
    """The agent's end: what the link sent, as frames."""

    def __init__(self) -> None:
        self._lines = LineBuffer()

    def receive_data(self, data: bytes) -> list[Frame]:
        """Raises LinkProtocolError."""
        return [self._frame(line) for line in self._lines.feed(data)]

    def _frame(self, line: bytes) -> Frame:
        if not line.startswith(b"!"):
            return SpeakerLine(line)
        words = line.decode("ascii", "replace").split(" ")
        decode = _DECODERS.get(words[0])
        if decode is None:
            raise LinkProtocolError(f"unknown frame {words[0]!r}")
        try:
            return decode(words[1:])
        except (ValueError, TypeError) as error:
            raise LinkProtocolError(f"malformed frame {line!r}") from error


def _decode_hello(words: list[str]) -> Hello:
    version, speaker_pid, link_pid = map(int, words)
    if version != PROTOCOL_VERSION:
        raise LinkProtocolError(f"the link speaks version {version}, this agent {PROTOCOL_VERSION}")
    return Hello(version, speaker_pid, link_pid)


def _decode_replaying(words: list[str]) -> Replaying:
    peer, state = words
    if state not in ("complete", "gap"):
        raise ValueError(state)
    return Replaying(peer, state == "complete")


_DECODERS: dict[str, Callable[[list[str]], Frame]] = {
    "!hello": _decode_hello,
    "!peer": _decode_replaying,
    "!live": lambda words: Live(*words),
}
