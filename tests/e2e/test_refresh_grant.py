"""The grant ``refresh_token`` at a certified server that revokes everything when a used refresh token comes again."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
import pytest_asyncio

from tests.cli.program import run
from tests.support.authorization_server import AuthorizationServer, refreshing, run_authorization_server
from tests.support.proxies import RunningProxy, run_proxy
from tests.support.stages import ECHO

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.needs("oidc-provider"),
]

LIFETIME = 4
"""Seconds of an access token, whole ones: it ends up to one earlier by the server's clock, and a replay mends that."""

BOTH: dict[str, object] = {"grant_types": ["authorization_code", "refresh_token", "client_credentials"]}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server() -> AsyncIterator[AuthorizationServer]:
    clients = [refreshing("web", "secret-of-web"), refreshing("both", "secret-of-both", "acme", **BOTH)]
    async with run_authorization_server(clients, lifetime=LIFETIME) as server:
        yield server


def configuration(server: AuthorizationServer, folder: Path, client: str = "web", **keys: str) -> str:
    lines = "".join(f'{key} = "{value}"\n' for key, value in keys.items())
    return (
        f'[listen]\nport = 0\n[admin]\nport = 0\n[store]\nurl = "sqlite:{folder}/tokens.db"\n[tenants.acme]\n'
        f'api_url = "{server.url}"\nlogin_url = "{server.url}"\ngrant = "refresh_token"\nclient_id = "{client}"\n'
        f'client_secret = "secret-of-{client}"\n{lines}'
    )


async def status(proxy: RunningProxy) -> int:
    async with aiohttp.ClientSession() as session, session.get(f"{proxy.url}{ECHO}") as answer:
        await answer.read()
        return answer.status


async def calls(proxy: RunningProxy, seconds: float) -> Counter[int]:
    """The statuses of calls one after the other, for so long."""
    found: Counter[int] = Counter()
    ends = asyncio.get_running_loop().time() + seconds
    while asyncio.get_running_loop().time() < ends:
        found[await status(proxy)] += 1
        await asyncio.sleep(0.02)
    return found


async def reuses(server: AuthorizationServer) -> int:
    found: int = (await server.ledger())["reuses"]
    return found


async def test_refresh_tokens_rotate_under_load_through_a_restart_and_a_check(
    server: AuthorizationServer, tmp_path: Path
) -> None:
    before = await server.ledger()
    text = configuration(server, tmp_path, refresh_token=await server.login("web"), org_id="id-of-acme")
    file = tmp_path / "proxy.toml"
    file.write_text(text)
    for _ in range(2):
        async with run_proxy(text) as proxy:
            async with asyncio.TaskGroup() as group:
                load = [group.create_task(calls(proxy, 2 * LIFETIME)) for _ in range(4)]
                checked = group.create_task(run("check", "--config", file))
            assert set().union(*(task.result() for task in load)) == {200}
        assert checked.result().code == 0, checked.result().stdout
    after = await server.ledger()
    assert after["reuses"] == before["reuses"] == 0
    assert after["granted"]["refresh_token"] - before["granted"].get("refresh_token", 0) >= 4


async def test_two_proxies_on_one_store_use_each_refresh_token_once(
    server: AuthorizationServer, tmp_path: Path
) -> None:
    text = configuration(server, tmp_path, refresh_token=await server.login("web"))
    async with run_proxy(text) as one, run_proxy(text) as two:
        found = await asyncio.gather(*(calls(proxy, 2.5 * LIFETIME) for proxy in (one, two, one, two)))
    assert set().union(*found) == {200}
    assert await reuses(server) == 0


async def test_a_store_that_is_removed_or_goes_back_to_an_older_copy_costs_no_refresh_token(
    server: AuthorizationServer, tmp_path: Path
) -> None:
    text = configuration(server, tmp_path, refresh_token=await server.login("web"))
    file, store, copy = (tmp_path / name for name in ("proxy.toml", "tokens.db", "copy.db"))
    file.write_text(text)

    async def meddle() -> None:
        await asyncio.sleep(1)
        with contextlib.closing(sqlite3.connect(store)) as kept, contextlib.closing(sqlite3.connect(copy)) as target:
            kept.backup(target)
        await asyncio.sleep(LIFETIME)
        copy.replace(store)
        await asyncio.sleep(LIFETIME)
        remove(store, "", "-wal", "-shm")
        await asyncio.sleep(LIFETIME)

    async with run_proxy(text) as one, run_proxy(text) as two:
        async with asyncio.TaskGroup() as group:
            meddling = group.create_task(meddle(), name="meddling")
            load = [group.create_task(calls(proxy, 3 * LIFETIME + 2)) for proxy in (one, two)]
        assert meddling.done()
        assert set().union(*(task.result() for task in load)) == {200}
        checked = await run("check", "--config", file)
        assert checked.code == 0, checked.stdout
    async with run_proxy(text) as again:
        assert set(await calls(again, LIFETIME)) == {200}
    assert await reuses(server) == 0


def remove(path: Path, *suffixes: str) -> None:
    for suffix in suffixes:
        path.with_name(path.name + suffix).unlink()


async def test_a_used_refresh_token_is_sent_once_and_a_new_one_heals(
    server: AuthorizationServer, tmp_path: Path
) -> None:
    secret = tmp_path / "refresh-token"
    secret.write_text("made-up")
    text = configuration(server, tmp_path).replace(
        "[tenants.acme]\n", f'[tenants.acme]\nrefresh_token = {{ file = "{secret}" }}\n'
    )
    refused = (await server.ledger())["refused"].get("invalid_grant", 0)
    async with run_proxy(text) as proxy:
        found = await calls(proxy, 2)
        assert set(found) == {502}
        assert (await server.ledger())["refused"]["invalid_grant"] == refused + 1, "told from memory"
        secret.write_text(await server.login("web"))
        async with aiohttp.ClientSession() as session, session.post(f"{proxy.admin_url}/reload") as reloaded:
            assert reloaded.status == 200
        assert await status(proxy) == 200
    assert await reuses(server) == 0


async def test_the_fallback_grant_takes_over_once_the_refresh_token_is_refused(
    server: AuthorizationServer, tmp_path: Path
) -> None:
    keys = {"refresh_token": "made-up", "fallback_grant": "client_credentials"}
    before = await server.ledger()
    async with run_proxy(configuration(server, tmp_path, "both", **keys)) as proxy:
        found = await calls(proxy, 1.5 * LIFETIME)
    after = await server.ledger()
    assert set(found) == {200}
    assert after["refused"]["invalid_grant"] - before["refused"].get("invalid_grant", 0) == 1
    assert after["granted"]["client_credentials"] - before["granted"].get("client_credentials", 0) >= 2


async def test_a_check_without_a_store_does_not_use_up_the_refresh_token(
    server: AuthorizationServer, tmp_path: Path
) -> None:
    first = await server.login("web")
    file = tmp_path / "proxy.toml"
    text = configuration(server, tmp_path, refresh_token=first)
    file.write_text(text.replace(f"sqlite:{tmp_path}/tokens.db", "memory:"))
    ended = await run("check", "--config", file)
    assert ended.code == 1
    assert "its refresh token is not tried" in " ".join(ended.stdout.split())
    async with run_proxy(text) as proxy:
        assert await status(proxy) == 200
    assert await reuses(server) == 0
