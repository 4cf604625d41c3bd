"""Which of ExaBGP's peers get a turn of its loop, and for how long the loop may sleep.

ExaBGP 5.0.15 gives every peer a turn whenever anything happens, and at least as often as it looks around; it takes one
message in each; it goes to sleep with commands in hand, and not at all while a peer owes it the first KEEPALIVE. Here a
session that is established and has had nothing to do for a few turns gets its next one when its socket is readable,
when there is something to send or to change, and often enough for its timers.
What a peer does in its turn is not changed."""

from __future__ import annotations

import select
import time
from collections.abc import Callable, Iterator
from typing import Any

from exabgp.bgp.fsm import FSM
from exabgp.reactor.peer import ACTION, Peer

from bird_agent.exabgp import collisions

QUIET_TURNS = 3  # what takes two turns to send is sent at once
LONGEST_REST_S = 1.0  # ExaBGP's timers count whole seconds
RESTS_PER_HOLD_TIME = 20
UPDATES_PER_TURN = 50

_READABLE = select.POLLIN | select.POLLPRI
_original_run: Callable[[Any], Any] = Peer.run


def run_peer(self: Any) -> Any:
    """`Peer.run`: up to so many UPDATEs in one turn; notes when the next turn is due. A second connection first."""
    if collisions.waits(self):
        collisions.settle(self)
    action, stats = ACTION.NOW, self.stats
    for _ in range(UPDATES_PER_TURN):
        heard = stats["receive-update"]
        action = _original_run(self)
        if action != ACTION.NOW or stats["receive-update"] == heard:
            break
    if action == ACTION.NOW and self.fsm == FSM.OPENCONFIRM:
        heard_it = self.socket() in getattr(self.reactor, "weft_ready", ())
        self.weft_idle_turns = 0 if heard_it else getattr(self, "weft_idle_turns", 0) + 1
        if self.weft_idle_turns > QUIET_TURNS:
            action = ACTION.LATER  # it waits for a KEEPALIVE, which wakes the loop
    if action == ACTION.LATER and self.fsm == FSM.ESTABLISHED:
        self.weft_quiet_turns = getattr(self, "weft_quiet_turns", 0) + 1
        self.weft_due = time.monotonic() + _rest_s(self.proto)
    else:
        self.weft_quiet_turns = 0
    return action


def _rest_s(protocol: Any) -> float:
    hold_time = int(protocol.negotiated.holdtime)
    return min(LONGEST_REST_S, hold_time / RESTS_PER_HOLD_TIME) if hold_time else LONGEST_REST_S


def active_peers(self: Any) -> set[str]:
    """`Reactor.active_peers`, without those that have nothing to do."""
    now = time.monotonic()
    ready: frozenset[int] = getattr(self, "weft_ready", frozenset())
    wanted = set()
    for key, peer in self._peers.items():
        if peer.stopping():
            wanted.add(key)
        elif peer.neighbor["passive"] and not peer.proto and not collisions.waits(peer):
            continue
        elif not _rests(peer, now, ready):
            wanted.add(key)
    return wanted


def _rests(peer: Any, now: float, ready: frozenset[int]) -> bool:
    if getattr(peer, "weft_quiet_turns", 0) < QUIET_TURNS or now >= peer.weft_due or peer.fsm != FSM.ESTABLISHED:
        return False
    if peer._teardown is not None or peer._neighbor is not None or collisions.waits(peer) or peer.socket() in ready:
        return False
    neighbor = peer.neighbor
    return not (neighbor.eor or neighbor.refresh or neighbor.messages or neighbor.rib.outgoing.pending())


def wait_for_io(self: Any, sleeptime: int) -> Iterator[int]:
    """`Reactor._wait_for_io`: no sleep while commands wait. A descriptor that was closed is looked at no more: each
    later wait would end at once because of it, and then be slept away with what came in the meantime."""
    kept = self.__dict__.setdefault("weft_helpers", set())
    kept.update(self.processes.fds)  # the loop itself takes these out
    ready: set[int] = set()
    readable: list[int] = []
    broken = False
    try:
        for fd, event in self._poller.poll(0 if self.asynchronous._async else sleeptime):
            ready.add(fd)
            if event & _READABLE:
                readable.append(fd)
            elif event & select.POLLNVAL and fd not in kept:
                self._poller.unregister(fd)
            else:
                broken = True
    except KeyboardInterrupt:
        self._termination("^C received", self.Exit.normal)
    if broken:
        self._prevent_spin()
    self.weft_ready = frozenset(ready)
    yield from readable
