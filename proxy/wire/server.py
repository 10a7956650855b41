"""The listening side: connections of clients, and their requests one after the other."""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import math
import re
import socket
import ssl
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, TypedDict

from proxy.errors import BadRequest, ClientTimeout, FieldsTooLarge, NotAllowed, ProxyError, TooBusy
from proxy.wire.ports import BACKLOG
from proxy.wire.stream import Stream
from proxy.wire.syntax import RequestHead, parse_request
from proxy.wire.unix import is_unix, peer_uid

LINGER = 2.0
"""Seconds for which a closing connection still takes what the client sends, so that a reset does not wipe out
the answer on its way (RFC 9112 9.6)."""

QUIET = 1.0
"""Seconds without a request after which an idle connection is closed at the end: a request that crosses the close
is lost, which one that comes every few milliseconds would be."""

HANDSHAKE_TIMEOUT = 10.0
"""Seconds for a client's TLS handshake."""

NEXT_LOOK_AFTER = 0.05
"""Seconds for which a full house stays full once nobody in it was idle: each look costs a millisecond."""

MOST_REFUSED = 64
"""Connections told at the same time, in peace, that they are not served; more are told in haste."""

_BLANK_LINES = re.compile(rb"(?:\r\n)+")


@dataclass(frozen=True, slots=True)
class Limits:
    """What a client may cost."""

    max_header_bytes: int
    head_timeout: float
    """Seconds from a head's first byte to its last."""
    idle_timeout: float
    """Seconds without a request between requests, and without a byte within a body."""
    max_connections: int
    max_requests: int
    """On one connection."""
    max_pipelined: int
    """Requests on one connection that come before the answer to the one before, in a row."""


class ClientConnection(Stream):
    """A client's connection; one task serves it, and is cancelled when the client is gone.

    :ivar idle: waiting for a request's first byte, so that closing loses nothing
    :ivar requests: that have begun
    :ivar pipelined: how many of them, up to the last, did not wait for an answer
    :ivar waiting_since: of ``idle``, on the loop's clock
    :ivar left: called when the client is gone while a request that was taken at once is under way
    :ivar farewell: ends what the connection has become, where that knows how to say so; called at the drain
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, listener: Listener) -> None:
        super().__init__(loop)
        self.limits = listener.limits
        self.idle = False
        self.requests = 0
        self.pipelined = 0
        self.waiting_since = self._made = loop.time()
        self._reading_head = False
        self.left: Callable[[], None] | None = None
        self.farewell: Callable[[], None] | None = None
        self._listener = listener
        self._task: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        serving = self._listener.admit(self)
        self._task = self.loop.create_task(serving, name="client connection")
        self._task.add_done_callback(self._served)

    def data_received(self, data: bytes) -> None:
        if self.idle and self.waiting and not self.buffer:
            self.buffer = data
            if self._listener.take_at_once(self):
                return
            self.buffer = b""
        super().data_received(data)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        left, self.left = self.left, None
        if left is not None:
            left()
        if self._task is not None:
            self._task.cancel()
        self._listener.forget(self)

    def _served(self, _: asyncio.Task[None]) -> None:
        self._task = None  # cancelled, it holds frames that hold this connection

    @property
    def draining(self) -> bool:
        """No further request is read."""
        return self._listener.draining

    @property
    def on_last_request(self) -> bool:
        """The connection ends with the answer to this request."""
        limits = self.limits
        return self._listener.draining or self.requests >= limits.max_requests or self.pipelined >= limits.max_pipelined

    @property
    def evictable(self) -> bool:
        """Closing it loses no request that has arrived."""
        return (self.quiet or self._reading_head) and not self.closing

    @property
    def quiet(self) -> bool:
        """No request has begun since the last was answered."""
        return self.idle and self.buffer in (b"", b"\r")

    async def next_request(self) -> RequestHead | None:
        """The head of the next request, its body still to be read; None when there is none any more.

        :raises BadRequest: it is malformed; nothing behind it can be trusted
        :raises ClientTimeout: it did not arrive in time
        """
        if self._begun():
            self.pipelined += 1
        elif await self._first_byte():
            self.pipelined = 0
        else:
            return None
        self.requests += 1
        head = self.take_head(self.limits.max_header_bytes) or await self._rest_of_head()
        return None if head is None else parse_request(head)

    async def _first_byte(self) -> bool:
        """Waits for a request to begin; False when none does. Blank lines alone don't prolong it."""
        self.waiting_since = self.loop.time()
        due = self.waiting_since + (QUIET if self.draining else self.limits.idle_timeout)
        while not self._begun():
            self.idle = True
            try:
                if not await self.receive(due):
                    return False
            except OSError:
                return False
            finally:
                self.idle = False
        if self.draining:
            self.hasten(math.inf)  # what has begun has its own time
        return True

    def close_when_quiet(self) -> None:
        """Closes an idle connection once no request has come for ``QUIET`` seconds; one that comes is answered."""
        self.hasten(max(self.loop.time(), self._due - self.limits.idle_timeout + QUIET))

    def _begun(self) -> bool:
        """Whether a request's first byte is here; blank lines before it are ignored (RFC 9112 2.2)."""
        if self.buffer.startswith(b"\r"):
            blank = _BLANK_LINES.match(self.buffer)
            self.buffer = self.buffer[blank.end() :] if blank is not None else self.buffer
            return self.buffer not in (b"", b"\r")
        return self.buffer != b""

    def taken(self, left: Callable[[], None]) -> None:
        """Notes that a request was taken at once; the one who waits for the next goes on waiting.

        :param left: called if the client goes before ``answered``
        """
        self.idle = False
        self.requests += 1
        self.pipelined = 0
        self.left = left
        self.hold()

    def answered(self) -> None:
        """Notes that the answer to a request taken at once was given, and that another may come."""
        self.left = None
        self.idle = True
        self.waiting_since = self.loop.time()
        self.let_go(self.waiting_since + (QUIET if self.draining else self.limits.idle_timeout))

    async def _rest_of_head(self) -> bytes | None:
        limit = self.limits.max_header_bytes
        self._reading_head = True
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
        finally:
            self._reading_head = False

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


