"""Attacks on a running proxy while good traffic goes on: none reaches the upstream, and every good call is answered."""

from __future__ import annotations

import asyncio
import contextlib
import resource
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from yarl import URL

from tests.support.peers import Peer, open_peer
from tests.support.stages import ECHO, Stage, Tenant, make_orgs, open_stage, until

pytestmark = pytest.mark.asyncio(loop_scope="module")

GOOD, ATTACKED = make_orgs(["good", "attacked"])

CONFIGURATION = """keep_warm = false
[limits]
request_timeout = 3
idle_timeout = 20
max_connections = 300
"""


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def stage() -> AsyncIterator[Stage]:
    async with open_stage((GOOD, ATTACKED), CONFIGURATION) as stage:
        yield stage


@contextlib.asynccontextmanager
async def good_traffic(stage: Stage, callers: int = 4) -> AsyncIterator[list[float]]:
    """Callers who call again and again meanwhile; each call is answered well, and takes so many seconds."""
    tenant, seconds, over = Tenant(stage, GOOD), list[float](), asyncio.Event()

    async def call() -> None:
        while not over.is_set():
            answer = await tenant.call("POST", ECHO, json={"good": True})
            assert answer.status == 200, answer
            seconds.append(answer.seconds)

    async with asyncio.TaskGroup() as group:
        for number in range(callers):
            group.create_task(call(), name=f"good caller {number}")
        try:
            yield seconds
        finally:
            over.set()
    assert len(seconds) >= callers


def untouched(stage: Stage) -> bool:
    """Whether nothing of an attack went further than the proxy: not even a token was asked for."""
    return Tenant(stage, ATTACKED).token_requests == {} and stage.sandbox.ledger.accepted(ATTACKED.name) == 0


HEAD = b"GET /t/attacked/api/v2/echo HTTP/1.1\r\nHost: localhost\r\n"


async def crowd(stage: Stage, stack: contextlib.AsyncExitStack, count: int) -> list[Peer]:
    return [await stack.enter_async_context(open_peer(stage.proxy.port)) for _ in range(count)]


async def test_heads_that_drip_keep_nobody_out(stage: Stage) -> None:
    """slowloris: more connections than there may be, each with a head that never ends."""
    async with contextlib.AsyncExitStack() as stack, good_traffic(stage) as seconds:
        peers = await crowd(stage, stack, 400)
        for peer in peers:
            peer.send(HEAD)
        for number in range(20):
            for peer in peers:
                peer.send(b"X-%d: x\r\n" % number)
            await asyncio.sleep(0.1)
        before = len(seconds)
        await until(lambda: len(seconds) > before + 20)
    assert untouched(stage)


async def test_heads_without_end_are_answered_and_closed(stage: Stage) -> None:
    async with contextlib.AsyncExitStack() as stack, good_traffic(stage):
        peers = await crowd(stage, stack, 20)
        for peer in peers:
            peer.send(HEAD, b"X: ", b"x" * 100_000)
        for peer in peers:
            assert (await peer.message()).status == 431
    assert untouched(stage)


async def test_bodies_that_drip_hold_no_place_of_others(stage: Stage) -> None:
    async with contextlib.AsyncExitStack() as stack, good_traffic(stage) as seconds:
        for peer in await crowd(stage, stack, 250):
            peer.send(b"POST /t/attacked/oauth/token HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\na")
        before = len(seconds)
        await until(lambda: len(seconds) > before + 20)
    assert untouched(stage)


async def test_answers_that_nobody_reads_cost_no_one_else(stage: Stage) -> None:
    async with contextlib.AsyncExitStack() as stack, good_traffic(stage) as seconds:
        for peer in await crowd(stage, stack, 50):
            peer.stop_reading()
            peer.send((HEAD.replace(b"GET", b"TRACE") + b"\r\n") * 2000)
        before = len(seconds)
        await until(lambda: len(seconds) > before + 20)
    assert untouched(stage)


SMUGGLED = b"GET /t/attacked/api/v2/echo HTTP/1.1\r\nHost: localhost\r\n\r\n"

