"""Waits at a loopback redirect URI for the browser that comes back from a login (RFC 8252 7.3)."""

from __future__ import annotations

import asyncio
import contextlib
from urllib.parse import urlsplit

from aiohttp import web

from proxy.core.grants import Code
from proxy.core.login import Login
from proxy.errors import LoginFailed

_FIELDS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}

_PAGE = "<!doctype html><meta charset=utf-8><title>genesys-auth-proxy</title><p>{text}"


class Loopback:
    """A listener for the answer to one login; to be closed.

    :ivar redirect_uri: with the port that was found where it is 0
    """

    def __init__(self, redirect_uri: str) -> None:
        self.redirect_uri = redirect_uri
        self._login: Login | None = None
        self._code: asyncio.Future[Code] = asyncio.get_running_loop().create_future()
        self._runner = web.ServerRunner(
            web.Server(self._answer, access_log=None),  # its lines would hold codes
            handle_signals=False,
            shutdown_timeout=1.0,
        )

    async def open(self) -> None:
        """Begins to listen.

        :raises OSError: the port is taken
        """
        parts = urlsplit(self.redirect_uri)
        await self._runner.setup()
        try:
            host = "127.0.0.1" if parts.hostname == "localhost" else parts.hostname
            await web.TCPSite(self._runner, host, parts.port).start()
        except OSError:
            await self._runner.cleanup()
            raise
        port = self._runner.addresses[0][1]
        if parts.hostname == "localhost":
            with contextlib.suppress(OSError):  # no IPv6 here, or somebody else's: browsers try the other address
                await web.TCPSite(self._runner, "::1", port).start()
        self.redirect_uri = parts._replace(netloc=f"{parts.netloc.rpartition(':')[0]}:{port}").geturl()

    async def close(self) -> None:
        await self._runner.cleanup()

    def expect(self, login: Login) -> None:
        """Takes the answer to this login from now on."""
        self._login = login

    async def code(self, seconds: float) -> Code:
        """The code that a browser brings.

        :raises LoginFailed: it brings none, or nobody comes in time
        """
        try:
            async with asyncio.timeout(seconds):
                return await self._code
        except TimeoutError:
            raise LoginFailed("nobody has logged in", final=True) from None

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        """Takes the first answer to the login; whatever else comes is told so, and ends nothing."""
        if request.method != "GET" or self._login is None or not self._login.is_answer(request.raw_path):
            return _page(404, "There is nothing here.")
        if self._code.done():
            return _page(200, "This login is over.")
        try:
            code = self._login.code(request.raw_path)
        except LoginFailed as failed:
            if failed.final:
                self._code.set_exception(failed)
            return _page(400, f"Not logged in: {failed}.")
        self._code.set_result(code)
        return _page(200, "Back to the terminal: it says whose login this was. You can close this page.")


def _page(status: int, text: str) -> web.Response:
    return web.Response(status=status, text=_PAGE.format(text=text), content_type="text/html", headers=_FIELDS)
