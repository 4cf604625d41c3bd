"""One group of peers that are told the same, in the same bytes: what they are told, and how far each of them is.

Pure. A group keeps one log of prefixes in the order in which they changed last, so a prefix is in it once. A member is
a position in that log: those that are equally far share one encoding, and one that reads slowly costs two numbers, not
a queue of messages, and catches up with what is true then, not with what was true meanwhile. Withdrawals go before
announcements, and nobody is told about what it brought itself. All prefixes are of one family."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final, Protocol

from msgspec import Struct, field

from bird_agent.reflector.attributes import AttributeSet
from bird_agent.reflector.prefixes import Nlri
from bird_agent.reflector.reflection import Told
from weft.model.address import IPAddress

PREFIXES_AT_ONCE: Final = 8192
"""So many prefixes a member is given before it has to have taken them: about 64 KB of IPv4."""
_COMPACT_FROM: Final = 1024
Pieces = list[bytes | memoryview]


class Encoder(Protocol):
    """Messages for one group."""

    def encode(self, attributes: AttributeSet, next_hop: IPAddress, prefixes: Sequence[Nlri]) -> Sequence[bytes]: ...

    def withdraw(self, prefixes: Sequence[Nlri]) -> Sequence[bytes]: ...


class _Member(Struct):
    """It was given everything up to `position`, and up to `known` once before, if it asked for it again. `synced`: how
    far the log went when it last had all of it. `brought`: what it may have from the group it was in before."""

    position: int = 0
    known: int = 0
    synced: int = 0
    brought: set[Nlri] = field(default_factory=set)


class _Entry(Struct):
    """A prefix: `told` since `at` (None: withdrawn), `before` since `before_at`, first heard of at `born`."""

    at: int
    told: Told | None
    born: int
    before_at: int = 0
    before: Told | None = None

    def held_by(self, member: IPAddress | None, known: int, synced: int) -> bool:
        """Whether such a member may have the prefix from us. Exact for one that has heard the last change, or had all
        of the log between the last two; of others it says so once too often rather than once too few."""
        if known >= self.at:
            now = self.told
        elif synced >= self.before_at:
            now = self.before
        else:
            return known >= self.born
        return now is not None and now.source != member


class _Batch(Struct, frozen=True):
    """What takes members to `upto`: `payload` but for its `holes`, which are about what the member brought itself, and
    `first` what it must no longer have from us."""

    upto: int
    payload: bytes
    holes: Mapping[IPAddress, Sequence[tuple[int, int]]] = field(default_factory=dict)
    first: Mapping[IPAddress, bytes] = field(default_factory=dict)

    def pieces(self, member: IPAddress) -> Pieces:
        pieces: Pieces = [self.first[member]] if member in self.first else []
        holes = self.holes.get(member)
        if holes is None:
            return [*pieces, self.payload] if self.payload else pieces
        view, start = memoryview(self.payload), 0
        for hole, end in (*holes, (len(view), len(view))):
            if hole > start:
                pieces.append(view[start:hole])
            start = end
        return pieces


class Group:
    """The table of one group, and its members."""

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder
        self._entries: dict[Nlri, _Entry] = {}
        self._positions: list[int] = []
        self._prefixes: list[Nlri] = []
        self._head = 0
        self._size = 0
        self._by_source: dict[IPAddress, int] = {}
        self._batches: dict[tuple[int, int, int], _Batch] = {}
        self._compact_at = _COMPACT_FROM
        self._members: dict[IPAddress, _Member] = {}

    def __bool__(self) -> bool:
        """It has members."""
        return bool(self._members)

    def tell(self, prefix: Nlri, told: Told | None) -> None:
        """From now on this is told about the prefix; None: nothing."""
        entry = self._entries.get(prefix)
        before = None if entry is None else entry.told
        if before is told or before == told:
            return
        self._count(before, -1)
        self._count(told, 1)
        self._head += 1
        if entry is None:
            self._entries[prefix] = _Entry(self._head, told, self._head)
        else:
            entry.before_at, entry.before = entry.at, entry.told
            entry.at, entry.told = self._head, told
        self._positions.append(self._head)
        self._prefixes.append(prefix)
        self._batches.clear()

    def told(self, prefix: Nlri, member: IPAddress) -> Told | None:
        """What the member is told about the prefix, once it is up to date."""
        entry = self._entries.get(prefix)
        return None if entry is None or entry.told is None or entry.told.source == member else entry.told

    def table(self, member: IPAddress) -> Iterator[tuple[Nlri, Told]]:
        """All that the member is told."""
        for prefix, entry in self._entries.items():
            if entry.told is not None and entry.told.source != member:
                yield prefix, entry.told

    def size(self, member: IPAddress) -> int:
        """How many prefixes the member is told."""
        return self._size - self._by_source.get(member, 0)

    def join(self, member: IPAddress, brought: Iterable[Nlri] = ()) -> None:
        """A peer that knows nothing yet, but for what it was told in another group."""
        self._members[member] = _Member(brought=set(brought))

    def leave(self, member: IPAddress) -> None:
        del self._members[member]

    def held(self, member: IPAddress) -> set[Nlri]:
        """What the member may have from us."""
        state = self._members[member]
        entries = self._entries.items()
        held = {prefix for prefix, entry in entries if entry.held_by(member, state.known, state.synced)}
        return held | state.brought

    def tell_again(self, member: IPAddress) -> None:
        """It wants everything again; only for a member that is up to date."""
        self._members[member].position = 0

    def up_to_date(self, member: IPAddress) -> bool:
        state = self._members[member]
        return state.position >= self._head and not state.brought

    def behind(self, member: IPAddress) -> int:
        """How many changes the member has not been given, at most."""
        return len(self._positions) - bisect_right(self._positions, self._members[member].position)

    def advance(self, member: IPAddress) -> Pieces:
        """The next part of what the member does not know yet; it counts as given."""
        state = self._members[member]
        pieces = self._farewell(member, state) if state.brought else []
        if state.position >= self._head:
            return pieces
        key = state.position, state.known, state.synced
        batch = self._batches.get(key)
        if batch is None:
            batch = self._batches[key] = self._batch(*key)
        state.position = batch.upto
        state.known = max(state.known, batch.upto)
        if batch.upto == self._head:
            state.synced = batch.upto
            state.brought.clear()
        return [*pieces, *batch.pieces(member)]

    def _farewell(self, member: IPAddress, state: _Member) -> Pieces:
        """Withdraw what it brought from another group and is not told in this one. What it has heard of here, too, is
        withdrawn like anything else."""
        rest = {prefix for prefix in state.brought if self.told(prefix, member) is not None}
        gone = state.brought - rest
        state.brought = rest if state.position < self._head else set()
        known, synced, entries = state.known, state.synced, self._entries
        gone = {one for one in gone if one not in entries or not entries[one].held_by(member, known, synced)}
        return [*self._encoder.withdraw(sorted(gone))] if gone else []

    def compact(self) -> None:
        """Forget slots of the log that nothing is in any more, and withdrawals that nobody has yet to hear of."""
        if len(self._positions) < self._compact_at:
            return
        known = sorted(member.known for member in self._members.values())
        kept: list[tuple[int, Nlri]] = []
        for position, prefix in zip(self._positions, self._prefixes, strict=True):
            entry = self._entries.get(prefix)
            if entry is None or entry.at != position:
                continue
            if entry.told is None and not _awaited(entry, known):
                del self._entries[prefix]
            else:
                kept.append((position, prefix))
        self._positions = [position for position, _ in kept]
        self._prefixes = [prefix for _, prefix in kept]
        self._compact_at = 2 * len(kept) + _COMPACT_FROM

    def _batch(self, position: int, known: int, synced: int) -> _Batch:
        """What became of prefixes after `position`, for members as far as this (see `_Member`)."""
        withdrawn: dict[IPAddress | None, list[Nlri]] = {}
        announced: dict[int, tuple[Told, list[Nlri]]] = {}
        own: dict[IPAddress, list[Nlri]] = {}
        upto, taken = self._head, 0
        for index in range(bisect_right(self._positions, position), len(self._positions)):
            prefix, at = self._prefixes[index], self._positions[index]
            entry = self._entries.get(prefix)
            if entry is None or entry.at != at:
                continue  # it changed again, and is in the log there
            if taken == PREFIXES_AT_ONCE:
                upto = at - 1
                break
            taken += 1
            told = entry.told
            if told is not None:
                announced.setdefault(id(told), (told, []))[1].append(prefix)
                if at > known and entry.held_by(told.source, known, synced):
                    own.setdefault(told.source, []).append(prefix)
            elif entry.held_by(None, known, synced):
                exact = synced >= entry.before_at and entry.before is not None
                source = entry.before.source if exact and entry.before is not None else None
                withdrawn.setdefault(source, []).append(prefix)
        return self._encoded(upto, withdrawn, announced.values(), own)

    def _encoded(
        self,
        upto: int,
        withdrawn: Mapping[IPAddress | None, list[Nlri]],
        announced: Iterable[tuple[Told, list[Nlri]]],
        own: Mapping[IPAddress, list[Nlri]],
    ) -> _Batch:
        pieces: list[bytes] = []
        holes: dict[IPAddress, list[tuple[int, int]]] = {}
        length = 0

        def add(source: IPAddress | None, messages: Sequence[bytes]) -> None:
            nonlocal length
            start = length
            pieces.extend(messages)
            length += sum(map(len, messages))
            if source is not None:
                holes.setdefault(source, []).append((start, length))

        for source, prefixes in withdrawn.items():
            add(source, self._encoder.withdraw(prefixes))
        for told, prefixes in announced:
            add(told.source, self._encoder.encode(told.attributes, told.next_hop, prefixes))
        first = {member: b"".join(self._encoder.withdraw(prefixes)) for member, prefixes in own.items()}
        return _Batch(upto, b"".join(pieces), holes, first)

    def _count(self, told: Told | None, change: int) -> None:
        if told is None:
            return
        self._size += change
        left = self._by_source.get(told.source, 0) + change
        if left:
            self._by_source[told.source] = left
        else:
            del self._by_source[told.source]


def _awaited(entry: _Entry, known: Sequence[int]) -> bool:
    """Whether some member that may have the prefix has not heard of its withdrawal. `known`: of all, in order."""
    last_before = bisect_left(known, entry.at) - 1
    return last_before >= 0 and known[last_before] >= entry.born
