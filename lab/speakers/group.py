"""All sessions of a process as one: which are to be connected, since when all are, and since when each has what it
should have (sans-IO)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from lab.speakers.session import Session, State
from lab.speakers.table import Table
from lab.speakers.wire import Expect, Numbers, Script, SessionTotals, Totals


class Group:
    """`wanted` are the numbers of the sessions that are to be connected. Of others nothing is expected."""

    def __init__(self, scripts: Iterable[Script] = ()) -> None:
        self.table = Table()
        self.sessions: list[Session] = []
        self.add(scripts)
        self.wanted: set[int] = set()
        self._expect: Expect | None = None
        self._expected = 0
        self._established: set[int] = set()
        self._complete: set[int] = set()
        self._established_at: float | None = None
        self._complete_at: float | None = None

    def add(self, scripts: Iterable[Script]) -> None:
        self.sessions += [Session(script, self.table) for script in scripts]

    def chosen(self, numbers: Numbers) -> list[int]:
        return list(range(len(self.sessions))) if numbers is None else list(numbers)

    def want(self, numbers: Iterable[int], now_s: float) -> None:
        self.wanted.update(numbers)
        self.judge_all(now_s)

    def unwant(self, numbers: Iterable[int], now_s: float) -> None:
        self.wanted.difference_update(numbers)
        self.judge_all(now_s)

    def expect(self, what: Expect, now_s: float) -> None:
        self._expect = what
        self.judge_all(now_s)

    def judge_all(self, now_s: float) -> None:
        """After anything that changes what is expected."""
        self._expected = 0
        if self._expect is not None:
            self._expected = self.table.bits(self._expect.prefixes)
            if self._expect.mutual:
                for number in self.wanted:
                    self._expected |= self.sessions[number].own
        self._established &= self.wanted
        self._complete &= self.wanted
        for number in self.wanted:
            self._judge(number)
        self._note(now_s)

    def judge(self, number: int, now_s: float) -> None:
        """After anything that one session was told."""
        if number in self.wanted:
            self._judge(number)
            self._note(now_s)

    def totals(self, cpu_s: float) -> Totals:
        counts = [session.counts for session in self.sessions]
        notifications: Counter[str] = Counter()
        for one in counts:
            notifications.update(one.notifications)
        return Totals(
            wanted=len(self.wanted),
            established=len(self._established),
            established_at=self._established_at,
            complete=len(self._complete),
            complete_at=self._complete_at,
            updates=sum(one.updates for one in counts),
            announced=sum(one.announced for one in counts),
            withdrawn=sum(one.withdrawn for one in counts),
            end_of_ribs=sum(one.end_of_ribs for one in counts),
            begun=sum(one.begun for one in counts),
            lost=sum(one.lost for one in counts),
            notifications=dict(notifications),
            last_route_at=max((one.last_route_at for one in counts if one.last_route_at is not None), default=None),
            cpu_s=cpu_s,
        )

    def each(self, numbers: Numbers) -> list[SessionTotals]:
        return [
            SessionTotals(
                number=number,
                state=session.state.value,
                held=session.held.bit_count(),
                complete=number in self._complete,
                updates=session.counts.updates,
                announced=session.counts.announced,
                withdrawn=session.counts.withdrawn,
                end_of_ribs=session.counts.end_of_ribs,
                begun=session.counts.begun,
                lost=session.counts.lost,
            )
            for number, session in ((number, self.sessions[number]) for number in self.chosen(numbers))
        ]

    def _judge(self, number: int) -> None:
        session = self.sessions[number]
        established = session.state is State.ESTABLISHED
        (self._established.add if established else self._established.discard)(number)
        complete = established and self._expect is not None and not (session.held ^ self._expected) & ~session.own
        (self._complete.add if complete else self._complete.discard)(number)

    def _note(self, now_s: float) -> None:
        """The moment at which the last of them came; of an empty group nothing is said."""
        whole = len(self.wanted)
        self._established_at = _since(self._established_at, len(self._established) == whole > 0, now_s)
        self._complete_at = _since(self._complete_at, len(self._complete) == whole > 0, now_s)


def _since(before: float | None, true: bool, now_s: float) -> float | None:
    if not true:
        return None
    return now_s if before is None else before