TRICKS = {
    "two lengths": b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello" + SMUGGLED,
    "a list of lengths": b"Content-Length: 5, 5\r\n\r\nhello" + SMUGGLED,
    "a signed length": b"Content-Length: +5\r\n\r\nhello" + SMUGGLED,
    "a length and chunks": b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + SMUGGLED,
    "chunks twice": b"Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n" + SMUGGLED,
    "chunks and identity": b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n" + SMUGGLED,
    "chunks after a tab": b"Transfer-Encoding:\x0bchunked\r\n\r\n0\r\n\r\n" + SMUGGLED,
    "a blank before the colon": b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n" + SMUGGLED,
    "a folded line": b"X: a\r\n Transfer-Encoding: chunked\r\n\r\n" + SMUGGLED,
    "a bare LF": b"X: a\nTransfer-Encoding: chunked\r\n\r\n" + SMUGGLED,
    "a bare CR": b"X: a\rHost: evil.example\r\n\r\n" + SMUGGLED,
    "a zero byte": b"X: a\0b\r\n\r\n" + SMUGGLED,
    "two hosts": b"Host: evil.example\r\n\r\n" + SMUGGLED,
    "no name": b": x\r\n\r\n" + SMUGGLED,
    "an unknown coding": b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n" + SMUGGLED,
}
LINES = {
    "another host": b"GET http://evil.example/t/attacked/api HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "userinfo": b"GET http://localhost@evil.example/t/attacked/api HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "a host in the path's place": b"GET evil.example/t/attacked/api HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "a tunnel": b"CONNECT evil.example:443 HTTP/1.1\r\nHost: evil.example:443\r\n\r\n",
    "a line in the target": b"GET /t/attacked/api\r\nX: x HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "HTTP/2 at once": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "HTTP/0.9": b"GET /t/attacked/api\r\n\r\n",
    "a rebound name": b"GET /t/attacked/api HTTP/1.1\r\nHost: evil.example\r\n\r\n",
    "a path out of the tenant": b"GET /t/attacked/../nobody HTTP/1.1\r\nHost: evil.example\r\n\r\n",
    "a revoked token": b"DELETE /t/attacked/api/v2/tokens/%6de%20 HTTP/1.1\r\nHost: localhost\r\n\r\n",
}


@pytest.mark.parametrize("trick", [*TRICKS, *LINES])
async def test_what_can_be_read_in_two_ways_goes_nowhere(stage: Stage, trick: str) -> None:
    sent = LINES[trick] if trick in LINES else HEAD.replace(b"GET", b"POST") + TRICKS[trick]
    async with open_peer(stage.proxy.port) as peer:
        peer.send(sent)
        assert (await peer.message()).status in (400, 403, 405, 431, 501, 505)
        if trick in TRICKS:
            assert await peer.ended() or peer.closed, "what follows is not taken for a request"
    assert untouched(stage)


async def test_a_crowd_at_the_admin_port_takes_few_files_and_keeps_no_probe_out(stage: Stage) -> None:
    await Tenant(stage, GOOD).get()
    port = URL(stage.proxy.admin_url).port
    assert port is not None
    before = stage.proxy.open_files
    async with contextlib.AsyncExitStack() as stack, good_traffic(stage):
        for _ in range(400):
            await stack.enter_async_context(open_peer(port))
        assert (await stage.admin("GET", "/healthz")).status == 200
        assert stage.proxy.open_files - before < 100


@pytest.mark.slow
@pytest.mark.timeout(180)
async def test_ten_thousand_idle_connections_cost_bounded_memory_and_nobody_their_answer() -> None:
    count = 10_000
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < count + 1000:
        pytest.fail(f"this needs {count + 1000} open files, and {hard} are allowed")
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    limits = "keep_warm = false\n[limits]\nmax_connections = 8000\nidle_timeout = 600\n"
    async with open_stage((GOOD, ATTACKED), limits) as stage, contextlib.AsyncExitStack() as stack:
        async with good_traffic(stage):
            await asyncio.sleep(1)
        before = stage.proxy.resident
        async with good_traffic(stage) as seconds:
            peers = await crowd(stage, stack, count)
            for peer in peers[::2]:
                peer.send(HEAD)
            await asyncio.sleep(2)
            taken = stage.proxy.resident - before
            held = await stage.connections()
        print(f"{held} of {count} connections held, {taken / 1e6:.0f} MB, {max(seconds):.2f} s the slowest call")
        assert held <= 8000
        assert taken < held * 20_000
        assert untouched(stage)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
