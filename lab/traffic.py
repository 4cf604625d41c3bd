"""Paced traffic between two places of a lab, to see what a fault costs.

Sequenced UDP at 5,000 packets a second, and beside it a TCP stream of 1 MB a second on one connection. Both ends run
as processes of their own inside the namespaces; the sender stops when its standard input closes, or after
`LONGEST_RUN_S`. A figure means something only beside that of a control run without the fault."""

from __future__ import annotations

import json
import selectors
import socket
import struct
import subprocess
import sys
import time
from ipaddress import ip_address
from types import TracebackType
from typing import Self

import msgspec

from lab.netns import NetNs

LONGEST_RUN_S = 120.0
TICK_S = 0.001
UDP_PER_TICK = 5
UDP_PAYLOAD = 64
TCP_CHUNK = b"\0" * 1024
DRAIN_S = 0.5
BUFFER = 16 << 20
SO_RCVBUFFORCE = 33  # <asm-generic/socket.h>


class Report(msgspec.Struct, frozen=True):
    """What arrived. Gaps are the longest times in seconds between two arrivals."""

    udp_sent: int
    udp_received: int
    udp_duplicated: int
    udp_longest_gap_s: float
    tcp_sent: int
    tcp_received: int
    tcp_longest_gap_s: float

    @property
    def udp_lost(self) -> int:
        return self.udp_sent - self.udp_received

    @property
    def tcp_lost(self) -> int:
        return self.tcp_sent - self.tcp_received


class Traffic:
    """`with Traffic(source, target, address) as traffic: ...fault...` then `traffic.report()`."""

    def __init__(self, source: NetNs, target: NetNs, address: str, port: int = 7000) -> None:
        self._source, self._target, self._address, self._port = source, target, address, port
        self._receiver: subprocess.Popen[str] | None = None
        self._sender: subprocess.Popen[str] | None = None
        self._report: Report | None = None

    def __enter__(self) -> Self:
        self._receiver = self._start(self._target, "receive")
        try:
            self._expect_ready(self._receiver)
            self._sender = self._start(self._source, "send")
            self._expect_ready(self._sender)
        except BaseException:
            self._kill()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self._kill()
            return
        try:
            sent = self._finish(self._sender)
            time.sleep(DRAIN_S)
            self._report = msgspec.convert({**sent, **self._finish(self._receiver)}, Report)
        finally:
            self._kill()

    def report(self) -> Report:
        if self._report is None:
            raise RuntimeError("the traffic is still running")
        return self._report

    def _start(self, netns: NetNs, role: str) -> subprocess.Popen[str]:
        process: subprocess.Popen[str] = netns.popen(
            [sys.executable, "-m", "lab.traffic", role, self._address, str(self._port)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        return process

    @staticmethod
    def _expect_ready(process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        if process.stdout.readline().strip() != "ready":
            raise RuntimeError(f"{process.args!r} did not start")

    @staticmethod
    def _finish(process: subprocess.Popen[str] | None) -> dict[str, float]:
        assert process is not None
        out, _ = process.communicate(timeout=20)
        counts: dict[str, float] = json.loads(out)
        return counts

    def _kill(self) -> None:
        for process in (self._sender, self._receiver):
            if process is not None:
                if process.poll() is None:
                    process.kill()
                process.communicate()


def _stopped() -> bool:
    return bool(_STDIN.select(0))


def _send(address: str, port: int) -> dict[str, float]:
    """Paced by the clock: what a late tick missed is sent at the next one."""
    family = socket.AF_INET if ip_address(address).version == 4 else socket.AF_INET6
    udp = socket.socket(family, socket.SOCK_DGRAM)
    udp.connect((address, port))
    tcp = socket.create_connection((address, port), timeout=5)
    tcp.setblocking(False)
    print("ready", flush=True)
    started = time.monotonic()
    padding = b"\0" * (UDP_PAYLOAD - 8)
    ticks = udp_sent = tcp_sent = 0
    while not _stopped() and (elapsed := time.monotonic() - started) < LONGEST_RUN_S:
        while ticks * TICK_S < elapsed:
            for _ in range(UDP_PER_TICK):
                try:
                    udp.send(struct.pack("!Q", udp_sent) + padding)
                except OSError:
                    pass  # it counts as sent: that the route is gone or the peer unreachable is a loss like any other
                udp_sent += 1
            try:
                tcp_sent += tcp.send(TCP_CHUNK)
            except BlockingIOError:
                pass  # the stream is stalled: the receiver's gap shows it
            ticks += 1
        time.sleep(TICK_S)
    tcp.setblocking(True)
    tcp.settimeout(10)
    tcp.shutdown(socket.SHUT_WR)
    tcp.recv(1)  # the receiver closes once it has read everything
    return {"udp_sent": udp_sent, "tcp_sent": tcp_sent}


def _receive(address: str, port: int) -> dict[str, float]:
    family = socket.AF_INET if ip_address(address).version == 4 else socket.AF_INET6
    udp = socket.socket(family, socket.SOCK_DGRAM)
    udp.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, BUFFER)
    udp.bind((address, port))
    udp.setblocking(False)
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((address, port))
    listener.listen(1)
    selector = selectors.DefaultSelector()
    selector.register(udp, selectors.EVENT_READ)
    selector.register(listener, selectors.EVENT_READ)
    print("ready", flush=True)
    seen = bytearray(int(LONGEST_RUN_S / TICK_S * UDP_PER_TICK) + 1024)
    duplicated = tcp_received = 0
    last = {socket.SOCK_DGRAM: 0.0, socket.SOCK_STREAM: 0.0}
    longest = dict(last)
    deadline = time.monotonic() + 2 * LONGEST_RUN_S
    while not _stopped() and time.monotonic() < deadline:
        for key, _ in selector.select(0.05):
            one = key.fileobj
            assert isinstance(one, socket.socket)
            if one is listener:
                accepted, _ = listener.accept()
                selector.register(accepted, selectors.EVENT_READ)
                continue
            now = time.monotonic()
            kind = one.type
            if last[kind]:
                longest[kind] = max(longest[kind], now - last[kind])
            last[kind] = now
            if one is udp:
                duplicated += _read_udp(udp, seen)
                continue
            data = one.recv(1 << 16)
            tcp_received += len(data)
            if not data:
                selector.unregister(one)
                one.close()
    duplicated += _read_udp(udp, seen)
    return {
        "udp_received": seen.count(1),
        "udp_duplicated": duplicated,
        "udp_longest_gap_s": longest[socket.SOCK_DGRAM],
        "tcp_received": tcp_received,
        "tcp_longest_gap_s": longest[socket.SOCK_STREAM],
    }


def _read_udp(udp: socket.socket, seen: bytearray) -> int:
    duplicated = 0
    while True:
        try:
            number = struct.unpack_from("!Q", udp.recv(2048))[0]
        except BlockingIOError:
            return duplicated
        duplicated += seen[number]
        seen[number] = 1


_STDIN = selectors.DefaultSelector()


def main(argv: list[str]) -> int:
    role, address, port = argv
    _STDIN.register(sys.stdin, selectors.EVENT_READ)
    counts = {"send": _send, "receive": _receive}[role](address, int(port))
    print(json.dumps(counts), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
