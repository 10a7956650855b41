"""An upstream that records each request byte for byte and answers as it is told."""

from __future__ import annotations

import asyncio
import re
from collections import deque
from dataclasses import dataclass
from typing import Self

_LIMIT = 16 * 1024 * 1024
"""Bytes of one line or head; no test comes near."""

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
REFUSED = b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 2\r\n\r\nno"


@dataclass(frozen=True, slots=True)
class Recorded:
    """One request as it arrived."""

    line: bytes
    """Without its CRLF."""
    fields: tuple[bytes, ...]
    """Lines without their CRLF, in their order."""
    body: bytes
    """With its framing, if it came in chunks."""

    @property
    def target(self) -> bytes:
        return self.line.split(b" ")[1]

    @property
    def authorization(self) -> list[bytes]:
        """The values of all ``Authorization`` fields."""
        found = (re.fullmatch(rb"authorization:[ \t]*(.*)", line, re.IGNORECASE) for line in self.fields)
        return [match[1] for match in found if match]


class Recorder:
    """Listens on a free loopback port while its context lasts.

    :ivar requests: what has arrived, oldest first
    :ivar answers: what it answers next, each once; afterwards ``OK``
    """

    def __init__(self) -> None:
        self.requests: list[Recorded] = []
        self.answers: deque[bytes] = deque()
        self._server: asyncio.Server | None = None
        self._serving: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        assert self._server is not None
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, limit=_LIMIT)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for task in list(self._serving):
            task.cancel()
        await asyncio.gather(*self._serving, return_exceptions=True)
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._serving.add(task)
        try:
            while True:
                self.requests.append(await _read(reader))
                writer.write(self.answers.popleft() if self.answers else OK)
        except (asyncio.IncompleteReadError, asyncio.CancelledError, OSError):
            pass  # the proxy is gone, or the test is over
        finally:
            self._serving.discard(task)
            writer.transport.abort()


async def _read(reader: asyncio.StreamReader) -> Recorded:
    head = (await reader.readuntil(b"\r\n\r\n")).removesuffix(b"\r\n\r\n")
    line, *fields = head.split(b"\r\n")
    body = b""
    lengths = [int(field.partition(b":")[2]) for field in fields if field.lower().startswith(b"content-length:")]
    if lengths:
        body = await reader.readexactly(lengths[0])
    elif any(field.lower().startswith(b"transfer-encoding:") for field in fields):
        body = await _chunks(reader)
    return Recorded(line, tuple(fields), body)


async def _chunks(reader: asyncio.StreamReader) -> bytes:
    """A body in chunks, without trailers."""
    body, length = b"", 1
    while length:
        size = await reader.readuntil(b"\r\n")
        length = int(size, 16)
        body += size + await reader.readexactly(length + 2)
    return body
