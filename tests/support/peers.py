"""The other end of a connection, byte for byte: raw clients of the proxy, and raw upstreams behind it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import socket
import ssl
import struct
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Self

PATIENCE = 20.0
"""Seconds for anything that should come at once; a machine under load needs some of them."""

_LIMIT = 1 << 24
"""Bytes that a stream buffers before it stops reading; ``open_peer`` and ``Server`` can be told less."""

_FIELD = re.compile(rb"([^:]*):[ \t]*(.*?)[ \t]*", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Message:
    """One message as it arrived."""

    start: bytes
    """The request or status line."""
    lines: tuple[bytes, ...]
    """Of the header section, without their CRLF, in order."""
    body: bytes
    """Without its framing."""
    chunks: tuple[bytes, ...] = ()
    """The same as the chunks it came in."""
    trailers: tuple[bytes, ...] = ()

    @property
    def status(self) -> int:
        return int(self.start.split(b" ")[1])

    @property
    def target(self) -> bytes:
        return self.start.split(b" ")[1]

    def all(self, name: bytes) -> list[bytes]:
        """The values of the fields with this name, in order."""
        found = [_FIELD.fullmatch(line) for line in self.lines]
        return [match[2] for match in found if match and match[1].lower() == name.lower()]

    def get(self, name: bytes) -> bytes | None:
        """The value of the one field with this name, None where there is none."""
        values = self.all(name)
        assert len(values) < 2, f"{name!r} more than once: {self.lines!r}"
        return values[0] if values else None


class Peer:
    """One end of a connection.

    :ivar patience: seconds within which whatever is waited for must come; None for a peer that only serves
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.patience: float | None = PATIENCE
        self._reader = reader
        self._writer = writer

    def send(self, *pieces: bytes) -> None:
        """Sends, unless the other end has broken off."""
        if not self._writer.is_closing():
            self._writer.write(b"".join(pieces))

    async def send_slowly(self, data: bytes, size: int = 1) -> None:
        """Sends in pieces that arrive one by one."""
        for at in range(0, len(data), size):
            self.send(data[at : at + size])
            for _ in range(3):
                await asyncio.sleep(0)

    async def send_all(self, data: bytes) -> None:
        """Waits until the kernel has taken it.

        :raises TimeoutError: it has not, because the other end does not read
        """
        transport = self._writer.transport
        transport.set_write_buffer_limits(0)
        self.send(data)
        async with asyncio.timeout(self.patience):
            await self._writer.drain()

    async def push(self, most: int, piece: bytes = b"x" * 65536) -> int:
        """Sends a piece again and again until the other end takes no more for a while, or ``most`` bytes.

        :return: how many it took
        """
        transport = self._writer.transport
        transport.set_write_buffer_limits(0)
        sent = 0
        with contextlib.suppress(OSError):  # TimeoutError is one
            while sent < most:
                self.send(piece)
                async with asyncio.timeout(0.15):
                    await self._writer.drain()
                sent += len(piece)
        return sent

    async def read(self, size: int) -> bytes:
        """Exactly so many bytes."""
        async with asyncio.timeout(self.patience):
            return await self._reader.readexactly(size)

    async def some(self) -> bytes:
        """What comes next, however much it is; empty at the end."""
        async with asyncio.timeout(self.patience):
            return await self._reader.read(1 << 20)

    async def until(self, mark: bytes) -> bytes:
        """Everything up to and with a mark."""
        async with asyncio.timeout(self.patience):
            return await self._reader.readuntil(mark)

    async def head(self) -> Message:
        """The next head, its body still to be read."""
        start, *lines = (await self.until(b"\r\n\r\n"))[:-4].split(b"\r\n")
        return Message(start, tuple(lines), b"")

    async def message(self, *, bodiless: bool = False) -> Message:
        """The next message with its body.

        :param bodiless: an answer that has none whatever its fields say, as to HEAD
        """
        head = await self.head()
        status = head.start.split(b" ")[1] if head.start.startswith(b"HTTP/") else b""
        if bodiless or status in (b"204", b"304") or status.startswith(b"1"):
            return head
        if head.get(b"Transfer-Encoding") is not None:
            assert head.get(b"Transfer-Encoding") == b"chunked"
            assert head.get(b"Content-Length") is None
            chunks, trailers = await self._chunks()
            return Message(head.start, head.lines, b"".join(chunks), tuple(chunks), tuple(trailers))
        length = head.get(b"Content-Length")
        if length is None and status:
            return Message(head.start, head.lines, await self.rest())
        return Message(head.start, head.lines, await self.read(int(length or 0)))

    async def _chunks(self) -> tuple[list[bytes], list[bytes]]:
        chunks: list[bytes] = []
        while size := int((await self.until(b"\r\n"))[:-2], 16):
            chunks.append(await self.read(size))
            assert await self.read(2) == b"\r\n"
        trailers: list[bytes] = []
        while line := (await self.until(b"\r\n"))[:-2]:
            trailers.append(line)
        return chunks, trailers

    async def rest(self) -> bytes:
        """Everything until the other end says that there is no more.

        :raises ConnectionResetError: it broke off instead
        """
        async with asyncio.timeout(self.patience):
            return await self._reader.read()

    async def ended(self) -> bool:
        """Waits for the end of the connection; False if it was broken off. What comes before is dropped."""
        try:
            await self.rest()
        except ConnectionResetError:
            return False
        return True

    async def silent(self, seconds: float = 0.05) -> bool:
        """Whether nothing arrives and the connection stays for a while."""
        try:
            async with asyncio.timeout(seconds):
                await self._reader.readexactly(1)
        except TimeoutError:
            return True
        except (asyncio.IncompleteReadError, OSError):
            return False
        return False

    async def copy_to(self, writer: asyncio.StreamWriter) -> None:
        """Passes on what comes, and its end."""
        while piece := await self._reader.read(65536):
            writer.write(piece)
            await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()

    async def copy_from(self, reader: asyncio.StreamReader) -> None:
        """Sends what comes from there, and its end."""
        while piece := await reader.read(65536):
            self._writer.write(piece)
            await self._writer.drain()
        if self._writer.can_write_eof():
            self._writer.write_eof()

    async def start_tls(self, context: ssl.SSLContext) -> None:
        """Shakes hands, as a server.

        :raises OSError: the other end does not
        """
        async with asyncio.timeout(self.patience):
            await self._writer.start_tls(context)

    def stop_reading(self) -> None:
        self._writer.transport.pause_reading()  # type: ignore[attr-defined]  # what asyncio.Transport has

    def resume_reading(self) -> None:
        self._writer.transport.resume_reading()  # type: ignore[attr-defined]

    def end(self) -> None:
        """Sends no more, and still reads."""
        self._writer.write_eof()

    def close(self) -> None:
        self._writer.close()

    def reset(self) -> None:
        """Breaks the connection off, if it is not over."""
        if self.closed:
            return
        found = self._writer.get_extra_info("socket")
        found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._writer.transport.abort()

    def cut(self) -> None:
        """Ends the connection beneath TLS, without TLS's own end, as anybody on the way could (RFC 9112 9.8)."""
        with socket.socket(fileno=os.dup(self._writer.get_extra_info("socket").fileno())) as beneath:
            beneath.shutdown(socket.SHUT_WR)

    @property
    def closed(self) -> bool:
        """This end is over as well."""
        return self._writer.is_closing()


