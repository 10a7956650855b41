"""``run --workers`` with refresh tokens that rotate: real workers die in the worst moment, and nothing is lost."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from proxy.cli.orgs import tenants_toml
from proxy.sandbox import Client, Org, Sandbox, SandboxOptions
from tests.support.proxies import RunningProxy, run_proxy
from tests.support.redis_server import redis_server
from tests.support.stages import ECHO, until

ORG = Org("org-id", "acme", (Client("client-id", "client-secret", refresh_token="the-first-refresh-token"),), ())
PATIENCE = 30.0


@pytest.fixture(params=["sqlite", pytest.param("redis", marks=pytest.mark.needs("redis-server"))])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "sqlite":
        yield f"sqlite:{tmp_path}/tokens.db"
        return
    with redis_server() as server:
        yield server.url


class Stage:
    """Two workers for a tenant that refreshes, and the sandbox that punishes every reuse."""

    def __init__(
        self, sandbox: Sandbox, proxy: RunningProxy, session: aiohttp.ClientSession, configuration: str
    ) -> None:
        self.sandbox = sandbox
        self.configuration = configuration
        self.proxy = proxy
        self._session = session

    async def get(self) -> int:
        async with self._session.get(self.proxy.url + ECHO) as response:
            return response.status

    async def refresh(self) -> int:
        async with self._session.post(self.proxy.admin_url + "/tenants/acme/refresh") as response:
            return response.status

    async def pids(self) -> list[int]:
        async with self._session.get(self.proxy.admin_url + "/status.json") as response:
            status: dict[str, Any] = await response.json()
        return [worker["pid"] for worker in status["workers"] if worker["pid"] is not None]

    @property
    def granted(self) -> int:
        return self.sandbox.ledger.token_requests["acme", "refresh_token", "ok"]


@contextlib.asynccontextmanager
async def stage(store: str) -> AsyncIterator[Stage]:
    async with Sandbox(SandboxOptions(orgs=(ORG,))) as sandbox:
        configuration = (
            f'[listen]\nport = 0\n[admin]\nport = 0\n[store]\nurl = "{store}"\n'
            + tenants_toml(sandbox.base_url, (ORG,))
            + 'grant = "refresh_token"\nrefresh_token = "the-first-refresh-token"\n'
        )
        async with run_proxy(configuration, "--workers", "2") as proxy, aiohttp.ClientSession() as session:
            yield Stage(sandbox, proxy, session, configuration)


async def test_workers_that_die_while_a_refresh_token_is_used_lose_nothing(store: str) -> None:
    """The server has rotated, and its answer is on the way, when every worker is killed."""
    async with stage(store) as running:
        assert await running.get() == 200
        assert running.granted == 1
        running.sandbox.faults.set("token_late", 1.0, count=1)
        refreshing = asyncio.create_task(running.refresh(), name="refresh")  # noqa: TID251 awaited below
        await until(lambda: not running.sandbox.faults.as_json(), PATIENCE)
        before = await running.pids()
        for pid in before:
            os.kill(pid, signal.SIGKILL)
        await refreshing  # no worker is there to tell how it ended
        await until(lambda: running.granted == 2, PATIENCE)
        async with asyncio.timeout(PATIENCE):
            while len(pids := await running.pids()) != 2 or set(pids) & set(before):  # noqa: ASYNC110 other processes
                await asyncio.sleep(0.05)
        assert await running.get() == 200
        assert await running.refresh() == 200
        assert running.granted == 3
        assert running.sandbox.ledger.refresh_token_reuses == 0


async def test_sigterm_waits_for_a_refresh_that_a_worker_has_wished_for(tmp_path: Path) -> None:
    store = f"sqlite:{tmp_path}/tokens.db"
    async with stage(store) as running:
        assert await running.get() == 200
        running.sandbox.faults.set("token_late", 1.5, count=1)
        refreshing = asyncio.create_task(running.refresh(), name="refresh")  # noqa: TID251 awaited below
        await until(lambda: not running.sandbox.faults.as_json(), PATIENCE)
        running.proxy.signal(signal.SIGTERM)
        assert await running.proxy.ended() == 0
        await asyncio.gather(refreshing, return_exceptions=True)  # the admin port may close before it answers
        assert running.granted == 2
        async with (
            run_proxy(running.configuration) as alone,
            aiohttp.ClientSession() as session,
            session.post(alone.admin_url + "/tenants/acme/refresh") as renewed,
        ):
            assert renewed.status == 200
        assert (running.granted, running.sandbox.ledger.refresh_token_reuses) == (3, 0)
