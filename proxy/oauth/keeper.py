"""The background keeper: refreshes every tenant's token ahead of expiry, gently."""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import itertools
from collections.abc import Iterable

from proxy.errors import TokenError
from proxy.oauth.clock import Clock
from proxy.oauth.source import Sleep, TokenSource

LONGEST_NAP = 10.0
"""Seconds; after a machine slept, its timers are late by the sleep, and the keeper looks again within this."""

SHORTEST_NAP = 0.02

AT_ONCE = 8
"""Refreshes under way at the same time: a thousand tenants at start are no storm at the token endpoint."""


class Keeper:
    """Keeps sources warm until it is closed; owns its tasks.

    Cost grows with the refreshes that are due, not with the tenants there are.

    :param clock: for when a refresh is due
    """

    def __init__(self, clock: Clock, sleep: Sleep = asyncio.sleep) -> None:
        self._clock = clock
        self._sleep = sleep
        self._keep_warm: dict[TokenSource, bool] = {}
        self._agenda: list[tuple[float, int, TokenSource]] = []
        self._order = itertools.count()
        self._busy: dict[TokenSource, asyncio.Task[None]] = {}
        self._task: asyncio.Task[None] | None = None
        self._changed = asyncio.Event()

    def keep(self, sources: Iterable[tuple[TokenSource, bool]]) -> None:
        """Keeps these from now on, and no others.

        Each comes with its ``keep_warm``: without it, the token is refreshed ahead only if somebody was given
        it since the last refresh.
        """
        self._keep_warm = dict(sources)
        self._agenda.clear()
        for source in self._keep_warm:
            self._note(source, 0.0)
        self._changed.set()

    def start(self) -> None:
        """Begins to look."""
        self._task = asyncio.get_running_loop().create_task(self._run(), name="token keeper")

    async def close(self) -> None:
        """Stops looking; refreshes under way are their sources' affair."""
        tasks = [task for task in (self._task, *self._busy.values()) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            self._changed.clear()
            nap = self._look()
            await self._nap(nap)

    async def _nap(self, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        sleeping = loop.create_task(self._asleep(seconds), name="token keeper's nap")
        changed = loop.create_task(self._changed.wait(), name="token keeper's alarm")
        try:
            await asyncio.wait({sleeping, changed}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            sleeping.cancel()
            changed.cancel()

    async def _asleep(self, seconds: float) -> None:
        await self._sleep(seconds)

    def _look(self) -> float:
        """Starts the refreshes that are due, as far as there is room; seconds until the next look."""
        now = self._clock()
        while self._agenda and len(self._busy) < AT_ONCE:
            at, _, source = self._agenda[0]
            if at > now.elapsed:
                return min(LONGEST_NAP, max(SHORTEST_NAP, at - now.elapsed))
            heapq.heappop(self._agenda)
            if source not in self._keep_warm or source in self._busy:
                continue
            if not (self._keep_warm[source] or source.used):
                self._note(source, now.elapsed + LONGEST_NAP)
            elif (due := source.due(now)) > 0:
                # Somebody else refreshed it since.
                self._note(source, now.elapsed + due)
            else:
                self._begin(source)
        return LONGEST_NAP  # or until a refresh ends and makes room

    def _note(self, source: TokenSource, at: float) -> None:
        heapq.heappush(self._agenda, (at, next(self._order), source))

    def _begin(self, source: TokenSource) -> None:
        task = asyncio.get_running_loop().create_task(
            self._refresh(source), name=f"refresh ahead for {source.client.tenant}"
        )
        self._busy[source] = task
        task.add_done_callback(lambda _: self._ended(source))

    def _ended(self, source: TokenSource) -> None:
        self._busy.pop(source, None)
        now = self._clock()
        self._note(source, now.elapsed + max(SHORTEST_NAP, source.due(now)))
        self._changed.set()

    async def _refresh(self, source: TokenSource) -> None:
        if source.due(self._clock()) > 0:
            return  # a caller's request ended in the meantime
        with contextlib.suppress(TokenError):  # logged and remembered by the source
            await source.refresh()
