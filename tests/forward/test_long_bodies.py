"""Bodies too long to be kept: the upstream is asked first, so that a refused token costs no upload."""

from __future__ import annotations

import contextlib

import pytest

from tests.support.loops import SkippingLoop
from tests.support.peers import Message, Peer
from tests.support.rig import OK, REFUSED, answer, chunked, request, rig

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
LIMITS = {"replay_buffer": 1000}
LONG = b"x" * 5000


def upload(*fields: str, length: int = len(LONG), version: str = "1.1") -> bytes:
    """The head of a request with a body of this length."""
    return request("POST", "/api/v2/uploads", *fields, f"Content-Length: {length}", version=version)


async def asked(upstream: Peer) -> Message:
    """A head that asks whether to go on, and nothing behind it."""
    head = await upstream.head()
    assert head.get(b"Expect") == b"100-continue"
    assert await upstream.silent()
    return head


async def takes_the_body(upstream: Peer, client: Peer) -> None:
    assert await upstream.read(len(LONG)) == LONG
    upstream.send(OK)
    assert (await client.message()).status == 200


@pytest.mark.parametrize("version", ["1.1", "1.0"])
async def test_a_long_body_is_sent_once_the_upstream_wants_it(version: str) -> None:
    async with rig(limits=LIMITS) as proxy, proxy.client() as client:
        client.send(upload(version=version), LONG)
        upstream = await proxy.api.accept()
        await asked(upstream)
        upstream.send(CONTINUE)
        await takes_the_body(upstream, client)  # its client did not ask, and is told nothing


async def test_a_refused_token_costs_no_upload() -> None:
    async with rig(limits=LIMITS) as proxy, proxy.client() as client:
        client.send(upload(), LONG)
        upstream = await proxy.api.accept()
        assert (await asked(upstream)).get(b"Authorization") == b"Bearer token-1"
        upstream.send(REFUSED)
        fresh = await proxy.api.accept()
        assert (await asked(fresh)).get(b"Authorization") == b"Bearer token-2"
        fresh.send(CONTINUE)
        await takes_the_body(fresh, client)
        assert proxy.proxy.report().tenants[0].tally.replays == {"accepted": 1}


async def test_a_client_that_asks_itself_is_told_by_the_upstream_and_its_request_is_replayed() -> None:
    async with rig(limits=LIMITS) as proxy, proxy.client() as client:
        client.send(upload("Expect: 100-continue"))
        upstream = await proxy.api.accept()
        await asked(upstream)
        upstream.send(REFUSED)
        fresh = await proxy.api.accept()
        await asked(fresh)
        assert await client.silent()
        fresh.send(CONTINUE)
        assert (await client.head()).status == 100
        client.send(LONG)
        await takes_the_body(fresh, client)


async def test_a_client_that_asks_and_does_not_wait_is_replayed_as_well() -> None:
    async with rig(limits=LIMITS) as proxy, proxy.client() as client:
        client.send(upload("Expect: 100-continue"), LONG)
        upstream = await proxy.api.accept()
        await asked(upstream)
        upstream.send(REFUSED)
        fresh = await proxy.api.accept()
        await asked(fresh)
        fresh.send(CONTINUE)
        assert (await client.head()).status == 100
        await takes_the_body(fresh, client)


async def test_an_upstream_that_does_not_say_gets_the_body_after_a_second(clock: SkippingLoop) -> None:
    async with rig(limits=LIMITS) as proxy, proxy.client() as client:
        client.send(upload(), LONG)
        upstream = await proxy.api.accept()
        await asked(upstream)
        await clock.skip(0.5)
        assert await upstream.silent()
        await clock.skip(0.6)
        await takes_the_body(upstream, client)


async def test_a_token_refused_in_the_middle_of_a_long_body_can_not_be_replayed(clock: SkippingLoop) -> None:
    async with rig(limits=LIMITS) as proxy, proxy.client() as client:
        client.send(upload(), LONG[:2000])
        upstream = await proxy.api.accept()
        await asked(upstream)
        await clock.skip(1.1)
        assert await upstream.read(2000) == LONG[:2000]
        upstream.send(REFUSED)
        got = await client.message()
        assert got.status == 401
        assert b"too long to be kept" in (got.get(b"Proxy-Status") or b"")


async def test_an_upstream_that_refuses_to_be_asked_is_sent_the_request_without_asking() -> None:
    async with rig(limits=LIMITS) as proxy, proxy.client() as client:
        client.send(upload(), LONG)
        upstream = await proxy.api.accept()
        await asked(upstream)
        upstream.send(answer(417))
        fresh = await proxy.api.accept()
        head = await fresh.head()
        assert (head.get(b"Expect"), head.get(b"Content-Length")) == (None, b"5000")
        await takes_the_body(fresh, client)


async def test_a_client_whose_own_question_is_refused_is_told() -> None:
    async with rig(limits=LIMITS) as proxy, proxy.client() as client:
        client.send(upload("Expect: 100-continue"))
        upstream = await proxy.api.accept()
        await asked(upstream)
        upstream.send(answer(417))
        assert (await client.message()).status == 417


