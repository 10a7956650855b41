"""Token endpoints on loopback, well-behaved and not."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, replace

from aiohttp import web
from multidict import CIMultiDictProxy

from proxy.core.grants import Client
from tests.oauth import fakes

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
RawHandler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

GOOD = {"access_token": "good-token", "token_type": "bearer", "expires_in": 86400}


@dataclass(frozen=True, slots=True)
class Received:
    """One request as it came."""

    method: str
    target: str
    fields: CIMultiDictProxy[str]
    body: bytes
    port: int
    """Of the client, which tells connections apart."""


class TokenServer:
    """Answers each request with ``answer``.

    :ivar received: the requests, in order
    """

    def __init__(self, answer: Handler | None = None) -> None:
        self.answer: Handler = answer or issue
        self.received: list[Received] = []
        self.asked = asyncio.Event()
        self.url = ""

    @contextlib.asynccontextmanager
    async def serving(self, tls: ssl.SSLContext | None = None) -> AsyncIterator[TokenServer]:
        application = web.Application()
        application.router.add_route("*", "/{path:.*}", self._handle)
        runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.01)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls).start()
            scheme, host = ("http", "127.0.0.1") if tls is None else ("https", "localhost")
            self.url = f"{scheme}://{host}:{runner.addresses[0][1]}/oauth/token"
            yield self
        finally:
            await runner.cleanup()

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        port = request.transport.get_extra_info("peername")[1]
        body = await request.read()
        self.received.append(Received(request.method, request.raw_path, request.headers, body, port))
        self.asked.set()
        return await self.answer(request)


async def issue(_: web.Request) -> web.Response:
    """A token for a day."""
    return web.json_response(GOOD)


@contextlib.asynccontextmanager
async def raw_server(handle: RawHandler) -> AsyncIterator[str]:
    """The URL of a server that does with a connection whatever ``handle`` does, and then closes it."""
    tasks: list[asyncio.Task[None]] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.append(task)
        with contextlib.suppress(OSError, asyncio.CancelledError):
            await handle(reader, writer)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/oauth/token"
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def client(url: str) -> Client:
    return replace(fakes.client(), token_url=url)
