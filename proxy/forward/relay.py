"""The way down: an upstream's answer as the client gets it, framed anew, streamed, or turned into a tunnel."""

from __future__ import annotations

import time

from proxy.core import access, routing
from proxy.core.fields import HOP_BY_HOP, below, end_to_end_response, options
from proxy.core.report import CallerTally, Tally
from proxy.errors import ClientClosed, UpstreamProtocolError
from proxy.forward.exchange import VIA, WEBSOCKET, Exchange, head
from proxy.forward.rescue import proxy_status
from proxy.wire.body import LAST_CHUNK, Body, chunk
from proxy.wire.syntax import CHUNKED, ResponseHead, response_length, stays_open
from proxy.wire.tunnel import Tunnel
from proxy.wire.upstream import Upstream, UpstreamConnection

_WITHOUT_TRAILER = HOP_BY_HOP | {b"trailer"}
_WITHOUT_LENGTH = HOP_BY_HOP | {b"trailer", b"content-length"}
"""An answer that never has content has no length either (RFC 9110 8.6)."""

_NO_TRAILERS = frozenset({b"content-length", b"trailer", b"set-cookie", b"host", b"authorization"})
"""What frames, routes or authenticates has no business behind the content (RFC 9110 6.5.1)."""


async def relay(exchange: Exchange, upstream: Upstream, connection: UpstreamConnection, answer: ResponseHead) -> None:
    """Gives an answer to the client, then returns the upstream's connection or closes it.

    :raises UpstreamProtocolError, UpstreamClosed: before the head was sent, the client can still be told; after
        it (``exchange.status``), only a broken connection says that this is not the whole
    """
    exchange.answer = answer
    if answer.status == 101:
        return await _switch(exchange, connection, answer)
    reusable = False
    try:
        length = response_length(exchange.method, answer)
        body = Body(connection, length, request=False, limit=exchange.timing.max_header_bytes)
        persistent = stays_open(answer.minor, options(answer.fields.get(b"connection")))
        if not persistent and (answer.status >= 400 or exchange.body.held):
            exchange.stop_upload()  # it does not want the rest, and would answer that with a reset (RFC 9112 9.5)
        chunked = _begin(exchange, answer, body, persistent=persistent)
        if not body.complete or exchange.client.sending_behind:
            await _stream(exchange, body, chunked=chunked)
        sent = exchange.upload is None and exchange.body.complete
        reusable = persistent and (sent or await _upload_done(exchange))
    finally:
        if reusable:
            upstream.release(connection)
        else:
            exchange.stop_upload()
            connection.abort()


def relay_whole(exchange: Exchange, upstream: Upstream, connection: UpstreamConnection, answer: ResponseHead) -> bool:
    """Gives an answer that has arrived whole, and was asked for by a request sent whole, to the client; False, and
    nothing is done, where it is not such a one.

    :raises UpstreamProtocolError: its framing is broken
    """
    length, received = response_length(exchange.method, answer), connection.buffer
    if length == CHUNKED:
        body = Body(connection, length, request=False, limit=exchange.timing.max_header_bytes)
        piece = body.take()
        if not body.complete:
            connection.buffer = received
            return False
        framed = piece if exchange.minor == 0 else _framed(exchange, body, piece)
    elif 0 <= length <= len(received):
        piece = framed = received[:length]
        connection.buffer = received[length:]
    else:
        return False
    exchange.answer = answer
    _send(exchange, answer, _section(exchange, answer, length), piece, framed)
    if stays_open(answer.minor, options(answer.fields.get(b"connection"))):
        upstream.release(connection)
    else:
        connection.abort()
    return True


def _begin(exchange: Exchange, answer: ResponseHead, body: Body, *, persistent: bool) -> bool:
    """Sends the head with what has arrived of the body; whether the rest goes in chunks."""
    section = _section(exchange, answer, body.length)
    chunked = body.length < 0 and exchange.minor == 1
    if not exchange.body.complete and (not persistent or _may_never_come(exchange)):
        exchange.keep_alive = False
    piece = body.take()  # before the head is made: where this is broken already, the client can still be told
    _send(exchange, answer, section, piece, _framed(exchange, body, piece) if chunked else piece)
    return chunked


def _section(exchange: Exchange, answer: ResponseHead, length: int) -> bytes:
    """The lines that pass on, and those of this hop but for what concerns the client's connection."""
    dropped, ours = _WITHOUT_TRAILER, VIA[answer.minor]
    if length == CHUNKED and exchange.wants_trailers:
        dropped = HOP_BY_HOP
    if answer.status == 204:
        dropped = _WITHOUT_LENGTH
    elif answer.status == 426 and b"websocket" in options(answer.fields.get(b"upgrade")):
        ours += WEBSOCKET  # says to what, and that passes here (RFC 9110 15.5.22)
    if exchange.origin is not None:
        dropped |= access.CORS_FIELDS
    fields = answer.fields
    if fields.shape.leads and (prefix := routing.split(exchange.method, exchange.head.target).prefix):
        fields = below(prefix, fields)
    section = end_to_end_response(fields, dropped) + ours
    if (length < 0 and exchange.minor == 1) or (exchange.method == b"HEAD" and _would_be_chunked(exchange, answer)):
        section += b"Transfer-Encoding: chunked\r\n"
    elif length < 0:
        exchange.keep_alive = False  # to HTTP/1.0, only the connection's end delimits it
    if exchange.note is not None:
        section += proxy_status(exchange.note)
    return section


