"""Clients that go on asking over kept connections, and count what they did not get; and whether a process lives."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
from collections import Counter
from collections.abc import AsyncIterator

REQUEST = (
    b"POST /t/%b/api/v2/messaging/contacts HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    b"Content-Length: 2\r\n\r\n{}"
)
"""A request that no client library would send again by itself."""

PATIENCE = 30.0
"""Seconds for an answer; a machine under load needs some of them."""

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_CLOSE = re.compile(rb"\r\nconnection: *close\r\n", re.IGNORECASE)


class Load:
    """What a number of clients saw.

    :ivar statuses: how often each status was answered
    :ivar failures: what went wrong instead of an answer: a connection refused, or lost with a request on it
    """

    def __init__(self, port: int, tenant: bytes) -> None:
        self.statuses: Counter[int] = Counter()
        self.failures: Counter[str] = Counter()
        self._port = port
        self._request = REQUEST % tenant
        self._stopping = False
        self._answered = asyncio.Event()

    async def answers(self, count: int) -> None:
        """Waits for that many more answers."""
        goal = self.statuses.total() + count
        async with asyncio.timeout(PATIENCE):
            while self.statuses.total() < goal:
                self._answered.clear()
                await self._answered.wait()

    async def run(self) -> None:
        """One client, until the load is stopped; it connects anew when a connection ends."""
        while not self._stopping:
            try:
                async with asyncio.timeout(PATIENCE):
                    reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
            except OSError as error:
                self.failures[f"connect: {type(error).__name__}"] += 1
                await asyncio.sleep(0.05)
                continue
            try:
                await self._ask(reader, writer)
            except (OSError, EOFError) as error:
                self.failures[type(error).__name__] += 1
            finally:
                writer.close()

    async def _ask(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while not self._stopping:
            writer.write(self._request)
            async with asyncio.timeout(PATIENCE):
                head = await reader.readuntil(b"\r\n\r\n")
                length = _LENGTH.search(head)
                assert length, head
                await reader.readexactly(int(length[1]))
            self.statuses[int(head[9:12])] += 1
            self._answered.set()
            if _CLOSE.search(head):
                return
            await asyncio.sleep(0.002)

    def stop(self) -> None:
        self._stopping = True


@contextlib.asynccontextmanager
async def load(port: int, *, clients: int = 12, tenant: bytes = b"acme") -> AsyncIterator[Load]:
    """Clients that ask for as long as the context lasts, and end their last request."""
    seen = Load(port, tenant)
    async with asyncio.TaskGroup() as running:
        for number in range(clients):
            running.create_task(seen.run(), name=f"client {number}")
        try:
            yield seen
        finally:
            seen.stop()


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
