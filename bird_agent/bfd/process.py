"""weft-bfd: the process that sends and receives BFD packets, so that a busy agent never misses one.

One loop, standard library alone. It takes what should be from the agent on a unix socket, and tells it what changes.
Without an agent it goes on for as long as peers would keep our routes, then closes its sessions by will, so that no
peer takes the end of this process for the end of a path. Killed, it is followed by its standby; on SIGHUP by the
program as it is on disk: peers notice neither (succession.py). SIGTERM is the end of this process and not of what it
watches: while an agent wants that, the program goes on anew; SIGINT closes everything. It decides nothing about
routing."""

from __future__ import annotations

import argparse
import logging
import mmap
import os
import random
import resource
import selectors
import signal
import socket
import sys
import time
from collections.abc import Iterable, Sequence
from importlib.metadata import version
from ipaddress import ip_address
from pathlib import Path
from typing import Final

from bird_agent.bfd.auth import Cell
from bird_agent.bfd.engine import Engine, Transmission
from bird_agent.bfd.sockets import ReceivingPort, Sockets
from bird_agent.bfd.succession import LOCK_PATIENCE_S, Standby, Successor, hold_lock, succeed
from bird_agent.bfd.urgency import Urgency
from bird_agent.bfd.wire import (
    MULTIHOP_PORT,
    Legacy,
    Program,
    Report,
    Trouble,
    decode_legacy,
    decode_wanted,
    encode_legacy,
    encode_report,
)
from weft import singleton

log = logging.getLogger("weft-bfd")

LONELY_S: Final = 120.0
LONGEST_WAIT_S: Final = 1.0
REBIND_S: Final = 5.0
RENEW_AFTER_S: Final = 0.05
HAND_OVER_S: Final = 10.0
"""After SIGTERM; a program that has not loaded by then is not to be waited for."""
DATAGRAMS_A_TURN: Final = 100
"""Who sends faster than we read does not keep us from sending."""
VERSION: Final = version("weft")


