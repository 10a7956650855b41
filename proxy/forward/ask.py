"""The way up: a request is sent, and the head of its answer awaited."""

from __future__ import annotations

from proxy.core.fields import HOP_BY_HOP, end_to_end_response, options
from proxy.errors import ClientClosed, UpstreamError, UpstreamSilent, UpstreamTimeout
from proxy.forward.body import NO_BODY
from proxy.forward.exchange import Exchange, head
from proxy.wire.body import Body
from proxy.wire.syntax import UNTIL_CLOSE, ResponseHead, response_length, stays_open
from proxy.wire.upstream import Upstream, UpstreamConnection

LONGEST_REFUSAL = 65_536
"""Bytes of a refused answer's body that are read to keep its connection; past that a new one is cheaper."""

_SAFE = frozenset({b"GET", b"HEAD", b"OPTIONS"})
"""Methods that may reach an upstream twice without harm (RFC 9110 9.2.1), so that a request lost on a connection
the upstream was closing can be sent again."""


async def ask(
    exchange: Exchange, upstream: Upstream, request: bytes, sent_on: UpstreamConnection | None = None
) -> tuple[UpstreamConnection, ResponseHead]:
    """Sends a request and waits for its answer's head; interim answers pass to the client meanwhile.

    On a kept connection that the upstream was just closing, a safe request is sent once more on a new one; any
    other may have been executed, and fails (RFC 9110 9.2.2). The caller owns the connection.

    :param request: the head; the body is the exchange's
    :param sent_on: where it was sent already
    :raises UpstreamError: no connection, or no answer
    :raises ClientClosed, ClientTimeout, BadRequest: what became of the body; the upstream got no whole request
    """
    if exchange.trace is not None:
        request = exchange.trace.leave(request, upstream.base.host, upstream.base.port)
    connection = sent_on or upstream.reuse() or await upstream.connect(exchange.patience)
    while True:
        try:
            answer = await _ask_on(exchange, connection, None if connection is sent_on else request)
            if exchange.trace is not None:
                exchange.trace.arrive(answer.status)
            return connection, answer
        except UpstreamSilent:
            if not connection.reused or exchange.method not in _SAFE or not exchange.body.kept:
                raise
        connection = await upstream.connect(exchange.patience)


async def _ask_on(exchange: Exchange, connection: UpstreamConnection, request: bytes | None) -> ResponseHead:
    body, timing = exchange.body, exchange.timing
    answered = False
    try:
        if request is not None:
            connection.write(request if body is NO_BODY else request + body.opening())
        if body.held or not body.complete:
            pump = body.pump(connection, timing.idle_timeout, timing.request_timeout)
            exchange.upload = connection.loop.create_task(pump, name="request body")
        while True:
            answer = await connection.receive_response(timing.max_header_bytes, exchange.answer_due)
            if answer.status >= 200 or answer.status == 101:
                break
            connection.reused = False  # the request has reached it: it was not closing just then
            if answer.status != 100 or not body.go_ahead():
                await _relay_interim(exchange, answer)
            if connection.loop.time() >= exchange.answer_due:
                raise UpstreamTimeout("The upstream gave interim answers only, and no final one in time.")
        answered = True
        body.go_ahead()
        return answer
    finally:
        if not answered:
            exchange.stop_upload()
            connection.abort()


async def _relay_interim(exchange: Exchange, answer: ResponseHead) -> None:
    """Passes a 1xx on, at the pace at which the client takes them: an upstream may send any number.

    :raises ClientClosed: the client takes none
    """
    if exchange.minor == 0:
        return  # HTTP/1.0 knows no 1xx (RFC 9110 15.2)
    client = exchange.client
    section = end_to_end_response(answer.fields, HOP_BY_HOP | {b"content-length"})
    client.write(head(answer.status, answer.reason, section))
    try:
        await client.drain(min(exchange.answer_due, client.loop.time() + exchange.timing.idle_timeout))
    except OSError:
        raise ClientClosed("The client does not take the interim answers.") from None


async def discard(upstream: Upstream, connection: UpstreamConnection, answer: ResponseHead, exchange: Exchange) -> None:
    """Reads a refused answer to its end, so that its connection can be used again, or gives the connection up."""
    exchange.stop_upload()
    reusable = False
    try:
        length = response_length(exchange.method, answer)
        in_step = exchange.body.complete and not exchange.body.held
        if in_step and length <= LONGEST_REFUSAL and length != UNTIL_CLOSE:
            body = Body(connection, length, request=False, limit=LONGEST_REFUSAL)
            await _read_away(body, connection.loop.time() + 1.0)
            reusable = body.complete and stays_open(answer.minor, options(answer.fields.get(b"connection")))
    except (UpstreamError, OSError):
        pass  # it is of no more use
    finally:
        if reusable:
            upstream.release(connection)
        else:
            connection.abort()


async def _read_away(body: Body, due: float) -> None:
    read = 0
    while not body.complete and read <= LONGEST_REFUSAL:
        read += len(await body.read(due))
