"""One request, what becomes of it, and the heads and answers of our own that its client is sent."""

from __future__ import annotations

import asyncio
import math
import time

from proxy.core import access
from proxy.core.fields import options
from proxy.errors import ProxyError
from proxy.forward.body import KeptBody
from proxy.forward.rescue import NAME
from proxy.forward.tenant import Tenant, Timing
from proxy.wire.server import Request

REASONS = {
    200: b"OK", 204: b"No Content", 302: b"Found", 400: b"Bad Request", 403: b"Forbidden", 404: b"Not Found",
    405: b"Method Not Allowed", 408: b"Request Timeout", 413: b"Content Too Large",
    431: b"Request Header Fields Too Large", 500: b"Internal Server Error", 501: b"Not Implemented",
    502: b"Bad Gateway", 503: b"Service Unavailable", 504: b"Gateway Timeout", 505: b"HTTP Version Not Supported",
}  # fmt: skip

VIA = (b"Via: 1.0 %b\r\n" % NAME, b"Via: 1.1 %b\r\n" % NAME)
"""By the minor version of the message that is passed on (RFC 9110 7.6.3)."""

METHODS = b"Allow: DELETE, GET, HEAD, OPTIONS, PATCH, POST, PUT\r\n"


class Exchange:
    """A request on its way through.

    :ivar tenant: whose it is, once that is known
    :ivar origin: the allowed origin of a page that may read the answer
    :ivar note: what Proxy-Status says of an answer that passed through
    :ivar replayed: it was sent a second time
    :ivar status: of the head that the client was sent, 0 before
    :ivar upload: sends the rest of its body, where that did not come with the head
    """

    __slots__ = (
        "body",
        "client",
        "note",
        "origin",
        "replayed",
        "request",
        "started",
        "status",
        "tenant",
        "timing",
        "upload",
        "websocket",
    )

    def __init__(self, request: Request, timing: Timing) -> None:
        self.request = request
        self.client = request.client
        self.timing = timing
        self.started = time.perf_counter()
        self.body = KeptBody(request.body, timing.replay_buffer)
        self.websocket = _asks_for_websocket(request)
        self.tenant: Tenant | None = None
        self.origin: bytes | None = None
        self.note: str | None = None
        self.replayed = False
        self.status = 0
        self.upload: asyncio.Task[None] | None = None

    @property
    def answer_due(self) -> float:
        """When the answer must begin, on the loop's clock; infinite while the body is still coming."""
        completed = self.body.completed_at
        return math.inf if completed is None else completed + self.timing.request_timeout

    @property
    def patience(self) -> float:
        """Seconds that are left to begin the answer; all of them while the body is still coming."""
        return min(self.timing.request_timeout, self.answer_due - self.client.loop.time())

    def stop_upload(self) -> None:
        """Ends the sending of the body; what was read of it stays kept."""
        if self.upload is not None:
            self.upload.cancel()
            self.upload = None

    def client_head(self, status: int, reason: bytes, section: bytes) -> bytes:
        """The head of the answer, with the fields that concern the client's connection and its origin.

        :param section: field lines, each with its CRLF
        """
        request = self.request
        if self.client.draining:
            request.keep_alive = False
        if self.origin is not None:
            section += access.shared_with(self.origin)
        if not request.keep_alive:
            section += b"Connection: close\r\n"
        elif request.minor == 0:
            section += b"Connection: keep-alive\r\n"
        self.status = status
        return head(status, reason, section)

    def respond(self, status: int, section: bytes, body: bytes = b"") -> None:
        """Answers here, without the upstream; the section includes the framing."""
        if not self._request_is_whole():
            self.request.keep_alive = False
        opening = self.client_head(status, REASONS[status], section)
        self.client.write(opening if self.request.method == b"HEAD" else opening + body)

    def _request_is_whole(self) -> bool:
        try:
            self.request.body.take()
        except ProxyError:
            return False
        return self.body.complete


def head(status: int, reason: bytes, section: bytes) -> bytes:
    """A response head (RFC 9112 4).

    :param section: field lines, each with its CRLF
    """
    return b"HTTP/1.1 %d %b\r\n%b\r\n" % (status, reason, section)


def wants_trailers(request: Request) -> bool:
    """Whether the client takes trailer fields (RFC 9110 6.5.1)."""
    return b"te" in request.fields.names and b"trailers" in options(request.fields.get(b"te"))


def _asks_for_websocket(request: Request) -> bool:
    # Any other upgrade (h2c) would open a way around everything that is checked here; it is not passed on.
    return (
        b"upgrade" in request.connection_options
        and (request.fields.get(b"upgrade") or b"").lower() == b"websocket"
        and request.method == b"GET"
        and request.minor == 1
        and request.length == 0
    )
