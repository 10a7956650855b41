"""A token endpoint that is down, throttles or refuses: who notices, and how often it is asked."""

from __future__ import annotations

import asyncio
import itertools
import logging

import pytest

from proxy.core.backoff import LONGEST_PAUSE
from proxy.core.tokens import Token
from proxy.errors import TokenError, TokenRefused, TokenUnavailable
from proxy.oauth.source import TokenSource
from tests.oauth.fakes import LIFETIME, SECRET, World, issued, refused, unavailable
from tests.oauth.virtual_time import in_virtual_time, settle

PATIENCE = 15.0


async def keep_calling(source: TokenSource, seconds: float, patience: float = 0.1, every: float = 0.1) -> list[object]:
    """What a client is told that asks again and again, ``every`` so many seconds."""
    told: list[object] = []
    loop = asyncio.get_running_loop()
    end = loop.time() + seconds
    while loop.time() < end:
        try:
            told.append(await source.token(patience))
        except TokenError as error:
            told.append(error)
        await asyncio.sleep(every)
    return told


def gaps(times: list[float]) -> list[float]:
    return [later - earlier for earlier, later in itertools.pairwise(times)]


# --- while the old token lives ---


@pytest.mark.parametrize("failure", [unavailable(), unavailable(retry_after=20.0), refused()])
@in_virtual_time
async def test_a_failed_refresh_hurts_nobody_while_the_old_token_lives(failure: TokenError) -> None:
    world = World()
    source = world.source()
    first = await source.token(PATIENCE)
    world.endpoint.otherwise = lambda: failure
    await asyncio.sleep(LIFETIME - 60.0)
    while world.clock.loop.now < LIFETIME - first.leeway - 0.2:
        assert source.current() is first
        assert await source.token(PATIENCE) is first
        await asyncio.sleep(0.1)
    assert source.failure is not None
    assert 2 <= len(world.endpoint.asked) <= 10


@in_virtual_time
async def test_a_token_is_not_given_out_once_expired_though_there_is_no_other() -> None:
    world = World()
    source = world.source()
    await source.token(PATIENCE)
    world.endpoint.otherwise = unavailable
    told = await keep_calling(source, 2 * LIFETIME, every=10.0)
    given = [each for each in told if isinstance(each, Token)]
    assert len(given) == pytest.approx(LIFETIME / 10, abs=2)
    assert not any(isinstance(each, Token) for each in told[len(given) :])


@in_virtual_time
async def test_a_failed_refresh_leaves_a_token_that_is_still_fresh_alone() -> None:
    world = World(issued("first"), unavailable())
    source = world.source()
    first = await source.token(PATIENCE)
    with pytest.raises(TokenUnavailable):
        await source.refresh()
    assert source.current() is first
    assert await source.token(0.0) is first


# --- pauses ---


@in_virtual_time
async def test_callers_of_an_endpoint_that_is_down_ask_it_ever_more_rarely_all_together() -> None:
    world = World()
    world.endpoint.otherwise = unavailable
    source = world.source()
    await asyncio.gather(*(keep_calling(source, 180.0) for _ in range(20)))
    pauses = gaps(world.endpoint.asked)
    assert pauses[:6] == pytest.approx([0.5, 1, 2, 4, 8, 16], abs=0.25)
    assert pauses[6:] == pytest.approx([LONGEST_PAUSE] * len(pauses[6:]), abs=0.25)
    assert world.endpoint.most_at_once == 1


@in_virtual_time
async def test_callers_who_wait_through_the_pause_share_the_next_attempt() -> None:
    world = World(unavailable(), unavailable())
    source = world.source()
    tokens = await asyncio.gather(*(source.token(PATIENCE) for _ in range(100)))
    assert world.endpoint.asked == [0.0, 0.5, 1.5]
    assert {token.access_token for token in tokens} == {"token-1"}
    assert world.clock.loop.now == 1.5


@pytest.mark.parametrize(("jitter", "pause"), [(0.0, 0.5), (0.5, 0.4375), (0.999, 0.375)])
@in_virtual_time
async def test_a_pause_is_jittered(jitter: float, pause: float) -> None:
    world = World(unavailable())
    await world.source(jitter=lambda: jitter).token(PATIENCE)
    assert world.endpoint.asked == pytest.approx([0.0, pause], abs=0.001)


