"""The admin port's connections: so many and no more, and none kept for long by whoever asks nothing."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable

from aiohttp import web

from proxy.admin.answers import error_answer

MOST_CONNECTIONS = 64
"""Those of the page's viewers among them; ``process.RESERVED_FILES`` has room for them."""

FIRST_HEAD = 10.0
"""Seconds for a connection's first request to arrive."""

_IDLE = 75.0
"""Seconds after which a connection without a further request is closed; scrapers ask every 15 to 60 s."""

TOLD_EVERY = 60.0
"""Seconds from one line in the log to the next that would say the same."""

_FULL = (
    b"HTTP/1.1 503 Service Unavailable\r\nServer: genesys-auth-proxy\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
)
"""What one that is refused is told; if its request is on the way already, it may see a reset instead."""

_log = logging.getLogger(__name__)


class Connections(web.Server):
    """Makes room for a new connection by closing the one that has waited longest for a request, or for its answer to
    be taken. One whose request is being answered stays, as a viewer's does.

    :param answer: answers a request
    """

    def __init__(self, answer: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]) -> None:
        super().__init__(self._answered)
        self._answer = answer
        self._open: dict[web.RequestHandler, asyncio.Transport] = {}
        self._waiting: dict[web.RequestHandler, None] = {}  # since longest first
        self._deadlines: dict[web.RequestHandler, asyncio.TimerHandle] = {}
        self._told_at = -math.inf

    def __call__(self) -> web.RequestHandler:
        return _Connection(
            self,
            loop=self._loop,
            keepalive_timeout=_IDLE,
            access_log=None,  # type: ignore[arg-type]  # None turns it off, as web.AppRunner documents
            lingering_time=1.0,
            # Bodies are read only to skip them.
            auto_decompress=False,
        )

    def connection_made(self, handler: web.RequestHandler, transport: asyncio.Transport) -> None:
        """Called by a new connection, which is closed again if all others are busy."""
        super().connection_made(handler, transport)
        if len(self._open) >= MOST_CONNECTIONS and not self._make_room():
            self._refuse(transport)
            return
        self._open[handler] = transport
        self._waiting[handler] = None
        self._deadlines[handler] = self._loop.call_later(FIRST_HEAD, transport.abort)

    def connection_lost(self, handler: web.RequestHandler, exc: BaseException | None = None) -> None:
        """Called by a connection that is gone."""
        super().connection_lost(handler, exc)
        self._forget(handler)

    def abort(self) -> None:
        """Ends every connection at once: a close would wait for a client that does not read."""
        for transport in self._open.values():
            transport.abort()

    def _make_room(self) -> bool:
        longest = next(iter(self._waiting), None)
        if longest is None:
            return False
        self._open[longest].abort()
        self._forget(longest)
        return True

    def _forget(self, handler: web.RequestHandler) -> None:
        self._open.pop(handler, None)
        self._stop_waiting(handler)

    def _stop_waiting(self, handler: web.RequestHandler) -> None:
        self._waiting.pop(handler, None)
        deadline = self._deadlines.pop(handler, None)
        if deadline is not None:
            deadline.cancel()

    def _refuse(self, transport: asyncio.Transport) -> None:
        transport.write(_FULL)
        self._loop.call_soon(transport.close)  # once aiohttp, which calls us, has begun to wait for a request
        now = self._loop.time()
        if now >= self._told_at + TOLD_EVERY:
            self._told_at = now
            _log.warning(
                "all %d connections to the admin port are busy, and others are refused",
                MOST_CONNECTIONS,
                extra={"event": "admin.full"},
            )

    async def _answered(self, request: web.BaseRequest) -> web.StreamResponse:
        handler = request.protocol
        self._stop_waiting(handler)
        try:
            return await self._answer(request)
        finally:
            if handler in self._open:
                self._waiting[handler] = None


class _Connection(web.RequestHandler):
    """One client's connection. What is not HTTP gets an answer that repeats nothing of it, and no log line."""

    __slots__ = ()

    def handle_error(
        self,
        request: web.BaseRequest,  # noqa: ARG002 - aiohttp's signature
        status: int = 500,
        exc: BaseException | None = None,  # noqa: ARG002
        message: str | None = None,  # noqa: ARG002
    ) -> web.StreamResponse:
        return error_answer(status)
