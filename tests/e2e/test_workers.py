"""Workers and replicas with tokens that live for three seconds, killed at random under load.

The server is a certified one that revokes everything when a used refresh token comes again.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from proxy.cli.orgs import tenants_toml
from proxy.sandbox import DEFAULT_ORGS, Sandbox, SandboxOptions
from proxy.wire.ports import bind, port_of
from tests.support.authorization_server import AuthorizationServer, refreshing, run_authorization_server
from tests.support.proxies import RunningProxy, run_proxy
from tests.support.redis_server import redis_server
from tests.workers.load import Load, load

SECONDS = 60
LIFETIME = 3
CLIENTS = 2
"""Of each tenant."""
TENANTS = ("first", "second", "third", "fourth")

CONNECTION_LOST = {"ConnectionResetError", "IncompleteReadError", "BrokenPipeError"}
"""How a request ends whose process is killed."""
NOBODY_THERE = {"connect: ConnectionRefusedError", "connect: ConnectionResetError"}


@pytest.fixture(params=["sqlite", pytest.param("redis", marks=pytest.mark.needs("redis-server"))])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "sqlite":
        yield f"sqlite:{tmp_path}/tokens.db"
        return
    with redis_server() as server:
        yield server.url


@contextlib.asynccontextmanager
async def authorization_server() -> AsyncIterator[AuthorizationServer]:
    async with run_authorization_server([refreshing("web", "secret-of-web")], lifetime=LIFETIME) as server:
        yield server


async def configuration(server: AuthorizationServer, store: str) -> str:
    """Each tenant has a login of its own; ``{port}`` is to be filled in."""
    text = (
        f'[listen]\nport = {{port}}\n[admin]\nport = 0\n[store]\nurl = "{store}"\n'
        f'[defaults]\napi_url = "{server.url}"\nlogin_url = "{server.url}"\n'
        'grant = "refresh_token"\nclient_id = "web"\nclient_secret = "secret-of-web"\n'
    )
    for tenant in TENANTS:
        text += f'[tenants.{tenant}]\nrefresh_token = "{await server.login("web")}"\n'
    return text


@contextlib.asynccontextmanager
async def clients(port: int) -> AsyncIterator[list[Load]]:
    """Some of each tenant, and what they see."""
    async with contextlib.AsyncExitStack() as stack:
        loads = [load(port, clients=CLIENTS, tenant=tenant.encode()) for tenant in TENANTS]
        yield [await stack.enter_async_context(each) for each in loads]


class Program:
    """The proxy on one port, through restarts after ``kill -9``."""

    def __init__(self, configuration: str, *options: str) -> None:
        sockets = bind("127.0.0.1", 0)
        self.port = port_of(sockets)
        for sock in sockets:
            sock.close()
        self._configuration = configuration.replace("{port}", str(self.port))
        self._options = options
        self._running = contextlib.AsyncExitStack()
        self.proxy: RunningProxy

    async def __aenter__(self) -> Program:
        await self._start()
        return self

    async def __aexit__(self, *exception: Any) -> None:
        await self._running.aclose()

    async def _start(self) -> None:
        self.proxy = await self._running.enter_async_context(run_proxy(self._configuration, *self._options))

    async def kill_and_restart(self) -> None:
        """With SIGKILL; the next one has the same port."""
        self.proxy.signal(signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):  # it ended with -9
            await self._running.aclose()
        self._running = contextlib.AsyncExitStack()
        await self._start()

    async def kill_a_worker(self, moments: random.Random) -> bool:
        """With SIGKILL; False where none serves."""
        async with (
            aiohttp.ClientSession() as session,
            session.get(self.proxy.admin_url + "/status.json") as response,
        ):
            pids = [each["pid"] for each in (await response.json())["workers"] if each["pid"]]
        if pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(moments.choice(pids), signal.SIGKILL)
        return bool(pids)


def sums(seen: list[Load]) -> tuple[Counter[int], Counter[str]]:
    return sum((each.statuses for each in seen), Counter()), sum((each.failures for each in seen), Counter())


@pytest.mark.slow
@pytest.mark.needs("oidc-provider")
@pytest.mark.timeout(SECONDS + 90)
async def test_killing_workers_and_their_supervisor_loses_no_refresh_token(store: str) -> None:
    moments = random.Random(1)
    kills = 0
    now = asyncio.get_running_loop().time
    async with authorization_server() as server:
        text = await configuration(server, store)
        async with Program(text, "--workers", "4") as program, clients(program.port) as seen:
            end = now() + SECONDS
            while now() < end:
                await asyncio.sleep(moments.uniform(0.5, 2))
                kills += await program.kill_a_worker(moments)
            _, failures = sums(seen)
            assert failures.keys() <= CONNECTION_LOST
            assert failures.total() <= CLIENTS * len(TENANTS) * kills
            await program.kill_and_restart()
            answered = [each.statuses.total() for each in seen]
            await asyncio.sleep(2 * LIFETIME)
            assert all(each.statuses.total() > before for each, before in zip(seen, answered, strict=True))
        statuses, failures = sums(seen)
        ledger = await server.ledger()
    print(f"{kills} workers killed: {statuses} {failures} {ledger}")
    assert kills >= SECONDS / 12
    assert set(statuses) == {200}
    assert failures.keys() <= CONNECTION_LOST | NOBODY_THERE
    assert ledger["reuses"] == 0
    assert ledger["refused"] == {}
    assert ledger["granted"]["refresh_token"] <= len(TENANTS) * (SECONDS + 3 * LIFETIME) / (LIFETIME * 0.6)


@pytest.mark.slow
@pytest.mark.needs("oidc-provider", "redis-server")
@pytest.mark.timeout(SECONDS + 90)
async def test_killing_replicas_on_one_redis_loses_no_refresh_token() -> None:
    """What is killed here asks for tokens itself: a kill between the server's rotation and our writing would show."""
    moments = random.Random(2)
    kills = 0
    now = asyncio.get_running_loop().time
    with redis_server() as redis:
        async with authorization_server() as server, contextlib.AsyncExitStack() as running:
            text = await configuration(server, redis.url)
            replicas = [await running.enter_async_context(Program(text)) for _ in range(3)]
            loads = [await running.enter_async_context(clients(replica.port)) for replica in replicas]
            end = now() + SECONDS
            while now() < end:
                await asyncio.sleep(moments.uniform(0.5, 2))
                await moments.choice(replicas).kill_and_restart()
                kills += 1
            ledger = await server.ledger()
    statuses, failures = sums([each for seen in loads for each in seen])
    print(f"{kills} replicas killed: {statuses} {failures} {ledger}")
    assert kills >= SECONDS / 12
    assert set(statuses) == {200}
    assert failures.keys() <= CONNECTION_LOST | NOBODY_THERE
    assert ledger["reuses"] == 0


