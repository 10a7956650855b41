"""The thread of a store: what it does together, in which order, and what becomes of who waits for it."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import pytest

from proxy.errors import StoreError
from proxy.oauth.store.thread import MOST_TOGETHER, Job, StoreThread
from tests.support.stages import until

PATIENCE = 20.0
NAME = "thread of a test"


class Thread:
    """A store's thread that notes what it does.

    :ivar groups: the sizes of the groups so far
    :ivar done: what the jobs of ``note`` were called, in the order in which they were done
    :ivar defect: what the next group raises as a whole
    """

    def __init__(self) -> None:
        self.groups: list[int] = []
        self.done: list[int | str] = []
        self.defect: Exception | None = None
        self.thread = StoreThread(NAME, self._together, lambda: self.done.append("finish"))
        self.thread.start()

    def _together(self, jobs: Sequence[Job[Any]]) -> None:
        self.groups.append(len(jobs))
        if self.defect is not None:
            defect, self.defect = self.defect, None
            raise defect
        for job in jobs:
            job.run()

    async def note(self, name: int) -> int:
        def work() -> int:
            self.done.append(name)
            return name

        return await self.thread.do(work)

    @contextlib.asynccontextmanager
    async def busy(self) -> AsyncIterator[Callable[[], None]]:
        """Has the thread hang in a call, until it is told or the block ends."""
        began, over = threading.Event(), threading.Event()

        def hang() -> None:
            began.set()
            over.wait(PATIENCE)

        hanging = started(self.thread.do(hang))
        await asyncio.to_thread(began.wait, PATIENCE)
        try:
            yield over.set
        finally:
            over.set()
            await asyncio.wait({hanging})


def started(work: Any) -> asyncio.Task[Any]:
    """A task that has begun to wait once the loop has had a turn."""
    return asyncio.get_running_loop().create_task(work, name="who waits")


async def a_turn() -> None:
    await asyncio.sleep(0)
    await asyncio.sleep(0)


@pytest.fixture
async def noted() -> AsyncIterator[Thread]:
    thread = Thread()
    yield thread
    assert await thread.thread.close(PATIENCE)


async def test_one_alone_is_done_at_once(noted: Thread) -> None:
    assert [await noted.note(number) for number in range(3)] == [0, 1, 2]
    assert noted.groups == [1, 1, 1]


async def test_those_who_are_ready_at_the_same_time_go_together(noted: Thread) -> None:
    assert await asyncio.gather(*map(noted.note, range(5))) == [0, 1, 2, 3, 4]
    assert noted.groups == [5]


async def test_what_waits_while_it_is_busy_is_one_group_in_the_order_in_which_it_came(noted: Thread) -> None:
    async with noted.busy() as end:
        waiting = []
        for number in range(7):
            waiting.append(started(noted.note(number)))
            await a_turn()
        assert noted.done == []
        end()
        assert await asyncio.gather(*waiting) == list(range(7))
    assert noted.done == list(range(7))
    assert noted.groups == [1, 7]


async def test_whoever_asks_again_when_told_goes_with_those_who_wait(noted: Thread) -> None:
    over = threading.Event()

    async def twice() -> None:
        await noted.thread.do(lambda: over.wait(PATIENCE))
        await noted.note(2)

    first = started(twice())
    await until(lambda: noted.groups == [1], PATIENCE)
    second = started(noted.note(1))
    await a_turn()
    over.set()
    await asyncio.wait({first, second})
    assert noted.groups == [1, 2]
    assert noted.done == [1, 2]


async def test_a_group_has_its_limit_and_the_rest_follows(noted: Thread) -> None:
    count = 2 * MOST_TOGETHER + 1
    assert await asyncio.gather(*map(noted.note, range(count))) == list(range(count))
    assert noted.groups == [MOST_TOGETHER, MOST_TOGETHER, 1]
    assert noted.done == list(range(count))


async def test_what_nobody_waits_for_any_more_is_left_out(noted: Thread) -> None:
    async with noted.busy() as end:
        waiting = [started(noted.note(number)) for number in range(3)]
        await a_turn()
        waiting[1].cancel()
        await asyncio.wait({waiting[1]})
        end()
        await asyncio.wait(waiting)
    assert noted.done == [0, 2]
    assert noted.groups == [1, 2]


async def test_those_who_leave_make_no_work_for_a_thread_that_hangs(noted: Thread) -> None:
    async with noted.busy():
        for number in range(1000):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0):
                    await noted.note(number)
    await noted.note(1000)
    assert noted.done == [1000]


async def test_who_leaves_while_it_is_being_done_takes_nobody_along(noted: Thread) -> None:
    began, over = threading.Event(), threading.Event()

    def slow() -> None:
        began.set()
        over.wait(PATIENCE)

    leaving, staying = started(noted.thread.do(slow)), started(noted.note(1))
    await asyncio.to_thread(began.wait, PATIENCE)
    leaving.cancel()
    await asyncio.wait({leaving})
    assert leaving.cancelled()
    over.set()
    assert await staying == 1
    assert noted.groups == [2]


async def test_an_error_is_told_to_whose_it_is(noted: Thread) -> None:
    def fail() -> None:
        raise ValueError("mine")

    one, two, three = await asyncio.gather(
        noted.note(1), noted.thread.do(fail), noted.note(3), return_exceptions=True
    )  # fmt: skip
    assert (one, three) == (1, 3)
    assert isinstance(two, ValueError)
    assert noted.groups == [3]


async def test_a_defect_of_the_group_is_told_to_all_and_the_thread_goes_on(noted: Thread) -> None:
    noted.defect = RuntimeError("a defect")
    results = await asyncio.gather(*map(noted.note, range(3)), return_exceptions=True)
    assert [str(result) for result in results] == ["a defect"] * 3
    assert await noted.note(4) == 4


async def test_the_last_time_counts_where_a_job_is_done_twice() -> None:
    tries: list[Exception | None] = [ValueError("first"), None]

    def work() -> str:
        if (error := tries.pop(0)) is not None:
            raise error
        return "done"

    def together(jobs: Sequence[Job[Any]]) -> None:
        for job in (*jobs, *jobs):
            job.run()

    thread = StoreThread(NAME, together, lambda: None)
    thread.start()
    assert await thread.do(work) == "done"
    assert await thread.close(PATIENCE)


# --- the end ---


async def test_what_waits_is_done_before_the_end() -> None:
    noted = Thread()
    async with noted.busy() as end:
        waiting = [started(noted.note(number)) for number in range(MOST_TOGETHER + 3)]
        await a_turn()
        closing = started(noted.thread.close(PATIENCE))
        await a_turn()
        end()
        assert await closing is True
    assert await asyncio.gather(*waiting) == noted.done[:-1]
    assert noted.done[-1] == "finish"


async def test_at_its_end_the_thread_is_gone() -> None:
    def running() -> list[str]:
        return [thread.name for thread in threading.enumerate() if thread.name == NAME]

    noted = Thread()
    await noted.note(1)
    assert running() == [NAME]
    assert await noted.thread.close(PATIENCE)
    await until(lambda: not running(), PATIENCE)


async def test_after_the_end_nothing_is_done() -> None:
    noted = Thread()
    assert await noted.thread.close(PATIENCE)
    with pytest.raises(StoreError, match="closed"):
        await noted.note(1)
    assert await noted.thread.close(PATIENCE), "again, that it is over"
    assert noted.done == ["finish"]


async def test_a_thread_that_hangs_is_not_waited_for_and_whoever_waits_is_told() -> None:
    noted = Thread()
    async with noted.busy() as end:
        waiting = [started(noted.note(number)) for number in range(3)]
        await a_turn()
        assert await noted.thread.close(0.05) is False
        results = await asyncio.gather(*waiting, return_exceptions=True)
        assert [str(result) for result in results] == ["The token store does not answer."] * 3
        assert all(isinstance(result, StoreError) for result in results)
        assert noted.done == []
        end()
        assert await noted.thread.close(PATIENCE), "it goes on, and ends after all"
    assert noted.done == ["finish"], "what its caller was told has failed is not done later"


async def test_a_call_that_has_hung_for_long_has_had_its_time() -> None:
    noted = Thread()
    async with noted.busy():
        await asyncio.sleep(1.0)
        closing = started(noted.thread.close(1.0))
        done, _ = await asyncio.wait({closing}, timeout=0.8)
        assert done, "no second time"
        assert closing.result() is False
