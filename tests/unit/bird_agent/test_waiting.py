"""Waiting for an event."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from bird_agent.waiting import is_set_within

FOR_EVER_S = 3600.0


async def cancelled_as_it_is_set(wait: Callable[[asyncio.Event], Awaitable[object]]) -> bool:
    event = asyncio.Event()

    async def waiting() -> None:
        await wait(event)

    task = asyncio.create_task(waiting())
    for _ in range(3):
        await asyncio.sleep(0)
    event.set()
    for _ in range(3):  # however far that has come
        task.cancel()
        await asyncio.sleep(0)
        if task.done():
            break
    await asyncio.wait([task])
    return task.cancelled()


def test_a_cancellation_in_the_moment_of_the_event_is_not_lost() -> None:
    assert asyncio.run(cancelled_as_it_is_set(lambda event: is_set_within(event, FOR_EVER_S)))


@pytest.mark.parametrize("is_set", [True, False])
def test_it_says_whether_the_event_came(is_set: bool) -> None:
    async def said() -> bool:
        event = asyncio.Event()
        if is_set:
            event.set()
        return await is_set_within(event, FOR_EVER_S if is_set else 0)

    assert asyncio.run(said()) is is_set
