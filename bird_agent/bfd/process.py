"""weft-bfd: the process that sends and receives BFD packets, so that a busy agent never misses one.

One loop, standard library alone. It takes what should be from the agent on a unix socket, and tells it what changes.
Without an agent it goes on for as long as peers would keep our routes, then closes its sessions by will, so that no
peer takes the end of this process for the end of a path. It decides nothing about routing."""

from __future__ import annotations

import argparse
import logging
import os
import random
import selectors
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from ipaddress import ip_address
from pathlib import Path
from typing import Final

from bird_agent.bfd.engine import FULL_TTL, Engine, Transmission
from bird_agent.bfd.wire import MULTIHOP_PORT, Report, Trouble, Wanted, decode_wanted, encode_report
from weft import singleton
from weft.model.address import IPAddress

log = logging.getLogger("weft-bfd")

LONELY_S: Final = 120.0
LONGEST_WAIT_S: Final = 1.0
REBIND_S: Final = 5.0
FIRST_SOURCE_PORT: Final = 49152  # RFC 5881 4
_IP_RECVTTL: Final = 12  # linux/in.h; not in Python's socket module
_NETWORK_CONTROL: Final = 0xC0
_Port = tuple[int, int]
"""Address family and port."""
_Path = tuple[IPAddress, IPAddress, bool]
"""What a session's packets have in common, whatever its settings: one source port for its whole life (RFC 5881 4)."""


class Sockets:
    """The sockets that packets go through: one for each port to receive, one for each session to send."""

    def __init__(self) -> None:
        self._receiving: dict[_Port, socket.socket] = {}
        self._sending: dict[_Path, socket.socket] = {}

    def follow(
        self,
        wanted: Iterable[Wanted],
        on_open: Callable[[socket.socket, _Port], None],
        on_close: Callable[[socket.socket], object],
    ) -> str:
        """Open and close what these sessions need; what could not be opened, in words."""
        sessions = {_path(one): one for one in wanted}
        ports = {(_family(one), one.port) for one in sessions.values()}
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
                troubles.append(f"BFD port {port[1]} cannot be used: {error.strerror}")
            else:
                on_open(self._receiving[port], port)
        for path in sessions.keys() - self._sending.keys():
            one = sessions[path]
            try:
                self._sending[path] = _sender(one)
            except OSError as error:
                troubles.append(f"no BFD to {one.peer} from {one.local}: {error.strerror}")
        return "; ".join(sorted(troubles))

    def send(self, transmission: Transmission) -> None:
        sender = self._sending.get(_path(transmission.session))
        if sender is None:
            return
        try:
            sender.send(transmission.payload)
        except OSError as error:  # no way there, or nobody at the port: what BFD is there to find out
            log.debug("to %s: %s", transmission.session.peer, error)


