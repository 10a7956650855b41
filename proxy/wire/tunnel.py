"""A tunnel: bytes both ways between two connections, as they are."""

from __future__ import annotations

import asyncio
import contextlib
import math

from proxy.wire.stream import Stream

LAST_WORDS = 5.0
"""Seconds for the rest of the other direction after one side ended and could not be half-closed (TLS)."""


class Tunnel:
    """Relays until both directions have ended, one is lost, or both are silent for ``idle`` seconds.

    An end is passed on as an end and a reset as a reset; a slow reader slows its sender.
    """

    def __init__(self, client: Stream, upstream: Stream, idle: float) -> None:
        self._client = client
        self._upstream = upstream
        self._idle = idle
        self._moved = client.loop.time()
        self._ends_at = math.inf

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
            if self._client.lost is not None:
                self._upstream.abort()  # a reset is passed on as one
            self._upstream.close()
            self._client.close()

    async def _copy(self, source: Stream, sink: Stream) -> None:
        try:
            while await self._move(source, sink):
                pass
        except OSError as error:
            if isinstance(error, TimeoutError) and source.lost is None and sink.lost is None:
                source.close()
                sink.close()
            else:
                source.abort()
                sink.abort()
            return
        if sink.lost is None and not sink.transport.can_write_eof():
            self._end_soon()
        sink.end()

    async def _move(self, source: Stream, sink: Stream) -> bool:
        if source.buffer:
            data, source.buffer = source.buffer, b""
            self._moved = source.loop.time()
            sink.write(data)
            await sink.drain(self._moved + self._idle)
            return True
        try:
            return await source.receive(min(self._moved + self._idle, self._ends_at))
        except TimeoutError:
            now = source.loop.time()
            if source.lost is not None or now >= self._ends_at or now - self._moved >= self._idle:
                raise
            return True  # the other direction moved meanwhile

    def _end_soon(self) -> None:
        self._ends_at = self._client.loop.time() + LAST_WORDS
        for stream in (self._client, self._upstream):
            stream.hasten(self._ends_at)
