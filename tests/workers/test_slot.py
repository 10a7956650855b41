"""A worker that hangs: noticed, but not where it was only slow."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import cast

import pytest

from proxy.errors import WorkerGone
from proxy.workers.process import WorkerProcess
from proxy.workers.slot import BEAT, MISSED, Slot
from tests.oauth.virtual_time import in_virtual_time

ANSWERS, SILENT = True, False


class Worker:
    """A process in which nothing happens, and which answers as its script says, and then always or never."""

    pid = 4711
    orderly = False

    def __init__(self, *script: bool, afterwards: bool) -> None:
        loop = asyncio.get_running_loop()
        self.ready: asyncio.Future[None] = loop.create_future()
        self.ready.set_result(None)
        self.leaving = asyncio.Event()
        self.asked = 0
        self.killed_at: float | None = None
        self.end = loop.create_task(self._ended(), name="end")
        self._script = deque(script)
        self._afterwards = afterwards

    async def _ended(self) -> int:
        await self.leaving.wait()
        return -9

    async def ask(self, wish: str, patience: float) -> None:
        assert wish == "beat"
        self.asked += 1
        if not (self._script.popleft() if self._script else self._afterwards):
            await asyncio.sleep(patience)
            raise WorkerGone("worker 1 does not answer")

    def kill(self) -> None:
        self.killed_at = asyncio.get_running_loop().time()
        self.leaving.set()


class Place:
    """A slot, and the workers that it gets one after the other."""

    def __init__(self, *workers: Worker) -> None:
        self._workers = deque(workers)
        self.slot = Slot(1, self._start, self._welcome, lambda: None)
        self.running = asyncio.get_running_loop().create_task(self.slot.run(), name="slot")

    async def _start(self, number: int) -> WorkerProcess:
        return cast(WorkerProcess, self._workers.popleft())

    async def _welcome(self, worker: WorkerProcess) -> None:
        """It has the settings already."""

    async def end(self, *workers: Worker) -> None:
        self.running.cancel()
        for worker in workers:
            worker.leaving.set()
        await asyncio.wait({self.running, *(worker.end for worker in workers)})


@in_virtual_time
async def test_a_worker_that_never_answers_is_killed_and_replaced() -> None:
    hung, next_one = Worker(afterwards=SILENT), Worker(afterwards=ANSWERS)
    place = Place(hung, next_one)
    await asyncio.sleep(MISSED * BEAT - 0.1)
    assert hung.killed_at is None
    await asyncio.sleep(0.2)
    assert hung.killed_at == pytest.approx(MISSED * BEAT)
    assert place.slot.worker is cast(WorkerProcess, next_one)
    await place.end(hung, next_one)


@in_virtual_time
async def test_a_worker_that_answers_again_in_time_is_left_alone() -> None:
    slow = Worker(*([ANSWERS] + [SILENT] * (MISSED - 1)) * 3, afterwards=ANSWERS)
    place = Place(slow)
    await asyncio.sleep(20 * MISSED * BEAT)
    assert slow.killed_at is None
    assert slow.asked > 3 * MISSED
    await place.end(slow)


@in_virtual_time
async def test_a_worker_that_left_is_asked_no_more() -> None:
    left, next_one = Worker(afterwards=ANSWERS), Worker(afterwards=ANSWERS)
    left.orderly = True
    place = Place(left, next_one)
    await asyncio.sleep(BEAT / 2)
    left.leaving.set()
    await asyncio.sleep(BEAT * 5)
    assert left.asked == 1
    assert left.killed_at is None
    await place.end(left, next_one)
