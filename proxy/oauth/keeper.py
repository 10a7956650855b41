"""The background keeper: refreshes every tenant's token ahead of expiry, gently."""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import itertools
import logging
import math
from collections import Counter, defaultdict, deque
from collections.abc import Iterable

from proxy.core.tokens import Instant
from proxy.errors import TokenError
from proxy.oauth.clock import Clock
from proxy.oauth.shelf import Sleep
from proxy.oauth.source import TokenSource

log = logging.getLogger(__name__)

LONGEST_NAP = 10.0
"""Seconds; after a machine slept, its timers are late by the sleep, and the keeper looks again within this."""

SHORTEST_NAP = 0.02

AT_ONCE = 8
"""Refreshes under way at the same time at one login host: a thousand tenants at start are no storm there, and the
tenants of one that hangs keep nobody else's waiting."""

IN_A_LOOK = 250
"""Sources looked at before requests have their turn: after a reload, all of thousands are."""

A_JUMP = 1.0
"""Seconds by which the wall clock gains on the other at once where the machine was paused, or the clock was set."""


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
        self._noted: set[TokenSource] = set()
        self._order = itertools.count()
        self._busy: dict[TokenSource, asyncio.Task[None]] = {}
        self._under_way: Counter[str] = Counter()
        self._queues: defaultdict[str, deque[TokenSource]] = defaultdict(deque)
        self._gap = math.inf
        self._task: asyncio.Task[None] | None = None
        self._changed = asyncio.Event()

    def keep(self, sources: Iterable[tuple[TokenSource, bool]]) -> None:
        """Keeps these from now on, and no others.

        Each comes with its ``keep_warm``: without it, the token is refreshed ahead only if somebody was given
        it since the last refresh.
        """
        for source in self._keep_warm:
            source.renewed = None
        self._keep_warm = dict(sources)
        for source, warm in self._keep_warm.items():
            source.renewed = None if warm else self._renewed
        self._queues.clear()
        self._plan_anew()
        self._changed.set()

    def _plan_anew(self) -> None:
        self._agenda.clear()
        self._noted.clear()
        for source in self._keep_warm:
            self._note(source, 0.0)

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
            nap = LONGEST_NAP
            try:
                nap = self._look()
            except Exception:
                # A keeper that is gone would be noticed when the last token has expired.
                log.exception(
                    "a defect of this program kept tokens from being refreshed ahead", extra={"event": "keeper.defect"}
                )
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
        """Starts the refreshes that are due, or queues them where their login is busy; seconds until the next look."""
        now = self._clock()
        if now.wall - now.elapsed > self._gap + A_JUMP:
            self._plan_anew()  # tokens age by the clock that saw more
        self._gap = now.wall - now.elapsed
        for _ in range(IN_A_LOOK):
            if not self._agenda:
                return LONGEST_NAP
            at, _, source = self._agenda[0]
            if at > now.elapsed:
                return min(LONGEST_NAP, max(SHORTEST_NAP, at - now.elapsed))
            heapq.heappop(self._agenda)
            self._noted.discard(source)
            self._consider(source, now)
        return 0.0

    def _consider(self, source: TokenSource, now: Instant) -> None:
        if source not in self._keep_warm or source in self._busy:
            return
        if not (self._keep_warm[source] or source.used):
            # A caller who comes before the token expires has it refreshed, and so brings the source back.
            if (left := source.forget()) is not None:
                self._note(source, now.elapsed + max(SHORTEST_NAP, left))
            return
        if (due := source.due(now)) > 0:
            # Somebody else refreshed it since.
            self._note(source, now.elapsed + due)
        elif self._under_way[source.login] >= AT_ONCE:
            self._queues[source.login].append(source)
        else:
            self._begin(source)

    def _renewed(self, source: TokenSource) -> None:
        """Plans the next refresh of a source that a caller had refreshed."""
        now = self._clock()
        self._note(source, now.elapsed + max(SHORTEST_NAP, source.due(now)))
        self._changed.set()

    def _note(self, source: TokenSource, at: float) -> None:
        if source in self._noted:
            return  # looked at no later than it is due, and then again
        self._noted.add(source)
        heapq.heappush(self._agenda, (at, next(self._order), source))

    def _begin(self, source: TokenSource) -> None:
        task = asyncio.get_running_loop().create_task(
            self._refresh(source), name=f"refresh ahead for {source.client.tenant}"
        )
        self._busy[source] = task
        self._under_way[source.login] += 1
        task.add_done_callback(lambda _: self._ended(source))

    def _ended(self, source: TokenSource) -> None:
        self._busy.pop(source, None)
        now, login = self._clock(), source.login
        self._under_way[login] -= 1
        self._note(source, now.elapsed + max(SHORTEST_NAP, source.due(now)))
        queue = self._queues[login]
        while queue and self._under_way[login] < AT_ONCE:
            self._consider(queue.popleft(), now)
        self._changed.set()

    async def _refresh(self, source: TokenSource) -> None:
        if source.due(self._clock()) > 0:
            return  # a caller's request ended in the meantime
        with contextlib.suppress(TokenError):  # logged and remembered by the source
            await source.refresh()
