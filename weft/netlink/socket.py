"""One netlink socket: batches of requests with their failures as values, dumps, and notifications.

The adapter for every netlink family. It does not know what a message means, keeps no state about the kernel, and
never repeats a request that may have had an effect: retrying is the caller's decision. What the kernel refuses is
returned; only a socket that cannot be used any more raises OSError.

The kernel works on a request inside the sending call, so `request` and `dump` never wait for another process and
may be called on an event loop's thread; `receive` never blocks."""

import ctypes
import errno
import itertools
import os
import socket
import struct
from collections.abc import Callable, Iterable, Sequence
from types import TracebackType
from typing import Self, TypeVar

from msgspec import Struct

from weft.netlink.message import (
    FLAGS_OFFSET,
    NLM_F_ACK,
    NLM_F_DUMP,
    NLM_F_DUMP_INTR,
    NLM_F_REQUEST,
    NLMSG_DONE,
    NLMSG_ERROR,
    NLMSG_NOOP,
    NLMSG_OVERRUN,
    SEQUENCE_OFFSET,
    U16,
    U32,
    Message,
    acknowledgement,
    messages,
)

NETLINK_ROUTE = 0
NETLINK_NETFILTER = 12

_SOL_NETLINK = 270
_NETLINK_ADD_MEMBERSHIP = 1
_NETLINK_CAP_ACK = 10
_NETLINK_EXT_ACK = 11
_NETLINK_GET_STRICT_CHK = 12
_SO_ATTACH_FILTER = 26
_SO_SNDBUFFORCE = 32
_SO_RCVBUFFORCE = 33
_CLONE_NEWNET = 0x40000000
_DUMP_ATTEMPTS = 8
_ANSWER_TIMEOUT_S = 10

_libc = ctypes.CDLL(None, use_errno=True)
_Result = TypeVar("_Result")


class ResyncNeededError(Exception):
    """Notifications were lost (ENOBUFS): whoever follows them must read everything again."""


class DumpInterruptedError(Exception):
    """The dumped tables changed during every attempt to read them: try again later."""


class NetlinkFailure(Struct, frozen=True):
    """One message of a batch that the kernel refused. `index` is its place in the batch, `offset` the kernel's
    pointer into the message."""

    index: int
    errno: int
    text: str
    offset: int | None = None


class Answers(Struct, frozen=True):
    """What came back for a batch: the failures, in order of arrival, and the other messages (GET, NLM_F_ECHO)."""

    failures: list[NetlinkFailure]
    replies: list[Message]


def in_netns(fd: int, function: Callable[[], _Result]) -> _Result:
    """Call `function` with this thread in the network namespace `fd`, and come back.

    Nothing else may run on the thread in between, so `function` must not await. A thread that cannot return would
    from then on change the wrong kernel tables: the process is aborted."""
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        try:
            if _libc.setns(fd, _CLONE_NEWNET):
                error = ctypes.get_errno()
                raise OSError(error, f"cannot enter the network namespace: {os.strerror(error)}")
            return function()
        finally:
            if _libc.setns(home, _CLONE_NEWNET):
                os.abort()
    finally:
        os.close(home)


