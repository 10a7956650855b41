"""A tunnel: a WebSocket's bytes both ways between two connections, as they are."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import Callable

from proxy.wire.frames import FrameEnds, close_frame
from proxy.wire.stream import Stream

LAST_WORDS = 5.0
"""Seconds for an upstream's last words to a client that has ended, where it can't be told so and still speak (TLS),
and for an answer to our Close."""


class Tunnel:
    """Relays until both directions have ended, one is lost, or both are silent for ``idle`` seconds.

    An end is passed on as an end and a reset as a reset; a slow reader slows its sender. Nothing is changed or
    added, but for a Close to both sides where we leave (``go_away``). To a client over TLS, which can't be
    half-closed, any end is that of both directions: an endpoint that has ended drops what it still gets
    (RFC 6455 7.1.1).

    :param passed: told of bytes that came from the client, and of such that go to it
    """

    def __init__(
        self, client: Stream, upstream: Stream, idle: float, passed: Callable[[int, int], None] = lambda *_: None
    ) -> None:
        self._client = client
        self._upstream = upstream
        self._idle = idle
        self._passed = passed
        self._moved = client.loop.time()
        self._ends_at = math.inf
        self._frames = {client: FrameEnds(), upstream: FrameEnds()}
        self._leaving = False

    def go_away(self) -> None:
        """Ends both directions with a Close at the end of the frame under way (RFC 6455 7.1.1, 7.4.1)."""
        self._leaving = True
        now = self._client.loop.time()
        for stream, frames in self._frames.items():
            if frames.between_frames:
                stream.hasten(now)  # wakes who waits for bytes of it

    async def run(self) -> None:
        """Relays; both connections are closed afterwards, however it ends."""
        answering = self._client.loop.create_task(self._copy(self._upstream, self._client), name="tunnel, downstream")
        try:
            await self._copy(self._client, self._upstream)
            await answering
        finally:
            answering.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await answering
            if self._client.broken:
                self._upstream.abort()  # a reset is passed on as one
            elif self._client.lost is not None and self._client.buffer and not self._leaving:
                self._pass_on(self._client, self._upstream)  # over TLS, the end may overtake the last words
            self._upstream.close()
            self._client.close()

    async def _copy(self, source: Stream, sink: Stream) -> None:
        try:
            while await self._move(source, sink):
                if self._leaving and self._frames[source].between_frames:
                    await self._take_leave(source, sink)
                    return
        except OSError as error:
            if source.broken or sink.broken:
                source.abort()
                sink.abort()
            elif isinstance(error, TimeoutError):
                source.close()
                sink.close()
            else:
                await self._drop(source)  # the sink has ended, and a reset would wipe out what it said last
            return
        if not self._client.transport.can_write_eof():
            self._end_within(LAST_WORDS if self._unanswered else 0)
        elif sink.lost is None and not sink.transport.can_write_eof():
            self._end_within(LAST_WORDS)
        sink.end()

    async def _move(self, source: Stream, sink: Stream) -> bool:
        if source.buffer:
            await sink.heed()
            self._pass_on(source, sink)
            await sink.drain(self._moved + self._idle)
            return True
        try:
            return await source.receive(min(self._moved + self._idle, self._ends_at))
        except TimeoutError:
            now = source.loop.time()
            if source.lost is not None or now >= self._ends_at or now - self._moved >= self._idle:
                raise
            return True  # the other direction moved meanwhile, or we leave

    def _pass_on(self, source: Stream, sink: Stream) -> None:
        data, source.buffer = source.buffer, b""
        self._moved = source.loop.time()
        self._follow(source, data)
        self._passed(*((len(data), 0) if source is self._client else (0, len(data))))
        sink.write(data)

    async def _take_leave(self, source: Stream, sink: Stream) -> None:
        """Says Close, unless the source has said it, and takes what that still sends until it ends as well."""
        if not self._frames[source].closed:
            sink.write(close_frame(masked=sink is self._upstream))
        sink.end()
        source.hasten(math.inf)
        await self._drop(source)

    async def _drop(self, source: Stream) -> None:
        """Takes what the source still sends, which nobody wants, until it ends as well."""
        due = source.loop.time() + LAST_WORDS
        with contextlib.suppress(OSError):
            more = True
            while more:
                self._follow(source, source.buffer)
                source.buffer = b""
                more = await source.receive(due)

    @property
    def _unanswered(self) -> bool:
        """The client has a Close that it is still to answer: a talking one must not be reset before it reads that."""
        return self._frames[self._upstream].closed and not self._frames[self._client].closed

    def _follow(self, source: Stream, data: bytes) -> None:
        frames = self._frames[source]
        frames.follow(data)
        if self._ends_at < math.inf and frames.closed and frames.between_frames and not self._unanswered:
            self._end_within(0)

    def _end_within(self, seconds: float) -> None:
        self._ends_at = self._client.loop.time() + seconds
        for stream in (self._client, self._upstream):
            stream.hasten(self._ends_at)
