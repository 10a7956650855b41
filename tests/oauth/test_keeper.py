"""Tokens are refreshed ahead of expiry with nobody calling, gently, and thousands of tenants at no great cost."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Iterable

import pytest

from proxy.core.answers import TokenAnswer
from proxy.core.report import TokenState
from proxy.core.tokens import Instant, state
from proxy.errors import TokenError
from proxy.oauth.keeper import AT_ONCE, LONGEST_NAP, Keeper
from proxy.oauth.source import TokenSource
from tests.oauth.fakes import LIFETIME, World, issued, refused, unavailable
from tests.oauth.virtual_time import in_virtual_time, settle

AHEAD = 60.0
HOUR = 3600.0


@contextlib.asynccontextmanager
async def keeping(world: World, sources: Iterable[TokenSource], *, keep_warm: bool = True) -> AsyncIterator[Keeper]:
    """A keeper of these sources, which has begun to look."""
    keeper = Keeper(world.clock)
    keeper.keep((source, keep_warm) for source in sources)
    keeper.start()
    yield keeper
    await keeper.close()


def usable(world: World, sources: Iterable[TokenSource]) -> bool:
    return all(state(source.token_now(), world.clock.look()) is not TokenState.EXPIRED for source in sources)


# --- when ---


@in_virtual_time
async def test_a_token_is_there_before_anybody_asks_for_it() -> None:
    world = World()
    source = world.source()
    async with keeping(world, [source]):
        await asyncio.sleep(0.1)
        assert source.current() is not None
    assert world.endpoint.asked == [0.0]


@in_virtual_time
async def test_tokens_are_refreshed_refresh_ahead_before_they_expire() -> None:
    world = World()
    world.endpoint.otherwise = lambda: issued("token", 3607)
    async with keeping(world, [world.source()]):
        await asyncio.sleep(3 * 3607)
    life = 3607 - AHEAD
    assert world.endpoint.asked == pytest.approx([0, life, 2 * life, 3 * life], abs=0.1)


@in_virtual_time
async def test_a_token_never_expires_while_the_endpoint_answers() -> None:
    world = World(latency=2.0)
    world.endpoint.otherwise = lambda: issued("short", 60)
    source = world.source()
    async with keeping(world, [source]):
        await asyncio.sleep(3.0)
        for _ in range(600):
            assert source.current() is not None
            await asyncio.sleep(1.0)
    assert len(world.endpoint.asked) == pytest.approx(600 / 48, abs=2)


@in_virtual_time
async def test_a_refresh_that_a_caller_began_is_not_made_twice() -> None:
    world = World(latency=1.0)
    source = world.source()
    async with keeping(world, [source]):
        await asyncio.sleep(LIFETIME - AHEAD - 0.5)
        await source.refresh()
        await asyncio.sleep(AHEAD)
    assert len(world.endpoint.asked) == 2


@in_virtual_time
async def test_a_token_that_was_kept_over_a_reload_is_not_asked_for_again() -> None:
    world = World()
    await world.source().token(1.0)
    async with keeping(world, [world.source()]):
        await asyncio.sleep(HOUR / 2)
    assert len(world.endpoint.asked) == 1


# --- how many at once ---


@in_virtual_time
async def test_a_thousand_tenants_at_start_are_no_storm() -> None:
    world = World(latency=0.2)
    sources = [world.source(f"t{index}") for index in range(1000)]
    async with keeping(world, sources):
        await asyncio.sleep(1000 / AT_ONCE * 0.2 + 1.0)
        assert all(source.token_now() is not None for source in sources)
    assert world.endpoint.most_at_once == AT_ONCE
    assert len(world.endpoint.asked) == 1000


@in_virtual_time
async def test_the_next_refresh_begins_when_one_ends_and_not_a_nap_later() -> None:
    world = World(latency=0.2)
    async with keeping(world, [world.source(f"t{index}") for index in range(AT_ONCE + 1)]):
        await asyncio.sleep(0.5)
    assert world.endpoint.asked == pytest.approx([0.0] * AT_ONCE + [0.2], abs=0.05)


@in_virtual_time
async def test_every_tenant_gets_its_turn_though_others_fail() -> None:
    world = World()
    world.endpoint.always = {"down": unavailable(), "refused": refused()}
    sources = [world.source(tenant) for tenant in ("down", "refused", "well", "well2")]
    async with keeping(world, sources):
        await asyncio.sleep(2 * LIFETIME)
        assert usable(world, sources[2:])
    asked = Counter(world.endpoint.tenants)
    assert asked["down"] == pytest.approx(2 * LIFETIME / 30, abs=10)
    assert asked["refused"] == pytest.approx(2 * LIFETIME / 60, abs=5)
    assert asked["well"] == asked["well2"] == 3


# --- keep_warm = false ---


@in_virtual_time
async def test_a_tenant_that_nobody_uses_is_not_asked_for() -> None:
    world = World()
    async with keeping(world, [world.source()], keep_warm=False):
        await asyncio.sleep(2 * HOUR)
    assert world.endpoint.asked == []


@in_virtual_time
async def test_a_tenant_in_use_is_refreshed_ahead() -> None:
    world = World(latency=1.0)
    source = world.source()
    async with keeping(world, [source], keep_warm=False):
        await source.token(5.0)
        for _ in range(int(3 * LIFETIME / 300)):
            await asyncio.sleep(300.0)
            assert source.current() is not None
    assert len(world.endpoint.asked) == 4


@in_virtual_time
async def test_a_tenant_that_is_no_longer_used_is_refreshed_once_more_and_then_lapses() -> None:
    world = World()
    source = world.source()
    async with keeping(world, [source], keep_warm=False):
        await source.token(5.0)
        await asyncio.sleep(5 * LIFETIME)
        assert source.current() is None
    assert len(world.endpoint.asked) == 2


@in_virtual_time
async def test_a_tenant_that_is_no_longer_used_is_left_alone_though_its_last_refresh_failed() -> None:
    world = World()
    source = world.source()
    async with keeping(world, [source], keep_warm=False):
        await source.token(5.0)
        world.endpoint.otherwise = refused
        await asyncio.sleep(24 * HOUR)
    assert len(world.endpoint.asked) < 10


# --- clocks ---


@in_virtual_time
async def test_after_a_laptop_slept_every_token_is_there_again_within_a_nap() -> None:
    world = World(latency=0.1)
    sources = [world.source(f"t{index}") for index in range(50)]
    async with keeping(world, sources):
        await asyncio.sleep(10.0)
        world.clock.suspend(8 * HOUR)
        assert not usable(world, sources)
        await asyncio.sleep(LONGEST_NAP + 2.0)
        assert usable(world, sources)
        await asyncio.sleep(HOUR / 2)
    assert len(world.endpoint.asked) == 100
    assert world.endpoint.most_at_once == AT_ONCE


@pytest.mark.parametrize("step", [HOUR, -HOUR, 1e9, -1e9])
@in_virtual_time
async def test_no_step_of_the_wall_clock_causes_a_storm(step: float) -> None:
    world = World()
    sources = [world.source(f"t{index}") for index in range(20)]
    async with keeping(world, sources):
        await asyncio.sleep(10.0)
        world.clock.step(step)
        for _ in range(int(LIFETIME / 10)):
            for source in sources:
                await source.token(5.0)
            await asyncio.sleep(10.0)
    assert len(world.endpoint.asked) <= 60


# --- failures ---


@pytest.mark.parametrize(("failure", "pause"), [(unavailable(), 30), (refused(), 60), (unavailable(300.0), 300)])
@in_virtual_time
async def test_an_endpoint_that_fails_is_asked_no_more_often_than_its_pauses_allow(
    failure: TokenError, pause: float
) -> None:
    world = World()
    world.endpoint.otherwise = lambda: failure
    async with keeping(world, [world.source()]):
        await asyncio.sleep(HOUR)
    assert HOUR / pause - 1 <= len(world.endpoint.asked) <= HOUR / pause + 8


@in_virtual_time
async def test_a_failed_refresh_is_tried_again_while_the_old_token_lives() -> None:
    world = World(issued("first"), *[unavailable()] * 4)
    source = world.source()
    async with keeping(world, [source]):
        await asyncio.sleep(LIFETIME - 10.0)
        assert source.failure is None
        token = source.current()
        assert token is not None
        assert token.access_token == "token-1"
    assert len(world.endpoint.asked) == 6


@in_virtual_time
async def test_callers_and_the_keeper_keep_to_the_same_pauses() -> None:
    world = World(latency=0.05)
    world.endpoint.otherwise = unavailable
    source = world.source()
    async with keeping(world, [source]):
        for _ in range(1200):
            with contextlib.suppress(TokenError):
                await source.token(0.01)
            await asyncio.sleep(0.05)
    assert len(world.endpoint.asked) <= 9
    assert world.endpoint.most_at_once == 1


@pytest.mark.parametrize("answer", [unavailable(), refused(), issued("good")], ids=["down", "refused", "good"])
@in_virtual_time
async def test_the_keeper_begins_no_request_in_the_moment_in_which_another_ends(
    answer: TokenAnswer | TokenError,
) -> None:
    # It sees that a refresh is due, and a caller's request ends before that refresh has begun.
    for turns in range(12):
        world = World(answer)
        source = world.source()
        world.endpoint.open.clear()
        caller = asyncio.get_running_loop().create_task(source.token(0.2), name="caller")
        await settle()
        async with keeping(world, [source]):
            for _ in range(turns):
                await asyncio.sleep(0)
            world.endpoint.open.set()
            await asyncio.wait({caller})
            await asyncio.sleep(0.2)
        assert len(world.endpoint.asked) == 1
        assert caller.exception() is None or isinstance(answer, TokenError)


# --- which sources, and the end ---


@in_virtual_time
async def test_sources_that_are_kept_no_longer_are_left_alone() -> None:
    world = World()
    old, new = world.source("old"), world.source("new")
    async with keeping(world, [old]) as keeper:
        await asyncio.sleep(10.0)
        keeper.keep([(new, True)])
        await asyncio.sleep(3 * LIFETIME)
    assert world.endpoint.tenants.count("old") == 1
    assert world.endpoint.tenants.count("new") == 4


@in_virtual_time
async def test_a_new_source_is_looked_at_at_once() -> None:
    world = World()
    async with keeping(world, []) as keeper:
        await asyncio.sleep(1.0)
        keeper.keep([(world.source(), True)])
        await settle()
    assert world.endpoint.asked == [1.0]


@in_virtual_time
async def test_a_source_that_stays_over_reloads_is_refreshed_no_more_often() -> None:
    world = World(latency=1.0)
    source = world.source()
    async with keeping(world, [source]) as keeper:
        for _ in range(100):
            keeper.keep([(source, True)])
            await asyncio.sleep(0.5)
        await asyncio.sleep(2 * LIFETIME)
    assert len(world.endpoint.asked) == 3


@in_virtual_time
async def test_reloads_during_a_refresh_leave_nothing_behind_that_costs() -> None:
    world = World(latency=50.0)
    source = world.source()
    async with keeping(world, [source]) as keeper:
        for _ in range(100):
            keeper.keep([(source, True)])
            await asyncio.sleep(0.4)
        await asyncio.sleep(50.0)
        reads = world.clock.reads
        await asyncio.sleep(2 * LIFETIME)
        assert world.clock.reads - reads <= 2 * LIFETIME / LONGEST_NAP + 100
    assert len(world.endpoint.asked) == 3


@in_virtual_time
async def test_a_source_that_is_dropped_during_its_refresh_is_not_taken_up_again() -> None:
    world = World(latency=1.0)
    dropped, kept = world.source("dropped"), world.source("kept")
    async with keeping(world, [dropped]) as keeper:
        await asyncio.sleep(0.5)
        keeper.keep([(kept, True)])
        await asyncio.sleep(3 * LIFETIME)
    assert Counter(world.endpoint.tenants) == {"dropped": 1, "kept": 4}
    assert dropped.token_now() is not None


@in_virtual_time
async def test_once_closed_it_refreshes_nothing() -> None:
    world = World()
    async with keeping(world, [world.source()]):
        await asyncio.sleep(1.0)
    await asyncio.sleep(3 * LIFETIME)
    assert len(world.endpoint.asked) == 1


@in_virtual_time
async def test_logins_that_hang_keep_no_tenant_of_another_login_waiting() -> None:
    world = World()
    world.endpoint.open.clear()
    hanging = [world.source(f"t{index}", login="hangs.example.com") for index in range(5 * AT_ONCE)]
    healthy = world.source("healthy", login="works.example.com")
    async with keeping(world, [*hanging, healthy]):
        await asyncio.sleep(0.1)
        assert world.endpoint.tenants.count("healthy") == 1
        assert world.endpoint.under_way == AT_ONCE + 1
        world.endpoint.open.set()
        await asyncio.sleep(0.1)
    assert usable(world, [*hanging, healthy])


@in_virtual_time
async def test_tenants_that_wait_for_their_login_and_are_no_longer_kept_are_left_alone() -> None:
    world = World(latency=1.0)
    sources = [world.source(f"t{index}") for index in range(3 * AT_ONCE)]
    async with keeping(world, sources) as keeper:
        await asyncio.sleep(0.1)
        keeper.keep([(sources[-1], True)])
        await asyncio.sleep(5.0)
    assert sorted(world.endpoint.tenants) == sorted([*(f"t{index}" for index in range(AT_ONCE)), f"t{3 * AT_ONCE - 1}"])


@in_virtual_time
async def test_after_a_pause_that_only_the_wall_clock_saw_tokens_are_refreshed_soon() -> None:
    world = World()
    source = world.source()
    async with keeping(world, [source]):
        await asyncio.sleep(60.0)
        world.clock.step(LIFETIME)
        await asyncio.sleep(LONGEST_NAP + 0.1)
        assert source.current() is not None
    assert len(world.endpoint.asked) == 2


class Defect(TokenSource):
    """A source that is broken, once."""

    __slots__ = ()

    broken = True

    def due(self, now: Instant) -> float:
        if self.broken:
            Defect.broken = False
            raise RuntimeError("broken")
        return super().due(now)


@in_virtual_time
async def test_a_defect_of_one_source_does_not_end_the_keeping(caplog: pytest.LogCaptureFixture) -> None:
    world = World()
    source = world.source()
    source.__class__ = Defect
    async with keeping(world, [source, world.source("emca")]):
        await asyncio.sleep(LONGEST_NAP + 0.1)
        assert world.endpoint.tenants == ["emca"]
    assert "a defect of this program kept tokens from being refreshed ahead" in caplog.text


@in_virtual_time
async def test_close_leaves_a_refresh_under_way_to_its_source() -> None:
    world = World(latency=5.0)
    source = world.source(grant="refresh_token")
    async with keeping(world, [source]):
        await asyncio.sleep(1.0)
    assert world.clock.loop.now == 1.0
    assert world.endpoint.under_way == 1
    left = asyncio.all_tasks() - {asyncio.current_task()}
    assert {task.get_name() for task in left} == {"token request for acme", "sending for acme", "lease of acme"}
    await source.close()
    assert world.clock.loop.now == 5.0
    assert (await world.kept(source)).access is not None


@in_virtual_time
async def test_a_keeper_that_never_began_can_be_closed() -> None:
    world = World()
    keeper = Keeper(world.clock)
    keeper.keep([(world.source(), True)])
    await keeper.close()
    assert world.endpoint.asked == []


# --- its cost ---


@in_virtual_time
async def test_the_cost_of_ten_thousand_tenants_is_ten_thousand_times_that_of_one() -> None:
    count = 10_000
    world = World(latency=0.001)
    sources = [world.source(f"t{index}") for index in range(count)]
    async with keeping(world, sources):
        await asyncio.sleep(60.0)
        assert len(world.endpoint.asked) == count
        assert world.clock.reads <= 20 * count
        turns = world.clock.loop.turns
        assert turns <= 10 * count
        # With nothing due, a nap costs the same whatever the number of tenants.
        reads = world.clock.reads
        await asyncio.sleep(600.0)
        assert world.clock.reads - reads <= 2 * 600 / LONGEST_NAP
        assert world.clock.loop.turns - turns <= 10 * 600 / LONGEST_NAP
    assert len(world.endpoint.asked) == count


@in_virtual_time
async def test_tenants_that_nobody_calls_cost_nothing_unless_they_are_kept_warm() -> None:
    world = World()
    sources = [world.source(f"t{index}") for index in range(1000)]
    async with keeping(world, sources, keep_warm=False):
        await asyncio.sleep(1.0)
        reads = world.clock.reads
        await asyncio.sleep(600.0)
        assert world.clock.reads - reads <= 2 * 600 / LONGEST_NAP
    assert world.endpoint.asked == []
