"""Two connections with one peer at a time (RFC 4271 6.8): whichever the peer has chosen must not be closed."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from lab.netns import NetNs
from tests.functional.bgp.fabric import segment, wait_until
from tests.functional.bgp.test_corrections import UNCORRECTED, Speaker

pytestmark = pytest.mark.root

MARKER = b"\xff" * 16
KEEPALIVE = MARKER + b"\x00\x13\x04"
OPEN_TYPE, KEEPALIVE_TYPE = 1, 4
HIGHER, LOWER = b"\x0a\x01\x00\xfe", b"\x0a\x00\x00\x01"  # than the speaker's identifier


def open_message(router_id: bytes) -> bytes:
    return MARKER + b"\x00\x1d\x01\x04\xfc\x00\x00\x5a" + router_id + b"\x00"


def is_up(line: dict[str, Any]) -> bool:
    return bool(line["neighbor"]["state"] == "up")


class Connection:
    """One end of a connection with the speaker, read message by message."""

    def __init__(self, made: socket.socket) -> None:
        self._socket = made
        self._socket.settimeout(10)
        self._unread = b""

    def send(self, message: bytes) -> None:
        self._socket.sendall(message)

    def next(self) -> bytes:
        """The next message; empty: it was closed."""
        while len(self._unread) < 19 or len(self._unread) < int.from_bytes(self._unread[16:18]):
            try:
                data = self._socket.recv(4096)
            except ConnectionResetError:
                return b""
            if not data:
                return b""
            self._unread += data
        length = int.from_bytes(self._unread[16:18])
        message, self._unread = self._unread[:length], self._unread[length:]
        return message


@pytest.fixture
def speaker(netns: Callable[[str], NetNs], tmp_path: Path) -> Iterator[Speaker]:
    made = Speaker(netns("exa"), tmp_path / "run", ["10.1.0.254"])
    yield made
    print(made.paths.log.read_text()[-2000:])
    made.stop()


@pytest.mark.parametrize(
    ("router_id", "left_out"),
    [(HIGHER, ""), pytest.param(HIGHER, "B17", marks=UNCORRECTED), (LOWER, "")],
    ids=["higher", "higher, uncorrected", "lower"],
)
def test_a_connection_that_the_peer_may_have_established_is_not_closed_for_a_later_one(
    speaker: Speaker, netns: Callable[[str], NetNs], router_id: bytes, left_out: str
) -> None:
    tor = netns("tor")
    segment(speaker.netns, tor, "up0", "10.1.0.1/24", "10.1.0.254/24")
    with ExitStack() as stack:
        with tor.enter():
            listener = stack.enter_context(socket.create_server(("10.1.0.254", 179)))
        listener.settimeout(20)
        speaker.start(left_out)
        first = Connection(stack.enter_context(listener.accept()[0]))
        first.send(open_message(router_id))
        assert first.next()[18] == OPEN_TYPE
        assert first.next()[18] == KEEPALIVE_TYPE, "whoever has this is established"
        with tor.enter():
            made = socket.create_connection(("10.1.0.1", 179), source_address=("10.1.0.254", 0))
        second = Connection(stack.enter_context(made))
        second.send(open_message(router_id))
        assert second.next() == b"", "it is refused"
        first.send(KEEPALIVE)
        wait_until("the first is the session", lambda: [one for one in speaker.heard(type="state") if is_up(one)])
