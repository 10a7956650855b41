"""An event loop whose clock moves only while nothing happens, and then at once."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any


class _Impatient(selectors.DefaultSelector):
    """Takes no wait for files to be one: it is over at once, on a clock of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise RuntimeError("something waits for what will never happen")
        events = super().select(0)
        self.now += 0 if events else timeout
        return events


class Unhurried(asyncio.SelectorEventLoop):
    """A loop for connections in memory: whoever sleeps a millisecond sleeps until all that can happen has happened."""

    def __init__(self) -> None:
        self._impatient = _Impatient()
        super().__init__(self._impatient)

    def time(self) -> float:
        return self._impatient.now


def run(play: Coroutine[Any, Any, None]) -> None:
    """Plays something on such a loop, and closes it."""
    with asyncio.Runner(loop_factory=Unhurried) as runner:
        runner.run(play)
