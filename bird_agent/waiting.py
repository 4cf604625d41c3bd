"""Wait for an event, for so long and no longer."""

from __future__ import annotations

import asyncio


async def is_set_within(event: asyncio.Event, seconds: float) -> bool:
    """Whether it was. Unlike `asyncio.wait_for` (before Python 3.12) it never keeps a cancellation to itself that comes
    in the moment in which the event is set: a loop that waits like that would go on for ever."""
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return False
    return True
