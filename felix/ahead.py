"""What the CNI server had programmed before the datastore told of it, held against notices that are older.

No clock: callers pass monotonic seconds."""

from __future__ import annotations

from msgspec import Struct, field

from weft.model.endpoint import WorkloadEndpoint
from weft.model.keys import Key

ECHO_TIMEOUT_S = 10.0


class Ahead(Struct):
    """Endpoints that were programmed or removed before the datastore told of it: what was done, and until when the
    notice of it is waited for."""

    done: dict[Key, WorkloadEndpoint | None] = field(default_factory=dict)
    until_s: dict[Key, float] = field(default_factory=dict)

    def note(self, key: Key, value: WorkloadEndpoint | None, now_s: float) -> None:
        self.done[key] = value
        self.until_s[key] = now_s + ECHO_TIMEOUT_S

    def passes(self, key: Key, value: object | None) -> bool:
        """Whether a notice is news: it is, unless it is older than what was done here."""
        if key not in self.done:
            return True
        mine = self.done[key]
        is_echo = value is None if mine is None else _same_birth(mine, value)
        if is_echo:
            self.forget(key)
        return is_echo

    def forget(self, key: Key) -> None:
        self.done.pop(key, None)
        self.until_s.pop(key, None)

    def overdue(self, now_s: float) -> list[Key]:
        return [key for key, until_s in self.until_s.items() if until_s <= now_s]


def _same_birth(mine: WorkloadEndpoint, notice: object | None) -> bool:
    """Whether a notice tells of what was programmed or of a later change to it: a newer endpoint of the same name has
    another uid."""
    return isinstance(notice, WorkloadEndpoint) and notice.metadata.uid == mine.metadata.uid
