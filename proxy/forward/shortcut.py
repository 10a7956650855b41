"""The short way for a request that has to wait for nothing but its answer.

Most requests are whole when they arrive, find a token and a connection there, and get an answer that is whole when
it arrives. For these the steps of the straight line (``handler``) are taken where the bytes arrive, by the same
functions; no coroutine is begun, suspended or woken, which is a third of what Python costs for a request (``make
bench``). Whatever needs more is left to the straight line: before anything was sent, with the request put back as
it arrived; afterwards, with the connection that it was sent on and the token that it was sent with.
"""

from __future__ import annotations

import asyncio
import math

from proxy.core.fields import authorize
from proxy.core.routing import Kind
from proxy.core.tokens import Token
from proxy.errors import UpstreamProtocolError
from proxy.forward.exchange import Exchange
from proxy.forward.handler import Forwarder, note_rate_limit
from proxy.forward.plan import Plan, plan, preflight
from proxy.forward.relay import relay_whole
from proxy.wire.server import ClientConnection
from proxy.wire.syntax import parse_request
from proxy.wire.upstream import UpstreamConnection


class Shortcut:
    """Takes requests as they arrive, and leaves those that need more to ``forwarder``."""

    def __init__(self, forwarder: Forwarder) -> None:
        self._forwarder = forwarder

    def take(self, client: ClientConnection) -> bool:
        """Sends on the request that has arrived; False, with all of it still in the buffer, if that takes more."""
        received = client.buffer
        try:
            errand = self._errand(client)
        except Exception:  # noqa: BLE001 - the straight line comes to the same, and tells the client
            errand = None
        if errand is None:
            client.buffer = received
            return False
        errand.begin()  # from here on it may be under way: nobody begins anew
        return True

    def _errand(self, client: ClientConnection) -> Errand | None:
        """The request that has arrived with all it needs; None where it needs more."""
        forwarder = self._forwarder
        head = client.take_head(client.limits.max_header_bytes)
        if head is None or client.draining or client.sending_behind or forwarder.tracer is not None:
            return None
        exchange = Exchange(client, parse_request(head), forwarder.timing)
        if not exchange.body.complete:
            exchange.body.take_arrived()
        body = exchange.body
        if not body.complete or body.outgrows or client.buffer or preflight(forwarder.rules, exchange) is not None:
            return None
        way = plan(forwarder.rules, exchange)
        if way.kind is not Kind.API or not way.inject or way.objection is not None or exchange.websocket:
            return None
        token = way.tenant.tokens.current()
        if token is None:
            return None
        exchange.begin(way.tenant, way.caller)
        connection = way.upstream.reuse()
        if connection is None:
            exchange.end()
            return None
        return Errand(forwarder, exchange, way, token, connection)


class Errand:
    """One request on the short way, from when it is sent."""

    __slots__ = ("_connection", "_exchange", "_forwarder", "_in_hand", "_task", "_token", "_way")

    def __init__(
        self, forwarder: Forwarder, exchange: Exchange, way: Plan, token: Token, connection: UpstreamConnection
    ) -> None:
        self._forwarder = forwarder
        self._exchange = exchange
        self._way = way
        self._token = token
        self._connection = connection
        self._task: asyncio.Task[None] | None = None
        self._in_hand = True
        """It is for us to end the exchange, and not for the straight line: a task can be cancelled before it begins."""

    def begin(self) -> None:
        """Sends the request; what happens to the connection is told to ``_arrived``."""
        exchange, connection = self._exchange, self._connection
        exchange.client.taken(self._left)
        connection.watcher = self._arrived
        connection.expire_at(exchange.answer_due)
        connection.write(authorize(self._way.opening, self._token.credential) + exchange.body.opening())

    def _left(self) -> None:
        """The client is gone: the upstream must not take the trouble of an answer."""
        task, self._task = self._task, None  # cancelled, it would hold frames that hold this
        if task is not None:
            task.cancel()
        if self._in_hand:
            self._in_hand = False
            self._connection.watcher = None
            self._connection.abort()
            self._forwarder.over(self._exchange)

    def _arrived(self) -> None:
        """Passes the answer on if it is there and one to pass on; else the straight line goes on from here."""
        exchange, connection, forwarder = self._exchange, self._connection, self._forwarder
        received = connection.buffer
        try:
            passed = self._pass_on()
        except UpstreamProtocolError:
            passed = False  # the straight line comes to the same, and tells the client
        except Exception as error:  # noqa: BLE001 - no client is ever dropped without an answer
            connection.abort()
            forwarder.rescue(exchange, error)
            passed = True
        if not passed:
            connection.buffer = received
            connection.expire_at(math.inf)
            self._wait()
            return
        self._in_hand = False
        forwarder.over(exchange)
        client = exchange.client
        if exchange.keep_alive and not client.buffer and not client.sending_behind:
            client.answered()
        else:
            self._wait()

    def _pass_on(self) -> bool:
        exchange, connection = self._exchange, self._connection
        answer = connection.take_response(exchange.timing.max_header_bytes)
        if answer is None or answer.status in (401, 429) or answer.status < 200:
            return False
        if not relay_whole(exchange, self._way.upstream, connection, answer):
            return False
        note_rate_limit(self._way.tenant, self._token, answer)
        return True

    def _wait(self) -> None:
        self._task = self._connection.loop.create_task(self._finish(), name="request that has to wait")

    async def _finish(self) -> None:
        """What is left: the rest of the straight line, if the answer is not given yet, and what follows an answer."""
        forwarder, exchange = self._forwarder, self._exchange
        if self._in_hand:
            self._in_hand = False
            sent = self._token, self._connection
            await forwarder.answer(exchange, forwarder.inject(exchange, self._way, self._way.tenant.tokens, sent))
        if await forwarder.go_on(exchange):
            exchange.client.answered()
