"""An admin port over loopback, and a client for it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping

import aiohttp
import pytest

from proxy.admin.server import AdminServer, ServerOptions
from tests.admin.fakes import FakeControl
from tests.support.loops import SkippingLoop, clock

__all__ = ["clock"]


def pytest_asyncio_loop_factories(item: pytest.Item) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    if "clock" in getattr(item, "fixturenames", ()):
        return {"skipping": SkippingLoop}
    return {"asyncio": asyncio.new_event_loop}


@pytest.fixture
async def control() -> FakeControl:
    return FakeControl()


@pytest.fixture
async def port(control: FakeControl) -> AsyncIterator[int]:
    """The port of a running server, which must leave no task behind."""
    server = AdminServer(control, ServerOptions(port=0, allowed_hosts=("admin.example",)))
    before = asyncio.all_tasks()
    yield await server.start()
    await server.close()
    # Set-up and tear-down of a fixture are tasks of their own.
    assert {task for task in asyncio.all_tasks() if task is not asyncio.current_task()} <= before


@pytest.fixture
async def client(port: int) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as session:
        yield session
