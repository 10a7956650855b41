"""One connection as a buffered stream of bytes with backpressure and deadlines, for one coroutine to read."""

from __future__ import annotations

import asyncio
import copy
import math
import re
import select
import socket
import ssl
import struct
from typing import cast

HIGH_WATER = 65_536
"""Bytes received and not yet read, or written and not yet sent, beyond which a side is made to wait."""

LAST_WORDS = 5.0
"""Seconds in which a peer takes what was written before a close; then the connection is reset."""

_BARE_LF = re.compile(rb"(?<!\r)\n")


class Stream(asyncio.Protocol):
    """A TCP or TLS connection.

    One coroutine reads, one (the same or another) writes. Waiting costs nothing where the bytes are already
    there, and one timer serves a connection's whole life: it is moved, not made anew, for each wait.

    :ivar buffer: received and not yet taken; whoever takes bytes assigns the rest
    :ivar ended: the peer sends no more, which says nothing of whether it still reads
    :ivar transport: once the connection is made
    :ivar lost: why the connection is gone, None while it is there
    """

    transport: asyncio.Transport

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.buffer = b""
        self.ended = False
        self.lost: Exception | None = None
        self._reader: asyncio.Future[None] | None = None
        self._writer: asyncio.Future[None] | None = None
        self._reading_paused = False
        self._writing_paused = False
        self._held = False
        self._arrived = False
        self._orderly_end = False
        self._hastened = math.inf
        self._due = math.inf
        self._closing: asyncio.TimerHandle | None = None
        self._armed_for = math.inf
        self._timer: asyncio.TimerHandle | None = None

    # --- asyncio.Protocol ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.transport.set_write_buffer_limits(HIGH_WATER)

    def data_received(self, data: bytes) -> None:
        self.buffer = self.buffer + data if self.buffer else data
        reader = self._reader
        if reader is not None and not self._held:
            self._arrived = True
            if not reader.done():
                reader.set_result(None)
        # Though a reader is on its way: the loop reads on until then, and each piece would copy all before it.
        if len(self.buffer) >= HIGH_WATER and not self._reading_paused:
            self._reading_paused = True
            self.transport.pause_reading()

    def eof_received(self) -> bool:
        self.ended = True
        tls = self.transport.get_extra_info("ssl_object")
        if tls is not None and not _ended_in_order(tls):
            self.lost = self.lost or ConnectionResetError("TLS was cut off")
        if not self._held:
            self._wake(self._reader)
        # Whoever half-closes still reads (RFC 9112 9.6). TLS can't be half-closed; the loop closes it.
        return tls is None

    def connection_lost(self, exc: Exception | None) -> None:
        self._orderly_end = self.ended and exc is None and self.lost is None
        self.ended = True
        self.lost = self.lost or (fresh(exc) if exc is not None else ConnectionResetError("closed"))
        self._wake(self._reader)
        self._wake(self._writer)
        self._disarm()
        if self._closing is not None:
            self._closing.cancel()

    def pause_writing(self) -> None:
        self._writing_paused = True

    def resume_writing(self) -> None:
        self._writing_paused = False
        self._wake(self._writer)

    # --- reading ---

    async def receive(self, due: float) -> bool:
        """Waits until there are more bytes than now; False at the end of the stream.

        :param due: on the loop's clock
        :raises TimeoutError: at ``due``
        :raises OSError: the connection was lost
        """
        if self.lost is not None and not self._orderly_end:
            raise fresh(self.lost)
        if self.ended:
            return False
        self.resume()
        self._arrived = False
        waiter = self._reader = self.loop.create_future()
        self._due = due = min(due, self._hastened)
        if self._armed_for > due:
            self._arm()
        try:
            await waiter
        finally:
            # A wait that was cancelled ends after the next one has begun.
            if self._reader is waiter:
                self._reader = None
                self._due = math.inf
            del waiter  # it holds the error that is raised here, and that holds this frame
        return self._arrived or await self.receive(due)

    @property
    def waiting(self) -> bool:
        """Somebody waits to read, and nothing has ended that wait yet."""
        return self._reader is not None and not self._reader.done()

    def hold(self) -> None:
        """Keeps whoever waits to read waiting, whatever arrives and however long, until ``let_go``."""
        self._held = True
        self._due = math.inf

    def let_go(self, due: float) -> None:
        """Takes ``hold`` back: what has arrived meanwhile is there to be read.

        :param due: the new deadline of the one who waits
        """
        self._held = False
        self._due = due = min(due, self._hastened)
        if self._armed_for > due:
            self._arm()
        if self.buffer or self.ended:
            self._arrived = self.buffer != b""
            self._wake(self._reader)

    def resume(self) -> None:
        """Goes on reading where that was paused because too much had piled up; called when it has been taken.

        Without it neither the peer's end nor bytes that nobody asked for would be noticed.
        """
        if self._reading_paused and self.lost is None:
            self._reading_paused = False
            self.transport.resume_reading()

    def take_head(self, limit: int) -> bytes | None:
        """A head that has arrived whole and is no longer than ``limit``, up to the CRLF of its last line."""
        end = self.buffer.find(b"\r\n\r\n", 0, limit + 4)
        if end < 0:
            return None
        head, self.buffer = self.buffer[: end + 2], self.buffer[end + 4 :]
        return head

    async def receive_head(self, limit: int, due: float) -> bytes | None:
        """The next head as ``take_head`` gives it, after waiting; None if the stream ends before its first byte.

        :raises ValueError: longer than ``limit``, or a line that ends without CR, which never becomes a head
        :raises EOFError: the stream ends inside it
        """
        start = 0
        while (head := self.take_head(limit)) is None:
            if len(self.buffer) >= limit + 4 or _BARE_LF.search(self.buffer, start):
                raise ValueError("too long, or a bare LF")
            start = max(0, len(self.buffer) - 3)
            if not await self.receive(due):
                if self.buffer:
                    raise EOFError
                return None
        return head

    # --- writing ---

    def write(self, data: bytes) -> None:
        """Sends bytes, or keeps them until the peer takes them; ``drain`` says when there are too many."""
        if self.lost is None:
            self.transport.write(data)

    async def drain(self, due: float) -> None:
        """Waits until the peer has taken what was written.

        :raises TimeoutError: at ``due``, on the loop's clock
        :raises OSError: the connection was lost
        """
        if self.lost is not None:
            raise fresh(self.lost)
        if not self._writing_paused:
            return
        waiter = self._writer = self.loop.create_future()
        try:
            async with asyncio.timeout_at(due):
                await waiter
        finally:
            if self._writer is waiter:
                self._writer = None
        if self.lost is not None:
            raise fresh(self.lost)

    async def heed(self) -> None:
        """Lets what the peer has sent be read before more is written to it.

        A peer that answered and closed resets the connection once more arrives, and with the write that fails the
        event loop drops what it has not read: the answer would be lost (RFC 9112 9.6).
        """
        if self.closing or self._reading_paused or not _readable(self.transport.get_extra_info("socket").fileno()):
            return
        await asyncio.sleep(0)
        await asyncio.sleep(0)  # asyncio takes its events in behind who waits already

    def end(self) -> None:
        """Says that nothing more will be sent, where the transport can say so and still read."""
        if self.lost is None and self.transport.can_write_eof():
            self.transport.write_eof()

    # --- the end ---

    @property
    def sending_behind(self) -> bool:
        """The peer is slow to take what was written; ``drain`` waits for it."""
        return self._writing_paused

    @property
    def broken(self) -> bool:
        """The connection was lost, and not because the peer had ended and could not be half-closed (TLS)."""
        return self.lost is not None and not self._orderly_end

    @property
    def closing(self) -> bool:
        return self.lost is not None or self.transport.is_closing()

    def close(self) -> None:
        """Closes after sending what was written, for which the peer has ``LAST_WORDS`` seconds."""
        if self.closing:
            return
        self.transport.close()
        self._closing = self.loop.call_later(LAST_WORDS, self.transport.abort)

    def abort(self) -> None:
        """Resets the connection: the peer must not take what it has for the whole (RFC 9112 8).

        A connection that is being closed is left to end in the way that was begun, within ``LAST_WORDS``.
        """
        if self.closing:
            return
        sock = self.transport.get_extra_info("socket")
        if sock is not None and sock.family != getattr(socket, "AF_UNIX", None):
            # Without it the kernel ends the stream in the normal way (SO_LINGER, zero seconds: a reset).
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.transport.abort()

    def hasten(self, due: float) -> None:
        """Brings the deadline of a wait under way and of those after it forward, on the loop's clock.

        ``math.inf`` takes it back.
        """
        self._hastened = due
        if self._reader is not None and not self._held and due < self._due:
            self._due = due
            self._arm()

    def expired(self) -> None:
        """Called at the deadline set by ``expire_at`` when nobody is waiting to read."""
        self.close()

    def expire_at(self, due: float) -> None:
        """Sets a deadline for a connection that nobody reads, on the loop's clock; ``math.inf`` takes it back."""
        self._due = due
        self._arm()

    # --- waking and timing ---

    @staticmethod
    def _wake(waiter: asyncio.Future[None] | None) -> None:
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def _arm(self) -> None:
        if self._due < self._armed_for:
            self._disarm()
            self._armed_for = self._due
            self._timer = self.loop.call_at(self._due, self._tick)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._armed_for = math.inf

    def _tick(self) -> None:
        self._disarm()
        if self.loop.time() < self._due - 0.001:
            self._arm()
        elif self._reader is not None:
            if not self._reader.done():
                self._reader.set_exception(TimeoutError())
        else:
            self._due = math.inf
            self.expired()


def fresh(error: Exception) -> Exception:
    """The same error as if it was never raised.

    One that was holds the frames that it passed. A connection that held one would stay, with buffers of a quarter of a
    megabyte beneath TLS, until Python looks for cycles, which it does by the count of objects and not of bytes.
    """
    return copy.copy(error)


def _ended_in_order(tls: ssl.SSLObject) -> bool:
    """Whether the peer said that it ends; otherwise anybody on the way may have cut the stream (RFC 9112 9.8).

    uvloop tells that as an error, asyncio as an end like any other.
    """
    try:
        return not tls.read(1)
    except ssl.SSLError:
        return False


def _readable(descriptor: int) -> bool:
    """Whether something was received, an end or an error included, that the event loop has not taken yet."""
    if not hasattr(select, "poll"):
        return False  # Windows
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(0))
