"""Two proxies that do everything wrong, for the conformance tests to fail on."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

_Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@contextlib.asynccontextmanager
async def blind_relay(upstream_port: int) -> AsyncIterator[int]:
    """Hands on every byte unread, both ways; gives its port."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        upstream_reader, upstream_writer = await asyncio.open_connection("127.0.0.1", upstream_port)
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(_copy(reader, upstream_writer), name="up")
                tasks.create_task(_copy(upstream_reader, writer), name="down")
        finally:
            upstream_writer.transport.abort()

    async with _serving(serve) as port:
        yield port


@contextlib.asynccontextmanager
async def yes_man() -> AsyncIterator[int]:
    """Answers each head, and what it takes for one, with 200, and asks no upstream; gives its port."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError):
            while await reader.readuntil(b"\r\n\r\n"):
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    async with _serving(serve) as port:
        yield port


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        writer.write_eof()
    except OSError:
        writer.transport.abort()


@contextlib.asynccontextmanager
async def _serving(serve: _Serve) -> AsyncIterator[int]:
    serving: set[asyncio.Task[None]] = set()

    async def run(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        serving.add(task)  # the event loop itself refers to it weakly only
        try:
            with contextlib.suppress(OSError, asyncio.CancelledError):
                await serve(reader, writer)
        finally:
            serving.discard(task)
            writer.transport.abort()

    server = await asyncio.start_server(run, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in list(serving):
            task.cancel()
        await asyncio.gather(*serving)
        await server.wait_closed()