class NetlinkSocket:
    """A socket of one netlink family in the current network namespace, or in that of `netns_fd`.

    `groups` are multicast group numbers (RTNLGRP_*, NFNLGRP_*) to follow with `receive`; a socket that follows
    groups is not for `request` and `dump`, whose answers would be mixed with notifications. `buffer_bytes` None leaves
    the kernel's default (some 200 kB), quicker to open and enough for one small batch at a time."""

    def __init__(
        self,
        protocol: int = NETLINK_ROUTE,
        groups: Iterable[int] = (),
        netns_fd: int | None = None,
        buffer_bytes: int | None = 4 << 20,
    ) -> None:
        def open_socket() -> socket.socket:
            return socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol)

        self._socket = open_socket() if netns_fd is None else in_netns(netns_fd, open_socket)
        try:
            self._configure(groups, buffer_bytes, protocol)
        except BaseException:
            self._socket.close()
            raise
        self.port: int = self._socket.getsockname()[0]
        self._sequence = 0
        self._buffer = bytearray(1 << 16)

    def _configure(self, groups: Iterable[int], buffer_bytes: int | None, protocol: int) -> None:
        if buffer_bytes is not None:
            self._set_buffers(buffer_bytes)
        self._socket.setsockopt(_SOL_NETLINK, _NETLINK_CAP_ACK, 1)
        self._socket.setsockopt(_SOL_NETLINK, _NETLINK_EXT_ACK, 1)
        if protocol == NETLINK_ROUTE:
            # Without this a dump request's filter is ignored rather than applied.
            self._socket.setsockopt(_SOL_NETLINK, _NETLINK_GET_STRICT_CHK, 1)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("@ll", _ANSWER_TIMEOUT_S, 0))
        self._socket.bind((0, 0))
        for group in groups:
            self._socket.setsockopt(_SOL_NETLINK, _NETLINK_ADD_MEMBERSHIP, group)

    def _set_buffers(self, size: int) -> None:
        for forced, plain in ((_SO_SNDBUFFORCE, socket.SO_SNDBUF), (_SO_RCVBUFFORCE, socket.SO_RCVBUF)):
            try:
                self._socket.setsockopt(socket.SOL_SOCKET, forced, size)
            except PermissionError:
                self._socket.setsockopt(socket.SOL_SOCKET, plain, size)

    def fileno(self) -> int:
        return self._socket.fileno()

    def close(self) -> None:
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def request(self, batch: Sequence[bytes], *, ack_each: bool = False) -> list[NetlinkFailure]:
        """Send the messages in one call and return those that failed; none means that all are in the kernel.

        By default only the last asks for an acknowledgement: the kernel works in order and reports every error
        whether asked or not. A failure does not stop the messages behind it (rtnetlink; nf_tables undoes all).
        `ack_each` costs a message back for each."""
        return self.exchange(batch, ack_each=ack_each).failures

    def exchange(
        self, batch: Sequence[bytes], *, ack_each: bool = False, final: int = -1, fatal: int | None = None
    ) -> Answers:
        """As `request`, with the messages that came back.

        `final` is the index of the message whose acknowledgement ends the exchange (in an nf_tables batch the last
        before BATCH_END), `fatal` that of a message whose failure ends it at once (BATCH_BEGIN)."""
        if not batch:
            return Answers([], [])
        first = self._next_sequences(len(batch))
        final_sequence = first + (final % len(batch))
        fatal_sequence = None if fatal is None else first + (fatal % len(batch))
        self._send(self._stamped(batch, first, None if ack_each else final))
        failures: list[NetlinkFailure] = []
        replies: list[Message] = []
        while True:
            done = False
            for answer in self._answers():
                index = answer.sequence - first
                if not 0 <= index < len(batch):
                    continue  # an answer to an exchange that was given up
                if answer.kind not in (NLMSG_ERROR, NLMSG_DONE):
                    replies.append(answer)
                    continue
                ack = acknowledgement(answer)
                if ack.errno:
                    text = os.strerror(ack.errno) + (f": {ack.text}" if ack.text else "")
                    failures.append(NetlinkFailure(index, ack.errno, text, ack.offset))
                done = done or ack.sequence == final_sequence
                done = done or (ack.errno != 0 and ack.sequence == fatal_sequence)
            if done:
                return Answers(failures, replies)

    def dump(self, request: bytes) -> list[Message]:
        """All messages of a dump, of one consistent moment.

        Raises OSError if the kernel refuses, DumpInterruptedError if the table would not hold still."""
        for _ in range(_DUMP_ATTEMPTS):
            found, interrupted = self._dump_once(request)
            if not interrupted:
                return found
        raise DumpInterruptedError

    def begin_dump(self, request: bytes) -> int:
        """For dumps that are too long to be read at once: the sequence number by which `next_datagram` is told apart.

        A dump that is not read to its end makes the kernel refuse the next one on this socket (EBUSY)."""
        sequence = self._next_sequences(1)
        data = bytearray(request)
        flags = U16.unpack_from(data, FLAGS_OFFSET)[0]
        U16.pack_into(data, FLAGS_OFFSET, flags | NLM_F_REQUEST | NLM_F_DUMP)
        U32.pack_into(data, SEQUENCE_OFFSET, sequence)
        self._send(data)
        return sequence

    def next_datagram(self) -> bytes:
        """What comes next of a dump, some 32 KB; the kernel writes it within this call."""
        return bytes(memoryview(self._buffer)[: self._read_datagram()])

    def _dump_once(self, request: bytes) -> tuple[list[Message], bool]:
        sequence = self.begin_dump(request)
        found: list[Message] = []
        interrupted = False
        while True:
            for answer in self._answers():
                if answer.sequence != sequence:
                    continue
                interrupted = interrupted or bool(answer.flags & NLM_F_DUMP_INTR)
                if answer.kind not in (NLMSG_ERROR, NLMSG_DONE):
                    found.append(answer)
                    continue
                ack = acknowledgement(answer)
                if ack.errno:
                    raise OSError(ack.errno, ack.text or os.strerror(ack.errno))
                return found, interrupted

    def receive(self, most: int | None = None) -> list[Message]:
        """The notifications that are waiting, [] if none; of no more than `most` datagrams.

        Raises ResyncNeededError when some were lost; those that wait are then discarded, for they are older than
        what is about to be read."""
        found: list[Message] = []
        for _ in itertools.count() if most is None else range(most):
            try:
                count = self._socket.recv_into(self._buffer, 0, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return found
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                self._drain()
                raise ResyncNeededError from error
            for notification in messages(memoryview(self._buffer)[:count]):
                if notification.kind == NLMSG_OVERRUN:
                    raise ResyncNeededError
                if notification.kind != NLMSG_NOOP:
                    found.append(notification)
        return found

    def _drain(self) -> None:
        while True:
            try:
                self._socket.recv_into(self._buffer, 0, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise

    def ignore_ports(self, ports: Iterable[int]) -> None:
        """Never receive what these sockets (`NetlinkSocket.port`) caused: a socket filter on nlmsg_pid."""
        known = list(ports)
        # A classic BPF load takes the bytes in network order; the header has them in host order.
        program = [struct.pack("=HBBI", 0x20, 0, 0, 12)]
        for place, port in enumerate(known):
            swapped = int.from_bytes(U32.pack(port), "big")
            program.append(struct.pack("=HBBI", 0x15, len(known) - place, 0, swapped))
        program.append(struct.pack("=HBBI", 0x06, 0, 0, 0xFFFFFFFF))
        program.append(struct.pack("=HBBI", 0x06, 0, 0, 0))
        code = ctypes.create_string_buffer(b"".join(program))
        descriptor = struct.pack("@HxxxxxxP", len(program), ctypes.addressof(code))
        self._socket.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, descriptor)

    def _next_sequences(self, count: int) -> int:
        if self._sequence + count >= 0x7FFFFFFF:
            self._sequence = 0
        first = self._sequence + 1
        self._sequence += count
        return first

    @staticmethod
    def _stamped(batch: Sequence[bytes], first: int, only_ack: int | None) -> bytearray:
        """The batch as one datagram with sequence numbers, and NLM_F_ACK on `only_ack` or on all."""
        data = bytearray().join(batch)
        stamp = U32.pack_into
        offset = SEQUENCE_OFFSET
        acknowledged = None if only_ack is None else only_ack % len(batch)
        for place, one in enumerate(batch):
            stamp(data, offset, first + place)
            if acknowledged is None or place == acknowledged:
                at = offset - SEQUENCE_OFFSET + FLAGS_OFFSET
                U16.pack_into(data, at, U16.unpack_from(data, at)[0] | NLM_F_ACK)
            offset += len(one)
        return data

    def _send(self, data: bytes | bytearray) -> None:
        self._socket.send(data)

    def _answers(self) -> Iterable[Message]:
        return messages(memoryview(self._buffer)[: self._read_datagram()])

    def _read_datagram(self) -> int:
        """How many bytes of the buffer are one."""
        try:
            return self._socket.recv_into(self._buffer)
        except BlockingIOError as error:
            raise TimeoutError(f"no answer from the kernel for {_ANSWER_TIMEOUT_S} s") from error
