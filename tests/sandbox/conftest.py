"""A sandbox with a clock that only tests move, and a caller for it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import aiohttp
import pytest

from proxy.sandbox import Sandbox, SandboxOptions
from tests.sandbox.caller import Caller, Clock


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def options() -> SandboxOptions:
    """Overridden where a test needs others."""
    return SandboxOptions()


@pytest.fixture
async def sandbox(options: SandboxOptions, clock: Clock) -> AsyncIterator[Sandbox]:
    sandbox = Sandbox(options, clock=clock)
    await sandbox.start()
    yield sandbox
    await sandbox.close()


@pytest.fixture
async def caller(sandbox: Sandbox) -> AsyncIterator[Caller]:
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(10)) as session:
        yield Caller(session, sandbox.base_url)
