"""The upstream of a case: it follows a script, and records what reached it byte for byte."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import socket
import struct
import time
from collections.abc import Sequence

from tests.conformance import messages, script
from tests.conformance.observation import Bell, Record, Request

_LIMIT = 64 * 1024 * 1024
"""Bytes that a stream buffers; no case comes near."""

ANSWER = script.Reply((script.Send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"),))
"""What the upstream answers where a case says nothing about it."""

_WEBSOCKET_GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
"""RFC 6455 1.3."""


class _Gone(Exception):
    """The connection is over, by the script or by the proxy."""


class ScriptedUpstream:
    """Listens on a free loopback port and plays one case after the other.

    Each case has a record of its own; between cases all connections are closed, so that none carries anything
    from one to the next.
    """

    def __init__(self) -> None:
        self.port = 0
        self.bell = Bell()
        self._server: asyncio.Server | None = None
        self._conversations: set[asyncio.Task[None]] = set()
        self._replies: Sequence[script.Reply] = (ANSWER,)
        self._watching = False
        self._record = Record()

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._converse, "127.0.0.1", 0, limit=_LIMIT)
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        await self.rest()
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()

    def play(self, replies: Sequence[script.Reply], *, watching: bool = False) -> Record:
        """Answer from now on with these, one for each request, the last again and again.

        :param watching: notice in a pause that the proxy has left
        """
        self._replies, self._watching, self._record = replies or (ANSWER,), watching, Record()
        return self._record

    async def rest(self) -> bool:
        """Close every connection; whether there were any."""
        conversations = list(self._conversations)
        for task in conversations:
            task.cancel()
        await asyncio.gather(*conversations)
        return bool(conversations)

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._conversations.add(task)
        record, number = self._record, len(self._record.raw)
        record.raw.append(bytearray())
        conversation = _Conversation(reader, writer, record, self.bell, watching=self._watching)
        try:
            while (request := await conversation.head()) is not None:
                replied = len(record.requests) - 1
                await conversation.reply(request, self._replies[min(replied, len(self._replies) - 1)])
        except (_Gone, OSError, ValueError):  # ValueError: a length or chunk size that int() can't read either
            pass
        except asyncio.CancelledError:
            pass  # rest() is the only one who cancels, and this is the task's outermost frame
        finally:
            record.ended[number] = time.monotonic()
            self._conversations.discard(task)
            self.bell.ring()
            writer.close()


class _Conversation:
    """One connection from the proxy.

    It reads as laxly as a careless server, so that what a proxy should have refused can do its damage here and
    be seen.
    """

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        record: Record,
        bell: Bell,
        *,
        watching: bool,
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._record = record
        self._raw = record.raw[-1]
        self._bell = bell
        self._watching = watching
        self._buffer = bytearray()
        self._tunnel = False

    async def head(self) -> Request | None:
        """The next request, its content not yet read; None at the connection's end."""
        try:
            head = b""
            while not head:  # empty lines before a request line go unnoticed (RFC 9112 2.2)
                head = (await self._until(b"\r\n\r\n")).removeprefix(b"\r\n")
        except _Gone:
            if self._buffer.strip() and not self._tunnel:
                self._note(Request())
            return None
        line, _, block = head.partition(b"\r\n")
        fields = messages.read_fields(block)
        return self._note(Request(line.decode("latin-1"), fields, framing=messages.framing(fields)))

    async def reply(self, request: Request, reply: script.Reply) -> None:
        """Answer one request; raises ``_Gone`` where that ends the connection."""
        if not reply.before_body:
            await self._content(request)
        for step in reply.steps:
            await self._perform(step, request)
        if reply.before_body:
            await self._content(request)

    async def _perform(self, step: script.UpstreamStep, request: Request) -> None:
        match step:
            case script.Send(data, times):
                await self._write(data * times)
            case script.Pause(seconds):
                await self._pause(seconds)
            case script.SwitchToWebSocket():
                self._tunnel = True
                await self._write(_switching_protocols(request))
            case script.Read(count):
                await self._fill(count)
                request.body += self._buffer
                self._buffer.clear()
            case script.Close():
                raise _Gone
            case script.Reset():
                reset(self._writer)
                raise _Gone

    async def _pause(self, seconds: float) -> None:
        if not self._watching:
            await asyncio.sleep(seconds)
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while True:
                    await self._more()

    async def _content(self, request: Request) -> None:
        lengths = messages.values(request.fields, "content-length")
        if any("chunked" in value.lower() for value in messages.values(request.fields, "transfer-encoding")):
            await self._chunked(request)
        elif lengths:
            await self._take(int(lengths[0]), request)
        request.complete = True
        self._bell.ring()

    async def _chunked(self, request: Request) -> None:
        while size := int((await self._until(b"\r\n")).split(b";")[0].strip() or b"0", 16):
            await self._take(size, request)
            await self._fill(2)
            del self._buffer[:2]
        while trailer := (await self._until(b"\r\n")).decode("latin-1"):
            request.fields.append((messages.TRAILER + trailer.split(":")[0], trailer))

    async def _take(self, size: int, request: Request) -> None:
        """Add so many bytes to the request's content; of what breaks off, those that came."""
        if size < 0:
            raise ValueError(size)
        try:
            await self._fill(size)
        finally:
            request.body += self._buffer[:size]
            del self._buffer[:size]

    async def _until(self, end: bytes) -> bytes:
        """What stands before ``end``; both are taken."""
        while (at := self._buffer.find(end)) < 0:
            await self._more()
        before = bytes(self._buffer[:at])
        del self._buffer[: at + len(end)]
        return before

    async def _fill(self, size: int) -> None:
        while len(self._buffer) < size:
            await self._more()

    async def _more(self) -> None:
        data = await self._reader.read(65536)
        if not data:
            raise _Gone
        self._raw += data
        self._buffer += data
        self._bell.ring()

    async def _write(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()

    def _note(self, request: Request) -> Request:
        self._record.requests.append(request)
        self._bell.ring()
        return request


def _switching_protocols(request: Request) -> bytes:
    key = (messages.values(request.fields, "sec-websocket-key") or [""])[0]
    accept = base64.b64encode(hashlib.sha1((key + _WEBSOCKET_GUID).encode("latin-1")).digest())
    return (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n"
    )


def reset(writer: asyncio.StreamWriter) -> None:
    """Close with RST and drop what is not yet sent."""
    connection: socket.socket = writer.get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