async def dial(port: int, *, buffer: int | None = None) -> socket.socket:
    """A connection to a loopback port.

    :param buffer: bytes that the kernel keeps on this end in each direction; else it decides, up to megabytes
    """
    sock = socket.socket(proto=socket.IPPROTO_TCP)  # so that asyncio switches Nagle's algorithm off
    sock.setblocking(False)
    if buffer is not None:
        _shrink(sock, buffer)
    try:
        async with asyncio.timeout(PATIENCE):
            await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", port))
    except BaseException:
        sock.close()
        raise
    return sock


def _shrink(sock: socket.socket, buffer: int) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffer)


@contextlib.asynccontextmanager
async def open_peer(port: int, *, buffer: int | None = None, tls: ssl.SSLContext | None = None) -> AsyncIterator[Peer]:
    """A client of a loopback port, closed with the context.

    :param buffer: as in ``dial``, where a test looks at backpressure
    :param tls: for a server that is called localhost
    """
    sock = await dial(port, buffer=buffer)
    name = None if tls is None else "localhost"
    reader, writer = await asyncio.open_connection(sock=sock, limit=buffer or _LIMIT, ssl=tls, server_hostname=name)
    try:
        yield Peer(reader, writer)
    finally:
        writer.transport.abort()


class Server:
    """Listens on a free loopback port while its context lasts; each connection is a Peer for the test.

    :ivar connections: how many were made so far
    :param buffer: as in ``dial``
    """

    def __init__(self, tls: ssl.SSLContext | None = None, *, buffer: int | None = None) -> None:
        self.connections = 0
        self.port = 0
        self._tls = tls
        self._buffer = buffer
        self._waiting: asyncio.Queue[Peer] = asyncio.Queue()
        self._writers: list[asyncio.StreamWriter] = []

    async def __aenter__(self) -> Self:
        await self.listen()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.stop()

    async def listen(self) -> None:
        """Accepts from now on, at the same port as before if there was one."""
        sock = socket.create_server(("127.0.0.1", self.port))
        if self._buffer is not None:
            _shrink(sock, self._buffer)
        self.port = sock.getsockname()[1]
        self._server = await asyncio.start_server(self._accept, sock=sock, ssl=self._tls, limit=self._buffer or _LIMIT)

    def stop(self) -> None:
        """Refuses connections from now on, and breaks off those there are."""
        self._server.close()
        for writer in self._writers:
            writer.transport.abort()

    async def accept(self) -> Peer:
        """The next connection."""
        async with asyncio.timeout(PATIENCE):
            return await self.next()

    async def next(self) -> Peer:
        """The next connection, however long it takes."""
        return await self._waiting.get()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._writers.append(writer)
        self._waiting.put_nowait(Peer(reader, writer))
