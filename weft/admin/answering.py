"""Answer the questions that wait for one agent in the datastore, with what its own socket would answer.

An adapter. Only methods it is given are answered, one after the other; a question that nobody waits for any more is
dropped. What is no question is ignored, with a line in the log. An agent that is restarted finds what still waits. A
datastore that is away for a moment costs only time."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Awaitable, Callable, Mapping, Sequence
from importlib.metadata import version
from typing import Final, TypeVar

import msgspec
from google.protobuf.message import DecodeError

from weft.admin.errors import to_detail
from weft.admin.questions import ENDING, LIFETIME_S, TAKEN, UnknownQuestionError, compressed, part_name, parts_of
from weft.datastore.base import Datastore
from weft.datastore.syncer import Deleted, Syncer, SyncEvent, Upserted
from weft.model import keys
from weft.model.errors import AlreadyExistsError, DatastoreUnavailableError, LeaseGoneError, ValidationError, WeftError
from weft.model.keys import Addressee, QuestionKey
from weft.model.questions import Ending, Question

log = logging.getLogger(__name__)

T = TypeVar("T")

MOST_AT_ONCE: Final = 256
READY_S: Final = 5.0
_LOOK_AGAIN_S: Final = 0.1
_FIRST_WAIT_S: Final = 0.1
_LONGEST_WAIT_S: Final = 2.0

AnswerMethod = Callable[[bytes], Awaitable[bytes]]
"""A message in, a message out. Raises WeftErrors, and DecodeError for what is no message."""


class Answerer:
    """Of one agent. `methods` are by their full names; before `ready` an answer waits for a while, because an agent
    that has only just begun knows nothing yet."""

    def __init__(
        self,
        store: Datastore,
        addressee: Addressee,
        methods: Mapping[str, AnswerMethod],
        ready: Callable[[], bool] = lambda: True,
    ) -> None:
        self._store = store
        self._prefix = keys.questions_prefix(addressee)
        self._methods = methods
        self._ready = ready
        self._turn = asyncio.Semaphore(1)
        self._answering: dict[QuestionKey, asyncio.Task[None]] = {}

    async def run(self) -> None:
        """For ever; a datastore that is away is waited for."""
        async with asyncio.TaskGroup() as group:
            await Syncer(self._store, [self._prefix]).run(lambda batch: self._on_questions(group, batch))

    def _on_questions(self, group: asyncio.TaskGroup, batch: Sequence[SyncEvent]) -> None:
        for event in batch:
            match event:
                case Upserted(QuestionKey() as key, Question() as question) if key not in self._answering:
                    if len(self._answering) >= MOST_AT_ONCE:
                        log.warning("%s is ignored: %d questions wait already", keys.path(key), MOST_AT_ONCE)
                        continue
                    task = self._answering[key] = group.create_task(self._take(key, question))
                    # Not at the end of the task's own: one that is cancelled before it has begun never gets there.
                    task.add_done_callback(lambda _, key=key: self._answering.pop(key))  # type: ignore[misc]
                case Deleted(QuestionKey() as key) if key in self._answering:
                    self._answering[key].cancel()
                case _:
                    pass  # what cannot be read has been said by the syncer

    async def _take(self, key: QuestionKey, question: Question) -> None:
        try:
            await self._answer(key, question)
        except LeaseGoneError:
            log.debug("%s: nobody waits any more", keys.path(key))
        except (DatastoreUnavailableError, AlreadyExistsError) as error:
            log.warning("%s could not be answered: %s", keys.path(key), error)

    async def _answer(self, key: QuestionKey, question: Question) -> None:
        found = await _insist(keys.path(key), lambda: self._store.get(keys.path(key)))
        if found is None:
            return
        if not found.lease:
            log.warning("%s is ignored: without a lease nothing would end it", keys.path(key))
            return
        reply = _Reply(self._store, key, found.lease)
        await reply.write(TAKEN, b"")
        await self._until_ready()
        async with self._turn:
            try:
                data = await self._result(question)
                size = await reply.write_answer(data)
            except WeftError as error:
                if isinstance(error, DatastoreUnavailableError | LeaseGoneError | AlreadyExistsError):
                    raise
                await reply.refuse(error)
                size = 0
        log.info("answered %s, asked by %s: %d bytes", question.method, question.asker or "somebody", size)

    async def _until_ready(self) -> None:
        """Or until that has taken too long: then what is known is told."""
        loop = asyncio.get_running_loop()
        until = loop.time() + READY_S
        while not self._ready() and loop.time() < until:  # noqa: ASYNC110 - nobody tells when
            await asyncio.sleep(_LOOK_AGAIN_S)

    async def _result(self, question: Question) -> bytes:
        method = self._methods.get(question.method)
        if method is None:
            raise UnknownQuestionError(question.method, version("weft"))
        try:
            return await method(question.request)
        except DecodeError as error:
            raise ValidationError("", 0, "request", question.request[:40], f"a message ({error})") from None
        except WeftError:
            raise
        except Exception as error:  # a defect of one answer must not end the agent
            log.exception("%s of %s failed", question.method, question.asker)
            raise DefectError(f"the agent failed to answer: {type(error).__name__}: see its log") from error


class DefectError(WeftError):
    """A mistake in the agent: report it."""


class _Reply:
    """What one run says in answer to one question."""

    def __init__(self, store: Datastore, key: QuestionKey, lease: int) -> None:
        self._store = store
        self._prefix = f"{keys.answers_prefix(key)}{secrets.token_hex(4)}/"
        self._lease = lease

    async def write(self, part: str, value: bytes) -> None:
        key, again = self._prefix + part, False

        async def create() -> None:
            nonlocal again
            try:
                await self._store.create(key, value, self._lease)
            except AlreadyExistsError:
                if not again:
                    raise
                # What was written before the connection was lost: nobody else has this run's name.
            except DatastoreUnavailableError:
                again = True
                raise

        await _insist(key, create)

    async def write_answer(self, data: bytes) -> int:
        """The number of bytes written. Raises AnswerTooLargeError before it writes anything."""
        packed = bytearray()
        for piece in compressed(data):
            packed += piece
            await asyncio.sleep(0)
        parts = parts_of(bytes(packed), len(data))
        for number, part in enumerate(parts):
            await self.write(part_name(number), part)
        await self.write(ENDING, msgspec.json.encode(Ending(parts=len(parts))))
        return len(packed)

    async def refuse(self, error: WeftError) -> None:
        ending = Ending(refusal=to_detail(error).SerializeToString())
        await self.write(ENDING, msgspec.json.encode(ending))


async def _insist(key: str, call: Callable[[], Awaitable[T]]) -> T:
    """Call until the datastore answers. Raises DatastoreUnavailableError when no question can wait any longer."""
    loop = asyncio.get_running_loop()
    until, wait_s = loop.time() + LIFETIME_S, _FIRST_WAIT_S
    while True:
        try:
            return await call()
        except DatastoreUnavailableError as error:
            if loop.time() + wait_s > until:
                raise
            if wait_s == _FIRST_WAIT_S:
                log.warning("%s is tried again: %s", key, error)
        await asyncio.sleep(wait_s)
        wait_s = min(2 * wait_s, _LONGEST_WAIT_S)
