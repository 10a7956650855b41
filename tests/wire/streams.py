"""A stream under test and the raw peer it is connected to."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

from proxy.wire.stream import Stream
from tests.support.peers import Peer, Server, dial


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
