"""Read the kernel's counters beside the agent's own work: on a socket and a thread of their own.

A dump of 10,000 counters takes tens of milliseconds; the loop does not wait for it. One read at a time."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Mapping

from felix.dataplane.nft_kernel import NftSocket
from felix.rules.values import Count


class CounterReader:
    """Of the current network namespace, or of `netns_fd`. Usable from any thread."""

    def __init__(self, netns_fd: int | None = None) -> None:
        self._socket = NftSocket(netns_fd)
        self._lock = threading.Lock()

    def close(self) -> None:
        with self._lock:
            self._socket.close()

    def read_now(self) -> Mapping[str, Count]:
        """What all our counters hold. Raises OSError, DumpInterruptedError."""
        with self._lock:
            return self._socket.all_counts()

    async def read(self) -> Mapping[str, Count]:
        """As `read_now`, without keeping the loop waiting."""
        return await asyncio.to_thread(self.read_now)
