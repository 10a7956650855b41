"""Messages between a supervisor and a worker: JSON, each with some bytes beside it, over a socket pair of theirs."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import struct
from collections.abc import Mapping
from typing import Any, Self

_LENGTHS = struct.Struct("!II")
"""Of the JSON text and of the bytes behind it."""

Words = dict[str, Any]


class Channel:
    """One end of a socket pair. Any task may send, one receives."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def over(cls, sock: socket.socket) -> Self:
        """The channel of a connected stream socket, which is the channel's to close."""
        return cls(*await asyncio.open_unix_connection(sock=sock))

    def tell(self, words: Mapping[str, object], content: bytes = b"") -> None:
        """Sends a message, or nothing where the other end is gone; ``receive`` notices that."""
        if self._writer.is_closing():
            return
        text = json.dumps(words, separators=(",", ":")).encode()
        self._writer.write(_LENGTHS.pack(len(text), len(content)) + text + content)

    async def flush(self) -> None:
        """Waits until the other end has taken most of what was sent.

        :raises OSError: it is gone
        """
        await self._writer.drain()

    async def receive(self) -> tuple[Words, bytes]:
        """The next message.

        :raises EOFError: the other end is gone
        """
        try:
            text, content = _LENGTHS.unpack(await self._reader.readexactly(_LENGTHS.size))
            words: Words = json.loads(await self._reader.readexactly(text))
            return words, await self._reader.readexactly(content)
        except OSError as error:
            raise EOFError from error

    def close(self) -> None:
        """Ends it, for the other end too, once that has taken what was sent."""
        self._writer.close()

    async def closed(self) -> None:
        """Waits for the end of a ``close``."""
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()