@in_virtual_time
async def test_a_caller_waits_only_while_the_next_attempt_can_begin_in_time() -> None:
    world = World(unavailable(), unavailable(), unavailable())
    source = world.source()
    with pytest.raises(TokenUnavailable, match="it is down") as caught:
        await source.token(1.0)
    # The second attempt failed at 0.5; the third may begin at 1.5, after the caller's time.
    assert world.clock.loop.now == 0.5
    assert caught.value.retry_after == pytest.approx(1.0)
    assert caught.value.error == "http_503"


@in_virtual_time
async def test_a_caller_during_a_pause_is_told_how_much_of_it_is_left() -> None:
    world = World(unavailable(retry_after=40.0))
    source = world.source()
    for wait in (40.0, 30.0, 15.0):
        with pytest.raises(TokenUnavailable) as caught:
            await source.token(PATIENCE)
        assert caught.value.retry_after == pytest.approx(wait)
        await asyncio.sleep(10.0 if wait == 40.0 else 15.0)
    assert world.endpoint.asked == [0.0]
    assert (await source.token(PATIENCE)).access_token == "token-1"
    assert world.endpoint.asked == [0.0, 40.0]


@in_virtual_time
async def test_a_request_that_fails_late_leaves_its_waiters_no_time_for_another() -> None:
    world = World(unavailable(), latency=9.9)
    with pytest.raises(TokenUnavailable, match="it is down"):
        await world.source().token(10.0)
    assert world.clock.loop.now == pytest.approx(9.9)


@in_virtual_time
async def test_an_absurd_retry_after_is_not_heeded_for_ever() -> None:
    world = World(unavailable(retry_after=1e9))
    source = world.source()
    with pytest.raises(TokenUnavailable):
        await source.token(PATIENCE)
    await asyncio.sleep(300.0)
    assert (await source.token(PATIENCE)).access_token == "token-1"


@in_virtual_time
async def test_a_success_ends_the_count_of_failures() -> None:
    world = World(unavailable(), unavailable(), issued("one"), unavailable(), issued("two"))
    source = world.source()
    await source.token(PATIENCE)
    counts = [source.failure.count if source.failure else 0]
    with pytest.raises(TokenUnavailable):
        await source.refresh()
    counts += [source.failure.count if source.failure else 0]
    assert counts == [0, 1]
    assert source.due(world.clock()) == LIFETIME - 60.0


@in_virtual_time
async def test_after_a_failure_a_refresh_is_due_when_the_pause_is_over() -> None:
    world = World(unavailable(retry_after=7.0))
    source = world.source()
    with pytest.raises(TokenUnavailable):
        await source.refresh()
    assert source.due(world.clock()) == 7.0
    await asyncio.sleep(7.0)
    assert source.due(world.clock()) == 0.0


@in_virtual_time
async def test_each_caller_gets_an_error_of_its_own() -> None:
    world = World(unavailable(retry_after=60.0))
    source = world.source()
    told = await asyncio.gather(*(source.token(1.0) for _ in range(5)), return_exceptions=True)
    assert all(isinstance(each, TokenUnavailable) for each in told)
    assert len(set(map(id, told))) == 5


@in_virtual_time
async def test_callers_who_arrive_in_the_very_moment_of_a_failure_get_an_answer() -> None:
    world = World(unavailable(retry_after=60.0))
    source = world.source()
    told: list[object] = []
    world.endpoint.open.clear()
    first = asyncio.get_running_loop().create_task(source.token(PATIENCE), name="first caller")
    await settle()
    # Each of these begins in one of the turns around that in which the request ends.
    world.endpoint.open.set()
    callers = []
    for _ in range(8):
        callers += [asyncio.get_running_loop().create_task(source.token(1.0), name="caller") for _ in range(2)]
        await asyncio.sleep(0)
    told = await asyncio.gather(first, *callers, return_exceptions=True)
    assert [type(each) for each in told] == [TokenUnavailable] * 17
    assert len(world.endpoint.asked) == 1


# --- refusals ---


@in_virtual_time
async def test_a_refusal_is_answered_from_memory() -> None:
    world = World(latency=0.5)
    world.endpoint.otherwise = refused
    source = world.source()
    told = await asyncio.gather(*(keep_calling(source, 120.0, PATIENCE) for _ in range(10)))
    assert {type(each) for each in itertools.chain(*told)} == {TokenRefused}
    assert gaps(world.endpoint.asked) == pytest.approx(
        [10.5, 20.5, 40.5, 60.5][: len(world.endpoint.asked) - 1], abs=0.3
    )


