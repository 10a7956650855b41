"""``guest_refresh`` with several workers: a chat's calls come to any of them, and each knows the guest."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from pathlib import Path
from typing import Any

import aiohttp
import jwt

from proxy.cli.orgs import tenants_toml
from proxy.core.guests import REFRESH_TOKEN_LIFETIME, GuestNews
from proxy.core.tokens import Instant
from proxy.sandbox import DEFAULT_ORGS, Sandbox, SandboxOptions
from proxy.settings import Settings, load
from proxy.workers.guests import GuestBook
from tests.support.proxies import RunningProxy, run_proxy
from tests.support.stages import until

ORG = DEFAULT_ORGS[0]
TOKEN = f"/t/{ORG.name}/api/v2/webdeployments/token"
MESSAGES = f"/t/{ORG.name}/api/v2/webmessaging/messages"
CONNECTIONS = 12
"""Each goes to a worker that the system chooses: of so many, some to each."""
PATIENCE = 30.0


class Chat:
    """A guest who makes a new connection for each call."""

    def __init__(self, proxy: RunningProxy) -> None:
        self._proxy = proxy
        self.jwt = ""

    async def _call(self, method: str, path: str, **keys: Any) -> tuple[int, Any]:
        async with (
            aiohttp.ClientSession() as session,
            session.request(method, self._proxy.url + path, **keys) as response,
        ):
            return response.status, await response.json() if response.status == 200 else None

    async def begin(self) -> None:
        oauth = {"deploymentId": ORG.deployments[0], "oauth": {"code": "a-code"}}
        status, answer = await self._call("POST", f"{TOKEN}/oauthcodegrantjwtexchange", json=oauth)
        assert status == 200
        self.jwt = answer["jwt"]

    async def expired(self) -> None:
        ends = jwt.decode(self.jwt, options={"verify_signature": False})["exp"]
        await until(lambda: time.time() >= ends, PATIENCE)

    async def calls(self) -> set[int]:
        """The statuses of calls to all workers."""
        own = {"Authorization": f"Bearer {self.jwt}"}
        return {(await self._call("GET", MESSAGES, headers=own))[0] for _ in range(CONNECTIONS)}

    async def revoke(self) -> int:
        own = {"Authorization": f"Bearer {self.jwt}"}
        return (await self._call("DELETE", f"{TOKEN}/revoke", headers=own))[0]

    async def pids(self) -> list[int]:
        async with (
            aiohttp.ClientSession() as session,
            session.get(self._proxy.admin_url + "/status.json") as response,
        ):
            workers = (await response.json())["workers"]
        return [worker["pid"] for worker in workers if worker["pid"] is not None]


async def test_a_chat_goes_on_at_whatever_worker_its_calls_come_to() -> None:
    async with Sandbox(SandboxOptions(guest_token_lifetime=1.0)) as sandbox:
        configuration = "[listen]\nport = 0\n[admin]\nport = 0\n" + tenants_toml(sandbox.base_url, (ORG,))
        async with run_proxy(configuration + "guest_refresh = true\n", "--workers", "2") as proxy:
            chat = Chat(proxy)
            await chat.begin()
            await chat.expired()
            assert await chat.calls() == {200}
            [victim, _] = await chat.pids()
            os.kill(victim, signal.SIGKILL)
            async with asyncio.timeout(PATIENCE):
                while len(pids := await chat.pids()) != 2 or victim in pids:  # noqa: ASYNC110 - another process
                    await asyncio.sleep(0.05)
            assert await chat.calls() == {200}, "a worker that was started since knows the guest too"
            assert await chat.revoke() == 204
            assert await chat.calls() == {401}
            assert "a-code" not in proxy.output
            assert chat.jwt not in proxy.output


# --- what the supervisor remembers for those who start later ---


def configured(folder: Path, *, guests: bool = True, api: str = "http://127.0.0.1:1") -> Settings:
    file = folder / "proxy.toml"
    file.write_text(
        f'[tenants.acme]\napi_url = "{api}"\nlogin_url = "{api}"\nclient_id = "id"\nclient_secret = "secret"\n'
        f"guest_refresh = {str(guests).lower()}\n",
        "utf-8",
    )
    return load(file)


def news(shown: str | None, refresh_token: str = "r1", tenant: str = "acme") -> GuestNews:
    return GuestNews(tenant, refresh_token, shown, Instant(1.0, 2.0), 900.0)


def test_guests_are_remembered_until_one_is_to_be_forgotten(tmp_path: Path) -> None:
    book = GuestBook()
    book.follow(configured(tmp_path))
    told = [news("aa"), news("bb"), news("cc", "r2")]
    assert all(book.note(each) for each in told)
    assert list(book) == told
    assert book.note(news(None)), "the others are to forget them too"
    assert list(book) == told[2:]


def test_guests_of_tenants_without_them_are_nobodys_concern(tmp_path: Path) -> None:
    book = GuestBook()
    book.follow(configured(tmp_path, guests=False))
    assert not book.note(news("aa"))
    assert not book.note(news("aa", tenant="globex"))
    assert not list(book)


def test_a_reload_keeps_guests_where_tenant_and_api_stay(tmp_path: Path) -> None:
    book = GuestBook()
    book.follow(configured(tmp_path))
    book.note(news("aa"))
    book.follow(configured(tmp_path))
    assert list(book) == [news("aa")]
    book.follow(configured(tmp_path, api="http://127.0.0.1:2"))
    assert not list(book)
    book.follow(configured(tmp_path))
    assert not list(book), "what was forgotten stays so"


def test_what_is_remembered_is_bounded_in_number_and_time(tmp_path: Path) -> None:
    now = 0.0
    book = GuestBook(size=10, timer=lambda: now)
    book.follow(configured(tmp_path))
    for number in range(100):
        book.note(news(f"{number:02}"))
    assert [each.shown for each in book] == [str(number) for number in range(90, 100)]
    now = REFRESH_TOKEN_LIFETIME
    assert not list(book)


def test_no_refresh_token_is_in_a_repr() -> None:
    assert "r1" not in repr(news("aa"))
