"""Event loops that tests of connections run on, and what must be left on them afterwards: nothing.

A test folder takes part by importing the hooks and fixtures from here in its conftest. Each test then runs on both
loops, unless it moves the clock or is marked ``one_loop`` because which loop it runs on can make no difference.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

import pytest
import pytest_asyncio
import uvloop

from tests.support.stages import until


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


_ONE: Mapping[str, Callable[[], asyncio.AbstractEventLoop]] = {"uvloop": uvloop.new_event_loop}
_BOTH: Mapping[str, Callable[[], asyncio.AbstractEventLoop]] = {**_ONE, "asyncio": asyncio.SelectorEventLoop}


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "one_loop: runs on uvloop alone")


def pytest_asyncio_loop_factories(item: pytest.Item) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    if "clock" in getattr(item, "fixturenames", ()):
        return {"skipping": SkippingLoop}
    return _ONE if item.get_closest_marker("one_loop") else _BOTH


@pytest_asyncio.fixture
async def clock() -> SkippingLoop:
    """The test's loop, to put its clock forward."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, SkippingLoop)
    return loop


def _others() -> set[asyncio.Task[Any]]:
    return {task for task in asyncio.all_tasks() if task is not asyncio.current_task()}


@pytest_asyncio.fixture(autouse=True)
async def nothing_is_left(caplog: pytest.LogCaptureFixture) -> AsyncIterator[None]:
    """No task, no exception that nobody saw, and no complaint of asyncio's."""
    unseen: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: unseen.append(context))
    yield
    with contextlib.suppress(TimeoutError):
        await until(lambda: not _others(), 5)
    assert not _others(), _others()
    assert not unseen, unseen
    assert not [r for r in caplog.get_records("call") if r.name == "asyncio" and r.levelno >= logging.WARNING]
