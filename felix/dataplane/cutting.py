"""Cut the live connections that policy refuses now, and let go on those that it allows again.

A driver like the others, but for its pace: a table of connections may be long, so it is worked through in steps, and
what changes meanwhile is collected for the next pass. Every connection is judged by the policy of the moment in which
it is looked at, so a pass that is overtaken by a change does no harm. A pass that fails (the kernel's table would not
hold still, a mark was refused) is repeated with back-off: no concern is forgotten before a pass has seen all of it.

Its owner calls `on_delta` when the policy is in the kernel, and `step` as long as that says that there is more."""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Protocol

from felix.calc.delta import NodeDelta
from felix.dataplane.connections import Concern, Connections, Sieve
from felix.rules.render_names import CUT_CONNECTION
from weft.model.address import IPAddress
from weft.netlink.conntrack import Seen, Sighting, Tuple
from weft.netlink.message import MalformedMessageError
from weft.netlink.socket import DumpInterruptedError
from weft.policy.matching import Membership

CHUNKS_PER_STEP = 4
FIRST_RETRY_S, LONGEST_RETRY_S = 0.1, 30.0

log = logging.getLogger(__name__)


class ConnectionTable(Protocol):
    def sightings(self, sieve: Sieve) -> Iterator[list[Sighting]]:
        """The entries that the sieve wants, some at a time, perhaps twice; how much work lies between two is bounded.

        Raises OSError, MalformedMessageError, or at the end DumpInterruptedError if some may have been missed."""

    def original(self, wanted: Tuple) -> Sighting | None:
        """The entry with this original direction. Raises OSError."""

    def mark(self, sightings: Sequence[Sighting], cut: bool) -> None:
        """Set or clear the bit that cuts; other bits stay. Entries that are gone by now do not matter. Raises
        OSError."""


class ConnectionCutter:
    """`wake` is called when there is something to do; see `step`."""

    def __init__(
        self,
        table: ConnectionTable,
        members: Membership,
        host_addresses: Callable[[], Mapping[str, Iterable[IPAddress]]],
        wake: Callable[[], None],
    ) -> None:
        self._table = table
        self._connections = Connections(members)
        self._host_addresses = host_addresses
        self._wake = wake
        self._pending = Concern()
        self._current = Concern()
        self._scan: Iterator[list[Sighting]] | None = None
        self._attempts = 0
        self._last_error = ""
        self._changed = [0, 0]
        self.retry_at_s: float | None = None
        self.cut_total = 0
        self.resumed_total = 0

    def on_delta(self, delta: NodeDelta) -> None:
        """What the graph reported, in order and completely; the first time everything is news."""
        self._pending = self._pending.merged(self._connections.on_delta(delta))
        if self._pending:
            self._wake()

    @property
    def failures(self) -> dict[str, str]:
        return {"live connections": self._last_error} if self._attempts else {}

    def step(self, now_s: float) -> bool:
        """Do a bounded piece of work; True: there is more, as soon as others have had their turn."""
        if self._scan is None and not self._begin(now_s):
            return False
        assert self._scan is not None
        try:
            for _ in range(CHUNKS_PER_STEP):
                chunk = next(self._scan, None)
                if chunk is None:
                    self._finish()
                    return bool(self._pending)
                self._judge(chunk)
        except (OSError, DumpInterruptedError, MalformedMessageError) as error:
            self._fail(error, now_s)
            return False
        return True

    def _begin(self, now_s: float) -> bool:
        if not self._pending or (self.retry_at_s is not None and now_s < self.retry_at_s):
            return False
        self.retry_at_s = None
        self._current, self._pending = self._pending, Concern()
        self._connections.on_host_addresses(self._host_addresses())
        sieve = self._connections.sieve(self._current)
        self._scan = self._table.sightings(sieve) if sieve else iter(())
        return True

    def _finish(self) -> None:
        self._scan, self._attempts, self._current = None, 0, Concern()
        cut, resumed = self._changed
        if cut or resumed:
            log.info("policy has changed: %d live connections cut, %d allowed again", cut, resumed)
        self._changed = [0, 0]

    def _fail(self, error: Exception, now_s: float) -> None:
        self._scan = None
        self._pending = self._pending.merged(self._current)
        self._attempts += 1
        self._last_error = f"cannot be examined: {str(error) or 'the table changed while it was read'}"
        if self._attempts == 1:
            log.warning("live connections: %s; trying again", self._last_error)
        self.retry_at_s = now_s + min(FIRST_RETRY_S * 2 ** min(self._attempts - 1, 10), LONGEST_RETRY_S)

    def _judge(self, sightings: Sequence[Sighting]) -> None:
        refused, allowed = [], []
        for one in sightings:
            verdict = self._connections.allowed(one.seen if one.master is None else self._of_master(one, one.master))
            marked = bool(one.mark & CUT_CONNECTION)
            if verdict is False and not marked:
                refused.append(one)
            elif verdict and marked:
                allowed.append(one)
        for changed, cut in ((refused, True), (allowed, False)):
            if changed:
                self._table.mark(changed, cut)
        self._changed[0] += len(refused)
        self._changed[1] += len(allowed)
        self.cut_total += len(refused)
        self.resumed_total += len(allowed)

    def _of_master(self, one: Sighting, master: Tuple) -> Seen:
        """A connection that another one announced lives and dies with that; if it is gone, it speaks for itself."""
        found = self._table.original(master)
        return found.seen if found is not None else one.seen
