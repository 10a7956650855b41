"""One refresh token under several tenants' names, at a server that revokes everything when a used one comes again."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
import pytest_asyncio

from tests.support.authorization_server import AuthorizationServer, refreshing, run_authorization_server
from tests.support.proxies import RunningProxy, run_proxy
from tests.support.stages import ECHO

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.needs("oidc-provider"),
]

LIFETIME = 3
"""Seconds of an access token."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server() -> AsyncIterator[AuthorizationServer]:
    async with run_authorization_server([refreshing("web", "secret-of-web")], lifetime=LIFETIME) as server:
        yield server


class World:
    """A server, a folder for the store, and a refresh token that nobody has used yet."""

    def __init__(self, server: AuthorizationServer, folder: Path, refresh_token: str, reuses: int) -> None:
        self.server = server
        self.folder = folder
        self.refresh_token = refresh_token
        self._reuses = reuses

    def configuration(self, *names: str) -> str:
        """The refresh token under these names."""
        text = f'[listen]\nport = 0\n[admin]\nport = 0\n[store]\nurl = "sqlite:{self.folder}/tokens.db"\n'
        for name in names:
            text += (
                f'[tenants.{name}]\napi_url = "{self.server.url}"\nlogin_url = "{self.server.url}"\n'
                f'grant = "refresh_token"\nclient_id = "web"\nclient_secret = "secret-of-web"\n'
                f'refresh_token = "{self.refresh_token}"\n'
            )
        return text

    async def reuses(self) -> int:
        found: int = (await self.server.ledger())["reuses"]
        return found - self._reuses

    async def refreshes(self) -> int:
        """What the server has granted so far, to all."""
        found: int = (await self.server.ledger())["granted"].get("refresh_token", 0)
        return found

    async def calls(self, proxy: RunningProxy, *names: str, refreshes: int = 1) -> Counter[tuple[str, int]]:
        """The statuses of calls under these names, in turns, until so many more refreshes were granted."""
        found: Counter[tuple[str, int]] = Counter()
        wanted = await self.refreshes() + refreshes
        ends = asyncio.get_running_loop().time() + 10 * LIFETIME
        async with aiohttp.ClientSession() as session:
            while not found or (await self.refreshes() < wanted and asyncio.get_running_loop().time() < ends):
                for name in names:
                    async with session.get(f"{proxy.url}/t/{name}{ECHO}") as answer:
                        await answer.read()
                        found[name, answer.status] += 1
                        if answer.status == 502:
                            return found
                await asyncio.sleep(0.05)
        return found


@pytest_asyncio.fixture(loop_scope="module")
async def world(server: AuthorizationServer, tmp_path: Path) -> World:
    return World(server, tmp_path, await server.login("web"), (await server.ledger())["reuses"])


async def reload(proxy: RunningProxy, text: str) -> None:
    proxy.configuration.write_text(text)
    async with aiohttp.ClientSession() as session, session.post(f"{proxy.admin_url}/reload") as answer:
        assert answer.status == 200, await answer.text()


@pytest.mark.parametrize("workers", ["1", "2"])
async def test_two_names_for_one_refresh_token_have_their_tokens_in_common(world: World, workers: str) -> None:
    async with run_proxy(world.configuration("a", "b"), "--workers", workers) as proxy:
        found = await world.calls(proxy, "a", "b", refreshes=3)
    assert found.keys() == {("a", 200), ("b", 200)}
    assert await world.reuses() == 0


@pytest.mark.parametrize("workers", ["1", "2"])
async def test_a_tenant_that_is_given_another_name_goes_on_with_its_tokens(world: World, workers: str) -> None:
    async with run_proxy(world.configuration("a"), "--workers", workers) as proxy:
        assert (await world.calls(proxy, "a")).keys() == {("a", 200)}
    async with run_proxy(world.configuration("b"), "--workers", workers) as proxy:
        assert (await world.calls(proxy, "b")).keys() == {("b", 200)}
    assert await world.reuses() == 0


async def test_a_tenant_that_is_given_another_name_by_a_reload_goes_on_with_its_tokens(world: World) -> None:
    async with run_proxy(world.configuration("a")) as proxy:
        assert (await world.calls(proxy, "a")).keys() == {("a", 200)}
        await reload(proxy, world.configuration("b"))
        assert (await world.calls(proxy, "b")).keys() == {("b", 200)}
        await reload(proxy, world.configuration("c", "b"))
        assert (await world.calls(proxy, "c", "b")).keys() == {("b", 200), ("c", 200)}
    assert await world.reuses() == 0


async def test_replicas_go_on_while_one_knows_the_old_name_and_another_the_new(world: World) -> None:
    async with run_proxy(world.configuration("a")) as old, run_proxy(world.configuration("b")) as new:
        found = await asyncio.gather(world.calls(old, "a", refreshes=2), world.calls(new, "b", refreshes=2))
        assert {*found[0], *found[1]} == {("a", 200), ("b", 200)}
    assert await world.reuses() == 0


async def test_a_tenant_goes_on_whose_refresh_token_is_taken_out_of_the_configuration(world: World) -> None:
    async with run_proxy(world.configuration("a")) as proxy:
        assert (await world.calls(proxy, "a")).keys() == {("a", 200)}
        text = world.configuration("a")
        await reload(proxy, text[: text.index("refresh_token = ")])
        assert (await world.calls(proxy, "a")).keys() == {("a", 200)}
    assert await world.reuses() == 0
