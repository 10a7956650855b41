"""Bodies of any size, made and checked as they pass so that no test holds one, and an API that takes and gives them."""

from __future__ import annotations

import asyncio
import contextlib
import random
import re
import ssl
from collections.abc import AsyncIterator

PATTERN = random.Random(0).randbytes(1 << 20)
"""What every body repeats."""

PIECE = 1 << 16

_SIZE = re.compile(rb"/api/v2/flow/(length|chunks)/(\d+) ")
_LENGTH = re.compile(rb"\r\nContent-Length: (\d+)\r\n", re.IGNORECASE)


def framing(size: int, *, chunked: bool) -> bytes:
    """The field for a body."""
    return b"Transfer-Encoding: chunked\r\n" if chunked else b"Content-Length: %d\r\n" % size


async def send_flow(writer: asyncio.StreamWriter, size: int, *, chunked: bool) -> None:
    """Sends a body as fast as the other end takes it."""
    for at in range(0, size, PIECE):
        start = at % len(PATTERN)
        piece = PATTERN[start : start + min(PIECE, size - at)]
        writer.write(b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else piece)
        await writer.drain()
    if chunked:
        writer.write(b"0\r\n\r\n")
        await writer.drain()


async def check_flow(reader: asyncio.StreamReader, size: int, *, chunked: bool) -> None:
    """Reads a body to its end, byte for byte.

    :raises AssertionError: it is another
    """
    at = 0
    while at < size:
        if chunked:
            due = int((await reader.readuntil(b"\r\n"))[:-2], 16)
            assert due
        else:
            due = size
        while due and at < size:
            piece = await reader.read(min(due, PIECE, len(PATTERN) - at % len(PATTERN)))
            assert piece
            assert piece == PATTERN[at % len(PATTERN) :][: len(piece)], f"another body from byte {at} on"
            at += len(piece)
            due -= len(piece)
        if chunked:
            assert await reader.readexactly(2) == b"\r\n"
    assert at == size
    if chunked:
        assert await reader.readexactly(5) == b"0\r\n\r\n"


class FlowApi:
    """An API that takes a body of any size (POST ``/api/v2/flow/length/SIZE``) or gives one (GET; also ``chunks``).

    The first token that it is shown for a body that it can refuse before it comes, it refuses.

    :ivar taken: bodies that arrived whole
    :ivar refused: the tokens that it does not take any more
    :ivar reading: while it is not set, bodies are not read
    """

    def __init__(self) -> None:
        self.port = 0
        self.taken = 0
        self.refused: set[bytes] = set()
        self.reading = asyncio.Event()
        self.reading.set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, OSError):
            while True:
                await self._answer(await reader.readuntil(b"\r\n\r\n"), reader, writer)
                await writer.drain()
        writer.transport.abort()

    async def _answer(self, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked = _SIZE.search(head)
        if asked is None:
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
            return
        chunked, size = asked[1] == b"chunks", int(asked[2])
        if head.startswith(b"GET"):
            writer.write(b"HTTP/1.1 200 OK\r\n" + framing(size, chunked=chunked) + b"\r\n")
            await send_flow(writer, size, chunked=chunked)
            return
        if b"Expect: 100-continue" in head:
            token = head.partition(b"Authorization: ")[2].partition(b"\r\n")[0]
            if not self.refused or token in self.refused:
                self.refused.add(token)
                writer.write(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n")
                return
            writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        await self.reading.wait()
        await check_flow(reader, size, chunked=chunked)
        self.taken += 1
        writer.write(b"HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n")


@contextlib.asynccontextmanager
async def flow_api(tls: ssl.SSLContext | None = None) -> AsyncIterator[FlowApi]:
    """Serves on a free loopback port while the context lasts."""
    api = FlowApi()
    server = await asyncio.start_server(api.serve, "127.0.0.1", 0, ssl=tls, limit=PIECE)
    api.port = server.sockets[0].getsockname()[1]
    try:
        yield api
    finally:
        server.close()
