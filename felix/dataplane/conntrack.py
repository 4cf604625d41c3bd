"""The kernel's table of connections: the edge below `cutting`. Takes no decision."""

import errno
import os
from collections.abc import Iterator, Sequence

from felix.dataplane.connections import Sieve
from felix.rules.render_names import CUT_CONNECTION
from weft.netlink import conntrack
from weft.netlink.conntrack import Sighting, Tuple
from weft.netlink.message import AF_INET, AF_INET6
from weft.netlink.socket import NETLINK_NETFILTER, DumpInterruptedError, NetlinkSocket

FILTERED_AT_MOST = 4
"""For more addresses than these the whole table is read once, instead of being searched twice for each: the kernel
walks all of it each time, but what it does not send nobody has to read."""
_FAMILIES = {4: AF_INET, 16: AF_INET6}
_NO_FILTER = (errno.EINVAL, errno.EOPNOTSUPP)


class ConntrackSocket:
    """The port `ConnectionTable` in this network namespace, or in that of `netns_fd`."""

    def __init__(self, netns_fd: int | None = None) -> None:
        self._netns_fd = netns_fd
        self._dumps = NetlinkSocket(NETLINK_NETFILTER, netns_fd=netns_fd)
        self._requests = NetlinkSocket(NETLINK_NETFILTER, netns_fd=netns_fd)

    def close(self) -> None:
        self._dumps.close()
        self._requests.close()

    def sightings(self, sieve: Sieve) -> Iterator[list[Sighting]]:
        anchors = sieve.anchors()
        if anchors is None:
            yield from self._read([conntrack.dump(AF_INET), conntrack.dump(AF_INET6)], sieve)
            return
        everything = [conntrack.dump(family) for family in sorted({_FAMILIES[len(one)] for one in anchors})]
        if len(anchors) > FILTERED_AT_MOST:
            yield from self._read(everything, sieve)
            return
        filtered = [
            request
            for one in anchors
            for request in (
                conntrack.dump(_FAMILIES[len(one)], original_source=one),
                conntrack.dump(_FAMILIES[len(one)], reply_source=one),
            )
        ]
        try:
            yield from self._read(filtered, sieve)
        except OSError as error:
            if error.errno not in _NO_FILTER:
                raise
            yield from self._read(everything, sieve)

    def _read(self, requests: Sequence[bytes], sieve: Sieve) -> Iterator[list[Sighting]]:
        wants = sieve.wants()
        interrupted = False
        for request in requests:
            finished = False
            try:
                sequence = self._dumps.begin_dump(request)
                while not finished:
                    chunk = conntrack.read_chunk(self._dumps.next_datagram(), sequence, wants)
                    finished, interrupted = chunk.finished, interrupted or chunk.interrupted
                    yield chunk.sightings
                    if chunk.errno:
                        raise OSError(chunk.errno, os.strerror(chunk.errno))
            finally:
                if not finished:
                    self._reopen()
        if interrupted:
            raise DumpInterruptedError

    def _reopen(self) -> None:
        """A dump that is given up half-way would stand in the way of the next."""
        self._dumps.close()
        self._dumps = NetlinkSocket(NETLINK_NETFILTER, netns_fd=self._netns_fd)

    def original(self, wanted: Tuple) -> Sighting | None:
        answers = self._requests.exchange([conntrack.get(wanted)])
        for failure in answers.failures:
            if failure.errno != errno.ENOENT:
                raise OSError(failure.errno, failure.text)
        return next(iter(conntrack.read_sightings(answers.replies)), None)

    def mark(self, sightings: Sequence[Sighting], cut: bool) -> None:
        value = CUT_CONNECTION if cut else 0
        batch = [conntrack.set_mark(one, value, CUT_CONNECTION) for one in sightings]
        for failure in self._requests.request(batch):
            if failure.errno != errno.ENOENT:
                raise OSError(failure.errno, failure.text)
