"""A message's body as its pieces arrive, whatever delimits it (RFC 9112 6, 7)."""

from __future__ import annotations

import re
from collections.abc import Callable

from proxy.core.fields import Fields
from proxy.errors import BadRequest, ClientClosed, UpstreamClosed, UpstreamProtocolError
from proxy.wire.stream import Stream
from proxy.wire.syntax import CHUNKED, UNTIL_CLOSE, parse_fields

LONGEST_CHUNK_LINE = 1024
"""Bytes of a chunk size with its extensions; extensions are read past, not passed on (RFC 9112 7.1.1)."""

_CHUNK_LINE = re.compile(rb"([0-9A-Fa-f]{1,15})(?:[ \t]*;[\t -~\x80-\xff]*)?")
_CHUNK_LINE_SO_FAR = re.compile(rb"[0-9A-Fa-f]{0,15}(?:[ \t]*(?:;[\t -~\x80-\xff]*)?)?\r?")


class Body:
    """Reads one body off a stream, and nothing behind it.

    :ivar complete: the body's end was read
    :ivar trailers: the fields behind a chunked body, None unless it is complete and has some

    :param length: bytes, ``CHUNKED`` or ``UNTIL_CLOSE``
    :param request: whose body it is decides what a defect raises: BadRequest and ClientClosed for a request's,
        UpstreamProtocolError and UpstreamClosed for an answer's
    :param limit: bytes of the trailer section
    """

    __slots__ = ("_chunk", "_limit", "_stream", "complete", "length", "request", "trailers")

    def __init__(self, stream: Stream, length: int, *, request: bool, limit: int) -> None:
        self._stream = stream
        self._limit = limit
        self._chunk = -1 if length == CHUNKED else length
        """Bytes still to come of the body or the chunk; -1 before a chunk's line, -2 before its data's CRLF."""
        self.length = length
        self.request = request
        self.complete = not length
        self.trailers: Fields | None = None

    @property
    def clock(self) -> Callable[[], float]:
        """The clock that deadlines are on."""
        return self._stream.loop.time

    def take(self) -> bytes:
        """What has arrived of the body, without waiting; empty where nothing has.

        :raises BadRequest, UpstreamProtocolError: the chunked coding is broken
        """
        stream = self._stream
        if self.complete or not stream.buffer:
            return b""
        stream.resume()
        if self.length >= 0:
            data, stream.buffer = stream.buffer, b""
            if len(data) > self._chunk:
                data, stream.buffer = data[: self._chunk], data[self._chunk :]
            self._chunk -= len(data)
            self.complete = self._chunk == 0
            return data
        if self.length == CHUNKED:
            return self._take_chunks()
        data, stream.buffer = stream.buffer, b""
        return data

    async def read(self, due: float) -> bytes:
        """The next piece; empty at the body's end, and only there.

        :param due: on the loop's clock, for this piece
        :raises TimeoutError: nothing arrived until ``due``
        :raises ClientClosed, UpstreamClosed: the stream ended before the body did
        :raises BadRequest, UpstreamProtocolError: the chunked coding is broken
        """
        while not (data := self.take()) and not self.complete:
            try:
                more = await self._stream.receive(due)
            except OSError as lost:
                if isinstance(lost, TimeoutError) and self._stream.lost is None:
                    raise
                raise self._cut_short() from None
            if not more:
                if self.length == UNTIL_CLOSE:
                    self.complete = True
                    continue
                raise self._cut_short()
        return data

    async def read_within(self, seconds: float) -> bytes:
        """As ``read``, with a deadline that many seconds from now."""
        return await self.read(self._stream.loop.time() + seconds)

    def _take_chunks(self) -> bytes:
        buffer = self._stream.buffer
        position, pieces = 0, []
        while position < len(buffer):
            if self._chunk > 0:
                piece = buffer[position : position + self._chunk]
                pieces.append(piece)
                position += len(piece)
                self._chunk = (self._chunk - len(piece)) or -2
            elif self._chunk == -2:
                if len(buffer) - position < 2 and buffer[position] == 13:
                    break
                if buffer[position : position + 2] != b"\r\n":
                    raise self._broken("A chunk's data does not end where its size says")
                position, self._chunk = position + 2, -1
            elif self._chunk == -1:
                end = buffer.find(b"\r\n", position, position + LONGEST_CHUNK_LINE)
                if end < 0:
                    self._check_partial(buffer[position : position + LONGEST_CHUNK_LINE])
                    break
                position, self._chunk = end + 2, self._size(buffer[position:end])
            else:
                position = self._end(buffer, position)
                break
        self._stream.buffer = buffer[position:]
        return b"".join(pieces)

    def _size(self, line: bytes) -> int:
        parts = _CHUNK_LINE.fullmatch(line)
        if parts is None:
            raise self._broken("A chunk's size is malformed")
        return int(parts[1], 16)

    def _check_partial(self, line: bytes) -> None:
        # Refused as soon as it can't become a size any more, rather than when the sender gives up.
        if len(line) >= LONGEST_CHUNK_LINE or not _CHUNK_LINE_SO_FAR.fullmatch(line):
            raise self._broken("A chunk's size is malformed")

    def _end(self, buffer: bytes, position: int) -> int:
        if buffer.startswith(b"\r\n", position):
            self.complete = True
            return position + 2
        end = buffer.find(b"\r\n\r\n", position)
        if end < 0:
            if len(buffer) - position >= self._limit + 4:
                raise self._broken("The trailer section is too large")
            return position
        if end - position > self._limit:
            raise self._broken("The trailer section is too large")
        error = BadRequest if self.request else UpstreamProtocolError
        self.trailers = parse_fields(buffer[position : end + 2], error)
        self.complete = True
        return end + 4

    def _broken(self, what: str) -> BadRequest | UpstreamProtocolError:
        if self.request:
            return BadRequest(f"{what} (RFC 9112 7.1).")
        return UpstreamProtocolError(f"{what} in the upstream's answer.")

    def _cut_short(self) -> ClientClosed | UpstreamClosed:
        if self.request:
            return ClientClosed("The client left in the middle of its request.")
        return UpstreamClosed("The upstream closed the connection in the middle of its answer.")


def chunk(data: bytes) -> bytes:
    """Data as one chunk (RFC 9112 7.1)."""
    return b"%x\r\n%b\r\n" % (len(data), data)


LAST_CHUNK = b"0\r\n\r\n"
