"""What the page follows: everything once, then what changes, at the pace of who looks."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import replace
from typing import Any

import pytest

from proxy.admin import feed
from proxy.admin.feed import MOST_VIEWERS, Feed, TooManyViewers
from proxy.core.report import ProxyReport
from tests.admin.fakes import busy, dead, report, tenant
from tests.support.loops import SkippingLoop


class Proxy:
    """Tells ``shown``, and counts how often it is asked."""

    def __init__(self) -> None:
        self.shown = report(tenant("acme"), tenant("globex"))
        self.asked = 0
        self.failure: Exception | None = None
        self.go = asyncio.Event()
        self.go.set()

    async def survey(self) -> ProxyReport:
        self.asked += 1
        await self.go.wait()
        if self.failure is not None:
            raise self.failure
        return self.shown


@pytest.fixture
def proxy() -> Proxy:
    return Proxy()


@pytest.fixture
async def status(proxy: Proxy) -> AsyncIterator[Feed]:
    before = asyncio.all_tasks()
    status = Feed(proxy.survey)
    yield status
    await status.close()
    assert {task for task in asyncio.all_tasks() if task is not asyncio.current_task()} <= before


def read(event: bytes) -> dict[str, Any]:
    assert event.startswith(b"data: ")
    assert event.endswith(b"\n\n")
    assert event.count(b"\n") == 2
    found: dict[str, Any] = json.loads(event[6:])
    return found


async def following(status: Feed, clock: SkippingLoop, events: AsyncGenerator[bytes, None]) -> dict[str, Any]:
    """The next event, which comes within a second."""
    waiting = clock.create_task(_next(events), name="viewer")
    await clock.skip(1.01)
    return read(await waiting)


async def _next(events: AsyncGenerator[bytes, None]) -> bytes:
    return await anext(events)


async def test_the_first_event_is_everything_and_the_next_only_what_has_changed(
    proxy: Proxy, status: Feed, clock: SkippingLoop
) -> None:
    async with aclosing(status.follow()) as events:
        first = read(await anext(events))
        assert first["whole"] is True
        assert first["order"] == [entry["name"] for entry in first["tenants"]] == ["acme", "globex"]
        assert (first["ready"], first["version"], first["every"]) == (True, "1.2.3", 1.0)
        proxy.shown = report(tenant("acme"), tenant("globex", tally=busy()))
        second = await following(status, clock, events)
        assert second["whole"] is False
        [changed] = second["tenants"]
        assert (changed["name"], changed["requests"], changed["headroom"]) == ("globex", 4, [291, 300])
        assert (await following(status, clock, events))["tenants"] == []


async def test_a_token_that_merely_grows_old_has_not_changed(proxy: Proxy, status: Feed, clock: SkippingLoop) -> None:
    async with aclosing(status.follow()) as events:
        await anext(events)
        old = tenant("globex")
        assert old.expires_in is not None
        assert old.refresh_in is not None
        assert old.expires_at is not None
        aged = replace(old, expires_in=old.expires_in - 9, refresh_in=old.refresh_in - 9, age=9)
        proxy.shown = report(tenant("acme"), replace(aged, expires_at=old.expires_at + 0.3))
        assert (await following(status, clock, events))["tenants"] == []
        proxy.shown = report(tenant("acme"), replace(aged, expires_at=old.expires_at + 1))
        assert [entry["name"] for entry in (await following(status, clock, events))["tenants"]] == ["globex"]


@pytest.mark.parametrize("names", [["acme"], ["acme", "globex", "new"], ["globex", "acme"], []])
async def test_tenants_that_come_and_go_make_everything_new(
    proxy: Proxy, status: Feed, clock: SkippingLoop, names: list[str]
) -> None:
    async with aclosing(status.follow()) as events:
        await anext(events)
        proxy.shown = report(*map(tenant, names))
        event = await following(status, clock, events)
        assert (event["whole"], event["order"], len(event["tenants"])) == (True, names, len(names))


async def test_all_viewers_share_one_look_and_nobody_looks_without_any(
    proxy: Proxy, status: Feed, clock: SkippingLoop
) -> None:
    async with aclosing(status.follow()) as one, aclosing(status.follow()) as other:
        for events in (one, other):
            await anext(events)
        asked = proxy.asked
        await asyncio.gather(following(status, clock, one), _next(other))
        assert proxy.asked == asked + 1
    await clock.skip(1.01)
    asked = proxy.asked
    await clock.skip(10.0)
    assert proxy.asked == asked


async def test_a_viewer_who_is_slow_gets_everything_anew(proxy: Proxy, status: Feed, clock: SkippingLoop) -> None:
    async with aclosing(status.follow()) as events:
        await anext(events)
        for number in range(8):
            proxy.shown = report(tenant("acme"), replace(tenant("globex"), retry_in=float(number)))
            await clock.skip(1.01)
        event = read(await anext(events))
        assert event["whole"] is True
        assert len(event["tenants"]) == 2


async def test_more_tenants_make_rarer_events(proxy: Proxy, status: Feed, clock: SkippingLoop) -> None:
    proxy.shown = report(*(tenant(f"t{number}") for number in range(2500)))
    async with aclosing(status.follow()) as events:
        assert read(await anext(events))["every"] == 2.5


async def test_as_many_as_there_is_room_for_share_one_look_when_they_come_at_once(
    proxy: Proxy, status: Feed, clock: SkippingLoop
) -> None:
    proxy.go.clear()
    viewers = [status.follow() for _ in range(MOST_VIEWERS + 5)]
    coming = [clock.create_task(_next(viewer), name="viewer") for viewer in viewers]
    await clock.skip(1.01)
    proxy.go.set()
    events = await asyncio.gather(*coming, return_exceptions=True)
    assert [type(event) for event in events] == [bytes] * MOST_VIEWERS + [TooManyViewers] * 5
    assert proxy.asked == 1
    assert len([task for task in asyncio.all_tasks() if task.get_name() == "status feed"]) == 1
    await clock.skip(1.01)
    assert proxy.asked == 2
    for viewer in viewers:
        await viewer.aclose()


async def test_a_look_that_is_under_way_at_the_close_leaves_nothing_behind(proxy: Proxy, clock: SkippingLoop) -> None:
    status = Feed(proxy.survey)
    proxy.go.clear()
    events = status.follow()
    coming = clock.create_task(_next(events), name="viewer")
    await clock.skip(0)
    closing = clock.create_task(status.close(), name="close")
    await clock.skip(0)
    proxy.go.set()
    await closing
    assert not [task for task in asyncio.all_tasks() if task.get_name() == "status feed"]
    assert read(await coming)["whole"] is True
    with pytest.raises(StopAsyncIteration):
        await anext(events)


async def test_there_is_room_for_so_many(status: Feed, clock: SkippingLoop) -> None:
    viewers = [status.follow() for _ in range(MOST_VIEWERS)]
    for viewer in viewers:
        await anext(viewer)
    with pytest.raises(TooManyViewers):
        await anext(status.follow())
    await viewers.pop().aclose()
    async with aclosing(status.follow()) as events:
        await anext(events)
    for viewer in viewers:
        await viewer.aclose()


async def test_the_end_ends_every_viewer(status: Feed, clock: SkippingLoop) -> None:
    async with aclosing(status.follow()) as events:
        await anext(events)
        await status.close()
        assert [event async for event in events] == []


async def test_a_look_that_fails_is_logged_and_taken_again(
    proxy: Proxy, status: Feed, clock: SkippingLoop, caplog: pytest.LogCaptureFixture
) -> None:
    async with aclosing(status.follow()) as events:
        await anext(events)
        proxy.failure = RuntimeError("no report")
        await clock.skip(1.01)
        assert len(caplog.records) == 1
        proxy.failure = None
        proxy.shown = report(dead("acme"), tenant("globex"))
        event = await following(status, clock, events)
        assert [entry["troubled"] for entry in event["tenants"]] == [True]


def test_every_member_of_an_entry_is_told_in_the_page() -> None:
    from proxy.admin.page import page

    script = page().body.decode()
    assert [name for name in feed._entry(tenant()) if f".{name}" not in script] == []
