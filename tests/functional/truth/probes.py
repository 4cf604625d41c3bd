"""Hundreds of first packets at once, and which of them got through.

All sockets are the test's own, each made inside its namespace. A TCP probe has got through when it is connected, UDP
and an echo request when the answer is back, SCTP (which this kernel need not have) when its INIT has arrived."""

from __future__ import annotations

import errno
import resource
import select
import socket
import struct
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from itertools import chain
from typing import NamedTuple

from lab.netns import NetNs

TCP, UDP, ICMP, ICMPV6, SCTP = 6, 17, 1, 58, 132
TCP_PORTS = (80, 443, 8080)
UDP_PORTS = (53, 80)
SCTP_PORTS = (9000,)
ALLOWED_WITHIN_S = 10.0
SETTLING_S = 0.15
"""What no policy stops has long arrived by then."""

_ECHO = {4: (8, 0), 6: (128, 129)}


class Probe(NamedTuple):
    source: str
    destination: str
    protocol: int
    port: int = 0

    @property
    def version(self) -> int:
        return 6 if ":" in self.destination else 4


class Prober:
    """`where`: address -> the namespace that has it. Servers listen on every address until `close`."""

    def __init__(self, where: Mapping[str, NetNs]) -> None:
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 65536), hard))
        self._where: dict[str, NetNs] = {}
        self._listeners: dict[str, list[socket.socket]] = {}
        self._echoes: dict[str, list[socket.socket]] = {}
        self._raw: dict[str, socket.socket] = {}
        for address, netns in where.items():
            self._serve(address, netns)

    def close(self) -> None:
        for address in list(self._where):
            self._leave(address)

    @contextmanager
    def also(self, address: str, netns: NetNs) -> Iterator[None]:
        """One place more for a while."""
        self._serve(address, netns)
        try:
            yield
        finally:
            self._leave(address)

    def passing(self, probes: Iterable[Probe], expected: set[Probe]) -> set[Probe]:
        """Those that get through. Waits long for those that are expected to, and briefly for the others."""
        run = _Run(self._where, self._raw)
        try:
            for probe in probes:
                run.send(probe)
            end_s = time.monotonic() + ALLOWED_WITHIN_S
            while expected - run.through and time.monotonic() < end_s:
                self._turn(run)
            end_s = time.monotonic() + SETTLING_S
            while time.monotonic() < end_s:
                self._turn(run)
            return run.through
        finally:
            run.close()

    # --- workings -----------------------------------------------------------------------------------------------

    def _serve(self, address: str, netns: NetNs) -> None:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        netns.sysctl(ipv4__ping_group_range="0 2147483647")
        self._where[address] = netns
        with netns.enter():
            self._listeners[address] = [
                socket.create_server((address, port), family=family, backlog=1024) for port in TCP_PORTS
            ]
            self._echoes[address] = [socket.socket(family, socket.SOCK_DGRAM) for _ in UDP_PORTS]
            self._raw[address] = socket.socket(family, socket.SOCK_RAW, SCTP)
        for port, echo in zip(UDP_PORTS, self._echoes[address], strict=True):
            echo.bind((address, port))
        self._raw[address].bind((address, 0))
        for one in (*self._listeners[address], *self._echoes[address], self._raw[address]):
            one.setblocking(False)

    def _leave(self, address: str) -> None:
        del self._where[address]
        for one in (*self._listeners.pop(address), *self._echoes.pop(address), self._raw.pop(address)):
            one.close()

    def _turn(self, run: _Run) -> None:
        self.serve()
        run.collect(0.01)

    def serve(self) -> None:
        """Servers take whoever has connected, and answer."""
        for listener in chain.from_iterable(self._listeners.values()):
            with suppress(BlockingIOError):
                while True:
                    listener.accept()[0].close()
        for echo in chain.from_iterable(self._echoes.values()):
            with suppress(BlockingIOError):
                while True:
                    said, peer = echo.recvfrom(100)
                    with suppress(PermissionError):
                        echo.sendto(said, peer)


class Held:
    """UDP flows that stay, each with its own port; their packets are numbered."""

    def __init__(self, prober: Prober, where: Mapping[str, NetNs], probes: Iterable[Probe]) -> None:
        self._prober = prober
        self._sockets: dict[Probe, socket.socket] = {}
        self._said = 0
        for probe in probes:
            with where[probe.source].enter():
                made = socket.socket(socket.AF_INET6 if probe.version == 6 else socket.AF_INET, socket.SOCK_DGRAM)
            self._sockets[probe] = made
            made.bind((probe.source, 0))
            made.connect((probe.destination, probe.port))
            made.setblocking(False)

    def close(self) -> None:
        for one in self._sockets.values():
            one.close()

    def answered(self, expected: set[Probe], within_s: float = ALLOWED_WITHIN_S) -> set[Probe]:
        """Those over which an answer comes to what is said now: waits long for those expected, briefly for others."""
        self._said += 1
        said = str(self._said).encode()
        for one in self._sockets.values():
            one.send(said)
        found: set[Probe] = set()
        end_s, settled_s = time.monotonic() + within_s, time.monotonic() + SETTLING_S
        while time.monotonic() < settled_s or (expected - found and time.monotonic() < end_s):
            self._prober.serve()
            for probe, one in self._sockets.items():
                if any(heard == said for heard, _ in _received(one)):
                    found.add(probe)
        return found