@in_virtual_time
async def test_nobody_waits_for_a_refusal_to_pass() -> None:
    world = World(refused())
    source = world.source()
    for _ in range(3):
        with pytest.raises(TokenRefused, match="unknown client") as caught:
            await source.token(3600.0)
        assert caught.value.error == "invalid_client"
    assert world.clock.loop.now == 0.0
    assert world.endpoint.asked == [0.0]


@in_virtual_time
async def test_a_refusal_is_forgiven() -> None:
    world = World(refused())
    source = world.source()
    with pytest.raises(TokenRefused):
        await source.token(PATIENCE)
    source.forgive()
    assert source.failure is None
    assert source.due(world.clock()) == 0.0
    assert (await source.token(PATIENCE)).access_token == "token-1"
    assert world.clock.loop.now == 0.0


@in_virtual_time
async def test_a_refusal_passes_of_itself() -> None:
    world = World(refused())
    source = world.source()
    with pytest.raises(TokenRefused):
        await source.token(PATIENCE)
    await asyncio.sleep(10.0)
    assert (await source.token(PATIENCE)).access_token == "token-1"


@in_virtual_time
async def test_a_refusal_that_follows_an_outage_ends_the_wait_for_it() -> None:
    world = World(unavailable(), refused())
    with pytest.raises(TokenRefused):
        await world.source().token(PATIENCE)
    assert world.endpoint.asked == [0.0, 0.5]
    assert world.clock.loop.now == 0.5


# --- answers that are no use ---


@pytest.mark.parametrize("expires_in", [0, -1, "0", "-3600", float("-inf")], ids=repr)
@in_virtual_time
async def test_a_token_that_is_dead_on_arrival_is_a_failure_and_no_storm(expires_in: object) -> None:
    world = World()
    world.endpoint.otherwise = lambda: issued("dead", expires_in)
    source = world.source()
    told = await keep_calling(source, 60.0)
    assert {each.error for each in told if isinstance(each, TokenUnavailable)} == {"expired_on_arrival"}
    assert not any(isinstance(each, Token) for each in told)
    assert len(world.endpoint.asked) < 10


@pytest.mark.parametrize(
    ("expires_in", "lifetime"),
    [
        (3600, 3600),
        ("3600", 3600),
        (None, 300),
        (True, 300),
        (False, 300),
        (float("nan"), 300),
        ("soon", 300),
        ([], 300),
        (10**15, 172_800),
        (float("inf"), 172_800),
    ],
    ids=repr,
)
@in_virtual_time
async def test_whatever_expires_in_says_the_token_gets_a_lifetime(expires_in: object, lifetime: float) -> None:
    world = World(issued("odd", expires_in))
    token = await world.source().token(PATIENCE)
    assert (token.access_token, token.lifetime) == ("odd", lifetime)


@in_virtual_time
async def test_a_very_short_life_is_used_and_renewed_without_a_storm() -> None:
    world = World()
    world.endpoint.otherwise = lambda: issued("short", 2)
    source = world.source()
    told = await keep_calling(source, 60.0)
    assert all(isinstance(each, Token) for each in told)
    assert 30 <= len(world.endpoint.asked) <= 45


@in_virtual_time
async def test_a_defect_of_the_endpoints_client_is_no_storm_either() -> None:
    class Broken(Exception):
        pass

    world = World()

    def break_down() -> TokenError:
        raise Broken

    world.endpoint.otherwise = break_down
    source = world.source()
    for _ in range(100):
        with pytest.raises((Broken, TokenError)):
            await source.token(0.1)
        await asyncio.sleep(0.1)
    assert len(world.endpoint.asked) < 10


# --- what is told ---


@in_virtual_time
async def test_no_log_line_shows_a_token_or_a_secret(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    world = World(unavailable(), issued("secret-token"), refused(), issued("secret-token", 0))
    source = world.source()
    await source.token(PATIENCE)
    for _ in range(2):
        source.forgive()
        with pytest.raises(TokenError):
            await source.refresh()
    assert len(caplog.records) >= 4
    assert "secret-token" not in caplog.text
    assert SECRET not in caplog.text
    assert repr(source.token_now()).find("secret-token") == -1


@in_virtual_time
async def test_a_failure_is_told_with_its_reason_and_the_pause(caplog: pytest.LogCaptureFixture) -> None:
    world = World(unavailable(retry_after=12.0))
    with pytest.raises(TokenUnavailable):
        await world.source().token(1.0)
    assert "Tenant acme: it is down. (http_503, attempt 1, next in 12.0 s)" in caplog.text
