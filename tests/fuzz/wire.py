"""One end of a connection in memory, byte for byte, for the protocols of ``proxy.wire``."""

from __future__ import annotations

import asyncio
import os
import socket
from collections import deque
from collections.abc import Callable
from typing import Any


class _Options:
    """As much of a socket as whoever resets a connection uses of it."""

    family = socket.AF_INET
    _silent, _ = os.pipe()

    def __init__(self) -> None:
        self.lingers = True

    def fileno(self) -> int:
        """Of a file from which nothing can be read."""
        return self._silent

    def setsockopt(self, level: int, option: int, value: bytes) -> None:
        if (level, option) == (socket.SOL_SOCKET, socket.SO_LINGER):
            self.lingers = False


class Wire(asyncio.Transport):
    """A transport whose peer is the test.

    :ivar sent: what the protocol has sent and the peer has taken
    :ivar taking: the peer takes what is sent; see ``take``
    :ivar heard: called when the peer has got more, or the end
    :ivar ended: the protocol has ended its direction, or closed
    :ivar broken: the peer was told by a reset that what it has is not the whole
    :ivar lost: the connection is gone
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, protocol: asyncio.Protocol) -> None:
        super().__init__()
        self.sent = bytearray()
        self.taking = True
        self.heard: Callable[[Wire], None] = lambda _: None
        self.ended = False
        self.broken = False
        self.lost = False
        self._loop = loop
        self._protocol = protocol
        self._options = _Options()
        self._unsent = bytearray()
        self._most_unsent = 65_536
        self._full = False
        self._closing = False
        self._paused = False
        self._coming: deque[bytes | None] = deque()
        protocol.connection_made(self)

    # --- the peer ---

    def feed(self, data: bytes) -> None:
        """The peer sends."""
        self._coming.append(data)
        self._deliver()

    def feed_end(self) -> None:
        """The peer says that it sends no more."""
        self._coming.append(None)
        self._deliver()

    def reset(self) -> None:
        """The peer breaks off."""
        self._closing = True
        self._loop.call_soon(self._lose, ConnectionResetError("reset by the peer"))

    def take(self) -> None:
        """The peer takes what was sent, from now on."""
        self.taking = True
        self._send()

    def _deliver(self) -> None:
        while self._coming and not self._paused and not self._closing:
            data = self._coming.popleft()
            if data is not None:
                self._protocol.data_received(data)
            elif not self._protocol.eof_received():
                self.close()

    def _send(self) -> None:
        if not self.taking or self.lost:
            return
        self.sent += self._unsent
        self._unsent.clear()
        self._loop.call_soon(self.heard, self)
        if self._full:
            self._full = False
            self._protocol.resume_writing()
        if self._closing:
            self._loop.call_soon(self._lose, None)

    def _lose(self, error: Exception | None) -> None:
        if not self.lost:
            self.lost = self.ended = True
            self._loop.call_soon(self.heard, self)
            self._protocol.connection_lost(error)

    # --- asyncio.Transport ---

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self._options if name == "socket" else default

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self._most_unsent = high or 0

    def write(self, data: Any) -> None:
        if self._closing:
            return
        assert not self.ended, "nothing is written behind the end"
        self._unsent += data
        self._send()
        if len(self._unsent) > self._most_unsent and not self._full:
            self._full = True
            self._protocol.pause_writing()

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self.ended = True
        self._loop.call_soon(self.heard, self)

    def pause_reading(self) -> None:
        self._paused = True

    def resume_reading(self) -> None:
        self._paused = False
        self._loop.call_soon(self._deliver)

    def is_closing(self) -> bool:
        return self._closing

    def close(self) -> None:
        if not self._closing:
            self._closing = True
            self._send()

    def abort(self) -> None:
        self._closing = True
        self.broken = self.broken or not self._options.lingers or bool(self._unsent)
        self._unsent.clear()
        self._loop.call_soon(self._lose, None)