class _Security(TypedDict, total=False):
    """What an event loop is told of TLS."""

    ssl: ssl.SSLContext
    ssl_handshake_timeout: float


class Listener:
    """Accepts connections and runs ``serve`` once for each.

    :param serve: serves one connection until it is done; must not raise for what a client does
    :param refusal: what a connection that is not served is told, and why
    :param tls: for connections over TCP; None for plain ones
    :param peers: the only users whose processes may connect over a Unix socket; None for all that its file's mode lets
    :param take_at_once: is given each piece that arrives at an idle connection, in its buffer; True if it took it
        as a request (``ClientConnection.taken``), False if ``serve`` is to read it
    """

    def __init__(
        self,
        serve: Callable[[ClientConnection], Awaitable[None]],
        refusal: Callable[[ProxyError], bytes],
        limits: Limits,
        *,
        tls: ssl.SSLContext | None = None,
        peers: frozenset[int] | None = None,
        take_at_once: Callable[[ClientConnection], bool] = lambda _: False,
    ) -> None:
        self.limits = limits
        self._tls = tls
        self._peers = peers
        self.take_at_once = take_at_once
        self.connections: set[ClientConnection] = set()
        self._refused: set[ClientConnection] = set()
        self._refusal = refusal
        self._full_until = -math.inf
        self.draining = False
        self._serve = serve
        self._servers: dict[socket.socket, asyncio.Server] = {}
        self._empty = asyncio.Event()

    async def accept_on(self, sockets: Sequence[socket.socket]) -> None:
        """Accepts on these sockets, which listen, and no longer on others; ``drain`` closes them."""
        loop = asyncio.get_running_loop()
        for sock in [known for known in self._servers if known not in sockets]:
            self._servers.pop(sock).close()
        for sock in [new for new in sockets if new not in self._servers]:
            # A server closes its socket with itself, and what waits there is still to be accepted by somebody.
            ours = sock.dup()
            if sock.family == getattr(socket, "AF_UNIX", None):
                server = await loop.create_unix_server(self._connection, sock=ours, backlog=BACKLOG)
            else:
                server = await loop.create_server(self._connection, sock=ours, backlog=BACKLOG, **self._security(sock))
            self._servers[sock] = server

    def _security(self, sock: socket.socket) -> _Security:
        if self._tls is None or sock.family == getattr(socket, "AF_UNIX", None):
            return {}
        return {"ssl": self._tls, "ssl_handshake_timeout": HANDSHAKE_TIMEOUT}

    def _connection(self) -> ClientConnection:
        return ClientConnection(asyncio.get_running_loop(), self)

    def admit(self, client: ClientConnection) -> Coroutine[Any, Any, None]:
        """What is to be done with a new connection; called by the connection itself."""
        if self._peers is not None and is_unix(client.transport) and peer_uid(client.transport) not in self._peers:
            return self._refuse(client, NotAllowed("Processes of this user are not in listen.unix_socket_users."))
        if len(self.connections) >= self.limits.max_connections and not self._make_room():
            return self._refuse(client, TooBusy("As many connections as limits.max_connections are busy."))
        self.connections.add(client)
        return self._run(client)

    def _make_room(self) -> bool:
        """Closes some connections that nobody would miss; whether there were any.

        Whoever holds connections open without a request can't keep others out. One look finds many, so that a
        flood costs little.
        """
        now = asyncio.get_running_loop().time()
        if now < self._full_until:
            return False
        waiting = [client for client in self.connections if client.evictable]
        if not waiting:
            self._full_until = now + NEXT_LOOK_AFTER
        for client in heapq.nsmallest(max(1, len(waiting) // 16), waiting, key=_worth):
            client.close()
            self.connections.discard(client)
        return bool(waiting)

    async def _run(self, client: ClientConnection) -> None:
        try:
            await self._serve(client)
        finally:
            client.close()

    async def _refuse(self, client: ClientConnection, error: ProxyError) -> None:
        client.write(self._refusal(error))
        in_peace = len(self._refused) < MOST_REFUSED
        if in_peace:
            self._refused.add(client)
        await client.finish(linger=in_peace)

    def forget(self, client: ClientConnection) -> None:
        """Notes that a connection is gone, its last answer taken or not; called by the connection itself."""
        self.connections.discard(client)
        self._refused.discard(client)
        if not self.connections:
            self._empty.set()

    async def drain(self, patience: float) -> None:
        """Stops accepting, lets requests in flight finish for ``patience`` seconds, and closes the rest.

        Connections that the system has accepted for us are not lost, and one that is in use is closed with its
        next answer, which says so, or when it is quiet.
        """
        self.draining = True
        await self._stop_accepting()
        for client in list(self.connections):
            if client.quiet:
                client.close_when_quiet()
            elif client.farewell is not None:
                client.farewell()
        if self.connections:
            self._empty.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(patience):
                    await self._empty.wait()
        for client in [*self.connections, *self._refused]:
            client.abort()

    async def _stop_accepting(self) -> None:
        waiting: list[socket.socket] = []
        for sock, server in self._servers.items():
            # Without a turn of the loop in between: asyncio loses what it accepts for a server that is then closed.
            with contextlib.suppress(BlockingIOError):
                while len(waiting) < BACKLOG:
                    waiting.append(sock.accept()[0])
            server.close()
            sock.close()
        self._servers.clear()
        loop = asyncio.get_running_loop()
        for sock in waiting:
            with contextlib.suppress(OSError):  # gone already
                await loop.connect_accepted_socket(self._connection, sock, **self._security(sock))


def _worth(client: ClientConnection) -> tuple[bool, bool, float]:
    """What is closed first: what never sent a request, then what is slow to, then what has waited longest."""
    return client.requests > 0, client.idle, client.waiting_since
