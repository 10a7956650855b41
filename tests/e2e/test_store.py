"""Real processes that share a store: one token among them, and none anew after a restart."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sqlite3
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import aiohttp
import pytest

from proxy.sandbox import Org, Sandbox, SandboxOptions
from tests.support.proxies import RunningProxy, run_proxy
from tests.support.redis_server import redis_server
from tests.support.stages import ECHO, make_orgs, ports_toml, tenant_toml, until


@pytest.fixture(params=["sqlite", pytest.param("redis", marks=pytest.mark.needs("redis-server"))])
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "sqlite":
        yield f"sqlite:{tmp_path}/state/tokens.db"
        return
    with redis_server() as server:
        yield server.url


class World:
    """A sandbox with one org, and proxies that share a store."""

    def __init__(self, sandbox: Sandbox, org: Org, store: str) -> None:
        self.sandbox = sandbox
        self._configuration = f"{ports_toml(sandbox.base_url)}\n{store}\n{tenant_toml(org)}"

    def proxy(self, **variables: str) -> contextlib.AbstractAsyncContextManager[RunningProxy]:
        return run_proxy(self._configuration, **variables)

    @property
    def token_requests(self) -> int:
        return sum(self.sandbox.ledger.token_requests.values())


@contextlib.asynccontextmanager
async def world(store: str) -> AsyncIterator[World]:
    [org] = make_orgs(["acme"])
    async with Sandbox(SandboxOptions(orgs=(org,), rate_limit=None, org_rate_limit=None)) as sandbox:
        yield World(sandbox, org, f"[store]\n{store}")


async def status(proxy: RunningProxy, tenant: str | None = None) -> int:
    """What a call through the proxy is answered."""
    async with (
        aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=30)) as session,
        session.get(proxy.url + ("" if tenant is None else f"/t/{tenant}") + ECHO) as response,
    ):
        await response.read()
        return response.status


def all_bytes(folder: Path) -> bytes:
    return b"".join(file.read_bytes() for file in folder.iterdir() if file.is_file())


def remove_all(folder: Path) -> None:
    for file in folder.iterdir():
        file.unlink()


async def test_a_restart_goes_on_with_the_token_that_is_there(store_url: str) -> None:
    async with world(f'url = "{store_url}"') as shared:
        for _ in range(3):
            async with shared.proxy() as proxy:
                assert await status(proxy) == 200
        assert shared.token_requests == 1


async def test_processes_have_one_token_among_them(store_url: str) -> None:
    async with world(f'url = "{store_url}"') as shared, shared.proxy() as one, shared.proxy() as two:
        assert [await status(proxy) for proxy in (one, two, one)] == [200, 200, 200]
        assert shared.token_requests == 1


async def test_a_token_that_was_refused_in_one_process_is_refreshed_once_for_all(store_url: str) -> None:
    async with world(f'url = "{store_url}"') as shared, shared.proxy() as one, shared.proxy() as two:
        assert [await status(proxy) for proxy in (one, two)] == [200, 200]
        shared.sandbox.revoke("acme")
        assert [await status(proxy) for proxy in (one, two)] == [200, 200]
        assert shared.token_requests == 2


@pytest.mark.needs("redis-server")
async def test_no_request_fails_while_redis_is_gone_and_the_token_lives() -> None:
    with redis_server() as server:
        async with world(f'url = "{server.url}"') as shared, shared.proxy() as one:
            assert await status(one) == 200
            server.stop()
            assert [await status(one) for _ in range(5)] == [200] * 5
            async with shared.proxy() as two:  # starts without it, and asks for a token of its own
                assert await status(two) == 200
                await two.said("can't be reached")
            server.start()
            async with shared.proxy() as three:
                assert await status(three) == 200
            assert shared.token_requests == 2


async def test_sigterm_waits_for_a_refresh_that_nobody_else_waits_for_and_stores_what_it_brings(tmp_path: Path) -> None:
    [org] = make_orgs(["acme"])
    async with Sandbox(SandboxOptions(orgs=(org,))) as sandbox:
        tenant = tenant_toml(org, grant="refresh_token", refresh_token=org.clients[0].refresh_token, keep_warm=False)
        configuration = f'{ports_toml(sandbox.base_url)}\n[store]\nurl = "sqlite:{tmp_path}/tokens.db"\n{tenant}'
        sandbox.faults.set("token_latency", 1.5, count=1)
        async with run_proxy(configuration) as proxy:
            async with asyncio.TaskGroup() as group:
                leaving = group.create_task(status(proxy), name="client")
                await until(lambda: not sandbox.faults.as_json())
                leaving.cancel()
            proxy.signal(signal.SIGTERM)
            assert await proxy.ended() == 0
        async with run_proxy(configuration) as again:
            assert await status(again) == 200
            assert sum(sandbox.ledger.token_requests.values()) == 1
            sandbox.revoke("acme")
            assert await status(again) == 200
        assert sandbox.ledger.refresh_token_reuses == 0
        assert sandbox.ledger.token_requests["acme", "refresh_token", "ok"] == 2


async def test_a_store_that_is_slow_costs_a_client_without_refresh_tokens_seconds_and_the_others_are_told(
    tmp_path: Path,
) -> None:
    plain, refreshing = make_orgs(["plain", "refreshing"])
    async with Sandbox(SandboxOptions(orgs=(plain, refreshing))) as sandbox:
        token = refreshing.clients[0].refresh_token
        tenants = tenant_toml(plain, keep_warm=False)
        tenants += tenant_toml(refreshing, grant="refresh_token", refresh_token=token, keep_warm=False)
        file = tmp_path / "tokens.db"
        configuration = f'{ports_toml(sandbox.base_url)}[limits]\nrequest_timeout = 8\n[store]\nurl = "sqlite:{file}"\n'
        async with run_proxy(configuration + tenants) as proxy:
            with contextlib.closing(sqlite3.connect(file, isolation_level=None)) as other:
                other.execute("BEGIN IMMEDIATE")  # as another process does while its disk is slow
                assert await status(proxy, "plain") == 200
                await proxy.said("it gets a token without the store")
                assert await status(proxy, "refreshing") == 503
                await proxy.said("can't be used without the store. The token store is too slow")
                assert sum(sandbox.ledger.token_requests.values()) == 1
                other.execute("ROLLBACK")

            async def heals() -> bool:
                return await status(proxy, "refreshing") == 200

            await until(heals, 30)
        assert sandbox.ledger.token_requests["refreshing", "refresh_token", "ok"] == 1
        assert sandbox.ledger.refresh_token_reuses == 0


async def test_a_refresh_token_that_kill_9_took_along_is_tried_once_more_and_told_as_lost(tmp_path: Path) -> None:
    """The one window that nobody can close: the server has rotated, and its answer is not on disk."""
    [org] = make_orgs(["acme"])
    async with Sandbox(SandboxOptions(orgs=(org,))) as sandbox:
        tenant = tenant_toml(org, grant="refresh_token", refresh_token=org.clients[0].refresh_token, keep_warm=False)
        configuration = f'{ports_toml(sandbox.base_url)}\n[store]\nurl = "sqlite:{tmp_path}/tokens.db"\n{tenant}'
        sandbox.faults.set("token_late", 30.0, count=1)
        with contextlib.suppress(ChildProcessError):  # it ended with -9
            async with run_proxy(configuration) as proxy:
                async with asyncio.TaskGroup() as group:
                    leaving = group.create_task(status(proxy), name="client")
                    await until(lambda: not sandbox.faults.as_json())
                    leaving.cancel()
                proxy.signal(signal.SIGKILL)
        async with run_proxy(configuration) as again, aiohttp.ClientSession() as session:
            async with session.get(again.url + ECHO) as refused:
                assert refused.status == 502
                assert "Run: genesys-auth-proxy login acme" in await refused.text()
            assert [await status(again) for _ in range(5)] == [502] * 5
            async with session.get(f"{again.admin_url}/status.json") as told:
                [shown] = (await told.json())["tenants"]
            assert "a process was killed, and the answer with the next one is lost" in shown["diagnosis"]
        assert sandbox.ledger.refresh_token_reuses == 1
        assert sandbox.ledger.token_requests["acme", "refresh_token", "invalid_grant"] == 1, "never in a loop"


async def test_a_store_that_is_removed_while_nobody_calls_is_there_for_whoever_comes_next(tmp_path: Path) -> None:
    """Tokens that live for a day are not looked at for hours."""
    [org] = make_orgs(["acme"])
    async with Sandbox(SandboxOptions(orgs=(org,))) as sandbox:
        tenant = tenant_toml(org, grant="refresh_token", refresh_token=org.clients[0].refresh_token)
        configuration = f'{ports_toml(sandbox.base_url)}\n[store]\nurl = "sqlite:{tmp_path}/tokens.db"\n{tenant}'
        async with run_proxy(configuration) as idle:
            assert await status(idle) == 200
            remove_all(tmp_path)
            await idle.said("entries are put back")
            async with run_proxy(configuration) as next_one:
                assert await status(next_one) == 200
            sandbox.revoke("acme")
            assert await status(idle) == 200
        assert sandbox.ledger.refresh_token_reuses == 0
        assert sandbox.ledger.token_requests["acme", "refresh_token", "ok"] == 2


async def test_nothing_is_kept_on_request() -> None:
    async with world('url = "memory:"') as shared:
        for _ in range(2):
            async with shared.proxy() as proxy:
                assert await status(proxy) == 200
        assert shared.token_requests == 2


async def test_tokens_are_kept_encrypted_with_a_key(tmp_path: Path) -> None:
    key = "a-key-for-tests-that-is-long-enough"
    async with world(f'url = "sqlite:{tmp_path}/tokens.db"\nencryption_keys = [{{ env = "KEY" }}]') as shared:
        async with shared.proxy(KEY=key) as proxy:
            assert await status(proxy) == 200
            [token] = [issued.value for issued in shared.sandbox.tokens.issued("acme")]
            everything = all_bytes(tmp_path)
        assert everything
        assert token.encode() not in everything
        with pytest.raises(ChildProcessError, match=r"store\.encryption_keys"):
            async with shared.proxy(KEY=key + "!"):
                pass


async def test_a_store_that_can_not_be_used_is_a_configuration_error(tmp_path: Path) -> None:
    tokens = tmp_path / "tokens.db"
    tokens.write_bytes(b"precious" * 1000)
    async with world(f'url = "sqlite:{tokens}"') as shared:
        with pytest.raises(ChildProcessError, match=r"store\.url: .* is no SQLite database"):
            async with shared.proxy():
                pass
    assert tokens.read_bytes() == b"precious" * 1000
