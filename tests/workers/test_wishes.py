"""Wishes of a worker that is a process of its own: what its supervisor hears of them."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator
from pathlib import Path

from proxy.app import Answer, Wish
from proxy.core.guests import GuestNews
from proxy.core.tokens import Instant
from proxy.oauth.line import Obtained
from proxy.settings import load
from proxy.workers.process import WorkerProcess

CONFIGURATION = """
[tenants.acme]
region = "mypurecloud.de"
client_id = "id"
client_secret = "not-a-secret"
"""

WORKER = """
import asyncio, contextlib, socket, sys
from proxy.app import Wish
from proxy.workers.channel import Channel
from proxy.workers.worker import Upward

async def main():
    channel = await Channel.over(socket.socket(fileno=int(sys.argv[-1])))
    await channel.receive()
    upward = Upward(channel)
    wishes = [asyncio.ensure_future(upward.wish(Wish(name, None, False, False))) for name in ("first", "second")]
    with contextlib.suppress(EOFError):
        while True:
            match await channel.receive():
                case {"wish": "leave"}, _:
                    wishes[0].cancel()
                case {"token": key, "answer": answer}, _:
                    upward.heard(key, answer)
                    channel.tell({"note": "ready"})

asyncio.run(main())
"""
"""Wishes twice, and wishes the first no longer when it is told so; it is ready once the second is granted."""


class Granting:
    """A supervisor that grants no wish before it is told to.

    :ivar wished: the clients of the wishes, in order
    :ivar left: those whose worker has left
    """

    def __init__(self) -> None:
        self.wished: list[str] = []
        self.left: list[str] = []
        self.granting = asyncio.Event()
        self.changed = asyncio.Event()

    async def grant(self, wish: Wish) -> Answer:
        self.wished.append(wish.client)
        self.changed.set()
        try:
            await self.granting.wait()
        except asyncio.CancelledError:
            self.left.append(wish.client)
            self.changed.set()
            raise
        return Answer(Obtained("token", Instant(0.0, 0.0), 60.0), None)

    def heard(self, worker: WorkerProcess, news: GuestNews) -> None:
        """This worker has no guests."""

    async def until(self, *, wished: int = 0, left: int = 0) -> None:
        async with asyncio.timeout(30):
            while len(self.wished) < wished or len(self.left) < left:
                self.changed.clear()
                await self.changed.wait()


@contextlib.asynccontextmanager
async def worker(folder: Path, superior: Granting) -> AsyncIterator[WorkerProcess]:
    file = folder / "proxy.toml"
    file.write_text(CONFIGURATION, "utf-8")
    process = await WorkerProcess.start([sys.executable, "-c", WORKER], 1, {1: []}, load(file), superior)
    try:
        yield process
    finally:
        process.kill()
        await process.ended(30)


async def test_a_worker_that_leaves_a_wish_is_granted_its_others(tmp_path: Path) -> None:
    superior = Granting()
    async with worker(tmp_path, superior) as process:
        await superior.until(wished=2)
        process.tell("leave")
        await superior.until(left=1)
        assert superior.left == ["first"]
        superior.granting.set()
        async with asyncio.timeout(30):
            await process.ready
    assert superior.left == ["first"]


async def test_a_worker_that_dies_leaves_all_its_wishes(tmp_path: Path) -> None:
    superior = Granting()
    async with worker(tmp_path, superior) as process:
        await superior.until(wished=2)
        process.kill()
        await superior.until(left=2)
    assert sorted(superior.left) == ["first", "second"]
