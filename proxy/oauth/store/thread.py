"""One thread for calls that block, as a disk's do; what waits while it is busy is done together when it is free.

All but the work itself happens on the event loop, so there is nothing to lock. It is a daemon: in a file system that
is gone a call never returns, and the program ends all the same.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
from collections.abc import Callable, Sequence
from itertools import islice
from typing import Any, Generic, TypeVar

from proxy.errors import StoreError

T = TypeVar("T")

MOST_TOGETHER = 128
"""Jobs in a group: the first must not wait long for the last."""


class Job(Generic[T]):
    """Work that somebody waits for.

    :ivar writes: whether it is to change anything
    :ivar error: what the work raised last; for the thread
    """

    __slots__ = ("_result", "_work", "error", "waiter", "writes")

    def __init__(self, work: Callable[[], T], waiter: asyncio.Future[T], *, writes: bool = False) -> None:
        self.waiter = waiter
        self.writes = writes
        self.error: Exception | None = None
        self._work = work
        self._result: T

    def run(self) -> None:
        """Does the work, on the thread; done again, only the last time counts."""
        self.error = None
        try:
            self._result = self._work()
        except Exception as error:  # noqa: BLE001 - whoever waits is told
            self.error = error

    def tell(self) -> None:
        """Tells who waits, on the event loop, if anybody still does."""
        if self.waiter.done():
            return
        if self.error is None:
            self.waiter.set_result(self._result)
        else:
            self.waiter.set_exception(self.error)


class StoreThread:
    """Does jobs in the order in which they came, those that have gathered as one group.

    A job that nobody waits for any more by the time it is its turn is left out.

    :param name: of the thread
    :param together: runs each job of a group, on the thread
    :param finish: comes last, on the thread; must not raise
    """

    def __init__(self, name: str, together: Callable[[Sequence[Job[Any]]], None], finish: Callable[[], None]) -> None:
        self._name = name
        self._together = together
        self._finish = finish
        self._groups: queue.SimpleQueue[Sequence[Job[Any]]] = queue.SimpleQueue()
        self._waiting: dict[Job[Any], None] = {}
        self._under_way: Sequence[Job[Any]] = ()
        self._since = 0.0
        self._closed = False

    def start(self) -> None:
        """Begins, for the loop that runs now."""
        self._loop = asyncio.get_running_loop()
        self._ended = self._loop.create_future()
        threading.Thread(target=self._run, name=self._name, daemon=True).start()

    async def do(self, work: Callable[[], T], *, writes: bool = False) -> T:
        """Has work done; cancelled, it may be done all the same if it was its turn.

        :raises StoreError: the thread is closed, or hung when it was
        """
        if self._closed:
            raise StoreError("The token store is closed.")
        waiter: asyncio.Future[T] = self._loop.create_future()
        job = Job(work, waiter, writes=writes)
        if not self._waiting:
            # Not at once: until this one pauses the thread can't begin, and whoever is ready by then comes along.
            self._loop.call_soon(self._hand_over)
        self._waiting[job] = None
        try:
            return await waiter
        finally:
            self._waiting.pop(job, None)

    async def close(self, patience: float) -> bool:
        """Does what waits, and ends.

        :param patience: seconds for that; what is under way has had its part of them since it began
        :return: whether that was enough; if not, the thread is left alone, and whoever waits is told StoreError
        """
        self._closed = True
        self._loop.call_soon(self._hand_over)
        now = self._loop.time()
        begun = self._since if self._under_way else now
        await asyncio.wait({self._ended}, timeout=max(0.0, begun + patience - now))
        for job in (*self._under_way, *self._waiting):
            if not job.waiter.done():
                job.waiter.set_exception(StoreError("The token store does not answer."))
        return self._ended.done()

    def _hand_over(self) -> None:
        """Gives the thread what waits, unless it is busy; an empty group is its end."""
        if self._under_way:
            return
        group = list(islice(self._waiting, MOST_TOGETHER))
        for job in group:
            del self._waiting[job]
        if group or self._closed:
            self._under_way, self._since = group, self._loop.time()
            self._groups.put(group)

    def _done(self) -> None:
        for job in self._under_way:
            job.tell()
        self._under_way = ()
        # After those who were told just now, so that what they ask next is in the group.
        self._loop.call_soon(self._hand_over)

    # --- on the thread ---

    def _run(self) -> None:
        while group := self._groups.get():
            try:
                self._together(group)
            except Exception as defect:  # noqa: BLE001 - all who wait are told
                for job in group:
                    job.error = defect
            self._tell(self._done)
        self._finish()
        self._tell(self._ended.set_result, None)

    def _tell(self, what: Callable[..., object], *arguments: object) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed, and nobody is there
            self._loop.call_soon_threadsafe(what, *arguments)
