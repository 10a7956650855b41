"""A token endpoint that never refuses and gives each request a token of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count

from aiohttp import web


@asynccontextmanager
async def token_endpoint() -> AsyncIterator[str]:
    """Serves ``/oauth/token`` on loopback; gives its base URL."""
    numbers = count(1)

    async def issue(request: web.Request) -> web.Response:
        await request.read()
        return web.json_response(
            {"access_token": f"fake-token-{next(numbers)}", "token_type": "bearer", "expires_in": 86400}
        )

    application = web.Application()
    application.router.add_post("/oauth/token", issue)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        yield f"http://localhost:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()