@pytest.mark.slow
@pytest.mark.timeout(SECONDS + 60)
async def test_killing_workers_costs_their_own_connections_and_nothing_else(store: str) -> None:
    """With client credentials, which each worker asks for itself."""
    moments = random.Random(1)
    kills = 0
    async with Sandbox(SandboxOptions(rate_limit=None, org_rate_limit=None, token_lifetime=LIFETIME)) as sandbox:
        configuration = f'[listen]\nport = {{port}}\n[admin]\nport = 0\n[store]\nurl = "{store}"\n'
        configuration += tenants_toml(sandbox.base_url, DEFAULT_ORGS)
        async with Program(configuration, "--workers", "4") as program:
            end = asyncio.get_running_loop().time() + SECONDS
            async with load(program.port, clients=8) as seen:
                while asyncio.get_running_loop().time() < end:
                    await asyncio.sleep(moments.uniform(1, 4))
                    kills += await program.kill_a_worker(moments)
    print(f"{kills} workers killed: {seen.statuses} {seen.failures} {sandbox.ledger.tokens_issued()} tokens")
    assert kills >= 10
    assert set(seen.statuses) == {200}
    assert seen.failures.keys() <= CONNECTION_LOST
    assert seen.failures.total() <= 8 * kills
    # Refreshed a fifth of their life ahead: a few more for those whose request died with its process.
    assert sandbox.ledger.tokens_issued() <= len(DEFAULT_ORGS) * SECONDS / (LIFETIME * 0.7) + 2 * kills
