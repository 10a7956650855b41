"""The short way does what the straight line does, for every request and answer; and knows when to leave it."""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
from collections.abc import AsyncIterator, Coroutine, Generator, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from proxy.core.report import headroom
from proxy.wire.server import ClientConnection
from tests.support.loops import SkippingLoop
from tests.support.peers import Peer
from tests.support.rig import OK, REFUSED, Rig, answer, chunked, request, rig
from tests.support.stages import until

CHUNKS = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
Work = Coroutine[Any, Any, Any] | Generator[Any, None, Any]
_CONTEXT = re.compile(rb'"contextId": "[0-9a-f-]{36}"')


def connection(proxy: Rig) -> ClientConnection:
    """The proxy's end of the only client's connection."""
    (found,) = proxy.proxy._listener.connections
    return found


def on_the_short_way(proxy: Rig) -> bool:
    return connection(proxy).left is not None


@contextlib.asynccontextmanager
async def under_way(sent: bytes = request(), **limits: float) -> AsyncIterator[tuple[Rig, Peer, Peer]]:
    """A request on the short way, and its upstream."""
    async with rig(limits=limits) as proxy, proxy.client() as client:
        _, _, upstream = await proxy.exchange(client, request())
        client.send(sent)
        await upstream.message()
        assert on_the_short_way(proxy)
        yield proxy, client, upstream


# --- the same as the straight line ---


@dataclass
class Seen:
    """What the peers and the counters saw of an exchange."""

    received: bytes = b""
    broken_off: bool = False
    arrived: list[tuple[bytes, ...]] = field(default_factory=list)
    counted: object = None


async def serve(peer: Peer, answers: list[tuple[bytes, ...]], end: str, seen: Seen) -> None:
    """An upstream: gives ``answers``, the last of them ended so, and then 200 to everything."""
    peer.patience = None
    with contextlib.suppress(asyncio.IncompleteReadError, OSError):
        while True:
            message = await peer.message()
            lines = (line for line in message.lines if not line.startswith(b"Host:"))  # the port is another
            seen.arrived.append((message.start, *lines, message.body))
            if not answers:
                peer.send(OK)
                continue
            for piece in answers.pop(0):
                peer.send(piece)
                await asyncio.sleep(0.002)
            if not answers and end != "stay":
                await asyncio.sleep(0.01)  # what was sent arrives before
                peer.close() if end == "close" else peer.reset()
                return


async def play(sent: bytes, answered: bytes, end: str, *, shortcut: bool, split: int | None = None) -> Seen:
    """An exchange on connections that have carried one before, and another request behind it."""
    seen = Seen()
    async with rig() as proxy, proxy.client() as client, asyncio.TaskGroup() as serving:
        listener, taken = proxy.proxy._listener, list[bool]()
        take = listener.take_at_once if shortcut else lambda _: False

        def note(client: ClientConnection) -> bool:
            taken.append(take(client))
            return taken[-1]

        listener.take_at_once = note

        async def accept() -> None:
            answers: list[tuple[bytes, ...]] = [(OK,), (answered[:split], answered[split:]) if split else (answered,)]
            while True:
                serving.create_task(serve(await proxy.api.accept(), answers, end, seen), name="upstream")
                answers = []

        accepting = serving.create_task(accept(), name="accept")
        client.send(request())
        await client.message()
        client.send(sent)
        await until(lambda: len(seen.arrived) >= 2)
        assert taken == [False, shortcut]
        await asyncio.sleep(0.02)  # the answer has arrived before the next request, or never comes
        if not client.closed:
            client.send(request("GET", "/api/v2/another"))
            client.end()
        try:
            seen.received = _CONTEXT.sub(b"-", await client.rest())
        except ConnectionResetError:
            seen.broken_off = True
        tally = proxy.proxy.report().tenants[0].tally
        await proxy.clients_gone()
        seen.counted = (tally.requests, tally.replays, headroom(tally, time.time()), sum(tally.durations.counts))
        accepting.cancel()
        await proxy.proxy.drain(0)
    return seen


ANSWERS = {
    "whole": OK,
    "with fields": answer(
        201, "X-A: 1", "Set-Cookie: a", "Set-Cookie: b", "Connection: X-Mine", "X-Mine: 1", body=b"x"
    ),
    "with a limit": answer(200, "inin-ratelimit-allowed: 300", "inin-ratelimit-count: 12", body=b"x"),
    "without content": b"HTTP/1.1 204 No Content\r\n\r\n",
    "not modified": b'HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\nETag: "x"\r\n\r\n',
    "in chunks": CHUNKS + chunked(b"a", b"bc"),
    "in chunks with trailers": CHUNKS + b"1\r\na\r\n0\r\nX-Sum: 1\r\nSet-Cookie: a\r\n\r\n",
    "in chunks and more": CHUNKS + chunked(b"a") + OK,
    "in broken chunks": CHUNKS + b"1\r\nab\r\n0\r\n\r\n",
    "in chunks cut short": CHUNKS + b"5\r\nab",
    "until the end": b"HTTP/1.1 200 OK\r\n\r\nabc",
    "that closes": answer(200, "Connection: close", body=b"x"),
    "in HTTP/1.0": b"HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\nx",
    "refused": REFUSED,
    "forbidden": answer(403, body=b"x"),
    "early hints first": b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + OK,
    "more than was asked for": OK + OK,
    "cut short": b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc",
    "half a head": b"HTTP/1.1 200 OK\r\nContent-",
    "garbage": b"SSH-2.0-OpenSSH\r\n\r\n",
    "two lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nx",
    "a switch nobody asked for": b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
    "nothing": b"",
    "folded": b"HTTP/1.1 200 OK\r\nX-A: b\r\n c\r\nContent-Length: 1\r\n\r\nx",
}

