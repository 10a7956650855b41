"""A store for those who want nothing kept: it ends with the process."""

from __future__ import annotations

import asyncio
import itertools
import math
import time
from collections.abc import Callable

from cachetools import TLRUCache

from proxy.core.lineage import Record
from proxy.oauth.store import Reading

Kept = tuple[Record, int]

_NOTHING: tuple[None, int] = (None, 0)


class MemoryStore:
    """Keeps records for one event loop, each for as long as it is of use: a refresh token until it is replaced.

    :param clock: Unix time
    """

    shared = False

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self.owner = "memory"
        self._clock = clock
        # No bound but time's: whom the configuration names is kept, and what is of no use any more goes.
        self._kept: TLRUCache[str, Kept] = TLRUCache(math.inf, _time_to_use, timer=clock)
        self._versions = itertools.count(1)
        self._waiting: dict[str, set[asyncio.Event]] = {}

    async def load(self, key: str) -> Reading:
        record, version = self._kept.get(key, _NOTHING)
        return Reading(key, record, version, self._clock())

    async def replace(self, seen: Reading, record: Record) -> Reading | None:
        key = seen.key
        _, version = self._kept.get(key, _NOTHING)
        if version != seen.version:
            return None
        version = next(self._versions)
        self._kept[key] = (record, version)
        for event in self._waiting.get(key, ()):
            event.set()
        return Reading(key, record, version, self._clock())

    async def changed(self, seen: Reading, seconds: float) -> None:
        if self._kept.get(seen.key, _NOTHING)[1] != seen.version:
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


def _time_to_use(_key: str, kept: Kept, _now: float) -> float:
    record, _ = kept
    return math.inf if record.forget_after is None else record.forget_after
