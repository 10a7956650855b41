"""The clients of the soak: every kind of traffic, some of it broken off in the middle."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from tests.soak.world import EVENTS
from tests.support.flow import PIECE, check_flow, framing, send_flow

HEAD = b"Host: localhost\r\n"
TENANTS = (b"acme", b"globex")

PATIENCE = 30.0
"""Seconds for any exchange; the machine may be busy."""

AGAIN_GOOD_AFTER = 2.0
"""Seconds after an outage in which answers may still tell of it."""

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@dataclass(slots=True)
class Seen:
    """What all clients saw.

    :ivar good: exchanges by kind that went as they should
    :ivar excused: those that failed in an outage, by what they were told
    :ivar bad: those that failed without one
    """

    good: Counter[str] = field(default_factory=Counter)
    excused: Counter[str] = field(default_factory=Counter)
    bad: Counter[str] = field(default_factory=Counter)
    broken_off: int = 0
    outage_until: float = 0.0

    def outage(self, seconds: float) -> None:
        """From now on for so long, and a little longer, what fails is excused."""
        self.outage_until = time.monotonic() + seconds + AGAIN_GOOD_AFTER

    def failed(self, kind: str, why: str, began: float) -> None:
        """Notes an exchange that did not go as it should."""
        excused = began < self.outage_until
        (self.excused if excused else self.bad)[f"{kind}: {why}"] += 1


class Unexpected(Exception):
    """An answer that is none of those that were to come."""


async def answered(reader: asyncio.StreamReader, *expected: int) -> bytes:
    """The head of an answer.

    :raises Unexpected: with another status
    """
    head = await reader.readuntil(b"\r\n\r\n")
    if int(head[9:12]) not in expected:
        raise Unexpected(head.partition(b"\r\n")[0].decode())
    return head


async def small(connection: Connection, tenant: bytes, rng: random.Random) -> None:
    reader, writer = connection
    for _ in range(rng.randrange(1, 20)):
        writer.write(b"GET /t/%b/api/v2/users/me HTTP/1.1\r\n%b\r\n" % (tenant, HEAD))
        await answered(reader, 200)
        await reader.readuntil(b"}")


async def post(connection: Connection, tenant: bytes, rng: random.Random) -> None:
    reader, writer = connection
    body = b"x" * rng.choice([1, 1000, 100_000])
    writer.write(b"POST /t/%b/api/v2/contacts HTTP/1.1\r\n%bContent-Length: %d\r\n\r\n" % (tenant, HEAD, len(body)))
    writer.write(body)
    await answered(reader, 200)
    await reader.readuntil(b"}")


async def upload(connection: Connection, tenant: bytes, rng: random.Random) -> None:
    """With a length, or in chunks where it can be kept whole for a replay."""
    reader, writer = connection
    chunked = rng.random() < 0.5
    size = rng.choice([3000, 400_000]) if chunked else rng.choice([3000, 4_000_000])
    kind = b"chunks" if chunked else b"length"
    writer.write(b"POST /t/%b/api/v2/flow/%b/%d HTTP/1.1\r\n%b" % (tenant, kind, size, HEAD))
    writer.write(framing(size, chunked=chunked) + b"\r\n")
    await send_flow(writer, size, chunked=chunked)
    await answered(reader, 201)


async def download(connection: Connection, tenant: bytes, rng: random.Random) -> None:
    reader, writer = connection
    chunked, size = rng.random() < 0.5, rng.choice([70_000, 4_000_000])
    kind = b"chunks" if chunked else b"length"
    writer.write(b"GET /t/%b/api/v2/flow/%b/%d HTTP/1.1\r\n%b\r\n" % (tenant, kind, size, HEAD))
    await answered(reader, 200)
    await check_flow(reader, size, chunked=chunked)


async def events(connection: Connection, tenant: bytes, rng: random.Random) -> None:
    reader, writer = connection
    writer.write(b"GET /t/%b/api/v2/events HTTP/1.1\r\n%b\r\n" % (tenant, HEAD))
    await answered(reader, 200)
    content = b""
    while size := int((await reader.readuntil(b"\r\n"))[:-2], 16):
        content += (await reader.readexactly(size + 2))[:-2]
    assert await reader.readexactly(2) == b"\r\n"
    assert content == b"".join(b"data: %d\n\n" % number for number in range(EVENTS))


async def socket(connection: Connection, tenant: bytes, rng: random.Random) -> None:
    reader, writer = connection
    writer.write(b"GET /t/%b/api/v2/socket HTTP/1.1\r\n%b" % (tenant, HEAD))
    writer.write(b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: a2V5\r\n\r\n")
    await answered(reader, 101)
    for _ in range(rng.randrange(1, 30)):
        size = rng.choice([2, 100, 60_000])
        frame = b"\x82\xfe" + size.to_bytes(2, "big") + b"mask" + rng.randbytes(size)
        writer.write(frame)
        assert await reader.readexactly(len(frame)) == frame
    writer.write_eof()
    assert await reader.read() == b""


KINDS: dict[str, tuple[Callable[[Connection, bytes, random.Random], Awaitable[None]], int]] = {
    "small": (small, 10), "post": (post, 6), "upload": (upload, 3), "download": (download, 3), "events": (events, 1),
    "socket": (socket, 2),
}  # fmt: skip
"""By name, with their weights."""

ENDS_ITS_CONNECTION = ("socket",)


async def client(host: str, port: int, seen: Seen, rng: random.Random, stopping: asyncio.Event) -> None:
    """One client after the other, each over a connection of its own, until it is told to stop."""
    names, weights = list(KINDS), [weight for _, weight in KINDS.values()]
    while not stopping.is_set():
        began = time.monotonic()
        try:
            connection = await asyncio.open_connection(host, port, limit=PIECE)
        except OSError as error:
            seen.failed("connect", type(error).__name__, began)
            await asyncio.sleep(0.1)
            continue
        try:
            for _ in range(rng.randrange(1, 10)):
                kind = rng.choices(names, weights)[0]
                if rng.random() < 0.05:
                    await break_off(connection, kind, rng)
                    seen.broken_off += 1
                    break
                if not await exchange(connection, kind, seen, rng) or stopping.is_set():
                    break
        finally:
            connection[1].transport.abort()


async def exchange(connection: Connection, kind: str, seen: Seen, rng: random.Random) -> bool:
    """One exchange; whether another may follow on its connection."""
    began = time.monotonic()
    try:
        async with asyncio.timeout(PATIENCE):
            await KINDS[kind][0](connection, rng.choice(TENANTS), rng)
    except (Unexpected, OSError, EOFError, AssertionError) as error:
        seen.failed(kind, str(error) if isinstance(error, Unexpected) else type(error).__name__, began)
        return False
    seen.good[kind] += 1
    return kind not in ENDS_ITS_CONNECTION


async def break_off(connection: Connection, kind: str, rng: random.Random) -> None:
    """Begins an exchange, and is gone at any moment of it."""
    with contextlib.suppress(Unexpected, OSError, EOFError, AssertionError):
        async with asyncio.timeout(rng.choice([0.0, 0.001, 0.005, 0.02, 0.2])):
            await KINDS[kind][0](connection, rng.choice(TENANTS), rng)
