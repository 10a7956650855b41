"""Event loops that tests of connections run on, and what must be left on them afterwards: nothing.

A test folder takes part by importing ``pytest_asyncio_loop_factories`` and ``nothing_is_left`` in its conftest.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

import pytest
import pytest_asyncio
import uvloop


class SkippingLoop(asyncio.SelectorEventLoop):
    """A loop on real sockets whose clock can be put forward, so that nobody sleeps for a timeout."""

    def __init__(self) -> None:
        self._ahead = 0.0
        super().__init__()

    def time(self) -> float:
        return super().time() + self._ahead

    async def skip(self, seconds: float) -> None:
        """Lets time pass at once, and what was due in it happen."""
        await asyncio.sleep(0.02)  # what is on its way arrives before
        self._ahead += seconds
        await asyncio.sleep(0.02)


_BOTH: Mapping[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "uvloop": uvloop.new_event_loop,
    "asyncio": asyncio.SelectorEventLoop,
}


def pytest_asyncio_loop_factories(item: pytest.Item) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Both loops, but a test that takes ``clock`` has the one whose time can be put forward."""
    names = getattr(item, "fixturenames", ())
    return {"skipping": SkippingLoop} if "clock" in names else _BOTH


@pytest_asyncio.fixture
async def clock() -> SkippingLoop:
    """The test's loop, to put its clock forward."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, SkippingLoop)
    return loop


@pytest_asyncio.fixture(autouse=True)
async def nothing_is_left(caplog: pytest.LogCaptureFixture) -> AsyncIterator[None]:
    """No task, no exception that nobody saw, and no complaint of asyncio's."""
    unseen: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: unseen.append(context))
    yield
    for _ in range(100):
        if not (tasks := asyncio.all_tasks() - {asyncio.current_task()}):
            break
        await asyncio.sleep(0.01)
    assert not tasks, tasks
    assert not unseen, unseen
    assert not [r for r in caplog.get_records("call") if r.name == "asyncio" and r.levelno >= logging.WARNING]
