"""The listening side: connections of clients, and their requests one after the other."""

from __future__ import annotations

import asyncio
import contextlib
import math
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from proxy.errors import BadRequest, ClientTimeout, FieldsTooLarge
from proxy.wire.stream import Stream
from proxy.wire.syntax import RequestHead, parse_request

LINGER = 2.0
"""Seconds for which a closing connection still takes what the client sends, so that a reset does not wipe out
the answer on its way (RFC 9112 9.6)."""

FIRST_WORDS = 0.5
"""Seconds that a new connection has for its first request when draining begins: what was sent to a port that
still accepted is answered."""

BACKLOG = 1024

_ROUNDS_TO_ACCEPT = 4
"""Turns of the event loop in which it makes connections of what the kernel has accepted already."""

_BLANK_LINES = re.compile(rb"(?:\r\n)+")


@dataclass(frozen=True, slots=True)
class Limits:
    """What a client may cost."""

    max_header_bytes: int
    head_timeout: float
    """Seconds from a head's first byte to its last."""
    idle_timeout: float
    """Seconds without a request between requests, and without a byte within a body."""


class ClientConnection(Stream):
    """A client's connection; one task serves it, and is cancelled when the client is gone.

    :ivar idle: waiting for a request's first byte, so that closing loses nothing
    :ivar fresh: no request has begun on it yet
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, listener: Listener) -> None:
        super().__init__(loop)
        self.limits = listener.limits
        self.idle = False
        self.fresh = True
        self._made = loop.time()
        self._listener = listener
        self._task: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._listener.connections.add(self)
        self._task = self.loop.create_task(self._listener.run(self), name="client connection")

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if self._task is not None:
            self._task.cancel()
        self._listener.forget(self)

    @property
    def draining(self) -> bool:
        """No further request is read."""
        return self._listener.draining

    @property
    def spared_until(self) -> float:
        """How long draining leaves it open, on the loop's clock: its first request may be on its way."""
        return self._made + FIRST_WORDS if self.fresh else -math.inf

    async def next_request(self) -> RequestHead | None:
        """The head of the next request, its body still to be read; None when there is none any more.

        :raises BadRequest: it is malformed; nothing behind it can be trusted
        :raises ClientTimeout: it did not arrive in time
        """
        if not self._begun() and not await self._first_byte():
            return None
        self.fresh = False
        head = self.take_head(self.limits.max_header_bytes) or await self._rest_of_head()
        return None if head is None else parse_request(head)

    async def _first_byte(self) -> bool:
        """Waits for a request to begin; False when none does. Blank lines alone don't prolong it."""
        due = self.loop.time() + self.limits.idle_timeout
        while not self._begun():
            if self.draining:
                due = min(due, self.spared_until)
            self.idle = True
            try:
                if not await self.receive(due):
                    return False
            except OSError:
                return False
            finally:
                self.idle = False
                if self.draining:
                    self.hasten(math.inf)
        return True

    def _begun(self) -> bool:
        """Whether a request's first byte is here; blank lines before it are ignored (RFC 9112 2.2)."""
        if self.buffer.startswith(b"\r"):
            blank = _BLANK_LINES.match(self.buffer)
            self.buffer = self.buffer[blank.end() :] if blank is not None else self.buffer
            return self.buffer not in (b"", b"\r")
        return self.buffer != b""

    async def _rest_of_head(self) -> bytes | None:
        limit = self.limits.max_header_bytes
        try:
            return await self.receive_head(limit, self.loop.time() + self.limits.head_timeout)
        except EOFError:
            return None
        except ValueError:
            if len(self.buffer) >= limit + 4:
                raise FieldsTooLarge(f"The request line and fields exceed {limit} bytes.") from None
            raise BadRequest("A line ends without CR (RFC 9112 2.2).") from None
        except OSError:
            if self.lost is not None:
                return None
            raise ClientTimeout("The request's head did not arrive in time.") from None

    async def finish(self, *, linger: bool) -> None:
        """Closes after the last answer; with ``linger``, what the client still sends is read and dropped first."""
        if linger and not self.ended and not self.closing:
            self.end()
            due = self.loop.time() + LINGER
            with contextlib.suppress(OSError):
                while self.loop.time() < due:
                    self.buffer = b""
                    if not await self.receive(due):
                        break
        self.close()


class Listener:
    """Accepts connections and runs ``serve`` once for each.

    :param serve: serves one connection until it is done; must not raise for what a client does
    """

    def __init__(self, serve: Callable[[ClientConnection], Awaitable[None]], limits: Limits) -> None:
        self.limits = limits
        self.connections: set[ClientConnection] = set()
        self.draining = False
        self._serve = serve
        self._server: asyncio.Server | None = None
        self._empty = asyncio.Event()

    async def start(self, host: str, port: int) -> int:
        """Listens; the port it got.

        :raises OSError: the address is taken or not ours
        """
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: ClientConnection(loop, self), host, port, backlog=BACKLOG)
        bound: int = self._server.sockets[0].getsockname()[1]
        return bound

    async def run(self, client: ClientConnection) -> None:
        """Serves one connection; called by the connection itself."""
        try:
            await self._serve(client)
        finally:
            client.close()

    def forget(self, client: ClientConnection) -> None:
        """Notes that a connection is gone, its last answer taken or not; called by the connection itself."""
        self.connections.discard(client)
        if not self.connections:
            self._empty.set()

    async def drain(self, patience: float) -> None:
        """Stops accepting, lets requests in flight finish for ``patience`` seconds, and closes the rest.

        A connection made just before may still begin its first request, for ``FIRST_WORDS`` seconds.
        """
        loop = asyncio.get_running_loop()
        for _ in range(_ROUNDS_TO_ACCEPT):
            await asyncio.sleep(0)
        self.draining = True
        if self._server is not None:
            self._server.close()
        for client in list(self.connections):
            if client.idle and client.buffer in (b"", b"\r"):
                if client.spared_until > loop.time():
                    client.hasten(client.spared_until)
                else:
                    client.close()
        if self.connections:
            self._empty.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(patience):
                    await self._empty.wait()
        for client in list(self.connections):
            client.abort()
