"""``token_pool_size``: several tokens for one tenant, each with a rate limit of its own."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

from tests.support.peers import Peer
from tests.support.rig import Rig, answer, request, rig
from tests.support.stages import until

POST = request("POST", "/api/v2/x", body=b"once")
SIZE = 3


@contextlib.asynccontextmanager
async def pool(*, keep_warm: bool = True, limits: dict[str, float] | None = None) -> AsyncIterator[tuple[Rig, Peer]]:
    """A proxy whose tenant has three tokens, all of them there if they are kept warm; and a client."""
    tenant = {"token_pool_size": SIZE, "keep_warm": keep_warm}
    async with rig(tenants={"acme": tenant}, limits=limits) as proxy, proxy.client() as client:
        if keep_warm:
            await until(lambda: proxy.proxy.report().tenants[0].tally.token_requests == {CREDENTIALS: SIZE})
        yield proxy, client


CREDENTIALS = ("client_credentials", "ok")


def said(count: int, status: int = 200, allowed: int = 300, *, retry_after: int | None = None) -> bytes:
    fields = [f"inin-ratelimit-allowed: {allowed}", f"inin-ratelimit-count: {count}", "inin-ratelimit-reset: 40"]
    fields += [] if retry_after is None else [f"Retry-After: {retry_after}"]
    return answer(status, *fields, body=b"ok")


async def used(proxy: Rig, client: Peer, answered: bytes, upstream: Peer | None = None) -> tuple[bytes, Peer]:
    """The token that a request went out with, and the upstream's connection."""
    client.send(POST)
    upstream = upstream or await proxy.api.accept()
    token = (await upstream.message()).get(b"Authorization") or b""
    upstream.send(answered)
    return token, upstream


async def test_requests_take_turns_with_all_tokens() -> None:
    async with pool() as (proxy, client):
        upstream, tokens = None, []
        for count in range(2 * SIZE):
            token, upstream = await used(proxy, client, said(1 + count // SIZE), upstream)
            assert (await client.message()).status == 200
            tokens.append(token)
        assert len(set(tokens[:SIZE])) == SIZE
        assert sorted(tokens[:SIZE]) == sorted(tokens[SIZE:])
        assert proxy.tokens.asked == SIZE


async def test_the_token_that_has_most_left_is_used() -> None:
    async with pool() as (proxy, client):
        upstream, tokens = None, []
        for count in (100, 50, 150):
            token, upstream = await used(proxy, client, said(count), upstream)
            await client.message()
            tokens.append(token)
        token, _ = await used(proxy, client, said(51), upstream)
        assert token == tokens[1]
        await client.message()
        left = proxy.proxy.report().tenants[0].headroom
        assert left is not None
        assert (left.remaining, left.allowed) == (200 + 249 + 150, 900)


async def test_a_limit_that_is_met_is_met_with_another_token_first() -> None:
    async with pool() as (proxy, client):
        first, upstream = await used(proxy, client, said(300, 429, retry_after=30))
        again = await upstream.message()
        assert again.body == b"once"
        assert again.get(b"Authorization") != first
        upstream.send(said(10))
        assert (await client.message()).status == 200
        assert proxy.proxy.report().tenants[0].tally.limited == {"other_token": 1}


async def test_a_limit_that_only_the_status_tells_of_is_remembered_as_long_as_it_says() -> None:
    async with pool() as (proxy, client):
        first, upstream = await used(proxy, client, answer(429, "Retry-After: 30", body=b"no"))
        others = {(await upstream.message()).get(b"Authorization")}
        upstream.send(answer(200, body=b"ok"))
        await client.message()
        for _ in range(3 * SIZE):
            token, upstream = await used(proxy, client, answer(200, body=b"ok"), upstream)
            await client.message()
            others.add(token)
        assert first not in others
        assert len(others) == SIZE - 1


async def test_requests_under_way_count_before_their_answers_do() -> None:
    async with pool() as (proxy, first), proxy.client() as second, proxy.client() as third:
        tokens = set()
        for client in (first, second, third):
            client.send(POST)
            upstream = await proxy.api.accept()
            tokens.add((await upstream.message()).get(b"Authorization"))
        assert len(tokens) == SIZE


async def test_the_limit_of_every_token_is_the_clients() -> None:
    async with pool() as (proxy, client):
        first, upstream = await used(proxy, client, said(300, 429, retry_after=30))
        tokens = {first}
        for _ in range(SIZE - 1):
            tokens.add((await upstream.message()).get(b"Authorization") or b"")
            upstream.send(said(300, 429, retry_after=30))
        assert (await client.message()).status == 429
        assert len(tokens) == SIZE
        assert proxy.proxy.report().tenants[0].tally.limited == {"other_token": SIZE - 1, "passed_on": 1}


async def test_a_body_that_was_not_kept_is_not_sent_with_another_token() -> None:
    async with pool(limits={"replay_buffer": 3}) as (proxy, client):
        await used(proxy, client, said(300, 429, retry_after=30))
        assert (await client.message()).status == 429


async def test_a_refused_token_is_replaced_by_its_own_successor() -> None:
    async with pool() as (proxy, client):
        first, upstream = await used(proxy, client, answer(401, body=b"no"))
        again = await upstream.message()
        assert again.get(b"Authorization") == b"Bearer token-4"
        upstream.send(said(1))
        assert (await client.message()).status == 200
        tokens = set()
        for _ in range(SIZE):
            token, upstream = await used(proxy, client, said(2), upstream)
            await client.message()
            tokens.add(token)
        assert first not in tokens
        assert proxy.tokens.asked == SIZE + 1


async def test_tokens_that_are_not_kept_warm_are_fetched_as_they_are_needed() -> None:
    async with pool(keep_warm=False) as (proxy, client):
        token, upstream = await used(proxy, client, said(149))
        await client.message()
        token, upstream = await used(proxy, client, said(151), upstream)
        await client.message()
        assert (token, proxy.tokens.asked) == (b"Bearer token-1", 1)
        token, upstream = await used(proxy, client, said(152), upstream)
        await client.message()
        assert token == b"Bearer token-1"
        await proxy.tokens.asked_for(2)
        await until(lambda: proxy.proxy.report().tenants[0].tally.token_requests == {CREDENTIALS: 2})
        token, _ = await used(proxy, client, said(1), upstream)
        await client.message()
        assert token == b"Bearer token-2"


async def test_a_refresh_by_hand_renews_all_tokens() -> None:
    async with pool() as (proxy, _):
        await proxy.proxy.refresh("acme")
        assert proxy.tokens.asked == 2 * SIZE


async def test_a_reload_keeps_the_tokens_that_there_are_and_fetches_no_more_than_it_must() -> None:
    async with pool() as (proxy, client):
        assert await proxy.proxy.reload() == []
        await used(proxy, client, said(1))
        assert (await client.message()).status == 200
        assert proxy.tokens.asked == SIZE
