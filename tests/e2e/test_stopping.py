"""The end of the program while logins are slow: what was sent is waited for, and nothing more is sent."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import signal
import sqlite3
import sys
import threading
from asyncio.subprocess import PIPE, STDOUT
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import parse_qsl

import aiohttp
import pytest
from aiohttp import web

from proxy.app import Proxy
from proxy.core.lineage import Record
from proxy.errors import StoreError
from proxy.oauth.endpoint import AT_ONCE
from proxy.oauth.store.codec import decode
from proxy.oauth.store.sqlite import SqliteStore
from proxy.settings import load
from tests.oauth.token_server import TokenServer
from tests.support.proxies import run_proxy
from tests.support.stages import ECHO, ports_toml, until
from tests.workers.load import alive

pytestmark = pytest.mark.timeout(60)

ROOT = Path(__file__).resolve().parents[2]

TENANTS = 2 * AT_ONCE + 8
"""More than a login is asked for at a time."""


class SlowLogin(TokenServer):
    """Answers once it is told to, with another refresh token for the one that was shown."""

    def __init__(self) -> None:
        super().__init__(self._rotate)
        self.answering = asyncio.Event()

    @property
    def shown(self) -> list[str]:
        """The refresh tokens that it was shown, in order."""
        return [dict(parse_qsl(request.body.decode()))["refresh_token"] for request in self.received if request.body]

    async def _rotate(self, request: web.Request) -> web.Response:
        if request.path != "/oauth/token":
            return web.Response()
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


async def call(session: aiohttp.ClientSession, url: str) -> None:
    """A client that takes what it is answered, if it is, and sends nothing twice."""
    with contextlib.suppress(aiohttp.ClientError):
        await (await session.post(url)).release()


@pytest.mark.parametrize("options", [(), ("--workers", "2")], ids=["one", "workers"])
async def test_after_sigterm_no_refresh_token_is_sent_and_none_that_was_sent_is_lost(
    options: tuple[str, ...], tmp_path: Path
) -> None:
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


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL])
async def test_what_only_workers_that_have_ended_wished_for_is_never_sent(end: signal.Signals, tmp_path: Path) -> None:
    login = SlowLogin()
    async with (
        login.serving(),
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session,
        asyncio.TaskGroup() as calls,
        run_proxy(configuration(login, tmp_path), "--workers", "2") as proxy,
    ):

        async def pids() -> set[int]:
            async with session.get(f"{proxy.admin_url}/status.json") as response:
                return {worker["pid"] for worker in (await response.json())["workers"]}

        for number in range(TENANTS):
            calls.create_task(call(session, f"{proxy.url}/t/t{number}{ECHO}"), name="client")
        await until(lambda: len(login.received) == AT_ONCE)
        for pid in (ended := await pids()):
            os.kill(pid, end)
        async with asyncio.timeout(30):
            while None in (now := await pids()) or now & ended or any(map(alive, ended)):  # noqa: ASYNC110 - processes
                await asyncio.sleep(0.05)
        late = min(number for number in range(TENANTS) if f"refresh-{number}" not in login.shown)
        login.answering.set()
        await call(session, f"{proxy.url}/t/t{late}{ECHO}")  # behind all that waits for its turn
    assert len(login.shown) == AT_ONCE + 1
    assert login.shown[-1] == f"refresh-{late}"
    records = kept(tmp_path)
    assert [record for record in records if record.lease or record.journal] == []
    assert sum(record.generation == 2 for record in records) == AT_ONCE + 1


@contextlib.contextmanager
def hanging(file: Path) -> Iterator[Callable[[], bool]]:
    """Has whoever opens the file hang in that call, as on a disk that is gone; whether somebody does.

    It is a lease, which the system takes back after 45 s (fcntl(2)).
    """
    with file.open("rb+") as held:
        fcntl.fcntl(held, fcntl.F_SETSIG, signal.SIGURG)  # which is ignored, where SIGIO would end us
        fcntl.fcntl(held, fcntl.F_SETLEASE, fcntl.F_WRLCK)
        yield lambda: fcntl.fcntl(held, fcntl.F_GETLEASE) != fcntl.F_WRLCK


@pytest.mark.skipif(sys.platform != "linux", reason="this system has no leases of files")
async def test_sigterm_ends_a_start_that_hangs_in_the_disk(tmp_path: Path) -> None:
    file = tmp_path / "tokens.db"
    file.touch(mode=0o600)
    configured = tmp_path / "proxy.toml"
    tenant = '[tenants.acme]\nclient_id = "id"\nclient_secret = "secret"\n'
    store = f'[store]\nurl = "sqlite:{file}"\n'
    configured.write_text(f"{ports_toml('http://127.0.0.1:9')}{store}{tenant}", "utf-8")
    with hanging(file) as hangs:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "proxy", "run", "--config", configured, cwd=ROOT, stdout=PIPE, stderr=STDOUT
        )
        await until(hangs)
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(30):
            said, _ = await process.communicate()
    assert process.returncode == 0, said.decode()
    assert b"its disk does not answer" in said


async def test_sigterm_does_not_wait_for_a_disk_that_hangs_and_tells_what_is_lost(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """In this process, since only its store's thread can be made to hang."""
    loop, login, over = asyncio.get_running_loop(), SlowLogin(), threading.Event()
    file = tmp_path / "proxy.toml"
    async with login.serving(), asyncio.TaskGroup() as tasks, aiohttp.ClientSession() as session:
        file.write_text(configuration(login, tmp_path), "utf-8")
        proxy = Proxy(load(file, {}))
        await proxy.start()
        tasks.create_task(call(session, f"{proxy.url}/t/t0{ECHO}"), name="client")
        await until(lambda: len(login.received) == 1)
        store = proxy._store
        assert isinstance(store, SqliteStore)
        stuck = loop.create_task(store._do(lambda: over.wait(60.0)), name="what hangs")
        try:
            async with asyncio.timeout(30):
                draining = tasks.create_task(proxy.drain(), name="end")
                await until(lambda: not proxy.report().listening)
                login.answering.set()
                await draining
        finally:
            over.set()
            await asyncio.wait({stuck})
    assert "its disk does not answer" in caplog.text
    assert "could not be stored and ends with this process" in caplog.text
    assert isinstance(stuck.exception(), StoreError)
