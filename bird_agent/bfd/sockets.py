"""The UDP sockets of BFD: one for each address of ours and port to receive, one for each session to send; and how
they are handed on. None is on all addresses: another process may have sessions on others (ADR 0164)."""

from __future__ import annotations

import logging
import random
import socket
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

from bird_agent.bfd.engine import FULL_TTL, Transmission
from bird_agent.bfd.session import Standing
from bird_agent.bfd.wire import Legacy, Wanted
from weft.model.address import IPAddress

log = logging.getLogger("weft-bfd")

FIRST_SOURCE_PORT: Final = 49152  # RFC 5881 4
_IP_RECVTTL: Final = 12  # linux/in.h; not in Python's socket module
_NETWORK_CONTROL: Final = 0xC0
ReceivingPort = tuple[IPAddress, int]
"""An address of ours and the port."""
_Path = tuple[IPAddress, IPAddress, bool]
"""What a session's packets have in common, whatever its settings: one source port for its whole life (RFC 5881 4)."""


class Sockets:
    """All of one process."""

    def __init__(self) -> None:
        self._receiving: dict[ReceivingPort, socket.socket] = {}
        self._sending: dict[_Path, socket.socket] = {}

    def follow(
        self,
        wanted: Iterable[Wanted],
        on_open: Callable[[socket.socket, ReceivingPort], None],
        on_close: Callable[[socket.socket], object],
    ) -> str:
        """Open and close what these sessions need; what could not be opened, in words."""
        sessions = {_path(one): one for one in wanted}
        ports = {(one.local, one.port) for one in sessions.values()}
        for path in self._sending.keys() - sessions.keys():
            self._sending.pop(path).close()
        for port in self._receiving.keys() - ports:
            on_close(self._receiving[port])
            self._receiving.pop(port).close()
        troubles = []
        for port in ports - self._receiving.keys():
            try:
                self._receiving[port] = _receiver(port)
            except OSError as error:
                troubles.append(f"BFD port {port[1]} cannot be used on {port[0]}: {error.strerror}")
            else:
                on_open(self._receiving[port], port)
        for path in sessions.keys() - self._sending.keys():
            one = sessions[path]
            try:
                self._sending[path] = _sender(one)
            except OSError as error:
                troubles.append(f"no BFD to {one.peer} from {one.local}: {error.strerror}")
        return "; ".join(sorted(troubles))

    def descriptors(self) -> list[int]:
        return [one.fileno() for one in (*self._receiving.values(), *self._sending.values())]

    def receivers(self) -> Mapping[ReceivingPort, socket.socket]:
        return self._receiving

    def legacy(self, sessions: Sequence[tuple[Wanted, Standing]], server: int) -> Legacy:
        """What a successor needs to go on with them."""
        senders = (self._sending.get(_path(wanted)) for wanted, _ in sessions)
        return Legacy(
            tuple(sessions),
            server,
            {port: one.fileno() for port, one in self._receiving.items()},
            tuple(None if one is None else one.fileno() for one in senders),
        )

    def inherit(self, legacy: Legacy) -> None:
        self._receiving = {port: socket.socket(fileno=number) for port, number in legacy.receiving.items()}
        self._sending = {
            _path(wanted): socket.socket(fileno=number)
            for (wanted, _), number in zip(legacy.sessions, legacy.sending, strict=True)
            if number is not None
        }
        for one in (*self._receiving.values(), *self._sending.values()):
            one.setblocking(False)

    def send(self, transmission: Transmission) -> None:
        sender = self._sending.get(_path(transmission.session))
        if sender is None:
            return
        try:
            sender.send(transmission.payload)
        except OSError as error:  # no way there, or nobody at the port: what BFD is there to find out
            log.debug("to %s: %s", transmission.session.peer, error)


def _path(session: Wanted) -> _Path:
    return session.peer, session.local, session.multihop


def _family(session: Wanted) -> int:
    return socket.AF_INET if session.peer.version == 4 else socket.AF_INET6


def _receiver(port: ReceivingPort) -> socket.socket:
    local, number = port
    made = socket.socket(socket.AF_INET if local.version == 4 else socket.AF_INET6, socket.SOCK_DGRAM)
    try:
        if local.version == 4:
            made.setsockopt(socket.IPPROTO_IP, _IP_RECVTTL, 1)
        else:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVHOPLIMIT, 1)
        made.setblocking(False)
        made.bind((str(local), number))
    except OSError:
        made.close()
        raise
    return made


def _sender(session: Wanted) -> socket.socket:
    made = socket.socket(_family(session), socket.SOCK_DGRAM)
    try:
        if session.peer.version == 4:
            made.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, FULL_TTL)
            made.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, _NETWORK_CONTROL)
        else:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS, FULL_TTL)
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_TCLASS, _NETWORK_CONTROL)
        made.setblocking(False)
        made.bind((str(session.local), _free_source_port(session)))
        made.connect((str(session.peer), session.port))
    except OSError:
        made.close()
        raise
    return made


def _free_source_port(session: Wanted) -> int:
    """Of the range that RFC 5881 4 names, which is not the one the kernel chooses from."""
    for _ in range(50):
        number = random.randrange(FIRST_SOURCE_PORT, 65536)  # noqa: S311
        with socket.socket(_family(session), socket.SOCK_DGRAM) as probe:
            try:
                probe.bind((str(session.local), number))
            except OSError as error:
                last = error
                continue
            return number
    raise last
