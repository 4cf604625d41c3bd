"""What ExaBGP said, kept for an agent that attaches later: bounded, by peer, and honest about what is missing.

A peer's history is its present session and the one before it (whose routes may still be held for a graceful
restart). When the bound is reached the peer that holds most loses its history, keeps its session states, and is
marked as having a gap. Lines are recognised by their fixed beginning, as ExaBGP 5.0.15 writes them, and never parsed:
the link must stay quick. No I/O here."""

from __future__ import annotations

from collections.abc import Iterator

DEFAULT_LIMIT_BYTES = 16 << 20
LINE_OVERHEAD_BYTES = 40  # what CPython adds to a bytes object and its place in a list
_STATE = b'"type": "state"'
_OPEN = b'"type": "open"'
_PEER = b'"peer": "'
_TYPE_WITHIN = 400


def peer_of(line: bytes) -> bytes | None:
    """The address of the peer a line is about; None for answers and reports, which belong to no history."""
    start = line.find(_PEER)
    if start < 0 or b'"type": "weft-' in line[:_TYPE_WITHIN]:
        return None
    start += len(_PEER)
    end = line.find(b'"', start)
    return line[start:end] if end > start else None


def _state_of(line: bytes) -> bytes | None:
    """`connected`, `up` or `down` if the line is a change of session state."""
    if _STATE not in line[:_TYPE_WITHIN]:
        return None
    for state in (b"connected", b"up", b"down"):
        if b'"state": "%s"' % state in line:
            return state
    return None


class _Session:
    """The lines of one session, from its connection on."""

    __slots__ = ("came_up", "lines")

    def __init__(self) -> None:
        self.lines: list[bytes] = []
        self.came_up = False


class _History:
    """The sessions of one peer that still matter, oldest first."""

    __slots__ = ("complete", "droppable", "sessions", "size")

    def __init__(self, complete: bool) -> None:
        self.sessions: list[_Session] = [_Session()]
        self.complete = complete
        self.size = 0
        self.droppable = 0  # of which this much does not say how a session stands

    def add(self, line: bytes, state: bytes | None) -> None:
        if state == b"connected":
            if self.sessions[-1].came_up:
                self.sessions.append(_Session())
            else:
                self.sessions[-1].lines.clear()  # an attempt that came to nothing
        elif state == b"up":
            self.sessions[-1].came_up = True
            if len(self.sessions) > 2:
                del self.sessions[:-2]
        self.sessions[-1].lines.append(line)
        if state in (b"connected", b"up"):
            self._weigh()
        else:
            self.size += len(line) + LINE_OVERHEAD_BYTES
            self.droppable += 0 if _is_standing(line) else len(line) + LINE_OVERHEAD_BYTES

    def strip(self) -> None:
        """Keep only how the present session stands."""
        last = self.sessions[-1]
        last.lines = [line for line in last.lines if _is_standing(line)]
        self.sessions = [last]
        self._weigh()

    def _weigh(self) -> None:
        lines = [line for each in self.sessions for line in each.lines]
        self.size = sum(len(line) + LINE_OVERHEAD_BYTES for line in lines)
        self.droppable = sum(len(line) + LINE_OVERHEAD_BYTES for line in lines if not _is_standing(line))


def _is_standing(line: bytes) -> bool:
    return _OPEN in line[:_TYPE_WITHIN] or _STATE in line[:_TYPE_WITHIN]


class Spool:
    """The histories of all peers, together at most `limit_bytes`."""

    def __init__(self, limit_bytes: int = DEFAULT_LIMIT_BYTES) -> None:
        self._limit = limit_bytes
        self._peers: dict[bytes, _History] = {}
        self._size = 0

    @property
    def size(self) -> int:
        return self._size

    def store(self, line: bytes) -> None:
        peer = peer_of(line)
        if peer is None:
            return
        state = _state_of(line)
        history = self._peers.get(peer)
        if history is None:
            # Whoever is first seen in the middle of a session has a past that this process never saw.
            history = self._peers[peer] = _History(complete=state == b"connected")
        before = history.size
        history.add(line, state)
        self._size += history.size - before
        while self._size > self._limit and self._shed():
            pass

    def forget(self, peer: bytes) -> None:
        """The peer's history starts anew, and is complete from here. Unknown peers are none of our business."""
        history = self._peers.get(peer)
        if history is None:
            return
        self._size -= history.size
        history.strip()
        history.complete = True
        self._size += history.size

    def replay(self) -> Iterator[tuple[bytes, bool, list[bytes]]]:
        """(peer, whether its history is complete, its lines in order) of every peer."""
        for peer, history in self._peers.items():
            yield peer, history.complete, [line for each in history.sessions for line in each.lines]

    def _shed(self) -> bool:
        """Drop the largest history; False if there is nothing left to drop."""
        largest = max(self._peers.values(), key=lambda history: history.droppable)
        if not largest.droppable:
            return False
        self._size -= largest.size
        largest.strip()
        largest.complete = False
        self._size += largest.size
        return True
