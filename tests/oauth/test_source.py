"""One token for all callers of a client, asked for once, ahead of its expiry."""

from __future__ import annotations

import asyncio
import gc
import itertools
from functools import partial

import pytest

from proxy.core.report import TokenState
from proxy.core.secret import Secret
from proxy.core.tokens import Token, state
from proxy.errors import TokenUnavailable
from proxy.oauth.source import TokenSource
from tests.oauth.fakes import LIFETIME, World, issued, refused, unavailable
from tests.oauth.virtual_time import in_virtual_time, settle

AHEAD = 60.0
PATIENCE = 15.0


def call(source: TokenSource, patience: float = PATIENCE) -> asyncio.Task[Token]:
    """A caller who needs a token."""
    return asyncio.get_running_loop().create_task(source.token(patience), name="caller")


# --- single flight ---


@in_virtual_time
async def test_any_number_of_callers_cause_one_request_and_get_one_token() -> None:
    world = World(latency=0.2)
    source = world.source()
    tokens = await asyncio.gather(*(source.token(PATIENCE) for _ in range(200)))
    assert world.endpoint.asked == [0.0]
    assert {token.access_token for token in tokens} == {"token-1"}
    assert len(set(map(id, tokens))) == 1


@in_virtual_time
async def test_callers_who_come_while_a_request_is_under_way_wait_for_it() -> None:
    world = World(latency=1.0)
    source = world.source()
    callers = []
    for _ in range(20):
        callers.append(call(source))
        await asyncio.sleep(0.04)
    tokens = await asyncio.gather(*callers)
    assert len(world.endpoint.asked) == 1
    assert len(set(map(id, tokens))) == 1


@in_virtual_time
async def test_a_client_that_hangs_up_does_not_cancel_the_refresh() -> None:
    world = World(latency=1.0)
    source = world.source()
    first, second = call(source), call(source)
    await asyncio.sleep(0.5)
    first.cancel()
    assert (await second).access_token == "token-1"
    assert first.cancelled()
    assert len(world.endpoint.asked) == 1


@in_virtual_time
async def test_a_refresh_that_every_client_has_left_still_brings_its_token() -> None:
    world = World(latency=1.0)
    source = world.source()
    callers = [call(source) for _ in range(5)]
    await asyncio.sleep(0.5)
    for caller in callers:
        caller.cancel()
    await asyncio.sleep(1.0)
    token = source.current()
    assert token is not None
    assert token.access_token == "token-1"
    assert len(world.endpoint.asked) == 1


@in_virtual_time
async def test_a_failure_that_nobody_waits_for_any_more_makes_no_noise() -> None:
    world = World(unavailable(), latency=1.0)
    source = world.source()
    caller = call(source)
    await asyncio.sleep(0.5)
    caller.cancel()
    await asyncio.sleep(1.0)
    gc.collect()  # an exception that was never retrieved is told when its task goes
    assert source.failure is not None


@in_virtual_time
async def test_clients_that_hang_up_one_after_the_other_start_no_further_request() -> None:
    world = World(latency=10.0)
    source = world.source()
    for _ in range(50):
        caller = call(source)
        await asyncio.sleep(0.1)
        caller.cancel()
    assert len(world.endpoint.asked) == 1


@in_virtual_time
async def test_a_caller_waits_no_longer_than_its_patience_and_the_request_goes_on() -> None:
    world = World(latency=10.0)
    source = world.source()
    with pytest.raises(TokenUnavailable, match="has not answered yet") as caught:
        await source.token(3.0)
    assert world.clock.loop.now == 3.0
    assert caught.value.error == "timeout"
    assert (caught.value.retry_after or 0) > 0
    await asyncio.sleep(7.0)
    await settle()
    assert source.current() is not None
    assert len(world.endpoint.asked) == 1


@in_virtual_time
async def test_each_caller_has_its_own_patience() -> None:
    world = World(latency=5.0)
    source = world.source()
    hasty, patient = call(source, 1.0), call(source, 10.0)
    with pytest.raises(TokenUnavailable):
        await hasty
    assert (await patient).access_token == "token-1"


@pytest.mark.parametrize("patience", [0.0, -1.0])
@in_virtual_time
async def test_a_caller_without_patience_is_told_at_once_and_sets_the_request_off(patience: float) -> None:
    world = World(latency=1.0)
    source = world.source()
    with pytest.raises(TokenUnavailable):
        await source.token(patience)
    assert world.clock.loop.now == 0.0
    await asyncio.sleep(1.0)
    assert source.current() is not None
    assert (await source.token(patience)).access_token == "token-1"


# --- ahead of expiry ---


