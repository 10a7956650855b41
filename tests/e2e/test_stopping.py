"""The end of the program while logins are slow: what was sent is waited for, and nothing more is sent."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sqlite3
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from proxy.core.lineage import Record
from proxy.oauth.endpoint import AT_ONCE
from proxy.oauth.store.codec import decode
from tests.oauth.token_server import TokenServer
from tests.support.proxies import run_proxy
from tests.support.stages import ECHO, ports_toml, until

pytestmark = pytest.mark.timeout(60)

TENANTS = 2 * AT_ONCE + 8
"""More than a login is asked for at a time."""


class SlowLogin(TokenServer):
    """Answers once it is told to, with another refresh token for the one that was shown."""

    def __init__(self) -> None:
        super().__init__(self._rotate)
        self.answering = asyncio.Event()

    async def _rotate(self, request: web.Request) -> web.Response:
        await self.answering.wait()
        used = str((await request.post())["refresh_token"])
        answer = {"access_token": f"access-{used}", "token_type": "bearer", "expires_in": 86400}
        return web.json_response({**answer, "refresh_token": f"next-{used}"})


def configuration(login: TokenServer, folder: Path) -> str:
    base = login.url.removesuffix("/oauth/token")
    text = f'{ports_toml(base)}keep_warm = false\ngrant = "refresh_token"\n[limits]\ndrain_timeout = 0.5\n'
    text += f'[store]\nurl = "sqlite:{folder}/tokens.db"\n'
    for number in range(TENANTS):
        text += f'[tenants.t{number}]\nclient_id = "id-{number}"\nclient_secret = "secret"\n'
        text += f'refresh_token = "refresh-{number}"\n'
    return text


def kept(folder: Path) -> list[Record]:
    with contextlib.closing(sqlite3.connect(folder / "tokens.db")) as database:
        return [decode(value) for (value,) in database.execute("SELECT value FROM tokens")]


@pytest.mark.parametrize("options", [(), ("--workers", "2")], ids=["one", "workers"])
async def test_after_sigterm_no_refresh_token_is_sent_and_none_that_was_sent_is_lost(
    options: tuple[str, ...], tmp_path: Path
) -> None:
    async def call(session: aiohttp.ClientSession, url: str) -> None:
        with contextlib.suppress(aiohttp.ClientError):
            await (await session.get(url)).release()

    login = SlowLogin()
    connector = aiohttp.TCPConnector(limit=0)
    async with (
        login.serving(),
        aiohttp.ClientSession(connector=connector) as session,
        asyncio.TaskGroup() as calls,
        run_proxy(configuration(login, tmp_path), *options) as proxy,
    ):
        for number in range(TENANTS):
            calls.create_task(call(session, f"{proxy.url}/t/t{number}{ECHO}"), name="client")
        await until(lambda: len(login.received) == AT_ONCE)
        proxy.signal(signal.SIGTERM)
        await proxy.said("stopping")
        await asyncio.sleep(2.0)  # until what is in flight has had its time
        login.answering.set()
        assert await proxy.ended() == 0
    assert len(login.received) == AT_ONCE
    assert "is killed" not in proxy.output
    records = kept(tmp_path)
    assert [record for record in records if record.lease or record.journal] == []
    assert sum(record.generation == 2 for record in records) == AT_ONCE
