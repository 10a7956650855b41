"""The admin port: reads the report for whoever asks, and passes on two wishes, reload and refresh."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import traceback
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol
from urllib.parse import unquote

from aiohttp import web

from proxy.admin.access import check_name, check_page
from proxy.admin.answers import answer, error_answer, error_body, json_answer, stream_fields, whole
from proxy.admin.connections import Connections
from proxy.admin.feed import Feed, TooManyViewers
from proxy.admin.health import readiness, startup
from proxy.admin.metrics import Metrics
from proxy.admin.page import page
from proxy.admin.status import VERSION, status, tenant_status
from proxy.core.access import callers
from proxy.core.report import ProxyReport, TenantReport
from proxy.errors import (
    BadRequest,
    ConfigurationError,
    NotAllowed,
    TokenError,
    TokenUnavailable,
    UnknownTenant,
)

_GRACE = 0.5
"""Seconds that answers under way have at the close, before and after they are cancelled."""

_VIEWER_PATIENCE = 30.0
"""Seconds for a viewer to take an event."""

_log = logging.getLogger(__name__)

_Handler = Callable[[], Awaitable[web.StreamResponse]]


class Control(Protocol):
    """What the admin port needs of the running proxy."""

    async def survey(self) -> ProxyReport:
        """The state now, of every process of the program."""

    async def reload(self) -> list[str]:
        """Takes up the configuration anew; the problems if it can't be used, and then the old one stays.

        One reload at a time is its own affair: SIGHUP asks as well.
        """

    @property
    def needs_restart(self) -> Sequence[str]:
        """The sections of the configuration that have changed and count from the next start on."""

    async def refresh(self, name: str) -> TenantReport:
        """Gets the tenant a new token, ends in the time it sets itself, and survives a cancelled caller.

        :raises UnknownTenant: no tenant has this name; a KeyError counts as that
        :raises TokenError: there is no new token
        """


@dataclass(frozen=True, slots=True)
class ServerOptions:
    """Where the admin port listens, and the Host values it answers beside the local ones."""

    host: str = "127.0.0.1"
    port: int = 8081
    allowed_hosts: tuple[str, ...] = ()


class AdminServer:
    """Serves the admin port from ``start`` to ``close``."""

    def __init__(self, control: Control, options: ServerOptions) -> None:
        self._control = control
        self._options = options
        self._rules = callers(options.host, options.allowed_hosts, (), ())
        self._metrics = Metrics()
        self._scraping = asyncio.Lock()
        self._feed = Feed(control.survey)
        self._connections: Connections | None = None
        self._listener: asyncio.Server | None = None

    def allow_hosts(self, allowed_hosts: tuple[str, ...]) -> None:
        """Answers these Host values from now on, beside the local ones."""
        self._rules = callers(self._options.host, allowed_hosts, (), ())

    async def start(self) -> int:
        """Opens the port and returns its number, which the system chose if the option is 0.

        :raises OSError: the address can't be bound
        """
        self._connections = Connections(self._answer)
        self._listener = await asyncio.get_running_loop().create_server(
            self._connections, self._options.host, self._options.port
        )
        port: int = self._listener.sockets[0].getsockname()[1]
        return port

    async def close(self) -> None:
        """Closes the port, gives answers under way a moment, then ends every connection."""
        if self._listener is None or self._connections is None:
            return
        self._listener.close()
        self._connections.pre_shutdown()  # reads no further request, so that no viewer comes any more
        await self._feed.close()
        await self._connections.shutdown(_GRACE)
        self._connections.abort()
        await self._listener.wait_closed()
        self._listener = self._connections = None

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        try:
            return await self._checked(request)
        except Exception as error:  # noqa: BLE001 - every failure has an answer
            return _failure(error)

    async def _checked(self, request: web.BaseRequest) -> web.StreamResponse:
        fields = request.headers
        host = check_name(self._rules, fields.getall("Host", []), _local_address(request))
        method = "GET" if request.method == "HEAD" else request.method
        if method != "GET":
            check_page(request.scheme, host, fields.getall("Origin", []), fields.getall("Sec-Fetch-Site", []))
        found = self._find(request)
        if found is None:
            return error_answer(404)
        allowed, handler = found
        if method != allowed:
            return error_answer(405, fields={"Allow": "GET, HEAD" if allowed == "GET" else allowed})
        return await handler()

    def _find(self, request: web.BaseRequest) -> tuple[str, _Handler] | None:
        """The method that the path allows, and what answers it."""
        match request.rel_url.raw_path.split("/")[1:]:
            case [""]:
                return "GET", self._page
            case ["healthz"]:
                return "GET", self._healthz
            case ["events"]:
                return "GET", partial(self._events, request)
            case ["startupz"]:
                return "GET", self._startupz
            case ["readyz"]:
                return "GET", partial(self._readyz, request)
            case ["status.json"]:
                return "GET", self._status
            case ["metrics"]:
                return "GET", partial(self._scrape, request)
            case ["reload"]:
                return "POST", self._reload
            case ["tenants", name, "refresh"]:
                return "POST", partial(self._refresh, unquote(name))
        return None

    async def _page(self) -> web.Response:
        body, policy = page()
        return answer(body, "text/html; charset=utf-8", fields={"Content-Security-Policy": policy})

    async def _events(self, request: web.BaseRequest) -> web.StreamResponse:
        events = self._feed.follow()
        try:
            event = await anext(events)
        except TooManyViewers:
            return error_answer(503, "too.many.viewers", "Too many pages follow already; close one.")
        response = web.StreamResponse(headers=stream_fields("text/event-stream"))
        async with contextlib.aclosing(events):
            with contextlib.suppress(ConnectionResetError, TimeoutError):  # the viewer has left, or sleeps
                await response.prepare(request)
                await _give(response, event)
                async for event in events:
                    await _give(response, event)
        return response

    async def _healthz(self) -> web.Response:
        """Answers as long as the event loop does, whatever state the rest is in."""
        return json_answer({"status": "ok"})

    async def _startupz(self) -> web.Response:
        code, body = startup(await self._control.survey())
        return json_answer(body, status=code)

    async def _readyz(self, request: web.BaseRequest) -> web.Response:
        code, body = readiness(await self._control.survey(), request.query.get("tenant"))
        return json_answer(body, status=code)

    async def _status(self) -> web.Response:
        return answer(await whole(status(await self._control.survey())))

    async def _scrape(self, request: web.BaseRequest) -> web.Response:
        accept = ",".join(request.headers.getall("Accept", []))
        async with self._scraping:
            content_type, pieces = self._metrics.text(await self._control.survey(), accept)
            return answer(await whole(pieces), content_type)

    async def _reload(self) -> web.Response:
        problems = await self._control.reload()
        if problems:
            raise ConfigurationError(problems)
        return json_answer({"reloaded": True, "needs_restart": list(self._control.needs_restart)})

    async def _refresh(self, name: str) -> web.Response:
        try:
            tenant = await self._control.refresh(name)
        except KeyError:
            raise UnknownTenant("No tenant of this name is configured.") from None
        return json_answer({"version": VERSION, "tenant": tenant_status(tenant)})


async def _give(response: web.StreamResponse, event: bytes) -> None:
    async with asyncio.timeout(_VIEWER_PATIENCE):
        await response.write(event)


def _local_address(request: web.BaseRequest) -> str | None:
    if request.transport is None:
        return None
    address: tuple[str, int] | None = request.transport.get_extra_info("sockname")
    return address[0] if address else None


def _failure(error: Exception) -> web.Response:
    """The answer to an exception: the program's own say what to tell, others only that there was one."""
    match error:
        case BadRequest():
            return error_answer(400, "bad.request", str(error))
        case NotAllowed():
            return error_answer(403, "not.allowed", str(error))
        case UnknownTenant():
            return error_answer(404, "tenant.not.found", str(error))
        case TokenError():
            return _no_token(error)
        case ConfigurationError():
            # The file is in conflict with the wish, not the wish malformed (RFC 9110 15.5.10).
            code = "configuration.invalid"
            errors = [error_body(409, code, problem) for problem in error.problems]
            return json_answer(error_body(409, code, str(error), errors=errors), status=409)
    # Neither the error's text, which may quote anything, nor the request's target goes to the log.
    where = "".join(traceback.format_tb(error.__traceback__))
    _log.error("the admin port failed to answer: %s\n%s", type(error).__name__, where, extra={"event": "admin.defect"})
    return error_answer(500)


def _no_token(error: TokenError) -> web.Response:
    passing = isinstance(error, TokenUnavailable)
    status, code = (503, "token.unavailable") if passing else (502, "token.refused")
    body = error_body(status, code, str(error), details=[{"errorCode": error.error}])
    if error.retry_after is None:
        return json_answer(body, status=status)
    return json_answer(body, status=status, fields={"Retry-After": str(max(1, math.ceil(error.retry_after)))})
