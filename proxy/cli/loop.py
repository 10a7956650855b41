"""The event loop of the long-running commands, and the signals that end or reload them."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable, Coroutine
from types import FrameType
from typing import Any, TypeVar

T = TypeVar("T")

STOP = frozenset({signal.SIGINT, signal.SIGTERM})
RELOAD: int | None = getattr(signal, "SIGHUP", None)
"""None on Windows, which has no such signal."""


def run_loop(main: Coroutine[Any, Any, T]) -> T:
    """Runs ``main`` to its end on uvloop's event loop where there is one."""
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        return runner.run(main)


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


class Signals:
    """SIGINT, SIGTERM and SIGHUP, one after the other; the second that says stop ends the process at once."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._arrived: asyncio.Queue[int] = asyncio.Queue()
        self._stopping = False
        for number in (*STOP, *([] if RELOAD is None else [RELOAD])):
            if sys.platform == "win32":
                signal.signal(number, self._from_handler)
            else:
                self._loop.add_signal_handler(number, self._tell, number)

    async def next(self) -> int:
        """Waits for a signal; its number."""
        return await self._arrived.get()

    async def stop(self, patience: float | None = None) -> int | None:
        """Waits for a signal that says stop; its number, or None if there was none for ``patience`` seconds."""
        try:
            async with asyncio.timeout(patience):
                while (number := await self.next()) not in STOP:
                    pass
        except TimeoutError:
            return None
        return number

    def _from_handler(self, number: int, _: FrameType | None) -> None:
        self._loop.call_soon_threadsafe(self._tell, number)

    def _tell(self, number: int) -> None:
        if number in STOP:
            if self._stopping:
                _exit_now(number)
            self._stopping = True
        self._arrived.put_nowait(number)


def _exit_now(number: int) -> None:
    """Ends the process without waiting for anything: no handler, task or thread delays it."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(128 + number)
