"""A worker: a proxy that has its sockets and settings of a supervisor, and answers it until one of them ends."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import itertools
import logging
import os
import socket
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import replace

from proxy import __version__
from proxy.app import Answer, Prepared, Proxy, Wish
from proxy.core.guests import GuestNews
from proxy.core.report import RequestRecord
from proxy.core.tokens import Instant
from proxy.errors import TokenError, UnknownTenant
from proxy.workers.channel import Channel, Words
from proxy.workers.codec import pack, unpack, unpack_settings

log = logging.getLogger(__name__)

PART = 20
"""Tenants in one message: some 2 ms of work, after which requests have their turn."""

ABANDONED = 1
"""Exit code of a worker whose supervisor went in the middle of the end: nobody is to wait any longer."""


class VersionChanged(Exception):
    """The program on disk is another than the one that runs."""


async def work(
    sock: socket.socket, stop: Callable[[], Awaitable[object]], journal: Callable[[RequestRecord], None]
) -> None:
    """Serves until the supervisor says so or is gone, or ``stop`` returns; then drains.

    :param sock: our end of the channel
    :param journal: takes what is to be told of requests
    :raises VersionChanged: the supervisor is of another version, which says different things
    """
    channel = await Channel.over(sock)
    greeting, content = await channel.receive()
    if greeting["version"] != __version__:
        raise VersionChanged(f"restart the program: it runs {greeting['version']}, and {__version__} is installed")
    descriptors = {number for _, numbers in greeting["places"] for number in numbers}
    sockets = {number: socket.socket(fileno=number) for number in descriptors}  # some stand in every place
    places = {place: [sockets[number] for number in numbers] for place, numbers in greeting["places"]}
    upward = Upward(channel)
    proxy = Proxy(unpack_settings(content), journal=journal, supervision=upward)
    await proxy.start(places[greeting["number"]])
    gc.collect()
    gc.freeze()
    worker = Worker(proxy, channel, places, upward)
    channel.tell({"note": "ready"})
    await worker.serve(stop)


class Upward:
    """What a proxy asks and tells its supervisor: see ``app.Supervision``."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._order = itertools.count()
        self._waiting: dict[object, asyncio.Future[Answer | None]] = {}
        self._gone = False

    async def wish(self, wish: Wish) -> Answer | None:
        """What a wish brings; None once the supervisor is gone. Cancelled, it is told that nobody waits here."""
        if self._gone:
            return None
        key = next(self._order)
        waiting: asyncio.Future[Answer | None] = asyncio.get_running_loop().create_future()
        self._waiting[key] = waiting
        try:
            self._channel.tell({"token": key, "wish": pack(wish)})
            return await waiting
        except asyncio.CancelledError:
            self._channel.tell({"leave": key})
            raise
        finally:
            del self._waiting[key]

    def tell(self, news: GuestNews) -> None:
        """Tells the other workers of a guest."""
        self._channel.tell({"guest": pack(news)})

    def heard(self, key: object, answer: object) -> None:
        """Takes what the supervisor says to a wish."""
        waiting = self._waiting.get(key)
        if waiting is not None and not waiting.done():
            waiting.set_result(unpack(Answer, answer))

    def hang_up(self) -> None:
        """Nobody answers any more."""
        self._gone = True
        for waiting in self._waiting.values():
            if not waiting.done():
                waiting.set_result(None)


class Worker:
    """Answers a supervisor.

    :param places: the sockets of all workers
    """

    def __init__(
        self,
        proxy: Proxy,
        channel: Channel,
        places: Mapping[int, Sequence[socket.socket]],
        upward: Upward,
    ) -> None:
        self._proxy = proxy
        self._upward = upward
        self._channel = channel
        self._places = places
        self._prepared: Prepared | None = None
        self._end = asyncio.Event()
        self._draining = False
        self._accepting = asyncio.Lock()

    async def serve(self, stop: Callable[[], Awaitable[object]]) -> None:
        """Serves until it is time to end, and ends in order."""
        loop = asyncio.get_running_loop()
        tasks = {
            loop.create_task(self._listen(), name="supervisor's wishes"),
            loop.create_task(self._obey(stop), name="signals to the worker"),
        }
        await self._end.wait()
        self._draining = True
        self._channel.tell({"note": "leaving"})
        log.info(
            "process %d ends once its requests in flight are answered", os.getpid(), extra={"event": "worker.stopping"}
        )
        # A place's socket is open while any worker has it. Whoever is last to close it must accept what waits there.
        await self._accept_at(self._places, to_end=True)
        await self._proxy.drain()
        with contextlib.suppress(OSError):
            await self._report("farewell")
            self._channel.close()
            await self._channel.closed()
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)

    async def _obey(self, stop: Callable[[], Awaitable[object]]) -> None:
        await stop()
        self._end.set()

    async def _listen(self) -> None:
        """Grants wishes until the channel ends, each in a task, as some take long."""
        async with asyncio.TaskGroup() as granting:
            with contextlib.suppress(EOFError):
                while True:
                    match await self._channel.receive():
                        case {"token": key, "answer": answer}, _:
                            self._upward.heard(key, answer)
                        case words, content:
                            granting.create_task(self._grant(words, content), name=f"wish to {words['wish']}")
            self._upward.hang_up()
        if self._draining:
            os._exit(ABANDONED)
        log.warning("process %d has lost its supervisor", os.getpid(), extra={"event": "worker.orphaned"})
        self._end.set()

    async def _grant(self, words: Words, content: bytes) -> None:
        match words["wish"]:
            case "end":
                self._end.set()
            case "accept":
                await self._accept_at(words["places"])
            case "guests":
                self._proxy.take_guests(unpack(GuestNews, news) for news in words["news"])
            case "beat":
                self._answer(words["key"], {})
            case "report":
                await self._report(words["key"])
            case "refresh":
                self._answer(words["key"], await self._refresh(words["tenant"], Instant(*words["since"])))
            case "prepare":
                self._answer(words["key"], {"problems": await self._prepare(content)})
            case "adopt":
                if self._prepared is not None:
                    prepared, self._prepared = self._prepared, None
                    await self._proxy.adopt(prepared)
                self._answer(words["key"], {})
            case "abandon":
                self._prepared = None

    async def _accept_at(self, places: Iterable[int], *, to_end: bool = False) -> None:
        async with self._accepting:
            if self._draining and not to_end:
                return
            sockets = dict.fromkeys(sock for place in places for sock in self._places[place])
            await self._proxy.accept_on(list(sockets))

    def _answer(self, key: object, answer: Words) -> None:
        self._channel.tell({"to": key, "answer": answer})

    async def _report(self, key: object) -> None:
        """The report in parts, between which requests have their turn."""
        report = self._proxy.report()
        for start in range(0, len(report.tenants), PART):
            self._channel.tell({"to": key, "part": pack(report.tenants[start : start + PART])})
            await self._channel.flush()
            await asyncio.sleep(0)
        self._answer(key, {"report": pack(replace(report, tenants=()))})

    async def _refresh(self, tenant: str, since: Instant) -> Words:
        try:
            return {"tenant": pack(await self._proxy.refresh(tenant, since))}
        except TokenError as error:
            kind = type(error).__name__
            return {"refused": kind, "says": str(error), "word": error.error, "retry_after": error.retry_after}
        except UnknownTenant:
            return {}

    async def _prepare(self, content: bytes) -> list[str]:
        try:
            self._prepared = await asyncio.to_thread(lambda: self._proxy.prepare(unpack_settings(content)))
        except OSError as error:
            return [str(error)]
        return []
