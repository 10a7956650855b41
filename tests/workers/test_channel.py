"""Messages between a supervisor and a worker."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator

import pytest

from proxy.workers.channel import Channel


@contextlib.asynccontextmanager
async def channel() -> AsyncIterator[tuple[Channel, Channel]]:
    ours, theirs = [await Channel.over(sock) for sock in socket.socketpair()]
    try:
        yield ours, theirs
    finally:
        ours.close()
        theirs.close()
        await ours.closed()
        await theirs.closed()


async def test_messages_arrive_in_order_with_what_goes_beside_them() -> None:
    async with channel() as (ours, theirs):
        ours.tell({"wish": "é"}, b"\0\xff" * 500_000)
        ours.tell({"wish": "second"})
        assert await theirs.receive() == ({"wish": "é"}, b"\0\xff" * 500_000)
        assert await theirs.receive() == ({"wish": "second"}, b"")
        theirs.tell({"to": 1})
        assert await ours.receive() == ({"to": 1}, b"")


async def test_a_flush_waits_for_an_end_that_does_not_read() -> None:
    async with channel() as (ours, theirs):
        for _ in range(20):
            ours.tell({}, b"x" * 100_000)
        flushing = asyncio.get_running_loop().create_task(ours.flush(), name="flush")
        await asyncio.sleep(0.02)
        assert not flushing.done()
        for _ in range(20):
            await theirs.receive()
        await flushing


@pytest.mark.parametrize("rest", [b"", b"\0\0\0", b"\0\0\0\x09\0\0\0\0{"])
async def test_the_other_end_may_be_gone_at_any_moment(rest: bytes) -> None:
    raw, theirs = socket.socketpair()
    end = await Channel.over(theirs)
    raw.sendall(rest)
    raw.close()
    with pytest.raises(EOFError):
        await end.receive()
    end.tell({"wish": "lost"})
    end.close()
    end.tell({"wish": "lost as well"})
    await end.closed()