REQUESTS = {
    "GET": request(),
    "HEAD": request("HEAD"),
    "POST": request("POST", body=b"{}"),
    "POST in chunks": request("POST", "/api/v2/x", "Transfer-Encoding: chunked") + chunked(b"{", b"}"),
    "the last": request("GET", "/api/v2/x", "Connection: close"),
    "from a page": request("GET", "/api/v2/x", "Origin: http://localhost"),
    "for HTTP/1.0": request("GET", version="1.0"),
    "with trailers wanted": request("GET", "/api/v2/x", "TE: trailers", "Connection: TE"),
}


@pytest.mark.one_loop
@pytest.mark.parametrize("end", ["stay", "close", "reset"])
@pytest.mark.parametrize("answered", ANSWERS)
@pytest.mark.parametrize("sent", ["GET", "POST"])
async def test_the_short_way_ends_as_the_straight_line_does(sent: str, answered: str, end: str) -> None:
    if end == "stay" and answered in ("until the end", "cut short", "in chunks cut short", "half a head", "nothing"):
        end = "close"  # there is nothing else to wait for
    short = await play(REQUESTS[sent], ANSWERS[answered], end, shortcut=True)
    straight = await play(REQUESTS[sent], ANSWERS[answered], end, shortcut=False)
    assert short == straight


@pytest.mark.one_loop
@pytest.mark.parametrize("sent", REQUESTS)
@pytest.mark.parametrize(
    "answered",
    ["whole", "with fields", "without content", "in chunks", "in chunks with trailers", "refused", "that closes"],
)
async def test_every_kind_of_request_ends_as_on_the_straight_line(sent: str, answered: str) -> None:
    short = await play(REQUESTS[sent], ANSWERS[answered], "stay", shortcut=True)
    straight = await play(REQUESTS[sent], ANSWERS[answered], "stay", shortcut=False)
    assert short == straight


@pytest.mark.one_loop
@given(data=st.data())
@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_an_answer_ends_the_same_wherever_it_is_split(data: st.DataObject) -> None:
    sent = REQUESTS[data.draw(st.sampled_from(sorted(REQUESTS)))]
    answered = ANSWERS[
        data.draw(st.sampled_from(["whole", "with fields", "in chunks", "refused", "early hints first"]))
    ]
    at = data.draw(st.integers(1, len(answered) - 1))
    whole = await play(sent, answered, "stay", shortcut=False)
    assert await play(sent, answered, "stay", shortcut=True, split=at) == whole


# --- when somebody leaves, ends or is late ---


@contextlib.contextmanager
def tasks_made() -> Iterator[list[asyncio.Task[Any]]]:
    """The tasks that are made meanwhile."""
    made: list[asyncio.Task[Any]] = []

    def make(loop: asyncio.AbstractEventLoop, work: Work, **options: Any) -> asyncio.Task[Any]:
        made.append(asyncio.Task(work, loop=loop, **options))
        return made[-1]

    loop = asyncio.get_running_loop()
    loop.set_task_factory(make)
    try:
        yield made
    finally:
        loop.set_task_factory(None)


@pytest.mark.parametrize(("answered", "body"), [("whole", b"ok"), ("in chunks", b"abc")])
async def test_a_request_that_waits_for_nothing_takes_no_task(answered: str, body: bytes) -> None:
    async with under_way() as (proxy, client, upstream):
        with tasks_made() as made:
            upstream.send(ANSWERS[answered])
            assert (await client.message()).body == body
        assert not made
        assert not on_the_short_way(proxy)


async def test_a_client_that_leaves_breaks_off_at_the_upstream_and_is_counted() -> None:
    async with under_way() as (proxy, client, upstream):
        client.reset()
        assert not await upstream.ended()
        await proxy.clients_gone()
        await proxy.upstreams_gone()
        assert proxy.proxy.report().tenants[0].tally.requests == {200: 1, 499: 1}


