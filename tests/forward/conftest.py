"""Each test leaves nothing behind, and runs on uvloop and on asyncio's own loop."""

from __future__ import annotations

from tests.support.loops import clock, nothing_is_left, pytest_asyncio_loop_factories, pytest_configure

__all__ = ["clock", "nothing_is_left", "pytest_asyncio_loop_factories", "pytest_configure"]
