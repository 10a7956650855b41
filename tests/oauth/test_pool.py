"""Several tokens of one tenant: whichever is there first is waited for."""

from __future__ import annotations

import asyncio

import pytest

from proxy.core.answers import TokenAnswer
from proxy.core.grants import Client
from proxy.core.secret import Secret
from proxy.core.tokens import Token
from proxy.errors import TokenRefused, TokenUnavailable
from proxy.oauth.pool import HEDGE, TokenPool
from tests.oauth.fakes import ScriptedEndpoint, World, refused, unavailable
from tests.oauth.virtual_time import in_virtual_time, settle

PATIENCE = 15.0


class Endpoint(ScriptedEndpoint):
    """Leaves some without an answer.

    :ivar silent: tenants that it does not answer
    """

    silent: frozenset[str] = frozenset()

    async def ask(self, client: Client, refresh_token: Secret | None = None) -> TokenAnswer:
        answer = await super().ask(client, refresh_token)
        if client.tenant in self.silent:
            await asyncio.Event().wait()
        return answer


class Members(World):
    """Three members of a pool, "one", "two" and "three", told apart by their tenants' names."""

    def __init__(self, *, silent: str = "", latency: float = 0.0) -> None:
        super().__init__()
        self.endpoint: Endpoint = Endpoint(latency=latency)
        self.endpoint.silent = frozenset(silent.split())
        self.sources = [self.source(name) for name in ("one", "two", "three")]
        self.pool = TokenPool(self.sources, self.clock)

    @property
    def asked(self) -> list[tuple[str, float]]:
        return list(zip(self.endpoint.tenants, self.endpoint.asked, strict=True))


def call(members: Members) -> asyncio.Task[Token]:
    return asyncio.get_running_loop().create_task(members.pool.token(PATIENCE), name="caller")


@in_virtual_time
async def test_one_token_is_asked_for_where_that_comes_soon() -> None:
    members = Members(latency=HEDGE - 0.1)
    assert (await members.pool.token(PATIENCE)).access_token == "token-1"
    assert members.asked == [("one", 0.0)]


@in_virtual_time
async def test_a_token_that_does_not_come_is_not_waited_for_alone() -> None:
    members = Members(silent="one two", latency=0.1)
    token = await members.pool.token(PATIENCE)
    assert members.sources[2].token_now() is token
    assert members.asked == [("one", 0.0), ("two", HEDGE), ("three", 2 * HEDGE)]
    assert members.clock.loop.now == 2 * HEDGE + 0.1
    await settle()
    assert not [task for task in asyncio.all_tasks() if task.get_name().startswith("wait for")]


@in_virtual_time
async def test_the_first_may_be_there_first_all_the_same() -> None:
    members = Members(silent="two", latency=HEDGE + 0.5)
    token = await members.pool.token(PATIENCE)
    assert members.sources[0].token_now() is token
    assert members.clock.loop.now == HEDGE + 0.5


@in_virtual_time
async def test_where_one_is_refused_the_next_is_asked_for_at_once() -> None:
    members = Members()
    members.endpoint.script.append(refused())
    token = await members.pool.token(PATIENCE)
    assert members.sources[1].token_now() is token
    assert members.clock.loop.now == 0.0
    members.sources[1].reject(token)
    members.endpoint.silent = frozenset({"two"})
    token = await members.pool.token(PATIENCE)
    assert members.sources[2].token_now() is token


@in_virtual_time
async def test_who_has_failed_just_now_is_asked_last() -> None:
    members = Members()
    members.endpoint.script.append(unavailable())
    with pytest.raises(TokenUnavailable):
        await members.sources[0].refresh()
    token = await members.pool.token(PATIENCE)
    assert members.sources[1].token_now() is token
    assert members.clock.loop.now == 0.0


@in_virtual_time
async def test_where_all_are_refused_it_is_said_at_once() -> None:
    members = Members()
    members.endpoint.otherwise = refused
    with pytest.raises(TokenRefused):
        await members.pool.token(PATIENCE)
    assert [name for name, _ in members.asked] == ["one", "two", "three"]
    with pytest.raises(TokenRefused):
        await members.pool.token(PATIENCE)
    assert len(members.asked) == 3
    assert members.clock.loop.now == 0.0


@in_virtual_time
async def test_nobody_waits_for_longer_than_the_patience() -> None:
    members = Members(silent="one two three")
    with pytest.raises(TokenUnavailable, match="not answered yet"):
        await members.pool.token(PATIENCE)
    assert members.clock.loop.now == PATIENCE
    assert len(members.asked) == 3


@in_virtual_time
async def test_a_caller_who_leaves_ends_no_token_request() -> None:
    members = Members(latency=5.0)
    caller = call(members)
    await asyncio.sleep(HEDGE + 0.5)
    caller.cancel()
    await settle()
    assert members.endpoint.under_way == 2
    await asyncio.sleep(5.0)
    assert [source.usable for source in members.sources] == [True, True, False]


@in_virtual_time
async def test_a_token_that_somebody_else_had_fetched_is_there_first() -> None:
    members = Members(silent="one two")
    caller = call(members)
    await asyncio.sleep(HEDGE / 2)
    members.sources[2].fetch_behind()
    assert (await caller) is members.sources[2].token_now()
    assert [name for name, _ in members.asked] == ["one", "three"]
    assert members.clock.loop.now == HEDGE
