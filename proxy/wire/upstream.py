"""Connections to upstreams: made with TLS verified, kept alive, and never used again when in doubt."""

from __future__ import annotations

import asyncio
import math
import socket
import ssl
import time
from collections.abc import Callable

from aiohappyeyeballs import start_connection

from proxy.core.detour import ForwardProxy
from proxy.core.fields import Shape
from proxy.core.urls import BaseUrl
from proxy.errors import (
    UpstreamClosed,
    UpstreamError,
    UpstreamProtocolError,
    UpstreamSilent,
    UpstreamTimeout,
    UpstreamUnreachable,
)
from proxy.wire.detour import open_tunnel
from proxy.wire.stream import Stream, fresh
from proxy.wire.syntax import SMALL, ResponseHead, parse_response

LONGEST_IDLE = 30.0
"""Seconds for which an unused connection is kept: half of what AWS load balancers allow by default, so that we
close first and no request meets a closing connection."""

MOST_IDLE = 256
"""Unused connections kept for one upstream."""

NEXT_ADDRESS_AFTER = 0.25
"""Seconds until the next address of a name is tried beside the first (RFC 8305 5)."""


class UpstreamConnection(Stream):
    """A connection to an upstream, for one request at a time.

    :ivar idle: nobody uses it
    :ivar idle_since: on the upstream's clock
    :ivar reused: it has carried an earlier request, so the upstream may be closing it just now
    :ivar watcher: called, once, when anything happens to it, instead of a coroutine that waits for that: bytes
        arrive, the upstream ends or is gone, or the deadline of ``expire_at`` has come
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, upstream: Upstream) -> None:
        super().__init__(loop)
        self.reused = False
        self.idle = False
        self.idle_since = 0.0
        self.watcher: Callable[[], None] | None = None
        self._upstream = upstream
        self._answering = False
        self._usual: Shape | None = None

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.watcher is not None:
            self._tell()
        elif self.idle:
            # Nobody asked: it would be taken for the next request's answer (RFC 9112 9.3).
            self.abort()

    def eof_received(self) -> bool:
        half_open = super().eof_received()
        if self.idle:
            self.close()
        self._tell()
        return half_open and not self.idle

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._upstream.forget(self)
        self._tell()

    def expired(self) -> None:
        if self.watcher is None:
            super().expired()
        self._tell()

    def _tell(self) -> None:
        watcher, self.watcher = self.watcher, None
        if watcher is not None:
            watcher()

    def fail(self, error: Exception) -> None:
        """Breaks the exchange off: whoever waits for the answer gets ``error``, and the upstream never gets the
        rest of a request, so it can't take it for whole.
        """
        if self.lost is None:
            self.abort()
            self.lost = fresh(error)
            self.ended = True
            self._wake(self._reader)
            self._wake(self._writer)

    def expect_answer_by(self, due: float) -> None:
        """Sets the deadline of a wait for an answer's head that has begun, on the loop's clock."""
        if self._answering:
            self.hasten(due)

    async def receive_response(self, limit: int, due: float) -> ResponseHead:
        """The head of the next answer, interim ones (1xx) included.

        :raises UpstreamTimeout: none until ``due``, on the loop's clock
        :raises UpstreamSilent, UpstreamClosed: the connection ended before it
        :raises UpstreamProtocolError: it breaks the grammar or ``limit``
        """
        self._answering = True
        try:
            head = self.take_head(limit)
            if head is None and (self.buffer or await self.receive(due)):
                head = self.take_head(limit) or await self.receive_head(limit, due)
        except EOFError:
            raise UpstreamClosed("The upstream closed the connection inside its answer's head.") from None
        except ValueError:
            raise UpstreamProtocolError("The upstream's answer has a head that is malformed or too long.") from None
        except OSError as error:
            if isinstance(error, TimeoutError) and self.lost is None:
                raise UpstreamTimeout("The upstream did not answer in time.") from None
            head = None
        finally:
            self._answering = False
            self.hasten(math.inf)
        if head is None:
            closed = UpstreamClosed if self.buffer else UpstreamSilent
            raise closed("The upstream closed the connection without an answer.")
        return self._read(head)

    def take_response(self, limit: int) -> ResponseHead | None:
        """The head of the next answer if it has arrived whole, and is no longer than ``limit``.

        :raises UpstreamProtocolError: it breaks the grammar
        """
        head = self.take_head(limit)
        return None if head is None else self._read(head)

    def _read(self, head: bytes) -> ResponseHead:
        answer = parse_response(head, self._usual)
        if len(head) <= SMALL:
            self._usual = answer.fields.shape  # an upstream's answers have the same fields again and again
        return answer


class Upstream:
    """One upstream authority and our connections to it.

    :param base: where it is
    :param tls: verifies it, where ``base`` is https
    :param connect_timeout: seconds for name, connection and TLS together
    :param proxy: that connections go through; None for the direct way
    :param clock: seconds; it goes on while the machine sleeps, as the loop's may not
    """

    def __init__(
        self,
        base: BaseUrl,
        tls: ssl.SSLContext,
        *,
        connect_timeout: float,
        proxy: ForwardProxy | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.base = base
        self.version_and_host = b" HTTP/1.1\r\nHost: %b\r\n" % base.authority.encode("ascii")
        self.path = base.path.encode("ascii")
        self._tls = tls if base.tls else None
        self._proxy = proxy
        self._connect_timeout = connect_timeout
        self._clock = clock
        self._idle: list[UpstreamConnection] = []
        self._open: set[UpstreamConnection] = set()
        self._closed = False

    @property
    def connections(self) -> int:
        """Connections open now, used or not."""
        return len(self._open)

    def reuse(self) -> UpstreamConnection | None:
        """A connection that is open and unused, the one used last; None if there is none."""
        too_old = self._clock() - LONGEST_IDLE if self._idle else 0.0
        while self._idle:
            connection = self._idle.pop()
            connection.idle = False
            connection.expire_at(math.inf)
            if not (connection.ended or connection.buffer or connection.transport.is_closing()):
                if connection.idle_since > too_old:
                    return connection
                connection.close()  # the machine slept: nobody may be there any more, and nobody would say so
        return None

    async def connect(self, patience: float) -> UpstreamConnection:
        """A new connection.

        :param patience: seconds that are left for it, if that is less than ``connect_timeout``
        :raises UpstreamUnreachable: no name, no connection, or TLS not verified
        :raises UpstreamTimeout: not in time
        """
        try:
            async with asyncio.timeout(min(self._connect_timeout, patience)):
                return await self._connect()
        except TimeoutError:
            message = f"No connection to the upstream {self.base.authority} in time."
            raise UpstreamTimeout(message, kind="connection_timeout") from None
        except OSError as error:
            raise _unreachable(error, self.base) from None

    async def _connect(self) -> UpstreamConnection:
        loop = asyncio.get_running_loop()
        sock = await self._dial(loop)
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._proxy is not None:
                await open_tunnel(sock, self._proxy, self.base.host, self.base.port)
            _, connection = await loop.create_connection(
                lambda: UpstreamConnection(loop, self),
                sock=sock,
                ssl=self._tls,
                server_hostname=self.base.host if self._tls else None,
            )
        except BaseException:
            sock.close()
            raise
        self._open.add(connection)
        return connection

    async def _dial(self, loop: asyncio.AbstractEventLoop) -> socket.socket:
        """A TCP connection to the upstream, or to the proxy that leads to it."""
        next_hop = self._proxy or self.base
        try:
            addresses = await loop.getaddrinfo(next_hop.host, next_hop.port, type=socket.SOCK_STREAM)
            return await start_connection(addresses, happy_eyeballs_delay=NEXT_ADDRESS_AFTER, loop=loop)
        except OSError as error:
            if self._proxy is None or isinstance(error, TimeoutError):
                raise
            raise UpstreamUnreachable("The forward proxy can't be reached; see upstream.proxy.") from None

    def release(self, connection: UpstreamConnection) -> None:
        """Takes a connection back after a whole answer; closes it where something is left that nobody asked for."""
        in_doubt = connection.ended or connection.buffer or connection.transport.is_closing()
        if in_doubt or self._closed or len(self._idle) >= MOST_IDLE:
            connection.close()
        else:
            connection.reused = connection.idle = True
            connection.idle_since = self._clock()
            connection.resume()
            connection.expire_at(connection.loop.time() + LONGEST_IDLE)
            self._idle.append(connection)

    def forget(self, connection: UpstreamConnection) -> None:
        """Notes that a connection is gone; called by the connection itself."""
        self._open.discard(connection)
        if connection.idle and connection in self._idle:
            self._idle.remove(connection)

    def close(self) -> None:
        """Closes the unused connections; those in use are closed when they are released."""
        self._closed = True
        for connection in list(self._idle):
            connection.close()


def _unreachable(error: OSError, upstream: BaseUrl) -> UpstreamError:
    name = upstream.authority
    match error:
        case socket.gaierror():
            return UpstreamUnreachable(f"The upstream's name {upstream.host} is not found.", kind="dns_error")
        case ssl.SSLCertVerificationError():
            return UpstreamUnreachable(
                f"The certificate of the upstream {name} is not trusted; name your CA in upstream.ca_file.",
                kind="tls_certificate_error",
            )
        case ssl.SSLError():
            return UpstreamUnreachable(f"TLS with the upstream {name} failed.", kind="tls_protocol_error")
        case ConnectionRefusedError():
            return UpstreamUnreachable(f"The upstream {name} refuses connections.", kind="connection_refused")
    return UpstreamUnreachable(f"The upstream {name} can't be reached.")
