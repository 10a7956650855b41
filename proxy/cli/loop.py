"""The event loop of the long-running commands, and the signals that end or reload them."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Coroutine
from types import FrameType
from typing import Any, TypeVar

from proxy.process import take_hangups

T = TypeVar("T")

STOP = frozenset({signal.SIGINT, signal.SIGTERM})
RELOAD = frozenset(filter(None, [getattr(signal, "SIGHUP", None)]))
"""Empty on Windows."""


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
    """SIGINT and SIGTERM, and SIGHUP if it is to reload, one after the other.

    The second that says stop ends the process at once, whatever the event loop is busy with; so these are not
    the loop's own signal handlers, which Windows has none of besides.

    :ivar at_once: called before the process ends at once; does not wait for anything
    """

    def __init__(self, *, reload: bool = False) -> None:
        self._loop = asyncio.get_running_loop()
        self._arrived: asyncio.Queue[int] = asyncio.Queue()
        self._stopping = False
        self.at_once: Callable[[], None] = lambda: None
        for number in STOP | (RELOAD if reload else frozenset()):
            signal.signal(number, self._arrive)
        if reload:
            take_hangups()

    async def next(self) -> int:
        """Waits for a signal; its number."""
        return await self._arrived.get()

    async def stop(self, patience: float | None = None) -> int | None:
        """Waits for a signal that says stop; its number, or None if there was none for ``patience`` seconds.

        Others that arrive meanwhile are ``next`` afterwards.
        """
        others: dict[int, None] = {}
        try:
            async with asyncio.timeout(patience):
                while (number := await self.next()) not in STOP:
                    others[number] = None
        except TimeoutError:
            return None
        finally:
            for other in others:
                self._arrived.put_nowait(other)
        return number

    def _arrive(self, number: int, _: FrameType | None) -> None:
        if number in STOP:
            if self._stopping or self._loop.is_closed():
                self.at_once()
                os._exit(128 + number)
            self._stopping = True
        self._loop.call_soon_threadsafe(self._arrived.put_nowait, number)
