"""Web sites under any name: a page for scripts to run in, and the JavaScript SDK's browser bundle."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

from aiohttp import web

from tests.system import JAVASCRIPT

SDK = JAVASCRIPT / "node_modules/purecloud-platform-client-v2/dist/web-cjs/purecloud-platform-client-v2.min.js"

_EMPTY = "<!doctype html><title>A page</title><body></body>"
_WITH_SDK = '<!doctype html><title>With the SDK</title><script src="/sdk.js"></script><body></body>'


class Site:
    """Answers at one port, whatever name a browser asks for."""

    def __init__(self, port: int) -> None:
        self.port = port

    def origin(self, name: str) -> str:
        return f"http://{name}:{self.port}"


@contextlib.asynccontextmanager
async def open_site() -> AsyncIterator[Site]:
    """A site for as long as the context lasts: ``/`` is a page, ``/sdk`` one with the SDK in it."""

    async def page(_: web.Request) -> web.Response:
        return web.Response(text=_EMPTY, content_type="text/html")

    async def with_sdk(_: web.Request) -> web.Response:
        return web.Response(text=_WITH_SDK, content_type="text/html")

    async def sdk(_: web.Request) -> web.FileResponse:
        return web.FileResponse(SDK)

    app = web.Application()
    app.add_routes([web.get("/", page), web.get("/sdk", with_sdk), web.get("/sdk.js", sdk)])
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        yield Site(runner.addresses[0][1])
    finally:
        await runner.cleanup()