def _send(exchange: Exchange, answer: ResponseHead, section: bytes, piece: bytes, framed: bytes) -> None:
    """Sends the head with the body's first piece, framed as it must be."""
    exchange.sent = len(piece)
    if exchange.copy is not None:
        exchange.copy.add(piece)
    opening = exchange.client_head(answer.status, answer.reason, section)
    exchange.client.write(opening + framed)


def _would_be_chunked(exchange: Exchange, answer: ResponseHead) -> bool:
    # An answer to HEAD says what GET's would be (RFC 9112 6.1).
    return exchange.minor == 1 and answer.status not in (204, 304) and b"transfer-encoding" in answer.fields


def _may_never_come(exchange: Exchange) -> bool:
    # Told "no" instead of "100 Continue", a client sends its body or does not: what follows is ambiguous.
    return exchange.fields.get(b"expect") is not None and exchange.body.size == 0


async def _stream(exchange: Exchange, body: Body, *, chunked: bool) -> None:
    client, idle = exchange.client, exchange.timing.idle_timeout
    try:
        while not body.complete:
            await client.drain(client.loop.time() + idle)
            piece = await body.read_within(idle)
            exchange.sent += len(piece)
            if exchange.copy is not None:
                exchange.copy.add(piece)
            client.write(_framed(exchange, body, piece) if chunked else piece)
        await client.drain(client.loop.time() + idle)
    except OSError:
        raise ClientClosed("One side stopped in the middle of the answer.") from None


def _framed(exchange: Exchange, body: Body, piece: bytes) -> bytes:
    return (chunk(piece) if piece else b"") + (_last_chunk(exchange, body) if body.complete else b"")


def _last_chunk(exchange: Exchange, body: Body) -> bytes:
    if body.trailers is None or not exchange.wants_trailers:
        return LAST_CHUNK
    # A trailer field that frames, routes or authenticates has no business there (RFC 9110 6.5.1).
    return b"0\r\n%b\r\n" % end_to_end_response(body.trailers, HOP_BY_HOP | _NO_TRAILERS)


async def _upload_done(exchange: Exchange) -> bool:
    """Whether the request's body was sent to its end, so that both connections are in step.

    Where the upstream answered early and goes on reading, the client's body is sent on to its end.
    """
    if exchange.upload is not None and (exchange.keep_alive or exchange.body.complete):
        await exchange.upload
        exchange.upload = None
    if not exchange.body.complete:
        exchange.keep_alive = False
    return exchange.body.complete and exchange.upload is None


async def _switch(exchange: Exchange, connection: UpstreamConnection, answer: ResponseHead) -> None:
    """Becomes a tunnel once the upstream has agreed to a WebSocket (RFC 9110 7.8, RFC 6455 4)."""
    if exchange.tenant is None or not exchange.websocket or b"websocket" not in options(answer.fields.get(b"upgrade")):
        connection.abort()
        raise UpstreamProtocolError("The upstream switches to a protocol that nobody asked for.")
    section = end_to_end_response(answer.fields, _WITHOUT_LENGTH)
    section += WEBSOCKET + VIA[answer.minor]
    if exchange.note is not None:
        section += proxy_status(exchange.note)
    exchange.status = 101
    exchange.keep_alive = False
    exchange.end()
    exchange.count(101, time.perf_counter() - exchange.started)
    exchange.client.write(head(101, answer.reason, section))
    await _tunnel(exchange, connection, exchange.tenant.tally)


async def _tunnel(exchange: Exchange, connection: UpstreamConnection, tally: Tally) -> None:
    def passed(received: int, sent: int) -> None:
        exchange.received += received
        exchange.sent += sent
        tally.websocket_received += received
        tally.websocket_sent += sent

    tunnel = Tunnel(exchange.client, connection, exchange.timing.tunnel_idle_timeout, passed)
    exchange.client.farewell = tunnel.go_away
    if exchange.client.draining:
        tunnel.go_away()
    counts: list[Tally | CallerTally] = [tally] if exchange.caller is None else [tally, exchange.caller.tally]
    for each in counts:
        each.websockets += 1
    try:
        await tunnel.run()
    finally:
        for each in counts:
            each.websockets -= 1
        exchange.client.farewell = None
