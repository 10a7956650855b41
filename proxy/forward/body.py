"""A request's body on its way up: streamed, and its first bytes kept in case it must be sent again."""

from __future__ import annotations

import asyncio
import contextlib
import math
import sys

from proxy.errors import BadRequest, ClientClosed, ClientTimeout, ContentTooLarge, UpstreamTimeout
from proxy.wire.body import LAST_CHUNK, Body, chunk
from proxy.wire.syntax import CHUNKED
from proxy.wire.upstream import UpstreamConnection

LEAST_RATE = 1024
"""Bytes a second that a client must send of a long body: a trickle would hold a place for ever."""

GO_AHEAD = 1.0
"""Seconds for which a long body waits for its upstream's 100; one that never says it gets the body all the same
(RFC 9110 10.1.1)."""


class KeptBody:
    """Sends a client's body to one upstream connection after another, framed as it came.

    Every piece is kept before it is sent, until more than ``limit`` bytes were: then the copy is dropped and the
    sending goes on.

    :ivar kept: all that was read so far is still here, so that it can be sent from the start
    :ivar size: bytes read so far
    :ivar outgrows: it is known to be longer than ``limit``
    :ivar chunked: it is framed in chunks, on both sides
    :ivar complete: the client has sent all of it
    :ivar completed_at: when the last of it was read, on the loop's clock; before, and for no body, 0

    :param limit: bytes that are kept
    :param longest: bytes that it may have
    :param timeout: seconds for which it may keep us waiting, and one more for each ``LEAST_RATE`` bytes of it
    """

    __slots__ = (
        "_asked",
        "_limit",
        "_longest",
        "_ours",
        "_pieces",
        "_source",
        "_timeout",
        "_waited",
        "chunked",
        "complete",
        "completed_at",
        "kept",
        "outgrows",
        "size",
    )

    def __init__(self, source: Body | None, limit: int, longest: int = sys.maxsize, timeout: float = math.inf) -> None:
        self.kept = True
        self.size = 0
        self.complete = source is None
        self.completed_at = 0.0
        self._source = source
        self._asked: asyncio.Event | None = None
        self._ours = False
        self.outgrows = source is not None and source.length > limit
        self.chunked = source is not None and source.length == CHUNKED
        self._limit = limit
        self._longest = longest
        self._timeout = timeout
        self._waited = 0.0
        self._pieces: list[bytes] = []

    def with_limit(self, limit: int) -> KeptBody:
        """The same body, kept up to another limit."""
        if self._source is None:
            return self
        other = KeptBody(self._source, limit, self._longest, self._timeout)
        for piece in self._pieces:
            other._keep(piece, self._source)
        return other

    @property
    def content(self) -> bytes:
        """All of it, if it has arrived and was kept; else nothing."""
        return b"".join(self._pieces) if self.complete and self.kept else b""

    def take_arrived(self) -> None:
        """Keeps what has arrived so far, without waiting.

        :raises BadRequest: the body's framing is broken
        :raises ContentTooLarge: it is too long
        """
        if self._source is not None and not self.complete:
            self._keep(self._source.take(), self._source)

    def opening(self) -> bytes:
        """What can be sent at once behind the head, framed: all that was kept, and what has arrived since."""
        if self.held:
            return b""
        self.take_arrived()
        framed = b"".join(chunk(piece) for piece in self._pieces) if self.chunked else b"".join(self._pieces)
        self._drop_if_long()
        return framed + self._last_chunk()

    @property
    def held(self) -> bool:
        """Nothing of it is sent for now."""
        return self._asked is not None

    def hold(self, *, ours: bool) -> None:
        """Has nothing of it sent until ``go_ahead``, or ``GO_AHEAD`` seconds have passed; until then all of it is
        here for another attempt.

        :param ours: it is we who ask the upstream to say when, and not the client
        """
        self._asked = asyncio.Event()
        self._ours = ours

    def go_ahead(self) -> bool:
        """Takes ``hold`` back: the upstream wants the body, or has answered without it. Whether we had asked."""
        if self._asked is not None:
            self._asked.set()
        return self._ours

    def hold_no_more(self) -> bool:
        """For an upstream that refuses to be asked by us: whether it was."""
        asked, self._ours, self.outgrows = self._ours, False, False
        return asked

    async def gather(self, idle_timeout: float) -> bytes:
        """All of it, read here; it can still be sent afterwards.

        :param idle_timeout: seconds without a byte
        :raises ContentTooLarge: longer than ``limit`` bytes
        :raises ClientTimeout: nothing came for ``idle_timeout`` seconds
        """
        while self.size <= self._limit and not self.complete:
            await self._read(idle_timeout)
        if self.size > self._limit:
            raise ContentTooLarge(f"Content of more than {self._limit} bytes is not read here.")
        return b"".join(self._pieces)

    async def pump(self, upstream: UpstreamConnection, idle_timeout: float, answer_timeout: float) -> None:
        """Sends what ``opening`` left, as it arrives and as the upstream takes it.

        A defect on the client's side breaks the upstream's connection off, so that it never has a whole request.
        When all is sent, the upstream has ``answer_timeout`` seconds to begin its answer.
        """
        loop = upstream.loop
        try:
            if self._asked is not None:
                await self._asked_for(self._asked)
                upstream.write(self.opening())
            while not self.complete:
                await upstream.drain(loop.time() + idle_timeout)
                piece = await self._read(idle_timeout)
                self._drop_if_long()
                await upstream.heed()
                upstream.write((chunk(piece) if self.chunked and piece else piece) + self._last_chunk())
        except (BadRequest, ClientClosed, ClientTimeout) as error:
            upstream.fail(error)
        except TimeoutError:
            message = "The upstream does not take the request's body."
            upstream.fail(UpstreamTimeout(message, kind="connection_write_timeout"))
        except OSError:
            pass  # the upstream is gone; whoever waits for its answer sees that
        except Exception as error:  # noqa: BLE001 - a defect, which whoever waits for the answer must hear of
            upstream.fail(error)
        if self.complete:
            upstream.expect_answer_by(loop.time() + answer_timeout)

    async def _asked_for(self, asked: asyncio.Event) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(GO_AHEAD):
                await asked.wait()
        self._asked = None

    async def _read(self, idle_timeout: float) -> bytes:
        assert self._source is not None, "no body is complete from the start"
        # Only waiting for the client counts: what the upstream is slow to take is not the client's fault.
        began = self._source.clock()
        left = self._timeout + self.size / LEAST_RATE - self._waited
        try:
            piece = await self._source.read(began + min(idle_timeout, left))
        except TimeoutError:
            raise ClientTimeout("The request's body did not arrive in time.") from None
        self._waited += self._source.clock() - began
        self._keep(piece, self._source)
        return piece

    def _keep(self, piece: bytes, source: Body) -> None:
        if piece:
            self.size += len(piece)
            if self.size > self._longest:
                raise ContentTooLarge(f"The request's content exceeds {self._longest} bytes.")
            self._pieces.append(piece)
        if source.complete and not self.complete:
            self.complete = True
            self.completed_at = source.clock()

    def _drop_if_long(self) -> None:
        if self.size > self._limit:
            self.kept = False
            self._pieces.clear()

    def _last_chunk(self) -> bytes:
        return LAST_CHUNK if self.chunked and self.complete else b""


NO_BODY = KeptBody(None, 0)
"""For every request without one."""
