"""One request, what becomes of it, and the heads and answers of our own that its client is sent."""

from __future__ import annotations

import asyncio
import time

from proxy.core import access
from proxy.core.fields import options
from proxy.core.routing import Target
from proxy.errors import ProxyError
from proxy.forward.body import KeptBody
from proxy.forward.tenant import Tenant, Timing
from proxy.wire.server import Request

REASONS = {
    200: b"OK", 204: b"No Content", 302: b"Found", 400: b"Bad Request", 403: b"Forbidden", 404: b"Not Found",
    405: b"Method Not Allowed", 408: b"Request Timeout", 413: b"Content Too Large",
    431: b"Request Header Fields Too Large", 500: b"Internal Server Error", 501: b"Not Implemented",
    502: b"Bad Gateway", 503: b"Service Unavailable", 504: b"Gateway Timeout", 505: b"HTTP Version Not Supported",
}  # fmt: skip

METHODS = b"Allow: DELETE, GET, HEAD, OPTIONS, PATCH, POST, PUT"


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
    def patience(self) -> float:
        """Seconds that are left to begin the answer; all of them while the body is still coming."""
        completed = self.body.completed_at
        if completed is None:
            return self.timing.request_timeout
        return completed + self.timing.request_timeout - self.client.loop.time()

    def stop_upload(self) -> None:
        """Ends the sending of the body; what was read of it stays kept."""
        if self.upload is not None:
            self.upload.cancel()
            self.upload = None

    def client_head(self, status: int, reason: bytes, lines: list[bytes]) -> bytes:
        """The head of the answer, with the fields that concern the client's connection and its origin."""
        request = self.request
        if self.client.draining:
            request.keep_alive = False
        if self.origin is not None:
            lines = [*lines, *access.shared_with(self.origin)]
        if not request.keep_alive:
            lines = [*lines, b"Connection: close"]
        elif request.minor == 0:
            lines = [*lines, b"Connection: keep-alive"]
        self.status = status
        return head(status, reason, lines)

    def respond(self, status: int, lines: list[bytes], body: bytes = b"") -> None:
        """Answers here, without the upstream; the lines include the framing."""
        if not self._request_is_whole():
            self.request.keep_alive = False
        opening = self.client_head(status, REASONS[status], lines)
        self.client.write(opening if self.request.method == b"HEAD" else opening + body)

    def _request_is_whole(self) -> bool:
        try:
            self.request.body.take()
        except ProxyError:
            return False
        return self.body.complete


def head(status: int, reason: bytes, lines: list[bytes]) -> bytes:
    """A response head (RFC 9112 4)."""
    fields = b"\r\n".join(lines)
    return b"HTTP/1.1 %d %b\r\n%b\r\n\r\n" % (status, reason, fields) if lines else _bare(status, reason)


def _bare(status: int, reason: bytes) -> bytes:
    return b"HTTP/1.1 %d %b\r\n\r\n" % (status, reason)


def authority_of(request: Request, target: Target) -> bytes | None:
    """What a request says it is for: the target's authority, or else Host (RFC 9112 3.2.2)."""
    return target.authority if target.authority is not None else request.fields.get(b"host")


def wants_trailers(request: Request) -> bool:
    """Whether the client takes trailer fields (RFC 9110 6.5.1)."""
    return b"trailers" in options(request.fields.get(b"te"))


def _asks_for_websocket(request: Request) -> bool:
    # Any other upgrade (h2c) would open a way around everything that is checked here; it is not passed on.
    upgrade = request.fields.get(b"upgrade")
    return (
        upgrade is not None
        and upgrade.lower() == b"websocket"
        and b"upgrade" in request.connection_options
        and request.method == b"GET"
        and request.minor == 1
        and request.length == 0
    )
