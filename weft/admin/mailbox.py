"""Ask the agent of any node through the datastore: the QuestionAPI on a Datastore.

Question and answer are bound to one lease, which is revoked at the end and ends by itself where nobody is left to do
that. Nothing is written for a node that does not exist."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Final

from google.protobuf.message import DecodeError

from weft.admin.errors import from_detail
from weft.admin.questions import (
    LIFETIME_S,
    SILENCE_S,
    Answer,
    DamagedAnswerError,
    NoSuchNodeError,
    Refusal,
    UnansweredError,
    few,
)
from weft.admin.v1 import errors_pb2 as pb
from weft.datastore.base import Changed, Datastore
from weft.model import codec, keys
from weft.model.errors import CompactedError, DatastoreUnavailableError, FieldError, ValidationError, WeftError
from weft.model.keys import Addressee, QuestionKey, ReflectorKey, ResourceKey
from weft.model.node import Node
from weft.model.questions import Question

log = logging.getLogger(__name__)

AGAIN_S: Final = 0.2


class Mailbox:
    """The QuestionAPI on a datastore. Times are in seconds."""

    def __init__(self, store: Datastore, silence_s: float = SILENCE_S, lifetime_s: int = LIFETIME_S) -> None:
        self._store = store
        self._silence_s = silence_s
        self._lifetime_s = lifetime_s

    async def ask(self, addressee: Addressee, method: str, request: bytes, asker: str = "") -> bytes:
        node = ResourceKey("Node", addressee.node)
        if await self._store.get(keys.path(node)) is None:
            raise NoSuchNodeError(addressee.node, sorted(await self._nodes()))
        try:
            question = Question(method=method, request=request, asker=asker)
        except FieldError as error:
            raise ValidationError("", 0, error.field, error.value, error.expected) from None
        lease = await self._store.grant(self._lifetime_s)
        try:
            key = QuestionKey(addressee, secrets.token_hex(8))
            written_at = await self._store.create(keys.path(key), codec.encode_stored(question), lease)
            outcome = await self._outcome(key, written_at)
        finally:
            await self._revoke(lease)
        if isinstance(outcome, Refusal):
            raise _refusal(outcome)
        return outcome

    async def _outcome(self, key: QuestionKey, written_at: int) -> bytes | Refusal:
        """Raises UnansweredError."""
        answer = Answer()
        began_at = asyncio.get_running_loop().time()
        try:
            async with (
                asyncio.timeout_at(began_at + self._silence_s) as limit,
                aclosing(self._written(keys.answers_prefix(key), written_at)) as written,
            ):
                async for name, value in written:
                    outcome = answer.on_written(name, value)
                    if outcome is not None:
                        return outcome
                    limit.reschedule(began_at + self._lifetime_s)
        except TimeoutError:
            pass
        waited_s = self._lifetime_s if answer.taken else self._silence_s
        hint = await self._hint(key.addressee, answer.taken)
        raise UnansweredError(key.addressee, waited_s, answer.taken, hint)

    async def _written(self, prefix: str, revision: int) -> AsyncGenerator[tuple[str, bytes], None]:
        """What is written below `prefix` behind a revision, over lost connections, for ever. More than once where
        history is gone."""
        gap = False
        while True:
            try:
                if gap:
                    there = await self._store.list(prefix)
                    for item in there.items:
                        yield item.key.removeprefix(prefix), item.value
                    revision, gap = there.revision, False
                async with aclosing(self._store.watch(prefix, revision + 1)) as watch:
                    async for batch in watch:
                        for event in batch:
                            if isinstance(event, Changed):
                                yield event.kv.key.removeprefix(prefix), event.kv.value
                                revision = event.kv.revision
            except DatastoreUnavailableError as error:
                log.debug("%s: %s", prefix, error)
            except CompactedError as error:
                log.debug("%s: %s", prefix, error)
                gap = True
            await asyncio.sleep(AGAIN_S)

    async def _revoke(self, lease: int) -> None:
        try:
            await self._store.revoke(lease)
        except DatastoreUnavailableError as error:
            log.debug("question and answer stay until their lease ends: %s", error)

    async def _nodes(self) -> dict[str, Node]:
        found = {}
        for item in (await self._store.list(keys.prefix("Node"))).items:
            key = keys.parse(item.key)
            if isinstance(key, ResourceKey):
                try:
                    node = codec.decode_stored(key, item.value)
                except ValidationError:
                    continue  # its name counts for nothing here
                assert isinstance(node, Node)
                found[key.name] = node
        return found

    async def _hint(self, addressee: Addressee, taken: bool) -> str:
        """What else to try where nobody answers. Raises DatastoreUnavailableError: then the agent is not to blame."""
        nodes = await self._nodes()
        if taken:
            return ""
        of_clusters = {
            name for name, node in nodes.items() if node.spec.bgp and node.spec.bgp.route_reflector_cluster_id
        }
        if addressee.role == "agent":
            return "; a reflector of its own is asked by --reflector" if addressee.node in of_clusters else ""
        serving = {key.node for key in await self._serving()}
        return f"; said to be reflectors: {few(sorted(of_clusters | serving))}"

    async def _serving(self) -> list[ReflectorKey]:
        found = (keys.parse(item.key) for item in (await self._store.list(f"{keys.REFLECTORS}serving/")).items)
        return [key for key in found if isinstance(key, ReflectorKey)]


def _refusal(refusal: Refusal) -> WeftError:
    try:
        return from_detail(pb.ErrorDetail.FromString(refusal.detail))
    except DecodeError as error:
        return DamagedAnswerError(f"the refusal cannot be read: {error}")
