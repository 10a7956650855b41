"""Each test runs on uvloop and on asyncio's own loop, and leaves nothing behind."""

from __future__ import annotations

from tests.support.loops import clock, nothing_is_left, pytest_asyncio_loop_factories

__all__ = ["clock", "nothing_is_left", "pytest_asyncio_loop_factories"]
