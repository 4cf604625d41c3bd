"""A datastore driven one operation at a time, so that a test decides who goes next and who dies."""

from __future__ import annotations

from collections.abc import Coroutine, Generator, Sequence
from typing import Any

from tests.fakes.datastore import MemoryDatastore
from weft.datastore.base import CommitResult, KeyValue, Plan, Snapshot


class _Turn:
    def __await__(self) -> Generator[None, None, None]:
        yield


class Stepped:
    """Gives way before every operation; commits are ordered or transactional as the store's are."""

    def __init__(self, store: MemoryDatastore) -> None:
        self.store = store

    async def get_many(self, paths: Sequence[str]) -> list[KeyValue | None]:
        await _Turn()
        return await self.store.get_many(paths)

    async def list(self, prefix: str) -> Snapshot:
        await _Turn()
        return await self.store.list(prefix)

    async def commit(self, plan: Plan) -> CommitResult:
        revisions: dict[str, int] = {}
        for group in plan.groups if self.store.transactional else plan.ungrouped().groups:
            await _Turn()
            revisions.update((await self.store.commit(Plan((group,)))).revisions)
        return CommitResult(revisions)


def run(call: Coroutine[Any, Any, Any]) -> Any:
    """To the end, with nobody in between."""
    while True:
        try:
            call.send(None)
        except StopIteration as done:
            return done.value
