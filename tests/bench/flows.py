"""Sequenced UDP at 5,000 packets a second to one address at one or several places: what a fault costs, in packets.

Packets are numbered by when they were due, so the longest run of numbers that arrived nowhere is the time without a
path, whatever the machine's scheduler does to the two ends meanwhile. An address that several places have (anycast)
counts as reached wherever a packet arrives."""

from __future__ import annotations

import json
import selectors
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from lab.netns import NetNs

PER_SECOND = 5000
LONGEST_S = 60.0
DRAIN_S = 0.4
BUFFER = 16 << 20
SO_RCVBUFFORCE = 33  # <asm-generic/socket.h>
STAYS_IN_RUN = 25
"""Up to so many packets (5 ms) that arrive between losses do not end an outage: a path that flutters is not
repaired."""


@dataclass(frozen=True, slots=True)
class Losses:
    sent: int
    lost: int
    longest_run: int

    @property
    def outage_ms(self) -> float:
        return self.longest_run * 1000 / PER_SECOND


def losses(sent: int, arrived: Iterable[Sequence[tuple[int, int]]]) -> Losses:
    """`arrived`: for each place the ranges [from, to) of numbers that arrived there."""
    lost, longest, run_began, run_end = 0, 0, -1, -1
    position = 0
    for begin, end in [*sorted(one for place in arrived for one in place), (sent, sent)]:
        if begin > position:
            lost += begin - position
            if run_began < 0 or position - run_end > STAYS_IN_RUN:
                run_began = position
            run_end = begin
            longest = max(longest, run_end - run_began)
        position = max(position, end)
    return Losses(sent, lost, longest)


class Flow:
    """`with Flow(source, targets, address, sender): ...fault...`, then `.losses`."""

    def __init__(self, source: NetNs, targets: Sequence[NetNs], address: str, sender: str, port: int = 7000) -> None:
        self._source, self._targets = source, targets
        self._arguments = [address, sender, str(port)]
        self._receivers: list[subprocess.Popen[str]] = []
        self._sender: subprocess.Popen[str] | None = None
        self.losses = Losses(0, 0, 0)

    def __enter__(self) -> Self:
        try:
            self._receivers = [self._start(target, "receive") for target in self._targets]
            self._sender = self._start(self._source, "send")
        except BaseException:
            self._kill()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                assert self._sender is not None
                sent = _ended(self._sender)
                time.sleep(DRAIN_S)
                arrived = [[(begin, end) for begin, end in _ended(one)] for one in self._receivers]
                self.losses = losses(sent, arrived)
        finally:
            self._kill()

    def _start(self, netns: NetNs, role: str) -> subprocess.Popen[str]:
        process: subprocess.Popen[str] = netns.popen(
            [sys.executable, "-m", "tests.bench.flows", role, *self._arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        if process.stdout.readline().strip() != "ready":
            process.kill()
            process.communicate()
            raise RuntimeError(f"{process.args!r} did not start")
        return process

    def _kill(self) -> None:
        for process in [*self._receivers, *([self._sender] if self._sender else [])]:
            if process.poll() is None:
                process.kill()
            process.communicate()


def _ended(process: subprocess.Popen[str]) -> object:
    out, _ = process.communicate(timeout=20)
    return json.loads(out)


def _send(address: str, sender: str, port: int, stop: selectors.BaseSelector) -> int:
    made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    made.bind((sender, 0))
    made.setblocking(False)
    target, padding, number = (address, port), bytes(56), 0
    began = time.monotonic()
    while not stop.select(0.001):
        elapsed = time.monotonic() - began
        if elapsed > LONGEST_S:
            break
        while number < elapsed * PER_SECOND:
            try:
                made.sendto(struct.pack("!Q", number) + padding, target)
            except OSError:
                pass  # no route, no neighbour, a queue that is full: losses like any other
            number += 1
    return number


def _receive(address: str, sender: str, port: int, stop: selectors.BaseSelector) -> list[tuple[int, int]]:
    made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    made.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, BUFFER)
    made.bind((address, port))
    made.setblocking(False)
    stop.register(made, selectors.EVENT_READ)
    seen = bytearray(int((LONGEST_S + 5) * PER_SECOND))
    deadline = time.monotonic() + 2 * LONGEST_S
    print("ready", flush=True)
    while time.monotonic() < deadline:
        ready = [key.fileobj for key, _ in stop.select(1.0)]
        if made in ready:
            _drain(made, seen)
        elif ready:
            break
    return _ranges(seen)


def _drain(made: socket.socket, seen: bytearray) -> None:
    try:
        while True:
            seen[struct.unpack_from("!Q", made.recv(2048))[0]] = 1
    except BlockingIOError:
        return


def _ranges(seen: bytearray) -> list[tuple[int, int]]:
    found, position = [], seen.find(1)
    while position >= 0:
        end = seen.find(0, position)
        found.append((position, end))
        position = seen.find(1, end)
    return found


def main(argv: Sequence[str]) -> int:
    role, address, sender, port = argv
    stop = selectors.DefaultSelector()
    stop.register(sys.stdin, selectors.EVENT_READ)
    if role == "send":
        print("ready", flush=True)
        print(json.dumps(_send(address, sender, int(port), stop)), flush=True)
    else:
        print(json.dumps(_receive(address, sender, int(port), stop)), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