class BfdProcess:
    """The loop. `legacy` is what the process before it has left."""

    def __init__(self, path: Path, legacy: Legacy | None = None) -> None:
        self._path = path
        self._engine = Engine(random.random, random.getrandbits(32), _shared_cell)
        self._sockets = Sockets()
        self._selector = selectors.DefaultSelector()
        self._agents: dict[socket.socket, bytes] = {}
        self._trouble = ""
        self._rebind_at = 0.0
        self._alone_since = time.monotonic()
        self._stopping = False
        self._end_by: float | None = None
        self._urgency = Urgency()
        self._standby = Standby(self._urgency)
        self._renew_at: float | None = None
        self._successor: Successor | None = None
        self._succession_asked = False
        if legacy is None:
            self._server = _server(path)
        else:
            self._server = socket.socket(fileno=legacy.server)
            self._sockets.inherit(legacy)
            self._engine.resume(legacy.sessions, time.monotonic())
        self._listen()

    def _listen(self) -> None:
        self._server.setblocking(False)
        self._selector.register(self._server, selectors.EVENT_READ, self._on_agent)
        for port, receiver in self._sockets.receivers().items():
            self._on_open(receiver, port)

    def stop(self, *_: object) -> None:
        """Close all sessions by will."""
        self._stopping = True

    def terminate(self, *_: object) -> None:
        """Give everything to another process where somebody wants it, else stop. A second time: stop."""
        if not self._agents or self._end_by is not None:
            self._stopping = True
        else:
            self._end_by = time.monotonic() + HAND_OVER_S
            self._succession_asked = True

    def replace(self, *_: object) -> None:
        """Give everything to the program as it is on disk now."""
        self._succession_asked = True

    def run(self) -> None:
        """Until told to stop, replaced, or alone for too long."""
        self._urgency.claim()
        while not self._stopping:
            now = time.monotonic()
            next_at = min(self._engine.due, float("inf") if self._renew_at is None else self._renew_at)
            wait = min(LONGEST_WAIT_S, max(0.0, next_at - now))
            for key, _ in self._selector.select(wait):
                key.data()
            self._say(*self._engine.on_time(time.monotonic()))
            self._provide()
            self._urgency.on_time(now)
            if self._trouble and now >= self._rebind_at:
                self._follow_sockets()
            if self._end_by is not None and now >= self._end_by:
                log.warning("no other program was ready within %.0f s: closing all sessions", HAND_OVER_S)
                break
            if not self._agents and now - self._alone_since > LONELY_S:
                log.info("no agent for %.0f s: closing all sessions", LONELY_S)
                break
        self._standby.dismiss()
        for last_word in self._engine.close():
            self._sockets.send(last_word)

    def _provide(self) -> None:
        """For the end of this process."""
        now = time.monotonic()
        if self._engine.take_changed() and self._renew_at is None:
            self._renew_at = now + RENEW_AFTER_S  # what changes comes in several packets
        if self._renew_at is not None and now >= self._renew_at:
            self._renew_at = None
            if self._standby.renew():
                self._take_over()
        if self._succession_asked and self._successor is None:
            self._succession_asked = False
            self._successor = Successor(self._path, [self._server.fileno(), *self._sockets.descriptors()])
            self._selector.register(self._successor.line, selectors.EVENT_READ, self._on_successor)

    def _take_over(self) -> None:
        """We are a standby, and our original has died."""
        self._selector.close()  # the selection is the original's own
        self._selector = selectors.DefaultSelector()
        for agent in self._agents:
            agent.close()
        self._agents.clear()
        self._standby, self._successor, self._end_by = Standby(self._urgency), None, None
        self._engine.resume(self._engine.standings(), time.monotonic())
        self._say(*self._engine.on_time(time.monotonic()))
        if not hold_lock(singleton.lock_path(self._path.parent, self._path.stem)):
            sys.exit(singleton.EXIT_ALREADY_RUNNING)
        self._alone_since = time.monotonic()
        signal.signal(signal.SIGTERM, self.terminate)
        signal.signal(signal.SIGHUP, self.replace)
        self._listen()
        log.warning("the process has died; its standby goes on with its sessions")

    def _on_successor(self) -> None:
        successor, self._successor = self._successor, None
        assert successor is not None
        self._selector.unregister(successor.line)
        if self._end_by is not None and not self._agents:  # the agent has ended as well
            successor.abandon()
            self._stopping = True
            return
        mine = {self._server.fileno(), *self._sockets.descriptors()}
        if not successor.is_ready() or mine != successor.descriptors:
            log.warning("no other program could take over")
            successor.abandon()
            self._stopping = self._stopping or self._end_by is not None
            return
        self._standby.dismiss()
        legacy = self._sockets.legacy(self._engine.standings(), self._server.fileno())
        successor.give(encode_legacy(legacy))
        os._exit(0)  # at once: the lock is what it waits for, and no last word is to be said

    def _on_agent(self) -> None:
        agent, _ = self._server.accept()
        agent.setblocking(False)
        self._agents[agent] = b""
        self._selector.register(agent, selectors.EVENT_READ, lambda: self._on_words(agent))
        self._tell([agent], [Program(VERSION)])
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
        trouble = self._sockets.follow(self._engine.wanted, self._on_open, self._selector.unregister)
        self._rebind_at = time.monotonic() + REBIND_S
        if trouble != self._trouble:
            self._trouble = trouble
            self._tell(self._agents, [Trouble(trouble)])

    def _on_open(self, receiver: socket.socket, port: ReceivingPort) -> None:
        self._selector.register(receiver, selectors.EVENT_READ, lambda: self._on_datagrams(receiver, port))

    def _on_datagrams(self, receiver: socket.socket, port: ReceivingPort) -> None:
        for _ in range(DATAGRAMS_A_TURN):
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

    def _tell(self, agents: Iterable[socket.socket], reports: Iterable[Report | Trouble | Program]) -> None:
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


def _shared_cell() -> Cell:
    """Memory that a standby sees change: what was sent last before its original died must not be sent again."""
    return memoryview(mmap.mmap(-1, mmap.PAGESIZE)).cast("I")


def _server(path: Path) -> socket.socket:
    path.unlink(missing_ok=True)
    made = socket.socket(socket.AF_UNIX)
    made.bind(str(path))
    path.chmod(0o600)
    made.listen()
    return made


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="weft-bfd", description="Send and receive BFD packets for the BGP agent.")
    parser.add_argument("socket", type=Path, help="where the agent finds us")
    parser.add_argument("--succeed", type=int, metavar="DESCRIPTOR", help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    logging.basicConfig(level=os.environ.get("WEFT_LOG_LEVEL", "INFO").upper(), stream=sys.stderr)
    lock, legacy = singleton.lock_path(options.socket.parent, options.socket.stem), None
    if options.succeed is not None:
        words = succeed(options.succeed)
        if not words:
            return 0
        legacy = decode_legacy(words)
    if not hold_lock(lock, patience_s=0.0 if legacy is None else LOCK_PATIENCE_S):
        print(f"weft-bfd runs already, as process {singleton.holder(lock)}", file=sys.stderr)
        return singleton.EXIT_ALREADY_RUNNING
    process = BfdProcess(options.socket, legacy)
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # each session has a socket
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # a standby that was dismissed is nobody's business
    signal.signal(signal.SIGHUP, process.replace)
    signal.signal(signal.SIGINT, process.stop)
    signal.signal(signal.SIGTERM, process.terminate)
    process.run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