class BfdProcess:
    """The loop."""

    def __init__(self, path: Path) -> None:
        self._engine = Engine(random.random, random.getrandbits(32))
        self._sockets = Sockets()
        self._selector = selectors.DefaultSelector()
        self._agents: dict[socket.socket, bytes] = {}
        self._trouble = ""
        self._rebind_at = 0.0
        self._alone_since = time.monotonic()
        self._stopping = False
        path.unlink(missing_ok=True)
        self._server = socket.socket(socket.AF_UNIX)
        self._server.bind(str(path))
        path.chmod(0o600)
        self._server.listen()
        self._server.setblocking(False)
        self._selector.register(self._server, selectors.EVENT_READ, self._on_agent)

    def stop(self, *_: object) -> None:
        self._stopping = True

    def run(self) -> None:
        """Until told to stop, or alone for too long."""
        while not self._stopping:
            now = time.monotonic()
            wait = min(LONGEST_WAIT_S, max(0.0, self._engine.due - now))
            for key, _ in self._selector.select(wait):
                key.data()
            self._say(*self._engine.on_time(time.monotonic()))
            if self._trouble and now >= self._rebind_at:
                self._follow_sockets()
            if not self._agents and now - self._alone_since > LONELY_S:
                log.info("no agent for %.0f s: closing all sessions", LONELY_S)
                break
        for last_word in self._engine.close():
            self._sockets.send(last_word)

    def _on_agent(self) -> None:
        agent, _ = self._server.accept()
        agent.setblocking(False)
        self._agents[agent] = b""
        self._selector.register(agent, selectors.EVENT_READ, lambda: self._on_words(agent))
        self._tell([agent], self._engine.reports())
        self._tell([agent], [Trouble(self._trouble)])

    def _on_words(self, agent: socket.socket) -> None:
        try:
            data = agent.recv(1 << 16)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._forget(agent)
            return
        *lines, self._agents[agent] = (self._agents[agent] + data).split(b"\n")
        for line in lines[-1:]:  # each says everything: only the last counts
            try:
                wanted = decode_wanted(line)
            except (ValueError, KeyError, TypeError) as error:
                log.error("an agent said something unexpected: %s", error)
                continue
            for last_word in self._engine.set_wanted(wanted, time.monotonic()):
                self._sockets.send(last_word)
            self._follow_sockets()

    def _follow_sockets(self) -> None:
        def on_open(receiver: socket.socket, port: _Port) -> None:
            self._selector.register(receiver, selectors.EVENT_READ, lambda: self._on_datagrams(receiver, port))

        trouble = self._sockets.follow(self._engine.wanted, on_open, self._selector.unregister)
        self._rebind_at = time.monotonic() + REBIND_S
        if trouble != self._trouble:
            self._trouble = trouble
            self._tell(self._agents, [Trouble(trouble)])

    def _on_datagrams(self, receiver: socket.socket, port: _Port) -> None:
        while True:
            try:
                data, ancillary, _, address = receiver.recvmsg(2048, socket.CMSG_SPACE(8))
            except BlockingIOError:
                return
            ttl = next((int.from_bytes(value[:4], sys.byteorder) for _, _, value in ancillary), None)
            source = ip_address(str(address[0]).partition("%")[0])
            multihop = port[1] == MULTIHOP_PORT
            self._say(*self._engine.on_datagram(data, source, ttl, multihop, time.monotonic()))

    def _say(self, transmissions: Iterable[Transmission], reports: Sequence[Report]) -> None:
        for transmission in transmissions:
            self._sockets.send(transmission)
        if reports:
            self._tell(self._agents, reports)

    def _tell(self, agents: Iterable[socket.socket], reports: Iterable[Report | Trouble]) -> None:
        words = b"".join(map(encode_report, reports))
        for agent in list(agents):
            try:
                agent.sendall(words)
            except OSError:  # it does not read, or is gone: it will ask again
                self._forget(agent)

    def _forget(self, agent: socket.socket) -> None:
        if self._agents.pop(agent, None) is None:
            return
        self._selector.unregister(agent)
        agent.close()
        self._alone_since = time.monotonic()


def _path(session: Wanted) -> _Path:
    return session.peer, session.local, session.multihop


def _family(session: Wanted) -> int:
    return socket.AF_INET if session.peer.version == 4 else socket.AF_INET6


def _receiver(port: _Port) -> socket.socket:
    family, number = port
    made = socket.socket(family, socket.SOCK_DGRAM)
    try:
        if family == socket.AF_INET:
            made.setsockopt(socket.IPPROTO_IP, _IP_RECVTTL, 1)
        else:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVHOPLIMIT, 1)
        made.setblocking(False)
        made.bind(("", number))
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


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="weft-bfd", description="Send and receive BFD packets for the BGP agent.")
    parser.add_argument("socket", type=Path, help="where the agent finds us")
    options = parser.parse_args(argv)
    logging.basicConfig(level=os.environ.get("WEFT_LOG_LEVEL", "INFO").upper(), stream=sys.stderr)
    try:
        singleton.hold(singleton.lock_path(options.socket.parent, "bfd"))
    except singleton.AlreadyRunningError as error:
        print(error, file=sys.stderr)
        return singleton.EXIT_ALREADY_RUNNING
    process = BfdProcess(options.socket)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, process.stop)
    process.run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
