"""Questions to the agent of any node, through the datastore: what both ends agree on.

Pure. An answer goes as compressed parts of one run of an agent, between a mark that the question is taken and an ending
that counts the parts. Parts of different runs (an agent that was restarted, two of one name) are never put together."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from typing import Final, Protocol

import msgspec
from msgspec import Struct, field

from weft.model.errors import WeftError
from weft.model.keys import Addressee
from weft.model.questions import Ending

LIFETIME_S: Final = 60
"""Of a question, and so of what is said in answer to it: half a million routes take a busy node most of it."""
SILENCE_S: Final = 5.0
"""After this much without a sign nobody is there."""
PART_BYTES: Final = 256 << 10
"""etcd takes 1.5 MB at once; smaller parts delay others less."""
MOST_PARTS: Final = 32
MOST_BYTES: Final = 256 << 20
"""Uncompressed: what whoever asks is ready to hold."""
MOST_RUNS: Final = 8

TAKEN: Final = "taken"
ENDING: Final = "ending"
_SLICE: Final = 256 << 10
_FAST: Final = 1


class QuestionAPI(Protocol):
    """`method` is one of those an agent answers to anybody, `request` and the answer are its messages.

    Raises what the agent refuses with, NoSuchNodeError, UnansweredError, DatastoreUnavailableError."""

    async def ask(self, addressee: Addressee, method: str, request: bytes, asker: str = "") -> bytes: ...


class NoSuchNodeError(WeftError):
    """The name is wrong: ask for one of those there are."""

    def __init__(self, node: str, names: Sequence[str]) -> None:
        self.node = node
        super().__init__(f"no Node named {_shown(node)}: there are {few(names)}")


class UnansweredError(WeftError):
    """Nobody has answered in time: look after the agent, or ask again."""

    def __init__(self, addressee: Addressee, waited_s: float, taken: bool, hint: str = "") -> None:
        self.addressee = addressee
        who = f"node {addressee.node}" if addressee.role == "agent" else f"the reflector {addressee.node}"
        what = "its BGP agent" if addressee.role == "agent" else "it"
        text = f"{who} has not answered within {waited_s:g} s: {what} is not running, cannot reach the datastore"
        text += ", may not write its answers there, or is older than this weftctl"
        if taken:
            text = f"{who} has taken the question and not answered within {waited_s:g} s: {what} has ended, or is busy"
        super().__init__(f"{text}{hint}")


class AnswerTooLargeError(WeftError):
    """Ask for less, or on the node itself."""

    def __init__(self, size: int) -> None:
        self.size = size
        super().__init__(
            f"the answer takes more than the {MOST_PARTS * PART_BYTES >> 20} MB that go through the datastore "
            f"({size >> 20} MB before compression): ask for less (received PEER, advertised PEER, trace PREFIX), "
            "or on the node itself"
        )


class UnknownQuestionError(WeftError):
    """The agent is older than whoever asks."""

    def __init__(self, method: str, version: str) -> None:
        self.method = method
        super().__init__(f"the agent (weft {version}) does not answer {method!r}: it is older than this weftctl")


class DamagedAnswerError(WeftError):
    """What was put together is no answer: ask again."""


def compressed(data: bytes) -> Iterator[bytes]:
    """`data` compressed, a slice at a time, so that the caller can give way between two."""
    packer = zlib.compressobj(_FAST)
    for start in range(0, len(data), _SLICE):
        yield packer.compress(data[start : start + _SLICE])
    yield packer.flush()


def parts_of(packed: bytes, size: int) -> list[bytes]:
    """Raises AnswerTooLargeError; `size` is that before compression."""
    found = [packed[start : start + PART_BYTES] for start in range(0, len(packed), PART_BYTES)]
    if len(found) > MOST_PARTS or size > MOST_BYTES:
        raise AnswerTooLargeError(size)
    return found


def part_name(number: int) -> str:
    return f"{number:04}"


class Refusal(Struct, frozen=True):
    """Instead of an answer: an ErrorDetail."""

    detail: bytes


class _Run(Struct):
    parts: dict[str, bytes] = field(default_factory=dict)
    ending: Ending | None = None

    def outcome(self) -> bytes | Refusal | None:
        if self.ending is None:
            return None
        if self.ending.refusal is not None:
            return Refusal(self.ending.refusal)
        if not 0 < self.ending.parts <= MOST_PARTS:
            raise DamagedAnswerError(f"an answer of {self.ending.parts} parts")
        names = [part_name(number) for number in range(self.ending.parts)]
        if not self.parts.keys() >= set(names):
            return None
        return _unpacked(b"".join(self.parts[name] for name in names))


class Answer:
    """Everything that was written in answer to one question, in any order."""

    def __init__(self) -> None:
        self._runs: dict[str, _Run] = {}

    @property
    def taken(self) -> bool:
        """Whether somebody works on it."""
        return bool(self._runs)

    def on_written(self, name: str, value: bytes) -> bytes | Refusal | None:
        """`name` is what a key has behind the question's: `RUN/PART`. What was asked for, once one run has said all.

        Raises DamagedAnswerError."""
        run_name, _, part = name.partition("/")
        if run_name not in self._runs and len(self._runs) == MOST_RUNS:
            raise DamagedAnswerError("more agents answer than there can be")
        run = self._runs.setdefault(run_name, _Run())
        if part == ENDING:
            run.ending = _ending(value)
        elif part != TAKEN and len(run.parts) < MOST_PARTS:
            run.parts[part] = value
        return run.outcome()


def _ending(value: bytes) -> Ending:
    try:
        return msgspec.json.decode(value, type=Ending)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise DamagedAnswerError(f"the answer's ending cannot be read: {error}") from None


def _unpacked(packed: bytes) -> bytes:
    unpacker = zlib.decompressobj()
    try:
        data = unpacker.decompress(packed, MOST_BYTES)
    except zlib.error as error:
        raise DamagedAnswerError(f"the answer is damaged: {error}") from None
    if not unpacker.eof:
        raise DamagedAnswerError("the answer is damaged: it has no end, or is larger than any answer")
    return data


def few(names: Sequence[str], most: int = 10) -> str:
    if not names:
        return "none"
    shown = ", ".join(map(_shown, names[:most]))
    return f"{shown} and {len(names) - most} more" if len(names) > most else shown


def _shown(name: str) -> str:
    """A name that would do something to a terminal is quoted."""
    return name if name.isprintable() else repr(name)
