"""A stream under test and the raw peer it is connected to."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

from proxy.errors import ProxyError
from proxy.wire.server import Limits
from proxy.wire.stream import Stream
from tests.support.peers import Peer, Server, dial


def limits(*, head_timeout: float = 15, idle_timeout: float = 75, most: int = 100, **changed: int) -> Limits:
    """Limits that no test meets unless it says so.

    :param most: connections
    """
    given = {"max_header_bytes": 4096, "max_requests": 10_000, "max_pipelined": 1000, **changed}
    return Limits(head_timeout=head_timeout, idle_timeout=idle_timeout, max_connections=most, **given)


def refusal(error: ProxyError) -> bytes:
    """What a connection is told that is not served: the error's name."""
    return type(error).__name__.encode()


async def goes_on(wait: Coroutine[Any, Any, object], seconds: float = 0.06) -> bool:
    """Whether a wait is not over after a while; it is given up then."""
    loop = asyncio.get_running_loop()
    waiting = loop.create_task(wait, name="a wait that a test gives up")
    done, _ = await asyncio.wait({waiting}, timeout=seconds)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    return not done


@contextlib.asynccontextmanager
async def pair(
    kind: Callable[[asyncio.AbstractEventLoop], Stream] = Stream, *, buffer: int | None = None
) -> AsyncIterator[tuple[Stream, Peer]]:
    """One connection over loopback, from both sides.

    :param buffer: bytes that the kernel keeps on either end in each direction; else it decides, up to megabytes
    """
    loop = asyncio.get_running_loop()
    async with Server(buffer=buffer) as server:
        _, stream = await loop.create_connection(lambda: kind(loop), sock=await dial(server.port, buffer=buffer))
        try:
            yield stream, await server.accept()
        finally:
            stream.transport.abort()


def say_and_break_off(listening: socket.socket, said: bytes) -> None:
    """Accepts a connection, sends this and resets it, at one go: an event loop has read nothing when it is over."""
    peer, _ = listening.accept()
    peer.sendall(said)
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    peer.close()
