"""Server-sent events and long polls: each event is with the client before the next one is made."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.forward.test_faults import behind
from tests.support.certificates import server_context
from tests.support.loops import SkippingLoop
from tests.support.peers import Peer, Server
from tests.support.rig import answer, request, rig

EVENTS = [b"", b": a comment\n\n", b"data: 1\n\n", b"event: x\ndata: " + b"long " * 20_000 + b"\n\n", b"\n"]


async def assert_each_arrives(upstream: Peer, client: Peer, framing: bytes) -> None:
    """Answers with events; the next is sent once the last has arrived."""
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-cache\r\n"
    upstream.send(head, framing, b"\r\n")
    got = await client.head()
    assert (got.status, got.get(b"Content-Type")) == (200, b"text/event-stream")
    for event in EVENTS:
        upstream.send(b"%x\r\n%b\r\n" % (len(event), event) if event and b"chunked" in framing else event)
        arrived = b""
        while len(arrived) < len(event):
            arrived += await piece(client, framing)
        assert arrived == event


async def piece(client: Peer, framing: bytes) -> bytes:
    """What of a stream's content arrives next; its length is known to nobody, or to both."""
    if b"Length" in framing:
        return await client.some()
    content = await client.read(int((await client.until(b"\r\n"))[:-2], 16))
    assert await client.read(2) == b"\r\n"
    return content


@pytest.mark.parametrize("secure", [False, True], ids=["TCP", "TLS"])
@pytest.mark.parametrize("framing", [b"Transfer-Encoding: chunked\r\n", b"", b"Content-Length: 1000000\r\n"])
async def test_an_event_arrives_before_the_next_is_made(tmp_path: Path, framing: bytes, secure: bool) -> None:
    server = Server(server_context("localhost") if secure else None)
    async with behind(tmp_path, server, secure=secure, log={"access": "all"}) as (proxy, client):
        client.send(request("GET", "/api/v2/events", "Accept: text/event-stream"))
        upstream = await proxy.api.accept()
        await upstream.message()
        await assert_each_arrives(upstream, client, framing)


@pytest.mark.parametrize("framing", [b"Transfer-Encoding: chunked\r\n", b""])
async def test_an_event_on_a_kept_connection_arrives_as_well(framing: bytes) -> None:
    async with rig() as proxy, proxy.client() as client:
        _, _, upstream = await proxy.exchange(client, request())
        client.send(request("GET", "/api/v2/events"))
        await upstream.message()
        await assert_each_arrives(upstream, client, framing)


async def test_events_go_on_for_longer_than_a_request_may_take(clock: SkippingLoop) -> None:
    async with rig(limits={"request_timeout": 15, "idle_timeout": 75}) as proxy, proxy.client() as client:
        client.send(request("GET", "/api/v2/events"))
        upstream = await proxy.api.accept()
        await upstream.message()
        upstream.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        await client.head()
        for number in range(20):
            await clock.skip(70)
            upstream.send(b"1\r\n%d\r\n" % (number % 10))
            assert await client.until(b"\r\n") == b"1\r\n"
            assert await client.until(b"\r\n") == b"%d\r\n" % (number % 10)


async def test_a_long_poll_is_answered_as_soon_as_there_is_something(clock: SkippingLoop) -> None:
    async with rig(limits={"request_timeout": 15}) as proxy, proxy.client() as client:
        client.send(request("GET", "/api/v2/poll"))
        upstream = await proxy.api.accept()
        for number in range(3):
            await upstream.message()
            await clock.skip(14)
            assert await client.silent()
            upstream.send(answer(200, body=b"%d" % number))
            client.patience = 1.0
            assert (await client.message()).body == b"%d" % number
            client.send(request("GET", "/api/v2/poll"))
