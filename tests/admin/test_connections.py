"""The admin port's connections: how many there may be, who makes room, and how long one may wait."""

from __future__ import annotations

import asyncio
import logging
import re
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from proxy.admin import feed
from proxy.admin.connections import FIRST_HEAD, MOST_CONNECTIONS, TOLD_EVERY
from proxy.admin.feed import MOST_VIEWERS
from proxy.admin.status import status
from proxy.process import RESERVED_FILES
from tests.admin.fakes import FakeControl, report, tenant
from tests.support.loops import SkippingLoop
from tests.support.stages import until

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]

GET = b"GET %b HTTP/1.1\r\nHost: localhost\r\n\r\n"
REFRESH = b"POST /tenants/acme/refresh HTTP/1.1\r\nHost: localhost\r\n\r\n"


@asynccontextmanager
async def connected(port: int) -> AsyncIterator[Streams]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


async def several(stack: AsyncExitStack, port: int, count: int, request: bytes = b"") -> list[Streams]:
    found = [await stack.enter_async_context(connected(port)) for _ in range(count)]
    for _, writer in found:
        writer.write(request)
    return found


async def answered(streams: Streams, path: bytes = b"/healthz") -> bytes:
    """The status line of an answer; empty if the connection is closed instead."""
    reader, writer = streams
    writer.write(GET % path)
    return await status_line(reader)


async def status_line(reader: asyncio.StreamReader) -> bytes:
    """Of an answer whose body, if it is short, is read as well."""
    async with asyncio.timeout(10):
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
        except (asyncio.IncompleteReadError, ConnectionResetError):
            return b""
        length = re.search(r"Content-Length: (\d{1,4})\r", head)
        if length is not None:
            await reader.readexactly(int(length[1]))
    return head.partition("\r\n")[0].encode()


async def is_closed(streams: Streams) -> bool:
    try:
        async with asyncio.timeout(0.05):
            return await streams[0].read(1) == b""
    except TimeoutError:
        return False
    except ConnectionResetError:
        return True


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [getattr(record, "event", "") for record in caplog.records if record.levelno >= logging.WARNING]


async def test_a_crowd_that_asks_nothing_keeps_nobody_out_and_those_who_came_first_leave_first(port: int) -> None:
    async with AsyncExitStack() as stack:
        crowd = await several(stack, port, MOST_CONNECTIONS + 20)
        assert await answered(crowd[-1]) == b"HTTP/1.1 200 OK"
        assert all([await is_closed(streams) for streams in crowd[:20]])
        assert not await is_closed(crowd[20])
        async with connected(port) as another:
            assert await answered(another) == b"HTTP/1.1 200 OK"
        assert await is_closed(crowd[20])


async def test_who_has_just_been_answered_leaves_after_those_who_have_waited_for_longer(port: int) -> None:
    async with AsyncExitStack() as stack:
        first, second, *_ = await several(stack, port, MOST_CONNECTIONS)
        assert await answered(first) == b"HTTP/1.1 200 OK"
        await several(stack, port, 1)
        assert await answered(first) == b"HTTP/1.1 200 OK"
        assert await is_closed(second)


async def test_an_answer_under_way_makes_no_room_and_who_finds_none_is_refused_with_a_line_a_minute(
    port: int, control: FakeControl, clock: SkippingLoop, caplog: pytest.LogCaptureFixture
) -> None:
    control.go.clear()
    async with AsyncExitStack() as stack:
        busy = await several(stack, port, MOST_CONNECTIONS, REFRESH)
        await until(lambda: len(control.refreshed) == MOST_CONNECTIONS)
        for told in (1, 1, 2):
            async with connected(port) as (reader, _):
                assert await status_line(reader) == b"HTTP/1.1 503 Service Unavailable"
                assert await reader.read() == b""
            assert warnings(caplog) == ["admin.full"] * told
            await clock.skip(TOLD_EVERY / 2 + 0.1)
        control.go.set()
        for reader, _ in busy:
            assert await status_line(reader) == b"HTTP/1.1 200 OK"
    async with connected(port) as streams:
        assert await answered(streams) == b"HTTP/1.1 200 OK"


async def test_viewers_stay_while_a_crowd_comes_and_time_goes_by(port: int, clock: SkippingLoop) -> None:
    async with AsyncExitStack() as stack:
        viewers = await several(stack, port, MOST_VIEWERS, GET % b"/events")
        for reader, _ in viewers:
            assert await status_line(reader) == b"HTTP/1.1 200 OK"
        await several(stack, port, 2 * MOST_CONNECTIONS)
        for _ in range(3):
            await clock.skip(200)
            for reader, _ in viewers:
                async with asyncio.timeout(10):
                    assert (await reader.readuntil(b"\n\n")).find(b"data: ") >= 0
                while reader._buffer:  # type: ignore[attr-defined]
                    await reader.read(65536)


async def test_a_first_request_has_ten_seconds_and_a_further_one_longer(port: int, clock: SkippingLoop) -> None:
    async with connected(port) as silent, connected(port) as dripping, connected(port) as served:
        dripping[1].write(b"GET / HTTP/1.1\r\nHost: ")
        assert await answered(served) == b"HTTP/1.1 200 OK"
        await clock.skip(FIRST_HEAD - 1)
        assert not await is_closed(silent)
        assert not await is_closed(dripping)
        await clock.skip(1.1)
        assert await is_closed(silent)
        assert await is_closed(dripping)
        await clock.skip(60)
        assert await answered(served) == b"HTTP/1.1 200 OK"
        await clock.skip(76)
        assert await is_closed(served)


@asynccontextmanager
async def deaf(port: int, request: bytes) -> AsyncIterator[socket.socket]:
    """A client that reads one byte of its answer and no more."""
    loop = asyncio.get_running_loop()
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.setblocking(False)
        await loop.sock_connect(client, ("127.0.0.1", port))
        await loop.sock_sendall(client, request)
        assert await loop.sock_recv(client, 1) == b"H"
        yield client


async def test_a_client_that_reads_nothing_makes_room_in_its_turn(port: int, control: FakeControl) -> None:
    control.shown = report(*(tenant(f"t{number}") for number in range(20_000)))
    async with deaf(port, GET % b"/status.json") as client:
        async with AsyncExitStack() as stack:
            crowd = await several(stack, port, MOST_CONNECTIONS)
            assert await answered(crowd[-1]) == b"HTTP/1.1 200 OK"
        taken = 0
        while some := await asyncio.get_running_loop().sock_recv(client, 1 << 20):
            taken += len(some)
        assert taken < sum(map(len, status(control.shown)))


async def test_a_viewer_that_reads_nothing_for_half_a_minute_makes_room_for_another(
    port: int, control: FakeControl, clock: SkippingLoop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed, "MOST_VIEWERS", 1)
    control.shown = report(*(tenant(f"t{number}") for number in range(20_000)))
    async with deaf(port, GET % b"/events"):
        async with connected(port) as another:
            assert await answered(another, b"/events") == b"HTTP/1.1 503 Service Unavailable"
        await clock.skip(29)
        async with connected(port) as another:
            assert await answered(another, b"/events") == b"HTTP/1.1 503 Service Unavailable"
        await clock.skip(2)
        control.shown = report(tenant())
        async with connected(port) as another:
            assert await answered(another, b"/events") == b"HTTP/1.1 200 OK"


def test_the_files_that_are_kept_free_suffice_for_them() -> None:
    assert MOST_VIEWERS < MOST_CONNECTIONS <= RESERVED_FILES // 2
