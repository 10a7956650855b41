"""One worker's place: a process that serves there, and its successors."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Awaitable, Callable

from proxy.core.backoff import LONGEST_PAUSE, STEADY, restart_pause
from proxy.core.report import WorkerReport
from proxy.errors import WorkerGone
from proxy.workers.process import WorkerProcess

log = logging.getLogger(__name__)

BEAT = 10.0
"""Seconds between questions whether a worker still answers, and for each answer."""

MISSED = 3
"""Answers missed in a row that say that it hangs. More than one: after a pause of this process itself, such as
SIGSTOP, time is up for the first before it could be read."""

START_TIMEOUT = 60.0
"""Seconds from a process's start until it serves; then it is killed."""


class Slot:
    """Keeps one worker running.

    :param start: starts a process in this place
    :param welcome: called with a process that is ready, before it counts as serving
    :param changed: called when a worker has begun or ceased to serve here
    :param beat: seconds, see ``BEAT``
    :ivar worker: the process that serves, None while there is none
    :ivar first: done once the first process serves, or failed as it failed
    """

    def __init__(
        self,
        number: int,
        start: Callable[[int], Awaitable[WorkerProcess]],
        welcome: Callable[[WorkerProcess], Awaitable[None]],
        changed: Callable[[], None],
        beat: float = BEAT,
    ) -> None:
        self.number = number
        self.worker: WorkerProcess | None = None
        self.first: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._start = start
        self._welcome = welcome
        self._changed = changed
        self._beat = beat
        self._started = 0
        self._deaths = 0
        self._served = False

    def report(self) -> WorkerReport:
        return WorkerReport(self.number, None if self.worker is None else self.worker.pid, self._started)

    async def run(self) -> None:
        """Keeps a worker here until it is cancelled."""
        while True:
            try:
                await self._keep()
            except Exception as error:
                log.exception(
                    "a defect of this program kept worker %d from being replaced",
                    self.number,
                    extra={"event": "worker.defect"},
                )
                self._fail_first(error)
                await asyncio.sleep(LONGEST_PAUSE)

    async def _keep(self) -> None:
        """Starts a worker whenever there is none.

        One that leaves in order is replaced while it still answers what it has begun. One that dies is replaced
        at once, and after a pause that doubles if its successors die as well, the more so before they serve.
        """
        while True:
            began = asyncio.get_running_loop().time()
            self._started += 1
            self._served = False
            ending = await self._life()
            if ending is None:
                self._deaths = 0
                continue
            lived = asyncio.get_running_loop().time() - began
            self._deaths = 1 if lived >= STEADY else self._deaths + 1
            pause = restart_pause(self._deaths, served=self._served)
            log.error("worker %d %s; next in %.1f s", self.number, ending, pause, extra={"event": "worker.died"})
            self._fail_first(WorkerGone(f"worker {self.number} can't start; the log says why"))
            await asyncio.sleep(pause)

    async def _life(self) -> str | None:
        """One process until it accepts no more connections; what it died of, None if it leaves in order."""
        try:
            worker = await self._start(self.number)
        except OSError as error:
            return f"can't be started ({error.strerror})"
        try:
            async with asyncio.timeout(START_TIMEOUT):
                await worker.ready
                await self._welcome(worker)
        except WorkerGone:
            pass
        except TimeoutError:
            log.error(
                "worker %d does not serve after %.0f s and is killed",
                self.number,
                START_TIMEOUT,
                extra={"event": "worker.killed"},
            )
            worker.kill()
        else:
            await self._serve(worker)
        if worker.orderly:
            return None
        return f"(process {worker.pid}) {_ending(await asyncio.shield(worker.end))}"

    async def _serve(self, worker: WorkerProcess) -> None:
        self.worker, self._served = worker, True
        log.info("worker %d serves (process %d)", self.number, worker.pid, extra={"event": "worker.serving"})
        if not self.first.done():
            self.first.set_result(None)
        self._changed()
        watching = asyncio.get_running_loop().create_task(self._watch(worker), name=f"beats of worker {self.number}")
        try:
            await worker.leaving.wait()
        finally:
            watching.cancel()
        self.worker = None
        self._changed()

    async def _watch(self, worker: WorkerProcess) -> None:
        """Kills a worker that hangs: its event loop is blocked, or it was stopped (SIGSTOP)."""
        missed = 0
        while missed < MISSED:
            try:
                await worker.ask("beat", self._beat)
                missed = 0
                await asyncio.sleep(self._beat)
            except WorkerGone:
                missed += 1
        log.error(
            "worker %d (process %d) hangs: it has not answered for %.0f s, and is killed",
            self.number,
            worker.pid,
            MISSED * self._beat,
            extra={"event": "worker.killed"},
        )
        worker.kill()

    def _fail_first(self, error: Exception) -> None:
        if not self.first.done():
            self.first.set_exception(error)
            self.first.exception()  # seen


def _ending(code: int) -> str:
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        return f"was ended by {signal.Signals(-code).name}"
    except ValueError:
        return f"was ended by signal {-code}"
