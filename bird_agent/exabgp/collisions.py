"""Two connections with one peer (RFC 4271 6.8).

ExaBGP 5.0.15 holds one connection a peer, and one that comes in replaces it: whatever it is until the peer's OPEN has
been read, and then where the peer's identifier is the higher one. But where our KEEPALIVE is out the peer may have
established the first: to it the session is lost once more, and if that was for a restart, what it had kept of us goes
(RFC 4724 4.2). Or it has given up the second already, or is one that keeps the first of two (OpenBGPD): both ends then
close each other's for minutes. Here a second connection waits, and nothing is said on it, so that the peer chooses by
what it hears on the first. Where both wait for an OPEN, as two of us would, the identifiers decide. What is refused is
told so, by a NOTIFICATION that ExaBGP prepares and forgets.

Beside a session, a second connection may come from a peer that was switched off and is back, and whose end of the
session nobody has told us of: the kernel asks whether it still knows the first (tcp(7), TCP_KEEPIDLE). Otherwise that
would show at our next KEEPALIVE, up to a third of the hold time later, and the peer be refused until then.
"""

from __future__ import annotations

import contextlib
import select
import socket
import time
from collections.abc import Callable
from typing import Any

from exabgp.bgp.fsm import FSM
from exabgp.bgp.message import Message
from exabgp.reactor.network.error import NetworkError
from exabgp.reactor.peer import Peer

OPEN_BYTES = 29  # without optional parameters (RFC 4271 4.2)
_TYPE_AT, _IDENTIFIER = 18, slice(24, 28)
_CEASE, _COLLISION = 6, 7
_PATIENCE_S = 10.0  # for the first to become a session; a peer that lives has decided long before
_ATTEMPT_S = 2.0  # for ours to get there, a lost SYN included, with a peer that says nothing before it hears our OPEN
_ANSWER_S = 2.0  # for a peer to say that it knows nothing of the session
_IDLE_S = 1
_WRITES = 10  # of 21 bytes into a new connection: the first is enough

_original_handle_connection: Callable[[Any, Any], Any] = Peer.handle_connection


def handle_connection(self: Any, connection: Any) -> None:
    """`Peer.handle_connection`: beside another connection, or an attempt to make one, it waits."""
    if self.stopping() or not (self.proto or self.generator):
        _take(self, connection)
        return
    since = self.weft_second_since if waits(self) else time.monotonic()  # one that opens them all the time waits once
    _drop(self)  # whoever opens another has given up that one
    self.weft_second, self.weft_second_since = connection, since
    self.weft_asked = self.established()
    if self.weft_asked:
        _ask(self, True)


def waits(peer: Any) -> bool:
    """Whether the peer has a second connection."""
    return getattr(peer, "weft_second", None) is not None


def settle(peer: Any) -> None:
    """Decide between a peer's two connections as soon as that is possible."""
    second = peer.weft_second
    if _closed(second.io):
        _drop(peer)
        return
    if peer.established() and peer.weft_asked and _waited_s(peer) < _ANSWER_S:
        return
    said = _heard(second.io)
    if not (peer.established() or _decidable(peer, said)):
        return
    _forget(peer)
    if said[_TYPE_AT : _TYPE_AT + 1] not in (b"", bytes([Message.CODE.OPEN])):
        second.close()
    elif peer.established() or (_rivals(peer) and not _late(peer) and _own_is_kept(peer, said[_IDENTIFIER])):
        _refuse(second)
    else:
        if peer.proto:
            peer._close("another connection of the peer's is kept")
        _take(peer, second)


def _decidable(peer: Any, said: bytes) -> bool:
    if not (peer.proto or peer.generator):
        return True  # the first one has failed
    if not peer.proto and _waited_s(peer) > _ATTEMPT_S:
        return True
    return len(said) >= OPEN_BYTES and (peer.fsm != FSM.OPENCONFIRM or _late(peer))


def _late(peer: Any) -> bool:
    return _waited_s(peer) > _PATIENCE_S


def _waited_s(peer: Any) -> float:
    return time.monotonic() - float(peer.weft_second_since)


def _rivals(peer: Any) -> bool:
    """Whether the first connection is one that we opened; of two that the peer opened it keeps the second."""
    return peer.proto is not None and peer.proto.connection.direction == "outgoing"


def _own_is_kept(peer: Any, identifier: bytes) -> bool:
    neighbor = peer.neighbor
    own = neighbor["router-id"].pack()
    # RFC 6286 2.3: of equal identifiers, which only different ASes can have, the AS numbers decide.
    return bool((own, int(neighbor["local-as"])) > (identifier, int(neighbor["peer-as"])))


def _take(peer: Any, connection: Any) -> None:
    refusal = _original_handle_connection(peer, connection)
    if refusal is not None:
        _write(refusal)
        connection.close()


def _refuse(connection: Any) -> None:
    _write(connection.notification(_CEASE, _COLLISION, "another connection is kept"))
    connection.close()


def _write(refusal: Any) -> None:
    with contextlib.suppress(NetworkError):  # a peer that is gone need not be told
        for _, _ in zip(range(_WRITES), refusal, strict=False):
            pass


def _drop(peer: Any) -> None:
    if waits(peer):
        peer.weft_second.close()
        _forget(peer)


def _forget(peer: Any) -> None:
    peer.weft_second = None
    if peer.weft_asked and peer.established():
        _ask(peer, False)


def _ask(peer: Any, begin: bool) -> None:
    """Of an established peer's connection: whether the other end still knows it, as long as nothing comes."""
    opened = peer.proto.connection.io
    if opened is not None:  # it has just failed, which the peer finds in its turn
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, begin)
        opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _IDLE_S)


def _closed(opened: socket.socket) -> bool:
    asked = select.poll()
    asked.register(opened, select.POLLRDHUP)  # POLLHUP and POLLERR are told in any case: poll(2)
    return bool(asked.poll(0))


def _heard(opened: socket.socket) -> bytes:
    try:
        return opened.recv(OPEN_BYTES, socket.MSG_PEEK)
    except OSError:
        return b""
