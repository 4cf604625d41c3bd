"""A host between two workloads in namespaces, and a sender that has it forward packets and loses none.

The sender writes whole frames into a packet socket, many with one sendmmsg(2), pinned to one CPU, and the kernel
forwards them there and then, on the same CPU. So what a packet costs is the processor time of the sending thread and of
that CPU's ksoftirqd, whatever else the machine does meanwhile; what sending alone costs is measured, too (`Sink`), to
be taken off. A frame is sent only while few are under way, so that no queue overflows. Frames that arrive are dropped
where they come in."""

from __future__ import annotations

import ctypes
import os
import socket
import struct
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import cache
from ipaddress import IPv4Address
from pathlib import Path

from lab.netns import NetNs, link, run

UNDER_WAY = 512
"""Frames between sender and receiver; the kernel's queue for a CPU holds 1,000 unless somebody changed it."""
BATCH = 128
STALLED_S = 2.0
_DROP_ALL = (
    "table netdev sink {{ chain everything {{ type filter hook ingress device {} priority 0; policy drop; }}; }}"
)
_libc = ctypes.CDLL(None, use_errno=True)


class _IoVec(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


class _Message(ctypes.Structure):
    """struct mmsghdr with the struct msghdr inside."""

    _fields_ = (
        ("name", ctypes.c_void_p),
        ("name_length", ctypes.c_uint32),
        ("vectors", ctypes.POINTER(_IoVec)),
        ("vector_count", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("control_length", ctypes.c_size_t),
        ("flags", ctypes.c_int),
        ("sent", ctypes.c_uint32),
    )


class Frames:
    """Ethernet frames in one buffer, ready for sendmmsg."""

    def __init__(self, frames: Sequence[bytes]) -> None:
        self.count = len(frames)
        self._buffer = ctypes.create_string_buffer(b"".join(frames))
        self._vectors = (_IoVec * self.count)()
        self._messages = (_Message * self.count)()
        offset = ctypes.addressof(self._buffer)
        for vector, message, frame in zip(self._vectors, self._messages, frames, strict=True):
            vector.base, vector.length = offset, len(frame)
            message.vectors, message.vector_count = ctypes.pointer(vector), 1
            offset += len(frame)

    def send(self, descriptor: int, first: int, count: int) -> int:
        """How many of the frames from `first` on the kernel took."""
        start = ctypes.byref(self._messages, first * ctypes.sizeof(_Message))
        done = _libc.sendmmsg(descriptor, start, count, 0)
        if done < 0:
            errno = ctypes.get_errno()
            raise OSError(errno, os.strerror(errno))
        return int(done)


def udp_frame(source: IPv4Address, source_port: int, target: IPv4Address, target_port: int, mac: bytes) -> bytes:
    """The smallest datagram, in an Ethernet frame to `mac` (RFC 791, 768; no UDP checksum)."""
    header = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 30, 0, 0, 64, 17, 0, source.packed, target.packed)
    total = sum(struct.unpack("!10H", header))
    total = (total & 0xFFFF) + (total >> 16)
    checksum = ~(total + (total >> 16)) & 0xFFFF
    header = header[:10] + struct.pack("!H", checksum) + header[12:]
    return mac + b"\x02\0\0\0\0\x01\x08\0" + header + struct.pack("!HHHH", source_port, target_port, 10, 0) + bytes(20)


class _Counter:
    """Packets that come in by an interface, which drops them."""

    def __init__(self, netns: NetNs, interface: str, stack: ExitStack) -> None:
        self._mark = f"{interface}:".encode()
        with netns.enter():
            run(["nft", "-f", "-"], stdin=_DROP_ALL.format(interface))
            self._counters = os.open("/proc/thread-self/net/dev", os.O_RDONLY)
        stack.callback(os.close, self._counters)

    def received(self) -> int:
        text = os.pread(self._counters, 4096, 0)
        return int(text[text.index(self._mark) + len(self._mark) :].split(None, 2)[1])


class _End(_Counter):
    """A workload's side of its veth, with a packet socket on it."""

    def __init__(self, netns: NetNs, host: NetNs, interface: str, address: IPv4Address, stack: ExitStack) -> None:
        self.address = address
        link(host, interface, netns, "eth0")
        host.ip("route", "add", f"{address}/32", "dev", interface)
        host.ip("neighbour", "add", str(address), "lladdr", "02:00:00:00:00:02", "dev", interface)
        self.gateway = bytes.fromhex(host.ip_json("link", "show", interface)[0]["address"].replace(":", ""))
        super().__init__(netns, "eth0", stack)
        with netns.enter():
            sender = stack.enter_context(socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0))
            sender.bind(("eth0", 0))
        self.descriptor = sender.fileno()


class Fabric:
    """Rules go into `host`; traffic goes from the first interface's workload to the second's."""

    def __init__(self, name: str, interfaces: tuple[str, str], addresses: tuple[IPv4Address, IPv4Address]) -> None:
        self._stack = ExitStack()
        with ExitStack() as stack:
            spaces = [stack.enter_context(_namespace(f"weft-{os.getpid()}-{name}{part}")) for part in "hsr"]
            self.host = spaces[0]
            self.host.sysctl(ipv4__ip_forward=1)
            self._sender = _End(spaces[1], self.host, interfaces[0], addresses[0], stack)
            self._receiver = _End(spaces[2], self.host, interfaces[1], addresses[1], stack)
            self._stack = stack.pop_all()

    def close(self) -> None:
        self._stack.close()

    def forget_connections(self) -> None:
        self.host.run(["conntrack", "-F"])

    def frames(self, ports: Sequence[int], target_port: int) -> Frames:
        """One datagram of each flow, from the first workload to the second."""
        return _frames(self._sender, self._receiver, [(port, target_port) for port in ports])

    def establish(self, ports: Sequence[int], target_port: int) -> None:
        """Let each of these flows see a packet in both directions."""
        self.cost_s(self.frames(ports, target_port), len(ports))
        answers = _frames(self._receiver, self._sender, [(target_port, port) for port in ports])
        _send(answers, answers.count, self._receiver, self._sender)

    def cost_s(self, frames: Frames, count: int) -> float:
        """Processor seconds for one of `count` packets, the frames sent over and over. TimeoutError if one is lost."""
        return _send(frames, count, self._sender, self._receiver) / count

    def passes(self, port: int, target_port: int) -> bool:
        """Whether one datagram arrives."""
        before = self._receiver.received()
        self.frames([port], target_port).send(self._sender.descriptor, 0, 1)
        time.sleep(0.05)
        return self._receiver.received() > before


class Sink:
    """What sending costs by itself: the same frames to an interface that drops them where they come in."""

    def __init__(self, name: str) -> None:
        self._stack = ExitStack()
        with ExitStack() as stack:
            spaces = [stack.enter_context(_namespace(f"weft-{os.getpid()}-{name}{part}")) for part in "sr"]
            self._end = _End(spaces[0], spaces[1], "sink", IPv4Address("10.0.0.1"), stack)
            self._far = _Counter(spaces[1], "sink", stack)
            self._frames = _frames(self._end, self._end, [(port, 1000) for port in range(1000, 5000)])
            self._stack = stack.pop_all()

    def close(self) -> None:
        self._stack.close()

    def cost_s(self, count: int) -> float:
        """Processor seconds for one packet."""
        return _send(self._frames, count, self._end, self._far) / count


def _frames(source: _End, target: _End, ports: Sequence[tuple[int, int]]) -> Frames:
    return Frames([udp_frame(source.address, one, target.address, other, source.gateway) for one, other in ports])


def _send(frames: Frames, count: int, source: _End, target: _Counter) -> float:
    """Processor seconds until the last of them has arrived; TimeoutError if one does not."""
    before, sent, arrived = target.received(), 0, 0
    last = time.monotonic()
    begin = _processor_s()
    while arrived < count:
        room = min(count - sent, UNDER_WAY - (sent - arrived), BATCH, frames.count - sent % frames.count)
        if room > 0:
            sent += frames.send(source.descriptor, sent % frames.count, room)
        else:
            os.sched_yield()
        found = target.received() - before
        if found > arrived:
            arrived, last = found, time.monotonic()
        elif time.monotonic() - last > STALLED_S:
            raise TimeoutError(f"{arrived} of {sent} packets arrived")
    return _processor_s() - begin


def _processor_s() -> float:
    """What the calling thread and the ksoftirqd of its CPU have used so far."""
    [cpu] = os.sched_getaffinity(0)
    return time.thread_time() + int(_ksoftirqd(cpu).read_text().split()[0]) / 1e9


@cache
def _ksoftirqd(cpu: int) -> Path:
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if (process / "comm").read_text() == f"ksoftirqd/{cpu}\n":
                return process / "schedstat"
        except FileNotFoundError:
            pass  # ended meanwhile
    raise RuntimeError(f"no ksoftirqd/{cpu}: are kernel threads visible here?")


@contextmanager
def _namespace(name: str) -> Iterator[NetNs]:
    made = NetNs(name)
    try:
        made.create()
        made.sysctl(ipv6__conf__default__disable_ipv6=1)  # whose packets nobody asked for
        yield made
    finally:
        made.delete()


@contextmanager
def pinned_sender() -> Iterator[None]:
    """The calling thread on the first CPU it may use."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
