"""Two connections with one peer at a time (RFC 4271 6.8): whichever the peer has chosen must not be closed; and what is
left of one that failed."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest

from lab.netns import NetNs
from tests.functional.bgp.fabric import segment, wait_until
from tests.functional.bgp.speaker import UNCORRECTED, Speaker, patience_s

pytestmark = pytest.mark.root

MARKER = b"\xff" * 16
KEEPALIVE = MARKER + b"\x00\x13\x04"
OPEN_TYPE, NOTIFICATION_TYPE, KEEPALIVE_TYPE = 1, 3, 4
COLLISION = b"\x06\x07"  # cease, connection collision resolution (RFC 4486)
HIGHER, LOWER = b"\x0a\x01\x00\xfe", b"\x0a\x00\x00\x01"  # than the speaker's identifier
A_FEW_TURNS_S = 0.5  # of the speaker's loop: it has seen what there is

CORRECTED = pytest.mark.parametrize("left_out", [""], ids=["corrected"])
BOTH = pytest.mark.parametrize(
    "left_out", ["", pytest.param("B17", marks=UNCORRECTED)], ids=["corrected", "uncorrected"]
)


def open_message(router_id: bytes) -> bytes:
    return MARKER + b"\x00\x1d\x01\x04\xfc\x00\x00\x5a" + router_id + b"\x00"


class Connection:
    """One end of a connection with the speaker, read message by message."""

    def __init__(self, made: socket.socket) -> None:
        self._socket = made
        self._socket.settimeout(60)
        self._unread = b""

    def send(self, message: bytes) -> None:
        with contextlib.suppress(ConnectionError):  # what it is told where it is closed, `next` says
            self._socket.sendall(message)

    def close(self) -> None:
        self._socket.close()

    def reset(self) -> None:
        """As `close`, by a RST (socket(7), SO_LINGER)."""
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._socket.close()

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

    def refusal(self) -> bytes:
        """Code and subcode of the NOTIFICATION that is the next message."""
        message = self.next()
        assert message[18:19] == bytes([NOTIFICATION_TYPE]), message.hex()
        return message[19:21]

    def ends(self) -> bool:
        """Whether it is closed with no session on it."""
        while message := self.next():
            if message[18] != KEEPALIVE_TYPE:
                return False
        return True


class Peer:
    """Listens and connects. `first` is the connection that the speaker opened; its OPEN has been read."""

    def __init__(self, tor: NetNs, first: socket.socket, stack: ExitStack) -> None:
        self.first = Connection(first)
        self.tor, self._stack = tor, stack

    def second(self) -> Connection:
        with self.tor.enter():
            made = socket.create_connection(("10.1.0.1", 179), timeout=20, source_address=("10.1.0.254", 0))
        return Connection(self._stack.enter_context(made))


@pytest.fixture
def peer(speaker: Speaker, netns: Callable[[str], NetNs], left_out: str) -> Iterator[Peer]:
    tor = netns("tor")
    segment(speaker.netns, tor, "up0", "10.1.0.1/24", "10.1.0.254/24")
    with ExitStack() as stack:
        with tor.enter():
            listening = stack.enter_context(socket.create_server(("10.1.0.254", 179)))
        listening.settimeout(60)
        speaker.start(left_out)
        made = Peer(tor, stack.enter_context(listening.accept()[0]), stack)
        assert made.first.next()[18] == OPEN_TYPE
        yield made


def there_is_a_session(speaker: Speaker, left_out: str = "") -> None:
    def ups() -> int:
        return [line["neighbor"]["state"] for line in speaker.heard(type="state")].count("up")

    wait_until("the session is up", lambda: ups() == 1, patience_s(left_out))


@pytest.mark.parametrize(
    ("router_id", "left_out"),
    [(HIGHER, ""), pytest.param(HIGHER, "B17", marks=UNCORRECTED), (LOWER, "")],
    ids=["higher", "higher, uncorrected", "lower"],
)
def test_a_connection_that_the_peer_may_have_established_is_not_closed_for_a_later_one(
    speaker: Speaker, peer: Peer, router_id: bytes, left_out: str
) -> None:
    peer.first.send(open_message(router_id))
    assert peer.first.next()[18] == KEEPALIVE_TYPE, "whoever has this is established"
    second = peer.second()
    second.send(open_message(router_id))
    time.sleep(A_FEW_TURNS_S)
    peer.first.send(KEEPALIVE)
    there_is_a_session(speaker, left_out)
    assert second.refusal() == COLLISION


@BOTH
def test_a_connection_that_the_peer_has_given_up_replaces_none(speaker: Speaker, peer: Peer, left_out: str) -> None:
    peer.second().close()
    time.sleep(A_FEW_TURNS_S)
    peer.first.send(open_message(HIGHER))
    peer.first.send(KEEPALIVE)
    there_is_a_session(speaker, left_out)


@BOTH
def test_where_both_wait_for_an_open_that_of_the_speaker_with_the_higher_identifier_is_kept(
    speaker: Speaker, peer: Peer, left_out: str
) -> None:
    second = peer.second()
    second.send(open_message(LOWER))
    assert second.refusal() == COLLISION
    peer.first.send(open_message(LOWER))
    peer.first.send(KEEPALIVE)
    there_is_a_session(speaker)


@CORRECTED
def test_where_both_wait_for_an_open_that_of_the_peer_with_the_higher_identifier_is_kept(
    speaker: Speaker, peer: Peer
) -> None:
    second = peer.second()
    second.send(open_message(HIGHER))
    assert second.next()[18] == OPEN_TYPE
    second.send(KEEPALIVE)
    there_is_a_session(speaker)
    assert peer.first.ends()


@CORRECTED
def test_the_second_connection_is_taken_when_the_first_one_ends(speaker: Speaker, peer: Peer) -> None:
    peer.first.send(open_message(HIGHER))
    second = peer.second()
    second.send(open_message(HIGHER))
    time.sleep(A_FEW_TURNS_S)
    peer.first.close()  # the peer has chosen
    assert second.next()[18] == OPEN_TYPE
    second.send(KEEPALIVE)
    there_is_a_session(speaker)


@CORRECTED
def test_a_first_connection_on_which_nothing_more_comes_gives_way_to_the_second(speaker: Speaker, peer: Peer) -> None:
    peer.first.send(open_message(LOWER))
    second = peer.second()
    second.send(open_message(LOWER))
    assert second.next()[18] == OPEN_TYPE
    second.send(KEEPALIVE)
    there_is_a_session(speaker)


def establish(speaker: Speaker, peer: Peer) -> None:
    peer.first.send(open_message(HIGHER))
    peer.first.send(KEEPALIVE)
    there_is_a_session(speaker)
    assert peer.first.next()[18] == KEEPALIVE_TYPE


@CORRECTED
def test_a_connection_beside_a_session_is_refused(speaker: Speaker, peer: Peer) -> None:
    establish(speaker, peer)
    second = peer.second()
    second.send(open_message(HIGHER))
    assert second.refusal() == COLLISION
    peer.first.send(KEEPALIVE)
    assert peer.first.next()[18] == KEEPALIVE_TYPE, "the session goes on"


@CORRECTED
def test_a_peer_that_opens_one_connection_after_the_other_is_answered(speaker: Speaker, peer: Peer) -> None:
    establish(speaker, peer)
    seconds = []
    for _ in range(7):
        seconds.append(peer.second())
        seconds[-1].send(open_message(HIGHER))
        time.sleep(A_FEW_TURNS_S)
    assert COLLISION in {each.next()[19:21] for each in seconds[:-1]}


@BOTH
def test_a_peer_that_was_switched_off_is_taken_when_it_is_back(speaker: Speaker, peer: Peer, left_out: str) -> None:
    establish(speaker, peer)
    assert peer.first.next()[18] == KEEPALIVE_TYPE, "the next one, which would be answered by a reset, is seconds away"
    drop = "table ip off { chain out { type filter hook output priority 0; tcp sport 179 drop; }; }"
    peer.tor.run(["nft", "-f", "-"], stdin=drop)
    peer.first.reset()
    peer.tor.run(["nft", "delete", "table", "ip", "off"])
    second = peer.second()
    second.send(open_message(HIGHER))
    assert second.next()[18:19] == bytes([OPEN_TYPE])


@CORRECTED
def test_a_peer_that_cannot_be_reached_is_told_our_open_before_its_own(
    speaker: Speaker, netns: Callable[[str], NetNs], left_out: str
) -> None:
    tor = netns("tor")
    segment(speaker.netns, tor, "up0", "10.1.0.1/24", "10.1.0.254/24")
    drop = "table ip off { chain in { type filter hook input priority 0; tcp dport 179 drop; }; }"
    tor.run(["nft", "-f", "-"], stdin=drop)
    speaker.start(left_out)
    speaker.say("weft sync")
    wait_until("it tries to connect", lambda: speaker.heard(type="weft-session"))
    with ExitStack() as stack, tor.enter():
        made = socket.create_connection(("10.1.0.1", 179), timeout=20, source_address=("10.1.0.254", 0))
        assert Connection(stack.enter_context(made)).next()[18] == OPEN_TYPE


@pytest.mark.parametrize("left_out", ["", pytest.param("B21", marks=UNCORRECTED)], ids=["corrected", "uncorrected"])
def test_an_open_left_over_from_attempts_that_failed_ends_no_session(
    speaker: Speaker, peer: Peer, left_out: str
) -> None:
    peer.first.send(3 * open_message(HIGHER))
    assert peer.first.next()[18] == KEEPALIVE_TYPE
    peer.first.send(KEEPALIVE)
    there_is_a_session(speaker, left_out)


@CORRECTED
def test_a_peer_that_says_nothing_but_its_open_stops_nobody_and_is_given_up(speaker: Speaker, peer: Peer) -> None:
    peer.first.send(open_message(HIGHER))
    assert peer.first.next()[18] == KEEPALIVE_TYPE
    ended = threading.Event()

    def repeat() -> None:
        while not ended.is_set():
            peer.first.send(1000 * open_message(HIGHER))

    with ThreadPoolExecutor(1) as pool:
        repeating = pool.submit(repeat)
        try:
            speaker.say("weft sync")
            wait_until("the speaker answers", lambda: speaker.heard(type="weft-synced"), 5)
            while (told := peer.first.next()) and told[18] == KEEPALIVE_TYPE:
                pass
            assert told[18:20] == b"\x03\x04", "the hold timer has expired (RFC 4271 6.5)"
        finally:
            ended.set()
        repeating.result()


@CORRECTED
def test_an_open_that_says_something_else_than_the_first_is_an_error(peer: Peer) -> None:
    peer.first.send(open_message(HIGHER) + open_message(LOWER))
    assert peer.first.next()[18] == KEEPALIVE_TYPE
    assert peer.first.refusal() == b"\x05\x02", "finite state machine error: unexpected in OpenConfirm (RFC 6608)"
