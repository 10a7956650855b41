"""Waiting for another process's write by looking: cheap, and only while somebody waits."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

FIRST_PAUSE = 0.02
LONGEST_PAUSE = 0.1
"""Seconds between looks; they grow, since what is waited for takes either a moment or long."""


async def poll(has_changed: Callable[[], Awaitable[bool]], seconds: float) -> None:
    """Looks until there is a change, for at most so long."""
    loop = asyncio.get_running_loop()
    end, pause = loop.time() + seconds, FIRST_PAUSE
    while not await has_changed() and (left := end - loop.time()) > 0:
        await asyncio.sleep(min(pause, left))
        pause = min(LONGEST_PAUSE, pause * 1.5)