class _Run:
    """The client side of one batch."""

    def __init__(self, where: Mapping[str, NetNs], raw: Mapping[str, socket.socket]) -> None:
        self.through: set[Probe] = set()
        self._where, self._raw = where, raw
        self._connecting: dict[int, tuple[socket.socket, Probe]] = {}
        self._udp: dict[str, socket.socket] = {}
        self._pings: dict[str, socket.socket] = {}
        self._sent: list[Probe] = []
        self._poll = select.poll()

    def close(self) -> None:
        linger = struct.pack("ii", 1, 0)
        for one, _ in self._connecting.values():
            one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            one.close()
        for other in (*self._udp.values(), *self._pings.values()):
            other.close()

    def send(self, probe: Probe) -> None:
        self._sent.append(probe)
        with suppress(PermissionError):  # what the sender's own host drops
            match probe.protocol:
                case 6:
                    self._connect(probe)
                case 17:
                    said = str(len(self._sent) - 1).encode()
                    self._socket(self._udp, probe, socket.SOCK_DGRAM, 0).sendto(said, (probe.destination, probe.port))
                case 132:
                    raw = self._raw[probe.source]
                    raw.sendto(_sctp_init(len(self._sent) + 1024, probe.port), (probe.destination, 0))
                case _:
                    kind = ICMP if probe.version == 4 else ICMPV6
                    said = struct.pack("!BBHHH", _ECHO[probe.version][0], 0, 0, 0, len(self._sent) - 1)
                    self._socket(self._pings, probe, socket.SOCK_DGRAM, kind).sendto(said, (probe.destination, 0))

    def collect(self, within_s: float) -> None:
        """Note what has got through by now."""
        for fd, events in self._poll.poll(within_s * 1000):
            made, probe = self._connecting[fd]
            if events & select.POLLOUT and made.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0:
                self.through.add(probe)
            self._poll.unregister(fd)
        for one in self._udp.values():
            self.through.update(self._sent[int(said)] for said, _ in _received(one))
        for address, one in self._pings.items():
            answer = _ECHO[6 if ":" in address else 4][1]
            for said, _ in _received(one):
                if said[0] == answer:
                    self.through.add(self._sent[struct.unpack("!H", said[6:8])[0]])
        for address, one in self._raw.items():
            for said, _ in _received(one):
                packet = said if ":" in address else said[(said[0] & 15) * 4 :]
                number = struct.unpack("!H", packet[:2])[0] - 1025
                if 0 <= number < len(self._sent) and self._sent[number].destination == address:
                    self.through.add(self._sent[number])

    def _connect(self, probe: Probe) -> None:
        with self._where[probe.source].enter():
            made = socket.socket(socket.AF_INET6 if probe.version == 6 else socket.AF_INET, socket.SOCK_STREAM)
        self._connecting[made.fileno()] = made, probe
        made.setblocking(False)
        made.bind((probe.source, 0))
        failure = made.connect_ex((probe.destination, probe.port))
        if failure not in (0, errno.EINPROGRESS):
            raise OSError(failure, f"{probe}")
        self._poll.register(made, select.POLLOUT)

    def _socket(self, known: dict[str, socket.socket], probe: Probe, kind: int, protocol: int) -> socket.socket:
        if probe.source not in known:
            with self._where[probe.source].enter():
                made = socket.socket(socket.AF_INET6 if probe.version == 6 else socket.AF_INET, kind, protocol)
            made.bind((probe.source, 0))
            made.setblocking(False)
            known[probe.source] = made
        return known[probe.source]


def _received(one: socket.socket) -> list[tuple[bytes, object]]:
    found = []
    with suppress(BlockingIOError):
        while True:
            found.append(one.recvfrom(2048))
    return found


def _sctp_init(source_port: int, port: int) -> bytes:
    """RFC 9260 3.3.2; connection tracking looks at the checksum."""
    chunk = struct.pack("!BBHIIHHI", 1, 0, 20, 1, 65536, 1, 1, 1)
    header = struct.pack("!HHI", source_port, port, 0)
    return header + struct.pack("<I", _crc32c(header + bytes(4) + chunk)) + chunk


def _crc32c(data: bytes) -> int:
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF
