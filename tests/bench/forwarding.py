"""A host between two workloads in namespaces, and a sender that has it forward packets and loses none.

The sender writes whole frames into a packet socket, many with one sendmmsg(2), pinned to one CPU; receive packet
steering gives everything that follows to another, whose time is what is measured. A frame is sent only while few are
under way, so that no queue overflows and the other CPU always has work. Frames that arrive are dropped where they come
in. (With one CPU alone it does both, and sending is a part of what is measured.)"""

from __future__ import annotations

import ctypes
import os
import socket
import struct
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from ipaddress import IPv4Address

from lab.netns import NetNs, link, run

UNDER_WAY = 512
"""Frames between sender and receiver; the kernel's queue for a CPU holds 1,000 unless somebody changed it."""
BATCH = 128
STALLED_S = 2.0
_DROP_ALL = "table netdev sink { chain all_of_it { type filter hook ingress device eth0 priority 0; policy drop; }; }"
_libc = ctypes.CDLL(None, use_errno=True)


class _IoVec(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


class _Header(ctypes.Structure):
    """struct msghdr."""

    _fields_ = (
        ("name", ctypes.c_void_p),
        ("name_length", ctypes.c_uint32),
        ("vectors", ctypes.POINTER(_IoVec)),
        ("vector_count", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("control_length", ctypes.c_size_t),
        ("flags", ctypes.c_int),
    )


class _Message(ctypes.Structure):
    """struct mmsghdr."""

    _fields_ = (("header", _Header), ("sent", ctypes.c_uint32))


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
            message.header.vectors, message.header.vector_count = ctypes.pointer(vector), 1
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


class _End:
    """A workload's side of its veth, with a packet socket on it; what comes in by it is counted and dropped."""

    def __init__(self, netns: NetNs, host: NetNs, interface: str, address: IPv4Address, stack: ExitStack) -> None:
        self.address = address
        link(host, interface, netns, "eth0")
        host.ip("route", "add", f"{address}/32", "dev", interface)
        host.ip("neighbour", "add", str(address), "lladdr", "02:00:00:00:00:02", "dev", interface)
        self.gateway = bytes.fromhex(host.ip_json("link", "show", interface)[0]["address"].replace(":", ""))
        with netns.enter():
            run(["nft", "-f", "-"], stdin=_DROP_ALL)
            self._counters = os.open("/proc/thread-self/net/dev", os.O_RDONLY)
            stack.callback(os.close, self._counters)
            sender = stack.enter_context(socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0))
            sender.bind(("eth0", 0))
        self.descriptor = sender.fileno()

    def received(self) -> int:
        """Packets that have come in so far."""
        text = os.pread(self._counters, 4096, 0)
        return int(text[text.index(b"eth0:") + 5 :].split(None, 2)[1])


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
            self._steer(interfaces)
            self._stack = stack.pop_all()

    def _steer(self, interfaces: tuple[str, str]) -> None:
        forwarding = max(os.sched_getaffinity(0))
        files = " ".join(f"/sys/class/net/{one}/queues/rx-0/rps_cpus" for one in interfaces)
        command = f"for file in {files}; do echo {1 << forwarding:x} >$file; done"
        run(["ip", "netns", "exec", self.host.name, "sh", "-c", command])

    def close(self) -> None:
        self._stack.close()

    def forget_connections(self) -> None:
        self.host.run(["conntrack", "-F"])

    def frames(self, ports: Sequence[int], target_port: int) -> Frames:
        """One datagram of each flow, from the first workload to the second."""
        return _frames(self._sender, self._receiver, [(port, target_port) for port in ports])

    def establish(self, ports: Sequence[int], target_port: int) -> None:
        """Let each of these flows see a packet in both directions."""
        self.rate(self.frames(ports, target_port), len(ports))
        answers = _frames(self._receiver, self._sender, [(target_port, port) for port in ports])
        _send(answers, answers.count, self._receiver, self._sender)

    def rate(self, frames: Frames, count: int) -> float:
        """Packets a second when `count` are forwarded, the frames sent over and over. TimeoutError if one is lost."""
        return count / _send(frames, count, self._sender, self._receiver)

    def passes(self, port: int, target_port: int) -> bool:
        """Whether one datagram arrives."""
        before = self._receiver.received()
        self.frames([port], target_port).send(self._sender.descriptor, 0, 1)
        time.sleep(0.05)
        return self._receiver.received() > before


def _frames(source: _End, target: _End, ports: Sequence[tuple[int, int]]) -> Frames:
    return Frames([udp_frame(source.address, one, target.address, other, source.gateway) for one, other in ports])


def _send(frames: Frames, count: int, source: _End, target: _End) -> float:
    """Seconds until the last of them has arrived; TimeoutError if one does not."""
    before, sent, arrived = target.received(), 0, 0
    begin = last = time.perf_counter()
    while arrived < count:
        room = min(count - sent, UNDER_WAY - (sent - arrived), BATCH, frames.count - sent % frames.count)
        if room > 0:
            sent += frames.send(source.descriptor, sent % frames.count, room)
        else:
            os.sched_yield()  # whoever forwards may have to share this CPU
        found = target.received() - before
        if found > arrived:
            arrived, last = found, time.perf_counter()
        elif time.perf_counter() - last > STALLED_S:
            raise TimeoutError(f"{arrived} of {sent} packets arrived")
    return time.perf_counter() - begin


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
