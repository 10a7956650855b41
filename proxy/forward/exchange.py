"""One request, what becomes of it, and the heads and answers of our own that its client is sent."""

from __future__ import annotations

import asyncio
import math
import time

from proxy.core import access
from proxy.core.access import Caller
from proxy.core.fields import Fields
from proxy.errors import ProxyError, TooBusy
from proxy.forward.body import NO_BODY, KeptBody
from proxy.forward.rescue import NAME, Failure
from proxy.forward.tenant import Tenant, Timing
from proxy.forward.trace import Trace
from proxy.wire.body import Body
from proxy.wire.server import ClientConnection
from proxy.wire.syntax import RequestHead, ResponseHead

REASONS = {
    200: b"OK", 204: b"No Content", 302: b"Found", 400: b"Bad Request", 403: b"Forbidden", 404: b"Not Found",
    405: b"Method Not Allowed", 408: b"Request Timeout", 413: b"Content Too Large", 414: b"URI Too Long",
    431: b"Request Header Fields Too Large", 500: b"Internal Server Error", 501: b"Not Implemented",
    502: b"Bad Gateway", 503: b"Service Unavailable", 504: b"Gateway Timeout", 505: b"HTTP Version Not Supported",
}  # fmt: skip

VIA = (b"Via: 1.0 %b\r\n" % NAME, b"Via: 1.1 %b\r\n" % NAME)
"""By the minor version of the message that is passed on (RFC 9110 7.6.3)."""

WEBSOCKET = b"Connection: Upgrade\r\nUpgrade: websocket\r\n"
"""The only protocol that a connection may change to (RFC 9110 7.8)."""


class Copy:
    """A copy of an answer's content, made as it passes.

    :param limit: bytes; of what is longer there is no copy
    """

    __slots__ = ("_limit", "_pieces", "_size")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._pieces: list[bytes] = []
        self._size = 0

    def add(self, piece: bytes) -> None:
        self._size += len(piece)
        if self._size <= self._limit:
            self._pieces.append(piece)

    @property
    def content(self) -> bytes:
        return b"".join(self._pieces) if self._size <= self._limit else b""


