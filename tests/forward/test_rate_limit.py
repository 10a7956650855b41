"""Requests that meet the upstream's rate limit: passed on, or held back for as long as it asks, and sent again."""

from __future__ import annotations

import pytest

from tests.support.loops import SkippingLoop
from tests.support.peers import Message, Peer
from tests.support.rig import OK, Rig, answer, request, rig

POST = request("POST", "/api/v2/x", body=b"once")


def limited(retry_after: int | None = 2) -> bytes:
    fields = [] if retry_after is None else [f"Retry-After: {retry_after}"]
    return answer(429, *fields, "inin-ratelimit-allowed: 300", "inin-ratelimit-count: 300", body=b"{}")


async def refused(proxy: Rig, client: Peer, sent: bytes = POST, answered: bytes = b"") -> Peer:
    """Sends a request, which the upstream refuses; its connection."""
    client.send(sent)
    upstream = await proxy.api.accept()
    assert (await upstream.message()).body == sent.rpartition(b"\r\n\r\n")[2]
    upstream.send(answered or limited())
    return upstream


def outcomes(proxy: Rig) -> dict[str, int]:
    return proxy.proxy.report().tenants[0].tally.limited


def statuses(proxy: Rig) -> dict[int, int]:
    return proxy.proxy.report().tenants[0].tally.requests


async def test_it_is_passed_on_as_it_is_by_default() -> None:
    async with rig() as proxy, proxy.client() as client:
        await refused(proxy, client)
        got = await client.message()
        assert (got.status, got.get(b"Retry-After"), got.body) == (429, b"2", b"{}")
        assert got.get(b"Proxy-Status") is None
        assert outcomes(proxy) == {"passed_on": 1}


async def test_a_request_is_sent_again_after_the_wait_on_the_same_connection(clock: SkippingLoop) -> None:
    async with rig(limits={"retry_after_max": 3}) as proxy, proxy.client() as client:
        upstream = await refused(proxy, client)
        arriving = clock.create_task(upstream.message())
        await clock.skip(1.5)
        assert not arriving.done()
        await clock.skip(0.6)
        again = await arriving
        assert again.body == b"once"
        assert again.get(b"Authorization") == b"Bearer token-1"
        upstream.send(OK)
        got = await client.message()
        assert (got.status, got.body) == (200, b"ok")
        assert b"rate limit" in (got.get(b"Proxy-Status") or b"")
        assert outcomes(proxy) == {"waited": 1}
        assert statuses(proxy) == {200: 1}


async def test_a_request_on_connections_that_were_used_before_is_sent_again_too(clock: SkippingLoop) -> None:
    async with rig(limits={"retry_after_max": 3}) as proxy, proxy.client() as client:
        _, _, upstream = await proxy.exchange(client, request())
        client.send(POST)
        await upstream.message()
        upstream.send(limited())
        await clock.skip(2.1)
        assert (await upstream.message()).body == b"once"
        upstream.send(OK)
        assert (await client.message()).status == 200


async def test_waits_of_one_request_are_added_up(clock: SkippingLoop) -> None:
    async with rig(limits={"retry_after_max": 5}) as proxy, proxy.client() as client:
        upstream = await refused(proxy, client)
        for _ in range(2):
            await clock.skip(2.1)
            await upstream.message()
            upstream.send(limited())
        assert (await client.message()).status == 429
        assert outcomes(proxy) == {"waited": 2, "passed_on": 1}


@pytest.mark.parametrize("retry_after", [None, 4])
async def test_a_wait_that_is_unknown_or_too_long_is_the_clients(retry_after: int | None) -> None:
    async with rig(limits={"retry_after_max": 3}) as proxy, proxy.client() as client:
        await refused(proxy, client, answered=limited(retry_after))
        assert (await client.message()).status == 429


async def test_a_wait_beyond_the_request_timeout_is_the_clients() -> None:
    async with rig(limits={"retry_after_max": 60, "request_timeout": 2}) as proxy, proxy.client() as client:
        await refused(proxy, client)
        assert (await client.message()).status == 429


async def test_a_body_that_was_not_kept_is_not_sent_again() -> None:
    async with rig(limits={"retry_after_max": 3, "replay_buffer": 3}) as proxy, proxy.client() as client:
        await refused(proxy, client)
        assert (await client.message()).status == 429


async def test_a_client_that_leaves_while_it_waits_is_not_served(clock: SkippingLoop) -> None:
    async with rig(limits={"retry_after_max": 3}) as proxy, proxy.client() as client:
        upstream = await refused(proxy, client)
        await clock.skip(1)
        client.reset()
        await proxy.clients_gone()
        arriving = clock.create_task(upstream.message())
        await clock.skip(2)
        assert not arriving.done()
        arriving.cancel()
        assert statuses(proxy) == {499: 1}


async def test_a_token_that_is_refused_after_the_wait_is_replaced_as_ever(clock: SkippingLoop) -> None:
    async with rig(limits={"retry_after_max": 3}) as proxy, proxy.client() as client:
        upstream = await refused(proxy, client)
        await clock.skip(2.1)
        await upstream.message()
        upstream.send(answer(401, body=b"no"))
        again: Message = await upstream.message()
        assert (again.get(b"Authorization"), again.body) == (b"Bearer token-2", b"once")
        upstream.send(OK)
        assert (await client.message()).status == 200