async def test_another_answer_before_the_body_is_the_clients_and_the_connections_stay_in_step() -> None:
    async with rig(limits=LIMITS) as proxy, proxy.client() as client:
        client.send(upload(), LONG)
        upstream = await proxy.api.accept()
        await asked(upstream)
        upstream.send(answer(403, body=b"no"))
        assert (await client.message()).status == 403
        assert await upstream.read(len(LONG)) == LONG
        client.send(request())
        assert (await upstream.message()).start == b"GET /api/v2/x HTTP/1.1"
        upstream.send(OK)
        assert (await client.message()).status == 200


@pytest.mark.parametrize("status", [200, 413])
@pytest.mark.parametrize("asks", [False, True])
async def test_an_upstream_that_answers_without_the_body_and_closes_gets_nothing_of_it(status: int, asks: bool) -> None:
    async with rig(limits=LIMITS) as proxy, proxy.client() as client:
        client.send(upload(*["Expect: 100-continue"] * asks), b"" if asks else LONG)
        upstream = await proxy.api.accept()
        await asked(upstream)
        upstream.send(answer(status, "Connection: close", body=b"enough"))
        got = await client.message()
        assert (got.status, got.body) == (status, b"enough")
        assert (got.get(b"Connection") == b"close") == asks  # the client that did not ask has sent all of it
        with contextlib.suppress(ConnectionResetError):
            assert await upstream.rest() == b""
        client.close()
        await proxy.upstreams_gone()
        await proxy.clients_gone()


@pytest.mark.parametrize("refused", [REFUSED, answer(401, "Connection: close"), b"HTTP/1.1 401 No\r\n\r\n"])
async def test_a_token_refused_with_the_connection_is_replaced_as_well(refused: bytes) -> None:
    async with rig(limits=LIMITS) as proxy, proxy.client() as client:
        client.send(upload(), LONG)
        upstream = await proxy.api.accept()
        await asked(upstream)
        upstream.send(refused)
        upstream.close()
        fresh = await proxy.api.accept()
        assert (await asked(fresh)).get(b"Authorization") == b"Bearer token-2"
        fresh.send(CONTINUE)
        await takes_the_body(fresh, client)


async def test_an_upstream_that_says_late_that_it_wants_the_body_confuses_nobody(clock: SkippingLoop) -> None:
    async with rig(limits=LIMITS) as proxy, proxy.client() as client:
        client.send(upload(), LONG)
        upstream = await proxy.api.accept()
        await asked(upstream)
        await clock.skip(1.1)
        upstream.send(CONTINUE, CONTINUE)
        await takes_the_body(upstream, client)  # whose client is told nothing of it


async def test_an_upstream_that_does_not_say_may_still_refuse_the_token_while_the_body_is_kept(
    clock: SkippingLoop,
) -> None:
    async with rig(limits=LIMITS) as proxy, proxy.client() as client:
        client.send(upload(), LONG[:900])
        upstream = await proxy.api.accept()
        await asked(upstream)
        await clock.skip(1.1)
        assert await upstream.read(900) == LONG[:900]
        upstream.send(REFUSED)
        fresh = await proxy.api.accept()
        assert (await asked(fresh)).get(b"Authorization") == b"Bearer token-2"
        client.send(LONG[900:])
        fresh.send(CONTINUE)
        await takes_the_body(fresh, client)


@pytest.mark.parametrize("size", [900, 5000])
async def test_a_body_in_chunks_is_not_asked_for_and_is_replayed_while_it_is_kept(size: int) -> None:
    async with rig(limits=LIMITS) as proxy, proxy.client() as client:
        client.send(request("POST", "/api/v2/uploads", "Transfer-Encoding: chunked"), chunked(LONG[:size]))
        upstream = await proxy.api.accept()
        got = await upstream.message()
        assert (got.get(b"Expect"), got.body) == (None, LONG[:size])
        upstream.send(REFUSED)
        if size < LIMITS["replay_buffer"]:
            assert (await upstream.message()).body == LONG[:size]
            upstream.send(OK)
            assert (await client.message()).status == 200
        else:
            told = await client.message()
            assert told.status == 401
            assert b"too long to be kept" in (told.get(b"Proxy-Status") or b"")


@pytest.mark.parametrize("length", [999, 1000])
async def test_a_body_that_can_be_kept_is_not_asked_for(length: int) -> None:
    async with rig(limits=LIMITS) as proxy, proxy.client() as client:
        client.send(upload(length=length), b"x")
        upstream = await proxy.api.accept()
        assert (await upstream.head()).get(b"Expect") is None
        assert await upstream.read(1) == b"x"


async def test_a_body_that_is_not_replayed_is_not_asked_for() -> None:
    async with rig(limits=LIMITS, tenants={"acme": {"authorization": "fill"}}) as proxy, proxy.client() as client:
        client.send(upload("Authorization: Bearer my-own"), LONG)
        upstream = await proxy.api.accept()
        assert (await upstream.head()).get(b"Expect") is None
        await takes_the_body(upstream, client)


async def test_a_client_that_leaves_while_its_upstream_is_asked_leaves_nothing() -> None:
    async with rig(limits=LIMITS) as proxy, proxy.client() as client:
        client.send(upload(), LONG)
        upstream = await proxy.api.accept()
        await asked(upstream)
        client.reset()
        assert not await upstream.ended()
        await proxy.clients_gone()
        await proxy.upstreams_gone()
