"""A store for those who want nothing kept: it ends with the process."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable

from proxy.core.lineage import Record
from proxy.oauth.store import Reading

PURGE_EVERY = 4096
"""Writings after which what is of no use any more is dropped."""


class MemoryStore:
    """Keeps records for one event loop.

    :param clock: Unix time
    """

    shared = False

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self.owner = "memory"
        self._clock = clock
        self._kept: dict[str, tuple[Record, int]] = {}
        self._versions = itertools.count(1)
        self._waiting: dict[str, set[asyncio.Event]] = {}

    async def load(self, key: str) -> Reading:
        record, version = self._kept.get(key, (None, 0))
        return Reading(key, record, version, self._clock())

    async def replace(self, seen: Reading, record: Record) -> Reading | None:
        key = seen.key
        _, version = self._kept.get(key, (None, 0))
        if version != seen.version:
            return None
        version = next(self._versions)
        if version % PURGE_EVERY == 0:
            self._purge()
        self._kept[key] = (record, version)
        for event in self._waiting.get(key, ()):
            event.set()
        return Reading(key, record, version, self._clock())

    def _purge(self) -> None:
        now = self._clock()
        for key, (record, _) in list(self._kept.items()):
            if record.forget_after is not None and record.forget_after < now:
                del self._kept[key]

    async def changed(self, seen: Reading, seconds: float) -> None:
        if self._kept.get(seen.key, (None, 0))[1] != seen.version:
            return
        event = asyncio.Event()
        waiting = self._waiting.setdefault(seen.key, set())
        waiting.add(event)
        try:
            async with asyncio.timeout(seconds):
                await event.wait()
        except TimeoutError:
            return
        finally:
            waiting.discard(event)
            if not waiting and self._waiting.get(seen.key) is waiting:
                del self._waiting[seen.key]

    async def close(self) -> None:
        self._kept.clear()
