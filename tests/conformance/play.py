"""Plays cases against a proxy, several at a time, each on a way of its own through it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from tests.conformance.cases import Case, Names
from tests.conformance.client import converse
from tests.conformance.observation import Observation
from tests.conformance.upstream import ScriptedUpstream

_REST = 0.12
"""Seconds for the proxy to notice that its connections to an upstream have been closed."""
_STUCK = 12.0
"""Seconds beyond a case's own limit after which the runner gives it up."""


@dataclass(frozen=True, slots=True)
class Lane:
    """One way through a proxy: a tenant that leads to an upstream used by one case at a time."""

    kind: str
    """As in ``Entry.tenant``."""
    host: str
    port: int
    upstream: ScriptedUpstream
    prefix: str = ""
    extra_fields: str = ""

    @property
    def names(self) -> Names:
        return Names(f"{self.host}:{self.port}", self.prefix, self.extra_fields)


@dataclass(frozen=True, slots=True)
class Part:
    """A case, the kind of lane it takes, and its judge, who tells what is wrong with an observation."""

    id: str
    kind: str
    case: Callable[[Names], Case]
    judge: Callable[[Case, Observation], list[str]]


class Stage:
    """All lanes of a proxy under test."""

    def __init__(self, lanes: Iterable[Lane]) -> None:
        self._free: dict[str, asyncio.Queue[Lane]] = {}
        for lane in lanes:
            self._free.setdefault(lane.kind, asyncio.Queue()).put_nowait(lane)

    async def perform(self, parts: Iterable[Part], *, at_once: int) -> dict[str, list[str]]:
        """Play all of these, so many at a time; what is wrong, by their ids."""
        places = asyncio.Semaphore(at_once)
        async with asyncio.TaskGroup() as tasks:
            playing = {part.id: tasks.create_task(self._perform(part, places), name=part.id) for part in parts}
        return {name: task.result() for name, task in playing.items()}

    async def _perform(self, part: Part, places: asyncio.Semaphore) -> list[str]:
        free = self._free[part.kind]
        lane = await free.get()
        async with places:
            faults = await _play(part, lane)
        if await lane.upstream.rest():
            await asyncio.sleep(_REST)
        if part.kind != "own":
            free.put_nowait(lane)
        return faults


async def _play(part: Part, lane: Lane) -> list[str]:
    case = part.case(lane.names)
    seen = Observation(lane.upstream.play(case.upstream, watching=case.watches_upstream))
    try:
        async with asyncio.timeout(case.limit + _STUCK):
            await converse(case, lane.host, lane.port, seen, lane.upstream.bell)
        await asyncio.sleep(case.settle)
        return part.judge(case, seen)
    except OSError as error:  # TimeoutError is one of them
        return [f"the case could not be played: {error!r}"]