async def test_a_client_that_leaves_in_the_middle_of_a_long_answer_is_counted() -> None:
    async with under_way() as (proxy, client, upstream):
        upstream.send(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc")
        await client.until(b"abc")
        client.reset()
        assert not await upstream.ended()
        await proxy.clients_gone()
        assert proxy.proxy.report().tenants[0].tally.requests == {200: 2}


async def test_a_client_that_half_closes_gets_its_answer_and_then_the_end() -> None:
    async with under_way() as (_, client, upstream):
        client.end()
        assert await upstream.silent()
        upstream.send(OK)
        assert (await client.message()).body == b"ok"
        assert await client.rest() == b""


async def test_what_is_sent_behind_a_request_waits_for_its_answer() -> None:
    async with under_way() as (_, client, upstream):
        client.send(request("GET", "/api/v2/second"), request("GET", "/api/v2/third"))
        assert await upstream.silent()
        for number in (b"1", b"2", b"3"):
            upstream.send(answer(200, body=number))
            assert (await client.message()).body == number
            if number != b"3":
                await upstream.message()


async def test_a_client_that_sends_without_end_behind_a_request_is_made_to_wait() -> None:
    async with under_way() as (proxy, client, upstream):
        await client.push(64 << 20)
        assert len(connection(proxy).buffer) < 1 << 20
        upstream.send(OK)
        assert (await client.message()).body == b"ok"


@pytest.mark.parametrize(("method", "status"), [("GET", 200), ("DELETE", 502)])
async def test_only_a_safe_request_is_sent_again_when_the_upstream_was_closing(method: str, status: int) -> None:
    async with under_way(request(method)) as (proxy, client, upstream):
        upstream.close()
        if status == 200:
            other = await proxy.api.accept()
            assert (await other.message()).start == b"GET /api/v2/x HTTP/1.1"
            other.send(OK)
        assert (await client.message()).status == status
        assert proxy.api.connections == (2 if status == 200 else 1)


async def test_an_answer_that_does_not_come_in_time_is_a_504(clock: SkippingLoop) -> None:
    async with under_way(request_timeout=15) as (_, client, upstream):
        await clock.skip(14)
        assert await client.silent()
        await clock.skip(1.1)
        assert (await client.message()).status == 504
        assert not await upstream.ended()


async def test_a_connection_is_closed_when_it_was_idle_for_long_after_an_answer(clock: SkippingLoop) -> None:
    async with under_way(request_timeout=500, idle_timeout=75) as (_, client, upstream):
        await clock.skip(200)  # a client that waits for its answer is not idle
        upstream.send(OK)
        assert (await client.message()).body == b"ok"
        await clock.skip(74)
        assert await client.silent()
        await clock.skip(1.1)
        assert await client.rest() == b""


async def test_draining_lets_it_finish_and_says_that_it_is_the_last() -> None:
    async with under_way() as (proxy, client, upstream):
        draining = asyncio.gather(proxy.proxy.drain(20))
        await asyncio.sleep(0.05)
        assert not draining.done()
        upstream.send(OK)
        got = await client.message()
        assert (got.status, got.get(b"Connection")) == (200, b"close")
        client.close()
        await draining


async def test_a_reload_leaves_it_on_its_way() -> None:
    async with under_way() as (proxy, client, upstream):
        proxy.edit("tenants.acme", "tenants.other")
        assert await proxy.proxy.reload() == []
        upstream.send(REFUSED)
        other = await proxy.api.accept()  # a reload begins with new connections
        assert (await other.message()).get(b"Authorization") == b"Bearer token-2"
        other.send(OK)
        assert (await client.message()).status == 200


async def test_a_client_that_does_not_read_is_waited_for_before_its_next_request() -> None:
    async with rig() as proxy, proxy.client(buffer=4096) as client:
        _, _, upstream = await proxy.exchange(client, request())
        client.stop_reading()
        body, answers = b"x" * 32_000, 0
        while not connection(proxy).sending_behind:
            client.send(request())
            await upstream.message()
            upstream.send(answer(200, body=body))
            answers += 1
            await until(lambda: not on_the_short_way(proxy) or connection(proxy).sending_behind)
        client.send(request("GET", "/api/v2/next"))
        assert await upstream.silent()
        client.resume_reading()
        for _ in range(answers):
            assert (await client.message()).body == body
        assert (await upstream.message()).start == b"GET /api/v2/next HTTP/1.1"


async def test_a_defect_is_told_and_leaves_nothing_open(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def defect(*_: object) -> bool:
        raise ZeroDivisionError

    async with under_way() as (_, client, upstream):
        monkeypatch.setattr("proxy.forward.shortcut.relay_whole", defect)
        upstream.send(OK)
        assert (await client.message()).status == 500
        assert not await upstream.ended()
        monkeypatch.undo()
        assert "a defect of this program" in caplog.text


async def test_a_client_that_leaves_just_before_the_straight_line_goes_on_leaves_nothing() -> None:
    async with under_way() as (proxy, client, upstream):
        here = connection(proxy)
        (there,) = proxy.proxy._tenants._upstreams[proxy.proxy.settings.tenants["acme"].api_url]._open
        assert there.watcher is not None
        assert here.left is not None
        there.watcher()
        here.left()  # its task has not had its first turn
        assert not await upstream.ended()
        tally = proxy.proxy.report().tenants[0].tally
        assert (tally.requests, tally.at_once) == ({200: 1, 499: 1}, 0)
        client.reset()
        await proxy.clients_gone()
