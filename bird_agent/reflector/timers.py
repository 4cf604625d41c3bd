"""When which peer has something to do: a heap, so that thousands of idle sessions cost nothing between their times.

Pure. A time that was put off is not looked for: the peer is named at the old one, and says when it wants to be next."""

from __future__ import annotations

from heapq import heappop, heappush

from weft.model.address import IPAddress

FOREVER = float("inf")


class Timers:
    """The earliest time of each peer."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, IPAddress]] = []
        self._times: dict[IPAddress, float] = {}
        self._pushes = 0

    @property
    def next(self) -> float:
        """The earliest of all; it may be of a peer that has an earlier one or none by now."""
        return self._heap[0][0] if self._heap else FOREVER

    def want(self, peer: IPAddress, at: float) -> None:
        """The peer is due at this time, if not before."""
        if at < self._times.get(peer, FOREVER):
            self._times[peer] = at
            self._pushes += 1  # two peers of the same time are not compared: one may be IPv4, the other IPv6
            heappush(self._heap, (at, self._pushes, peer))

    def forget(self, peer: IPAddress) -> None:
        self._times.pop(peer, None)

    def due(self, now: float) -> list[IPAddress]:
        """The peers whose time has come, each once; they have none from here on."""
        found = []
        while self._heap and self._heap[0][0] <= now:
            at, _, peer = heappop(self._heap)
            if self._times.get(peer) == at:
                del self._times[peer]
                found.append(peer)
        return found
