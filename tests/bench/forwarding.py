"""A host between two workloads in namespaces, and a sender that keeps its forwarding path busy and loses nothing.

The sender writes whole frames into a packet socket, many with one sendmmsg(2), on a CPU of its own; receive packet
steering gives everything that follows to another CPU. It never has more frames under way than the other CPU's queue
holds, so the rate is that at which the host forwards. Frames that arrive are dropped where they come in."""

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

UNDER_WAY = 768
"""Frames between sender and receiver; the kernel's queue for a CPU holds 1,000 unless somebody changed it."""
BATCH = 256
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


class _End:
    """A workload's side of its veth, with a packet socket on it."""

    def __init__(self, netns: NetNs, host: NetNs, interface: str, address: IPv4Address, stack: ExitStack) -> None:
        self.address = address
        link(host, interface, netns, "eth0")
        host.ip("route", "add", f"{address}/32", "dev", interface)
        host.ip("neighbour", "add", str(address), "lladdr", "02:00:00:00:00:02", "dev", interface)
        self.gateway = bytes.fromhex(host.ip_json("link", "show", interface)[0]["address"].replace(":", ""))
        with netns.enter():
            run(["nft", "-f", "-"], stdin=_DROP_ALL.format("eth0"))
            self._socket = stack.enter_context(socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0))
            self._socket.bind(("eth0", 0))
            self._counters = os.open("/proc/thread-self/net/dev", os.O_RDONLY)
        stack.callback(os.close, self._counters)
        self.descriptor = self._socket.fileno()

    def received(self) -> int:
        """Packets that came in by the veth so far."""
        text = os.pread(self._counters, 4096, 0)
        return int(text[text.index(b"eth0:") + 5 :].split(None, 2)[1])


class Fabric:
    """Rules go into `host`; traffic goes from the first interface's workload to the second's."""

    def __init__(
        self, name: str, interfaces: tuple[str, str], addresses: tuple[IPv4Address, IPv4Address], stack: ExitStack
    ) -> None:
        spaces = [stack.enter_context(_namespace(f"weft-{os.getpid()}-{name}{part}")) for part in "hsr"]
        self.host = spaces[0]
        self.host.sysctl(ipv4__ip_forward=1)
        self._sender = _End(spaces[1], self.host, interfaces[0], addresses[0], stack)
        self._receiver = _End(spaces[2], self.host, interfaces[1], addresses[1], stack)
        self._steer(interfaces)

    def _steer(self, interfaces: tuple[str, str]) -> None:
        forwarding = sorted(os.sched_getaffinity(0))[-1]
        files = " ".join(f"/sys/class/net/{one}/queues/rx-0/rps_cpus" for one in interfaces)
        command = f"for f in {files}; do echo {1 << forwarding:x} > $f; done"
        run(["ip", "netns", "exec", self.host.name, "sh", "-c", command])

    def forget_connections(self) -> None:
        self.host.run(["conntrack", "-F"])

    def frames(self, ports: Sequence[int], target_port: int) -> Frames:
        """One datagram of each flow, from the first workload to the second."""
        ends = self._sender, self._receiver
        return Frames(
            [udp_frame(ends[0].address, port, ends[1].address, target_port, ends[0].gateway) for port in ports]
        )

    def establish(self, ports: Sequence[int], target_port: int) -> None:
        """Let each of these flows see a packet in both directions."""
        self.rate(self.frames(ports, target_port), len(ports))
        ends = self._receiver, self._sender
        answers = [udp_frame(ends[0].address, target_port, ends[1].address, port, ends[0].gateway) for port in ports]
        self._run(Frames(answers), len(answers), *ends)

    def rate(self, frames: Frames, count: int) -> float:
        """Packets per second at which `count` packets are forwarded, the frames sent over and over."""
        return count / self._run(frames, count, self._sender, self._receiver)

    def passes(self, port: int, target_port: int) -> bool:
        """Whether one datagram arrives."""
        before = self._receiver.received()
        self.frames([port], target_port).send(self._sender.descriptor, 0, 1)
        time.sleep(0.05)
        return self._receiver.received() > before

    @staticmethod
    def _run(frames: Frames, count: int, source: _End, target: _End) -> float:
        """Seconds until the last of them has arrived; TimeoutError if one does not."""
        before, sent, arrived = target.received(), 0, 0
        begin = last = time.perf_counter()
        while arrived < count:
            room = min(count - sent, UNDER_WAY - (sent - arrived), BATCH, frames.count - sent % frames.count)
            if room > 0:
                sent += frames.send(source.descriptor, sent % frames.count, room)
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
