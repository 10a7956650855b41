"""The end of the program: idle connections soon, requests in flight in peace, and the rest not for ever."""

from __future__ import annotations

import asyncio
import time

import pytest

from proxy.wire.tunnel import LAST_WORDS
from tests.forward.test_upgrade import upgraded
from tests.support.loops import SkippingLoop
from tests.support.peers import open_peer
from tests.support.rig import OK, answer, request, rig

HEAD_OF_CHUNKS = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


async def test_a_proxy_without_requests_ends_soon_whatever_is_connected() -> None:
    async with rig() as proxy, proxy.client() as client, proxy.client() as fresh:
        _, _, upstream = await proxy.exchange(client, request())
        started = time.monotonic()
        await proxy.proxy.drain(20)
        assert time.monotonic() - started < 10
        assert await client.rest() == b""
        assert await fresh.rest() == b""
        assert await upstream.ended()
        assert proxy.upstream_connections == 0
        with pytest.raises(ConnectionRefusedError):
            async with open_peer(proxy.port):
                pass


@pytest.mark.parametrize(
    "sent",
    [
        b"GET / HTTP/1.1\r\nHost : a\r\n\r\n",
        request("TRACE"),
        request("POST", "/api/v2/x", "Transfer-Encoding: chunked") + b"no size\r\n",
        request("POST", "/t/nobody/x", "Content-Length: 9") + b"abc",
        request("GET", "/api/v2/x", "Connection: close", host="evil.example"),
        request() + b"\r\n",
        request() + b"\r",
    ],
)
async def test_what_a_client_did_before_does_not_hold_the_end_up(clock: SkippingLoop, sent: bytes) -> None:
    async with rig() as proxy, proxy.client() as client:
        client.send(sent)
        if sent.startswith(request()):
            upstream = await proxy.api.accept()
            await upstream.message()
            upstream.send(OK)
        await client.message()
        draining = asyncio.gather(proxy.proxy.drain(20))
        await clock.skip(2.1)  # for which a closing connection lingers
        async with asyncio.timeout(10):
            await draining


@pytest.mark.parametrize("how", ["end", "reset", "close"])
@pytest.mark.parametrize(
    "sent", [b"", b"GET / HT", b"\r\n", request("POST", "/api/v2/x", "Content-Length: 9") + b"abc"]
)
async def test_a_client_that_is_gone_does_not_hold_the_end_up(sent: bytes, how: str) -> None:
    async with rig() as proxy, proxy.client() as client:
        client.send(sent)
        await asyncio.sleep(0.01)
        {"end": client.end, "reset": client.reset, "close": client.close}[how]()
        await asyncio.sleep(0.01)
        started = time.monotonic()
        await proxy.proxy.drain(20)
        assert time.monotonic() - started < 10


async def test_an_answer_in_flight_is_given_and_closes() -> None:
    async with rig() as proxy, proxy.client() as client:
        client.send(request())
        upstream = await proxy.api.accept()
        await upstream.message()
        draining = asyncio.gather(proxy.proxy.drain(20))
        await asyncio.sleep(0.02)
        assert proxy.proxy.report().draining
        upstream.send(OK)
        got = await client.message()
        assert (got.body, got.get(b"Connection")) == (b"ok", b"close")
        assert await client.rest() == b""
        async with asyncio.timeout(10):
            await draining
        assert await upstream.ended()


async def test_an_answer_whose_head_was_sent_before_is_given_whole() -> None:
    async with rig() as proxy, proxy.client() as client:
        client.send(request())
        upstream = await proxy.api.accept()
        await upstream.message()
        upstream.send(HEAD_OF_CHUNKS, b"3\r\nabc\r\n")
        await client.until(b"abc\r\n")
        draining = asyncio.gather(proxy.proxy.drain(20))
        await asyncio.sleep(0.02)
        upstream.send(b"3\r\ndef\r\n0\r\n\r\n")
        assert await client.rest() == b"3\r\ndef\r\n0\r\n\r\n"
        async with asyncio.timeout(10):
            await draining


async def test_a_body_that_is_still_coming_is_waited_for() -> None:
    async with rig() as proxy, proxy.client() as client:
        client.send(request("POST", "/api/v2/x", "Content-Length: 6"), b"abc")
        upstream = await proxy.api.accept()
        await upstream.head()
        draining = asyncio.gather(proxy.proxy.drain(20))
        await asyncio.sleep(0.02)
        client.send(b"def")
        assert await upstream.read(6) == b"abcdef"
        upstream.send(OK)
        assert (await client.message()).body == b"ok"
        await draining


async def test_a_request_that_waits_for_its_token_has_it() -> None:
    async with rig() as proxy, proxy.client() as client:
        proxy.tokens.open.clear()
        client.send(request())
        await proxy.tokens.asked_for(1)
        draining = asyncio.gather(proxy.proxy.drain(20))
        await asyncio.sleep(0.02)
        proxy.tokens.open.set()
        upstream = await proxy.api.accept()
        await upstream.message()
        upstream.send(OK)
        assert (await client.message()).body == b"ok"
        await draining


