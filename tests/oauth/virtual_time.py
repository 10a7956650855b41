"""An event loop whose time a test moves, and the two clocks of the token plane on it."""

from __future__ import annotations

import asyncio
import functools
import selectors
from collections.abc import Callable, Coroutine
from typing import Any, ParamSpec

from proxy.core.tokens import Instant

P = ParamSpec("P")

BOOT = 10_000.0
"""The elapsed clock when a test begins."""

WALL = 1_700_000_000.0
"""Unix time when a test begins."""

READS_WITHOUT_END = 100_000
"""Of the clock in one turn of the loop: whoever does that never yields, and no timer would ever stop it."""


class VirtualLoop(asyncio.SelectorEventLoop):
    """A loop on which time passes while everything waits, and then at once.

    :ivar now: the loop's time, in seconds
    :ivar turns: how often it looked for something to do
    """

    def __init__(self) -> None:
        self.now = 0.0
        self.turns = 0
        super().__init__(_Selector(self))

    def time(self) -> float:
        return self.now


class _Selector(selectors.SelectSelector):
    """Moves the loop's time where another one would sleep."""

    def __init__(self, loop: VirtualLoop) -> None:
        super().__init__()
        self._virtual = loop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        self._virtual.turns += 1
        ready = super().select(0)
        if ready or timeout == 0:
            return ready
        if timeout is None:
            raise AssertionError("everything waits, and nothing will ever happen")
        self._virtual.now += timeout
        return ready


def in_virtual_time(test: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    """Runs a test on a VirtualLoop; whatever goes wrong unseen fails it too."""

    @functools.wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        unseen: list[dict[str, Any]] = []
        with asyncio.Runner(loop_factory=VirtualLoop) as runner:
            runner.get_loop().set_exception_handler(lambda _, context: unseen.append(context))
            runner.run(test(*args, **kwargs))
        assert not unseen, unseen

    return run


class VirtualClock:
    """The elapsed and the wall clock; both go with the loop's time, and a test moves them away from it."""

    def __init__(self, loop: VirtualLoop | None = None) -> None:
        running = loop or asyncio.get_running_loop()
        assert isinstance(running, VirtualLoop)
        self.loop = running
        self._slept = 0.0
        self._stepped = 0.0
        self.reads = 0
        self._turn = (-1, 0)

    def __call__(self) -> Instant:
        self.reads += 1
        turn, count = self._turn
        self._turn = (turn, count + 1) if turn == self.loop.turns else (self.loop.turns, 1)
        assert count < READS_WITHOUT_END, "somebody asks for the time again and again and never yields"
        return self.look()

    def look(self) -> Instant:
        """Now, for the test itself."""
        elapsed = BOOT + self.loop.now + self._slept
        return Instant(elapsed, WALL + elapsed - BOOT + self._stepped)

    def suspend(self, seconds: float) -> None:
        """The machine sleeps: its timers stand still, its clocks go on."""
        self._slept += seconds

    def step(self, seconds: float) -> None:
        """Somebody sets the wall clock; or a virtual machine was paused, which only that clock learns of."""
        self._stepped += seconds


async def settle() -> None:
    """Lets everything happen that can happen without time passing."""
    for _ in range(20):
        await asyncio.sleep(0)
