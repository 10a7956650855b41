"""``/events``: what the page follows, as server-sent events: everything once, then what has changed.

Each event's data is one JSON object::

    now, version, started_at, ready, draining, listening, connections, refused   as in /status.json; now is our clock
    whole     true: tenants that are not named here are no more
    every     seconds from one event to the next
    order     with whole: the tenants' names in the report's order
    tenants   [tenant], those that have changed

All times of a tenant are Unix times, so that one whose token merely grows old has not changed.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable

from proxy.admin.answers import whole
from proxy.admin.health import ready, troubled, usable
from proxy.core.report import DURATION_BUCKETS, ProxyReport, TenantReport

MOST_VIEWERS = 32

_TENANTS_A_SECOND = 1000
"""The more tenants there are, the rarer the events: looking at one takes some 10 µs."""

_NEARLY = 0.5
"""Seconds by which a time that is worked out from two clocks may differ from itself."""

_log = logging.getLogger(__name__)

Entry = dict[str, object]


class TooManyViewers(Exception):
    """``MOST_VIEWERS`` follow already."""


class Feed:
    """Looks at the proxy while somebody follows, once for all of them; owns its task.

    :param survey: the state now
    """

    def __init__(self, survey: Callable[[], Awaitable[ProxyReport]]) -> None:
        self._survey = survey
        self._entries: dict[str, Entry] = {}
        self._head: Entry = {}
        self._viewers: set[asyncio.Queue[bytes | None]] = set()
        self._coming = asyncio.Lock()
        """Held from the look for room to the place taken: the first viewer's look at the proxy lies between."""
        self._task: asyncio.Task[None] | None = None

    async def follow(self) -> AsyncGenerator[bytes, None]:
        """Events from now on, until ``close``.

        Who takes them too slowly gets everything anew instead of what they have missed.

        :raises TooManyViewers: there is no room
        """
        async with self._coming:
            if len(self._viewers) >= MOST_VIEWERS:
                raise TooManyViewers
            if self._task is None:
                await self._look()
                self._task = asyncio.get_running_loop().create_task(self._run(), name="status feed")
            viewer: asyncio.Queue[bytes | None] = asyncio.Queue(maxsize=4)
            self._viewers.add(viewer)
        try:
            yield await self._everything()
            while (event := await viewer.get()) is not None:
                yield event or await self._everything()
        finally:
            self._viewers.discard(viewer)

    async def close(self) -> None:
        """Ends the events of every viewer that has come."""
        async with self._coming:
            if self._task is not None:
                self._task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await self._task
            for viewer in self._viewers:
                _hand(viewer, None)

    async def _run(self) -> None:
        while self._viewers:
            await asyncio.sleep(self._every)
            try:
                changed = await self._look()
            except Exception:  # noqa: BLE001 - logged, and looked at again
                _log.exception("the admin port failed to look at the proxy", extra={"event": "admin.defect"})
                continue
            event = await self._event(changed)
            for viewer in self._viewers:
                _hand(viewer, event)
        self._task = None

    @property
    def _every(self) -> float:
        return max(1.0, len(self._entries) / _TENANTS_A_SECOND)

    async def _look(self) -> list[Entry] | None:
        """Looks at the proxy; the entries that have changed, None if tenants came or went."""
        report = await self._survey()
        self._head = _head(report)
        changed, entries = [], {}
        for number, tenant in enumerate(report.tenants):
            if number % 100 == 99:
                await asyncio.sleep(0)  # the traffic's turn
            entry, before = _entry(tenant), self._entries.get(tenant.name)
            if before is not None and _same(before, entry):
                entry = before
            else:
                changed.append(entry)
            entries[tenant.name] = entry
        same = list(entries) == list(self._entries)
        self._entries = entries
        return changed if same else None

    async def _everything(self) -> bytes:
        return await self._event(None)

    async def _event(self, changed: Iterable[Entry] | None) -> bytes:
        head = self._head | {"now": time.time(), "every": self._every, "whole": changed is None}
        if changed is None:
            head["order"] = list(self._entries)
        entries = list(self._entries.values()) if changed is None else changed
        opening = b"data: " + json.dumps(head).encode().removesuffix(b"}") + b', "tenants": ['
        pieces = (b",%b" % json.dumps(entry).encode() for entry in entries)
        return opening + (await whole(pieces)).removeprefix(b",") + b"]}\n\n"


def _hand(viewer: asyncio.Queue[bytes | None], event: bytes | None) -> None:
    """Gives a viewer an event; one that is behind gets an empty one for all it has missed."""
    if event is None or viewer.full():
        while not viewer.empty():
            viewer.get_nowait()
        event = event and b""
    viewer.put_nowait(event)


def _head(report: ProxyReport) -> Entry:
    return {
        "version": report.version,
        "started_at": report.started_at,
        "ready": ready(report),
        "draining": report.draining,
        "listening": list(report.listening),
        "connections": {"client": report.client_connections, "upstream": report.upstream_connections},
        "refused": sum(report.refused.values()),
        "bounds": DURATION_BUCKETS,
    }


def _entry(tenant: TenantReport) -> Entry:
    tally, expires_at = tenant.tally, tenant.expires_at
    now = None if expires_at is None or tenant.expires_in is None else expires_at - tenant.expires_in
    retry_in = tenant.retry_in
    requests = tally.requests
    return {
        "name": tenant.name,
        "state": tenant.state.value,
        "usable": usable(tenant),
        "troubled": troubled(tenant),
        "expires_at": expires_at,
        "refresh_at": None if now is None or tenant.refresh_in is None else now + tenant.refresh_in,
        "lifetime": tenant.lifetime,
        "error": tenant.error,
        "diagnosis": tenant.diagnosis,
        "retry_at": None if not retry_in else time.time() + retry_in,
        "headroom": tenant.headroom,
        "requests": sum(requests.values()),
        "failed": sum(count for status, count in requests.items() if status >= 500),
        "replays": dict(tally.replays),
        "durations": tally.durations.counts,
        "history": list(tally.history),
    }


_TIMES = ("expires_at", "refresh_at", "retry_at")


def _same(before: Entry, now: Entry) -> bool:
    return all(value == before[name] or (name in _TIMES and _near(before[name], value)) for name, value in now.items())


def _near(one: object, other: object) -> bool:
    return isinstance(one, float) and isinstance(other, float) and abs(one - other) < _NEARLY
