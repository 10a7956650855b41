"""The data plane of the proxy between a client and upstreams in memory, and what must hold whatever they send."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
import sys
from collections.abc import AsyncIterator, Callable
from typing import Any

from proxy.core import access
from proxy.core.access import Policy
from proxy.core.report import Tally
from proxy.core.tokens import Instant, Token
from proxy.core.urls import parse_base_url
from proxy.forward.handler import Forwarder
from proxy.forward.shortcut import Shortcut
from proxy.forward.tenant import Bounds, Rules, Tenant, Timing
from proxy.wire.server import ClientConnection, Limits, Listener
from proxy.wire.upstream import Upstream, UpstreamConnection
from tests.fuzz.wire import Wire

_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
_TIMING = Timing(
    request_timeout=15, idle_timeout=75, body_timeout=60, tunnel_idle_timeout=300, retry_after_max=5,
    replay_buffer=4096, max_header_bytes=16_384, longest_body=sys.maxsize,
)  # fmt: skip
_LIMITS = Limits(
    max_header_bytes=16_384, head_timeout=15, idle_timeout=75, max_connections=10, max_requests=100, max_pipelined=50
)
FOR_EVER = 1000.0
"""Seconds in which every deadline has come several times."""


class _Errors(logging.Handler):
    """What the program takes for a defect of its own."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.found: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.found.append(logging.Formatter().format(record))


class _Tokens:
    """One token after the other, none of which is ever waited for."""

    cooling_down = False

    def __init__(self) -> None:
        self._number = 0

    def current(self) -> Token:
        return Token(f"token-{self._number}", obtained=Instant(0, 0), lifetime=86_400, ahead=60)

    async def token(self, patience: float) -> Token:
        return self.current()

    async def instead_of(self, refused: Token, patience: float) -> Token:
        self.reject(refused)
        return self.current()

    def reject(self, token: Token) -> None:
        self._number += 1

    def cool_down(self) -> None:
        self.cooling_down = True

    def seconds_left(self, token: Token) -> float:
        return 3600.0


class _Upstream(Upstream):
    """An upstream whose connections the test is told of."""

    def __init__(self, connected: Callable[[Wire], None]) -> None:
        super().__init__(parse_base_url("http://upstream.example"), _TLS, connect_timeout=5)
        self._connected = connected

    async def connect(self, patience: float) -> UpstreamConnection:
        loop = asyncio.get_running_loop()
        connection = UpstreamConnection(loop, self)
        self._open.add(connection)
        self._connected(Wire(loop, connection))
        return connection


class Stage:
    """What ``stage`` builds.

    :ivar client: the client's connection
    """

    def __init__(self, connected: Callable[[Wire], None]) -> None:
        loop = asyncio.get_running_loop()
        self.tally = Tally()
        self.upstream = _Upstream(connected)
        self.complaints: list[dict[str, Any]] = []
        loop.set_exception_handler(lambda _, context: self.complaints.append(context))
        tenant = Tenant(
            name="acme", tokens=_Tokens(), pool=None, guests=None, tally=self.tally, api=self.upstream,
            login=self.upstream, webmessaging=self.upstream, cdn=self.upstream, policy=Policy(), most_at_once=1,
            fill=False,
        )  # fmt: skip
        rules = Rules(
            callers=access.callers("127.0.0.1", (), (), ()), tenants={b"acme": tenant}, default_tenant=b"acme",
            tenant_header=b"x-genesys-tenant", bounds=Bounds(8192, 200, sys.maxsize),
        )  # fmt: skip
        self.forwarder = Forwarder(rules, _TIMING)
        self.listener = Listener(
            self.forwarder.serve, self.forwarder.refusal, _LIMITS, take_at_once=Shortcut(self.forwarder).take
        )
        self.client = Wire(loop, ClientConnection(loop, self.listener))

    def check(self) -> None:
        """Nothing is left of anything, and nothing went wrong that was not meant to."""
        assert self.client.lost, "the client's connection is still there"
        assert not self.listener.connections
        assert not self.upstream.connections, "a connection to the upstream is still there"
        assert not self.tally.at_once, "a request never gave its place up"
        assert not self.complaints, self.complaints
        left = asyncio.all_tasks() - {asyncio.current_task()}
        assert not left, left


@contextlib.asynccontextmanager
async def stage(connected: Callable[[Wire], None]) -> AsyncIterator[Stage]:
    """A proxy with one client; at the end all deadlines pass, and then nothing may be left.

    :param connected: is given each connection that is made to the upstream
    """
    built = Stage(connected)
    errors = _Errors()
    logging.getLogger("proxy").addHandler(errors)
    try:
        yield built
        built.client.take()
        await asyncio.sleep(FOR_EVER)
    finally:
        logging.getLogger("proxy").removeHandler(errors)
    built.check()
    assert not errors.found, errors.found
