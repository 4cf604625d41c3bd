"""When a reflector counts as dead, so that another takes its place. Pure: the time is an argument.

One node's own session says nothing: the node may be the one that is cut off. Three things must come together, and the
write that follows must still reach the datastore:

* this node is a client of the reflector and has had no session with it for the whole time;
* the reflector's node has written no sign of life for the whole time, in which the datastore could be read. A reflector
  that serves anybody, and reaches the datastore, writes one again and again;
* of the other clients of that reflector that have said anything, more say that they have no session with it than say
  that they have one; where there are others, at least one must say so.

The record of a reflector that is no longer chosen, and died before it took it back, is a leftover: there, too, nobody
has a session and no sign of life comes. One that lives after all says it again.

So a node that is cut off sees the signs of life; a reflector that is cut off from the datastore, but serves, is kept by
its clients; and while nobody reads the datastore, nobody is replaced."""

from __future__ import annotations

from collections.abc import Iterator, Set

from msgspec import Struct

from bird_agent.automatic.decision import Shared

STARTING_S = 30.0
"""How long a reflector that has just been chosen may take until its first sign of life, at least."""
_READS_IN_THE_TIME = 6


class _Suspect(Struct):
    """A reflector without a session. `beat` is the revision of its last sign of life (0: none), seen since `since`."""

    down_since: float | None = None
    beat: int | None = None
    since: float = 0.0
    read_at: float = 0.0
    asked_at: float | None = None


class Suspicions:
    """One node's."""

    def __init__(self, node: str) -> None:
        self._node = node
        self._suspects: dict[str, _Suspect] = {}

    def on_sessions(self, reflectors: Set[str], established: Set[str]) -> None:
        """Those that this node should have sessions with, or that are said to serve; those that it has them with."""
        missing = reflectors - established - {self._node}
        self._suspects = {name: self._suspects.get(name) or _Suspect() for name in sorted(missing)}

    def to_read(self, after_s: float, now: float) -> list[str]:
        """Whose signs of life are to be read now."""
        due = []
        for name, suspect in self._suspects.items():
            if suspect.down_since is None:
                suspect.down_since = now
            if suspect.asked_at is None or now - suspect.asked_at >= after_s / _READS_IN_THE_TIME:
                suspect.asked_at = now
                due.append(name)
        return due

    def on_beat(self, name: str, revision: int, now: float) -> None:
        suspect = self._suspects.get(name)
        if suspect is not None:
            if suspect.beat != revision:
                suspect.beat, suspect.since = revision, now
            suspect.read_at = now

    def on_unread(self) -> None:
        """The datastore did not answer: what was silent before may have had to be."""
        for suspect in self._suspects.values():
            suspect.beat = None

    def dead(self, shared: Shared, after_s: float, now: float) -> dict[str, str]:
        """Reflector -> why it is to be replaced."""
        found = {}
        for name, enough_s in self._silent(after_s, now):
            if name not in shared.plan.chosen:
                continue
            without, others = self._witnesses(shared, name)
            if without > others - without or not others:
                witnesses = f", and none with {without} of {others} other clients" if others else ""
                found[name] = f"no sign of life and no session with {self._node} for {enough_s:g} s{witnesses}"
        return found

    def leftovers(self, shared: Shared, after_s: float, now: float) -> list[str]:
        """Nodes whose record as a reflector is to be taken away."""
        used = {reflector for record in shared.attached.values() for reflector in record.attached}
        gone = shared.serving.keys() - shared.plan.chosen - used
        return [name for name, _ in self._silent(after_s, now) if name in gone]

    def _silent(self, after_s: float, now: float) -> Iterator[tuple[str, float]]:
        """Those without a session and a sign of life for long enough, and how long that is."""
        for name, suspect in self._suspects.items():
            silent_s = suspect.read_at - suspect.since
            down_s = 0.0 if suspect.down_since is None else now - suspect.down_since
            enough_s = after_s if suspect.beat else max(after_s, STARTING_S)
            if suspect.beat is not None and min(silent_s, down_s) >= enough_s:
                yield name, enough_s

    def _witnesses(self, shared: Shared, reflector: str) -> tuple[int, int]:
        """How many other clients say that they have no session with it, and how many say anything."""
        without = others = 0
        for name, record in shared.attached.items():
            if name in (self._node, reflector) or record.epoch != shared.plan.epoch:
                continue
            if reflector in shared.plan.reflectors_for(name):
                others += 1
                without += reflector not in record.attached
        return without, others