class Exchange:
    """A request on its way through.

    :ivar head, method, minor, fields: as it came
    :ivar keep_alive: another request may follow on the client's connection
    :ivar websocket: it asks to become a WebSocket; any other upgrade (h2c) would open a way around everything
        that is checked here, and is not passed on
    :ivar wants_trailers: the client takes trailer fields (RFC 9110 6.5.1); HTTP/1.0 has none
    :ivar tenant: whose it is, once that is known
    :ivar caller: whose key it shows, once that is known
    :ivar origin: the allowed origin of a page that may read the answer
    :ivar note: what Proxy-Status says of an answer that passed through
    :ivar replayed: it was sent a second time
    :ivar waited: seconds that it was held back because of the upstream's rate limit
    :ivar status: of the head that the client was sent, 0 before
    :ivar answer: the upstream's, once it is passed on
    :ivar failure: what the client is told where we answer instead
    :ivar copy: takes the answer's content as it passes, where somebody wants it
    :ivar sent: bytes of the answer's body, or of a WebSocket, that the client was sent
    :ivar received: bytes of a WebSocket that the client has sent
    :ivar trace: its spans, where it is traced
    :ivar upload: sends the rest of its body, where that did not come with the head
    """

    __slots__ = (
        "answer",
        "arrived",
        "body",
        "caller",
        "client",
        "copy",
        "failure",
        "fields",
        "head",
        "keep_alive",
        "method",
        "minor",
        "note",
        "origin",
        "received",
        "replayed",
        "sent",
        "started",
        "status",
        "tenant",
        "timing",
        "trace",
        "under_way",
        "upload",
        "waited",
        "wants_trailers",
        "websocket",
    )

    fields: Fields

    def __init__(self, client: ClientConnection, head: RequestHead, timing: Timing) -> None:
        self.head = head
        self.method = head.method
        self.minor = head.minor
        section = head.section
        self.fields = section.fields
        self.keep_alive = section.keep_alive
        self.client = client
        self.timing = timing
        self.started = time.perf_counter()
        self.arrived = client.loop.time()
        self.body = NO_BODY
        if section.length:
            body = Body(client, section.length, request=True, limit=timing.max_header_bytes)
            self.body = KeptBody(body, timing.replay_buffer, timing.longest_body, timing.body_timeout)
        self.websocket = section.upgrade == b"websocket" and self.method == b"GET" and not section.length
        self.wants_trailers = section.trailers
        self.tenant: Tenant | None = None
        self.caller: Caller | None = None
        self.under_way = False
        self.origin: bytes | None = None
        self.note: str | None = None
        self.replayed = False
        self.waited = 0.0
        self.status = 0
        self.answer: ResponseHead | None = None
        self.failure: Failure | None = None
        self.copy: Copy | None = None
        self.sent = 0
        self.received = 0
        self.trace: Trace | None = None
        self.upload: asyncio.Task[None] | None = None

    @property
    def answer_due(self) -> float:
        """When the answer must begin, on the loop's clock; infinite while the body is still coming."""
        body = self.body
        if not body.complete:
            return math.inf
        return max(self.arrived, body.completed_at) + self.timing.request_timeout

    @property
    def patience(self) -> float:
        """Seconds that are left to begin the answer; all of them while the body is still coming."""
        return min(self.timing.request_timeout, self.answer_due - self.client.loop.time())

    def begin(self, tenant: Tenant, caller: Caller | None) -> None:
        """Takes its place among the requests under way, until ``end``.

        :raises TooBusy: there is none
        """
        if tenant.tally.at_once >= tenant.most_at_once:
            raise TooBusy(f"Tenant {tenant.name} has as many requests under way as limits.max_requests_per_tenant.")
        if caller is not None:
            if caller.tally.at_once >= caller.most_at_once:
                raise TooBusy("This caller has as many requests under way as limits.max_requests_per_caller.")
            if self.websocket and caller.tally.websockets >= caller.most_websockets:
                raise TooBusy("This caller has as many WebSockets open as limits.max_websockets_per_caller.")
            caller.tally.at_once += 1
        tenant.tally.at_once += 1
        self.under_way = True

    def end(self) -> None:
        """Gives its place up, if it has one."""
        if self.under_way and self.tenant is not None:
            self.under_way = False
            self.tenant.tally.at_once -= 1
            if self.caller is not None:
                self.caller.tally.at_once -= 1

    def count(self, status: int, seconds: float) -> None:
        """Counts its answer for its tenant and its caller."""
        if self.caller is not None:
            answers = self.caller.tally.requests
            answers[status] = answers.get(status, 0) + 1
        if self.tenant is not None:
            self.tenant.tally.count(status, seconds)

    def stop_upload(self) -> None:
        """Ends the sending of the body; what was read of it stays kept."""
        if self.upload is not None:
            self.upload.cancel()
            self.upload = None

    def client_head(self, status: int, reason: bytes, section: bytes) -> bytes:
        """The head of the answer, with the fields that concern the client's connection and its origin.

        :param section: field lines, each with its CRLF
        """
        if self.client.on_last_request:
            self.keep_alive = False
        if self.origin is not None:
            section += access.shared_with(self.origin)
        if not self.keep_alive:
            section += b"Connection: close\r\n"
        elif self.minor == 0:
            section += b"Connection: keep-alive\r\n"
        self.status = status
        return b"HTTP/1.1 %d %b\r\n%b\r\n" % (status, reason, section)

    def respond(self, status: int, section: bytes, body: bytes = b"") -> None:
        """Answers here, without the upstream; the section includes the framing."""
        if not self._request_is_whole():
            self.keep_alive = False
        opening = self.client_head(status, REASONS[status], section)
        if self.method == b"HEAD":
            body = b""
        self.sent = len(body)
        self.client.write(opening + body)

    def _request_is_whole(self) -> bool:
        try:
            self.body.take_arrived()
        except ProxyError:
            return False
        return self.body.complete


def head(status: int, reason: bytes, section: bytes) -> bytes:
    """A response head (RFC 9112 4).

    :param section: field lines, each with its CRLF
    """
    return b"HTTP/1.1 %d %b\r\n%b\r\n" % (status, reason, section)