@in_virtual_time
async def test_there_is_no_token_before_the_first_and_looking_asks_for_none() -> None:
    world = World()
    source = world.source()
    assert (source.current(), source.token_now()) == (None, None)
    await settle()
    assert world.endpoint.asked == []
    assert source.due(world.clock()) == 0


@in_virtual_time
async def test_a_fresh_token_costs_no_request() -> None:
    world = World()
    source = world.source()
    first = await source.token(PATIENCE)
    await asyncio.sleep(LIFETIME - AHEAD - 0.001)
    assert source.current() is first
    assert await source.token(PATIENCE) is first
    await settle()
    assert len(world.endpoint.asked) == 1


@in_virtual_time
async def test_a_stale_token_is_given_out_at_once_and_refreshed_behind_the_caller() -> None:
    world = World(latency=1.0)
    source = world.source()
    first = await source.token(PATIENCE)
    await asyncio.sleep(LIFETIME - AHEAD - 1.0)
    before = world.clock.loop.now
    for _ in range(100):
        assert source.current() is first
        assert await source.token(PATIENCE) is first
    assert world.clock.loop.now == before
    await asyncio.sleep(1.5)
    second = source.current()
    assert second is not None
    assert second.access_token == "token-2"
    assert world.endpoint.asked == [0.0, LIFETIME - AHEAD]


@in_virtual_time
async def test_an_expired_token_is_waited_for() -> None:
    world = World(latency=1.0)
    source = world.source()
    first = await source.token(PATIENCE)
    await asyncio.sleep(LIFETIME - first.leeway - 1.0)
    assert source.current() is None
    assert source.token_now() is first
    second = await source.token(PATIENCE)
    assert second.access_token == "token-2"
    assert world.clock.loop.now == LIFETIME - first.leeway + 1.0


@in_virtual_time
async def test_a_token_lives_from_before_its_request_was_sent() -> None:
    world = World(latency=8.0)
    source = world.source()
    token = await source.token(PATIENCE)
    assert world.clock.loop.now == 8.0
    assert source.seconds_left(token) == LIFETIME - 8.0


@pytest.mark.parametrize(
    ("refresh_ahead", "expires_in", "ahead"), [(60.0, 3600, 60.0), (60.0, 100, 20.0), (3600.0, 3600, 720.0)]
)
@in_virtual_time
async def test_the_refresh_is_due_refresh_ahead_before_expiry_and_within_the_last_fifth(
    refresh_ahead: float, expires_in: int, ahead: float
) -> None:
    world = World(issued("short", expires_in))
    source = world.source(refresh_ahead=refresh_ahead)
    token = await source.token(PATIENCE)
    assert source.due(world.clock()) == pytest.approx(expires_in - ahead)
    await asyncio.sleep(expires_in - ahead - 0.01)
    assert state(token, world.clock()) is TokenState.FRESH
    await asyncio.sleep(0.02)
    assert state(token, world.clock()) is TokenState.STALE
    assert source.due(world.clock()) == 0


@in_virtual_time
async def test_sources_that_got_their_tokens_together_refresh_them_apart() -> None:
    world = World()
    jitters = [index / 50 for index in range(50)]
    sources = [world.source(f"t{value}", jitter=partial(float, value)) for value in jitters]
    await asyncio.gather(*(source.token(PATIENCE) for source in sources))
    due = sorted(source.due(world.clock()) for source in sources)
    assert all(later - earlier > 0.3 for earlier, later in itertools.pairwise(due))


@in_virtual_time
async def test_refresh_ahead_takes_effect_with_the_next_token() -> None:
    world = World()
    source = world.source()
    await source.token(PATIENCE)
    source.take_over(source.client, [], 30.0)
    await source.refresh()
    assert source.due(world.clock()) == LIFETIME - 30.0


@in_virtual_time
async def test_a_refresh_asked_for_joins_the_one_under_way() -> None:
    world = World(latency=1.0)
    source = world.source()
    caller = call(source)
    await asyncio.sleep(0.5)
    assert await source.refresh() is await caller
    assert len(world.endpoint.asked) == 1


@in_virtual_time
async def test_a_refresh_asked_for_replaces_a_token_that_is_still_fresh() -> None:
    world = World()
    source = world.source()
    first = await source.token(PATIENCE)
    second = await source.refresh()
    assert second is not first
    assert source.current() is second


@in_virtual_time
async def test_a_source_knows_whether_its_token_was_used_since_the_last_refresh() -> None:
    world = World()
    source = world.source()
    known = [source.used]
    for use in (source.refresh(), None, source.refresh(), source.token(PATIENCE)):
        if use is None:
            source.current()
        else:
            await use
        known.append(source.used)
    assert known == [False, False, True, False, True]


