"""The login and the API of the soak, which can be restarted, and revoke tokens."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import re
import ssl

from tests.support.flow import PIECE, check_flow, framing, send_flow

LIFETIME = 20
"""Seconds of a token, so that each is refreshed some times in a run."""

EVENTS = 15

_REQUEST_LINE = re.compile(rb"([A-Z]+) (\S+) HTTP/1\.1\r\n")
_LENGTH = re.compile(rb"\r\nContent-Length: (\d+)\r\n", re.IGNORECASE)
_CREDENTIAL = re.compile(rb"\r\nAuthorization: Bearer (\S+)\r\n")

_ME = b'{"id":"1","name":"x","selfUri":"/api/v2/users/me"}'


class Place:
    """A port that can go away and come back.

    :param tls: what connections speak
    """

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.port = 0
        self._tls = tls
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", self.port, ssl=self._tls, limit=PIECE)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Refuses connections from now on, and breaks off those there are."""
        assert self._server is not None
        self._server.close()
        for writer in list(self._writers):
            writer.transport.abort()

    async def restart(self, seconds: float) -> None:
        await self.stop()
        await asyncio.sleep(seconds)
        await self.start()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        # Whatever a client does, aborts included, is what the soak is for.
        with contextlib.suppress(asyncio.IncompleteReadError, OSError, AssertionError):
            while await self.answer(reader, writer):
                await writer.drain()
        self._writers.discard(writer)
        writer.transport.abort()

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Answers one request; whether another may follow."""
        raise NotImplementedError


class Login(Place):
    """Issues tokens, and forgets them all when they are revoked.

    :ivar issued: how many so far
    """

    def __init__(self) -> None:
        super().__init__()
        self.valid: set[bytes] = set()
        self.issued = 0
        self._number = itertools.count(1)

    def revoke(self) -> None:
        self.valid.clear()

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = await reader.readuntil(b"\r\n\r\n")
        length = _LENGTH.search(head)
        await reader.readexactly(int(length[1]) if length else 0)
        token = f"token-{next(self._number)}"
        self.issued += 1
        self.valid.add(token.encode())
        body = json.dumps({"access_token": token, "token_type": "bearer", "expires_in": LIFETIME}).encode()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n" + framing(len(body), chunked=False))
        writer.write(b"\r\n" + body)
        return True


class Api(Place):
    """Answers every kind of request that the clients make, to whoever has a token that is valid.

    :ivar refused: tokens that it did not take
    :ivar done: requests that it did
    """

    def __init__(self, login: Login, tls: ssl.SSLContext | None) -> None:
        super().__init__(tls)
        self.refused = 0
        self.done = 0
        self._login = login

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = await reader.readuntil(b"\r\n\r\n")
        line, credential = _REQUEST_LINE.match(head), _CREDENTIAL.search(head)
        assert line is not None, head
        if credential is None or credential[1] not in self._login.valid:
            self.refused += 1
            if b"Expect: 100-continue" not in head:
                await self._skip(head, reader)
            writer.write(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n")
            return True
        self.done += 1
        _, _, _, kind, *rest = line[2].split(b"/")
        match kind:
            case b"flow":
                await self._flow(head, rest, reader, writer)
            case b"events":
                await self._events(writer)
            case b"socket":
                await self._socket(reader, writer)
                return False
            case _:
                await self._skip(head, reader)
                writer.write(b"HTTP/1.1 200 OK\r\n" + framing(len(_ME), chunked=False) + b"\r\n" + _ME)
        return True

    async def _skip(self, head: bytes, reader: asyncio.StreamReader) -> None:
        if length := _LENGTH.search(head):
            await reader.readexactly(int(length[1]))
        elif b"Transfer-Encoding" in head:
            while size := int((await reader.readuntil(b"\r\n"))[:-2], 16):
                await reader.readexactly(size + 2)
            await reader.readexactly(2)

    async def _flow(
        self, head: bytes, rest: list[bytes], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        chunked, size = rest[0] == b"chunks", int(rest[1])
        if head.startswith(b"GET"):
            writer.write(b"HTTP/1.1 200 OK\r\n" + framing(size, chunked=chunked) + b"\r\n")
            await send_flow(writer, size, chunked=chunked)
            return
        if b"Expect: 100-continue" in head:
            writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        await check_flow(reader, size, chunked=chunked)
        writer.write(b"HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n")

    async def _events(self, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        for number in range(EVENTS):
            event = b"data: %d\n\n" % number
            writer.write(b"%x\r\n%b\r\n" % (len(event), event))
            await writer.drain()
            await asyncio.sleep(0.05)
        writer.write(b"0\r\n\r\n")

    async def _socket(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Sends back whatever comes, until the client ends."""
        writer.write(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
        while piece := await reader.read(PIECE):
            writer.write(piece)
            await writer.drain()