async def test_a_client_that_goes_on_asking_is_told_to_close_and_loses_nothing() -> None:
    async with rig() as proxy, proxy.client() as client:
        _, _, upstream = await proxy.exchange(client, request())
        draining = asyncio.gather(proxy.proxy.drain(20))
        await asyncio.sleep(0.02)
        client.send(request("POST", "/api/v2/x", body=b"once"))
        assert (await upstream.message()).body == b"once"
        upstream.send(OK)
        got = await client.message()
        assert (got.body, got.get(b"Connection")) == (b"ok", b"close")
        assert await client.rest() == b""
        await draining


async def test_the_settings_say_how_long_the_end_may_take() -> None:
    async with rig(limits={"drain_timeout": 0.05}) as proxy, proxy.client() as client:
        client.send(request())
        upstream = await proxy.api.accept()
        await upstream.message()
        async with asyncio.timeout(10):
            await proxy.proxy.drain()
        assert not await client.ended()


@pytest.mark.parametrize("version", ["1.1", "1.0"])
async def test_an_answer_that_takes_longer_than_patience_is_broken_off_visibly(version: str) -> None:
    async with rig() as proxy, proxy.client() as client:
        client.send(request(version=version))
        upstream = await proxy.api.accept()
        await upstream.message()
        upstream.send(HEAD_OF_CHUNKS, b"3\r\nabc\r\n")
        await client.until(b"abc")
        async with asyncio.timeout(10):
            await proxy.proxy.drain(0.05)
        with pytest.raises(ConnectionResetError):
            await client.rest()
        await upstream.ended()
        await proxy.upstreams_gone()


CLOSE_TO_CLIENT = b"\x88\x02\x03\xe9"


def text(words: bytes, *, masked: bool = False) -> bytes:
    """A frame of a WebSocket; zeros mask as well as anything (RFC 6455 5.2)."""
    return b"\x81" + bytes([len(words) | masked << 7]) + (bytes(4) if masked else b"") + words


async def test_a_tunnel_is_ended_with_a_close_to_both_sides() -> None:
    async with rig() as proxy, proxy.client() as client:
        upstream = await upgraded(proxy, client)
        client.send(text(b"hello", masked=True))
        await upstream.read(11)
        upstream.send(text(b"hello"))
        await client.read(7)
        draining = asyncio.gather(proxy.proxy.drain(20))
        assert await client.rest() == CLOSE_TO_CLIENT
        assert (await upstream.rest())[:2] == b"\x88\x82"
        client.end()
        upstream.end()
        async with asyncio.timeout(10):
            await draining
        await proxy.upstreams_gone()


async def test_a_frame_under_way_is_let_through_before_the_close() -> None:
    async with rig() as proxy, proxy.client() as client:
        upstream = await upgraded(proxy, client)
        whole = text(b"a long goodbye")
        upstream.send(whole[:5])
        await client.read(5)
        draining = asyncio.gather(proxy.proxy.drain(20))
        assert (await upstream.rest())[:2] == b"\x88\x82"
        assert await client.silent()
        upstream.send(whole[5:])
        assert await client.rest() == whole[5:] + CLOSE_TO_CLIENT
        client.end()
        upstream.end()
        async with asyncio.timeout(10):
            await draining


async def test_a_frame_that_never_ends_is_broken_off_when_patience_is_over() -> None:
    async with rig() as proxy, proxy.client() as client:
        upstream = await upgraded(proxy, client)
        upstream.send(text(b"a long goodbye")[:5])
        await client.read(5)
        await proxy.proxy.drain(0.2)
        assert not await client.ended()
        await proxy.upstreams_gone()


async def test_whoever_does_not_answer_our_close_is_waited_for_some_seconds(clock: SkippingLoop) -> None:
    async with rig() as proxy, proxy.client() as client:
        upstream = await upgraded(proxy, client)
        draining = asyncio.gather(proxy.proxy.drain(60))
        assert await client.rest() == CLOSE_TO_CLIENT
        await upstream.rest()
        await clock.skip(LAST_WORDS + 0.1)
        async with asyncio.timeout(10):
            await draining
        await proxy.upstreams_gone()


async def test_a_tunnel_that_ends_ends_the_wait() -> None:
    async with rig() as proxy, proxy.client() as client:
        upstream = await upgraded(proxy, client)
        draining = asyncio.gather(proxy.proxy.drain(20))
        await asyncio.sleep(0.01)
        client.end()
        upstream.end()
        async with asyncio.timeout(10):
            await draining


async def test_no_request_is_taken_on_a_connection_that_was_busy_when_the_end_began() -> None:
    async with rig() as proxy, proxy.client() as client:
        client.send(request())
        upstream = await proxy.api.accept()
        await upstream.message()
        draining = asyncio.gather(proxy.proxy.drain(20))
        await asyncio.sleep(0.01)
        upstream.send(answer(200, body=b"last"))
        assert (await client.message()).body == b"last"
        client.send(request("POST", "/api/v2/x", body=b"late"))
        await draining
        assert await upstream.rest() == b""
        assert proxy.api.connections == 1