@in_virtual_time
async def test_a_refresh_that_was_cancelled_before_it_began_is_in_nobodys_way() -> None:
    world = World()
    source = world.source()
    first = await source.token(PATIENCE)
    await asyncio.sleep(LIFETIME - AHEAD)
    assert source.current() is first
    [flight] = [task for task in asyncio.all_tasks() if task.get_name() == "token request for acme"]
    flight.cancel()
    await settle()
    assert len(world.endpoint.asked) == 1
    assert (await source.refresh()).access_token == "token-2"


# --- the end ---


@in_virtual_time
async def test_close_waits_for_a_request_that_may_have_used_something_up() -> None:
    world = World(latency=2.0)
    source = world.source(grant="refresh_token")
    caller = call(source)
    await settle()
    await source.close()
    assert world.clock.loop.now == 2.0
    record = await world.kept(source)
    assert record.access is not None
    assert record.access.token == Secret("token-1")
    assert (record.lease, record.journal) == (None, None)
    with pytest.raises(TokenUnavailable, match="the proxy is stopping"):
        await caller


@in_virtual_time
async def test_close_ends_a_request_that_can_be_made_again_and_says_so_to_those_who_wait() -> None:
    world = World(latency=2.0)
    source = world.source()
    callers = [call(source), asyncio.get_running_loop().create_task(source.refresh(), name="operator")]
    await settle()
    await source.close()
    assert world.clock.loop.now == 0.0
    for caller in callers:
        with pytest.raises(TokenUnavailable, match="the proxy is stopping"):
            await caller


@in_virtual_time
async def test_close_waits_for_a_request_that_fails_and_says_nothing_of_it() -> None:
    world = World(refused(), latency=2.0)
    source = world.source(grant="refresh_token")
    caller = call(source)
    await settle()
    caller.cancel()
    await source.close()
    assert world.clock.loop.now == 2.0
    record = await world.kept(source)
    assert record.setback is not None
    assert record.journal is None


@in_virtual_time
async def test_close_has_nothing_to_wait_for_when_nothing_is_under_way() -> None:
    world = World()
    source = world.source()
    await source.token(PATIENCE)
    await source.close()
    await world.source("emca").close()
    assert world.clock.loop.now == 0.0


@in_virtual_time
async def test_towards_the_end_only_callers_who_wait_have_a_token_asked_for() -> None:
    world = World()
    source = world.source()
    source.wind_down()
    source.fetch_behind()
    with pytest.raises(TokenUnavailable, match="the proxy is stopping"):
        await source.refresh()
    await settle()
    assert world.endpoint.asked == []
    token = await source.token(PATIENCE)
    await asyncio.sleep(LIFETIME - AHEAD)
    assert source.current() is token  # stale, and left so
    await settle()
    assert world.endpoint.asked == [0.0]
    source.reject(token)
    assert (await source.token(PATIENCE)).access_token == "token-2"


# --- the store ---


@in_virtual_time
async def test_a_token_outlives_its_source() -> None:
    world = World()
    first = await world.source().token(PATIENCE)
    await asyncio.sleep(100.0)
    again = world.source()
    assert again.current() is None
    second = await again.token(PATIENCE)
    assert second.access_token == first.access_token
    assert again.seconds_left(second) == LIFETIME - 100.0
    assert len(world.endpoint.asked) == 1


@in_virtual_time
async def test_a_source_of_another_client_gets_another_token() -> None:
    world = World()
    acme, emca = await world.source("acme").token(PATIENCE), await world.source("emca").token(PATIENCE)
    assert acme.access_token != emca.access_token
    assert world.endpoint.tenants == ["acme", "emca"]


@in_virtual_time
async def test_a_kept_token_that_has_expired_is_not_given_out() -> None:
    world = World()
    await world.source().token(PATIENCE)
    world.clock.step(LIFETIME)
    source = world.source()
    assert source.current() is None
    assert (await source.token(PATIENCE)).access_token == "token-2"


# --- what is told ---


@in_virtual_time
async def test_every_request_is_counted_with_its_outcome_and_timed() -> None:
    world = World(unavailable(), refused())
    source = world.source()
    with pytest.raises(TokenUnavailable):
        await source.token(0.1)
    source.forgive()
    with pytest.raises(Exception, match="unknown client"):
        await source.token(0.1)
    source.forgive()
    await source.token(0.1)
    tally = world.tallies["acme"]
    assert tally.token_requests == {
        ("client_credentials", "http_503"): 1,
        ("client_credentials", "invalid_client"): 1,
        ("client_credentials", "ok"): 1,
    }
    assert sum(tally.refreshes.counts) == 3
