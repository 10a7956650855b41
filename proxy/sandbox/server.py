"""One port that plays login, API, web messaging and CDN for every org."""

from __future__ import annotations

import logging
import ssl
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self
from uuid import uuid4

from aiohttp import web

from proxy.sandbox.answers import ApiError, complete
from proxy.sandbox.api import Api
from proxy.sandbox.cloud import Cloud
from proxy.sandbox.control import Control
from proxy.sandbox.gate import Gate
from proxy.sandbox.login import Login
from proxy.sandbox.messaging import Messaging
from proxy.sandbox.options import SandboxOptions

MAX_BODY = 512_000
"""Bytes of a request body that are accepted."""
_MAX_HEAD_LINE = 65_536
_SHUTDOWN = 2.0
"""Seconds that a call may take to end when the sandbox closes; faults that wait end at once."""


class Sandbox(Cloud):
    """A Genesys Cloud look-alike; its state can be looked at and changed while it runs.

    It answers between ``start`` and ``close`` and can be started once. All attributes belong to the thread of
    the event loop.

    :param clock: Unix time in seconds; everything goes by it but latencies, which pass in real time
    """

    def __init__(self, options: SandboxOptions | None = None, *, clock: Callable[[], float] = time.time) -> None:
        super().__init__(options or SandboxOptions(), clock)
        self._messaging = Messaging(self)
        self._runner: web.AppRunner | None = None

    async def start(self, host: str = "127.0.0.1", port: int = 0, *, ssl_context: ssl.SSLContext | None = None) -> str:
        """Listen, and return the base URL; port 0 takes any free one.

        :raises OSError: the address can't be had
        """
        self._runner = web.AppRunner(
            self._application(),
            access_log=None,
            logger=logging.getLogger(__name__),
            handle_signals=False,
            handler_cancellation=True,
            shutdown_timeout=_SHUTDOWN,
            max_line_size=_MAX_HEAD_LINE,
            max_field_size=_MAX_HEAD_LINE,
            auto_decompress=False,
        )
        await self._runner.setup()
        site = web.TCPSite(self._runner, host, port, ssl_context=ssl_context)
        try:
            await site.start()
        except OSError:
            await self.close()
            raise
        bound = self._runner.addresses[0][1]
        scheme = "http" if ssl_context is None else "https"
        name = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
        self.base_url = f"{scheme}://{f'[{name}]' if ':' in name else name}:{bound}"
        return self.base_url

    async def close(self) -> None:
        """Stop; calls that hang end, sockets are closed, nothing stays behind."""
        self.closing.set()
        if self._runner is not None:
            runner, self._runner = self._runner, None
            await runner.cleanup()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def _nothing(self, _: web.Request) -> web.Response:
        correlation_id = str(uuid4())
        response = ApiError(404).response(correlation_id)
        complete(response, correlation_id, self.now())
        return response

    def _application(self) -> web.Application:
        application = web.Application(client_max_size=MAX_BODY)
        gate = Gate(self)
        application.add_routes(Login(self).routes())
        application.add_routes(self._messaging.routes(gate))
        application.add_routes(Api(self).routes(gate))
        application.add_routes(Control(self).routes())
        application.add_routes([web.route("*", "/{rest:.*}", self._nothing)])

        async def close_sockets(_: web.Application) -> None:
            await self._messaging.close()

        application.on_shutdown.append(close_sockets)
        return application
