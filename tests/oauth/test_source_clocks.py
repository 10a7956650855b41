"""Sleeping laptops, clocks that are set, and tokens that state their own expiry."""

from __future__ import annotations

import asyncio
import json
from base64 import urlsafe_b64encode

import jwt
import pytest

from proxy.core.answers import TokenAnswer
from proxy.core.tokens import Token
from proxy.errors import TokenError, TokenUnavailable
from proxy.oauth.source import TokenSource
from tests.oauth.fakes import LIFETIME, World, issued, unavailable
from tests.oauth.virtual_time import WALL, in_virtual_time

PATIENCE = 15.0
HOUR = 3600.0
KEY = "a key of the issuer's, long enough for HMAC"


def signed(**claims: object) -> str:
    """An access token that is a JWT."""
    return jwt.encode({"iss": "https://login.example.com", **claims}, KEY, algorithm="HS256")


def handmade(payload: bytes) -> str:
    """What has the form of a JWT, whatever it holds."""
    parts = (b'{"alg":"HS256","typ":"JWT"}', payload, b"signature")
    return ".".join(urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts)


async def lifetime_of(answer: TokenAnswer, *, wall_clock_off_by: float = 0.0) -> float:
    """The lifetime of the token in an answer."""
    world = World(answer)
    world.clock.step(wall_clock_off_by)
    token = await world.source().token(PATIENCE)
    assert len(world.endpoint.asked) == 1
    return token.lifetime


async def call_every_second(source: TokenSource, seconds: int) -> list[Token]:
    given = []
    for _ in range(seconds):
        given.append(await source.token(PATIENCE))
        await asyncio.sleep(1.0)
    return given


# --- a machine that slept ---


@in_virtual_time
async def test_after_a_sleep_the_expired_token_is_not_given_out_and_one_request_brings_another() -> None:
    world = World(latency=0.1)
    source = world.source()
    await source.token(PATIENCE)
    world.clock.suspend(2 * HOUR)
    assert source.current() is None
    tokens = await asyncio.gather(*(source.token(PATIENCE) for _ in range(100)))
    assert {token.access_token for token in tokens} == {"token-2"}
    assert len(world.endpoint.asked) == 2


@in_virtual_time
async def test_a_nap_that_the_token_outlives_costs_nothing() -> None:
    world = World()
    source = world.source()
    first = await source.token(PATIENCE)
    world.clock.suspend(LIFETIME / 2)
    assert source.current() is first
    assert len(world.endpoint.asked) == 1


@in_virtual_time
async def test_a_token_whose_answer_came_after_a_sleep_is_not_given_out_expired() -> None:
    world = World()
    source = world.source()
    world.endpoint.open.clear()
    caller = asyncio.get_running_loop().create_task(source.token(PATIENCE), name="caller")
    await asyncio.sleep(1.0)
    world.clock.suspend(2 * HOUR)
    world.endpoint.open.set()
    with pytest.raises(TokenUnavailable) as caught:
        await caller
    assert caught.value.error == "expired_on_arrival"
    await asyncio.sleep(1.0)
    assert (await source.token(PATIENCE)).access_token == "token-2"


@in_virtual_time
async def test_a_sleep_ends_the_pause_after_a_failure() -> None:
    world = World(unavailable(retry_after=300.0))
    source = world.source()
    with pytest.raises(TokenUnavailable):
        await source.token(PATIENCE)
    world.clock.suspend(HOUR)
    assert (await source.token(PATIENCE)).access_token == "token-1"
    assert world.clock.loop.now == 0.0


@in_virtual_time
async def test_a_pause_of_the_machine_that_only_the_wall_clock_saw_counts_too() -> None:
    world = World()
    source = world.source()
    await source.token(PATIENCE)
    world.clock.step(2 * HOUR)
    assert source.current() is None
    assert (await source.token(PATIENCE)).access_token == "token-2"


# --- a wall clock that is set ---


@pytest.mark.parametrize("steps", [(HOUR,), (-HOUR,), (HOUR, -HOUR), (-HOUR, HOUR), (1e9,), (-1e9,)])
@in_virtual_time
async def test_a_step_of_the_wall_clock_costs_one_request_for_each_step_forward_at_most(
    steps: tuple[float, ...],
) -> None:
    world = World()
    source = world.source()
    await source.token(PATIENCE)
    for step in steps:
        world.clock.step(step)
        await call_every_second(source, 600)
    assert len(world.endpoint.asked) <= 1 + sum(step > 0 for step in steps)


@pytest.mark.parametrize("step", [-HOUR, -1e6])
@in_virtual_time
async def test_a_wall_clock_set_back_does_not_prolong_a_life(step: float) -> None:
    world = World()
    source = world.source()
    first = await source.token(PATIENCE)
    world.clock.step(step)
    assert source.current() is first
    world.endpoint.otherwise = unavailable
    await asyncio.sleep(LIFETIME - first.leeway)
    assert source.current() is None
    with pytest.raises(TokenError):
        await source.token(0.1)


@in_virtual_time
async def test_a_token_got_while_the_wall_clock_was_ahead_lives_as_long_as_any() -> None:
    world = World()
    world.clock.step(HOUR)
    source = world.source()
    first = await source.token(PATIENCE)
    world.clock.step(-HOUR)
    await asyncio.sleep(LIFETIME - 60.0 - 1.0)
    assert source.current() is first
    assert len(world.endpoint.asked) == 1
    await asyncio.sleep(60.0)
    assert source.current() is not first


@pytest.mark.parametrize("step", [HOUR, -HOUR])
@in_virtual_time
async def test_a_pause_after_a_failure_is_measured_by_no_wall_clock(step: float) -> None:
    world = World(unavailable(retry_after=30.0))
    source = world.source()
    with pytest.raises(TokenUnavailable):
        await source.token(PATIENCE)
    world.clock.step(step)
    with pytest.raises(TokenUnavailable) as caught:
        await source.token(PATIENCE)
    assert caught.value.retry_after == 30.0
    await asyncio.sleep(30.0)
    assert (await source.token(PATIENCE)).access_token == "token-1"


# --- a token that states its own expiry ---


@pytest.mark.parametrize(
    ("left", "expires_in", "lifetime"),
    [(900, 3600, 900), (7200, 3600, 3600), (900, None, 900), (7200, None, 7200), (900, "3600", 900)],
)
@in_virtual_time
async def test_the_exp_of_a_jwt_is_believed_when_it_is_earlier(left: int, expires_in: object, lifetime: float) -> None:
    assert await lifetime_of(issued(signed(exp=WALL + left), expires_in, server_time=WALL)) == lifetime


@pytest.mark.parametrize("wrong_by", [HOUR, -HOUR, 1e6, -1e6])
@in_virtual_time
async def test_exp_is_measured_by_the_endpoints_date_and_not_by_a_wrong_clock_here(wrong_by: float) -> None:
    answer = issued(signed(exp=WALL + 900), 3600, server_time=WALL)
    assert await lifetime_of(answer, wall_clock_off_by=wrong_by) == 900


@in_virtual_time
async def test_exp_is_measured_by_the_clock_here_where_the_endpoint_states_no_date() -> None:
    assert await lifetime_of(issued(signed(exp=WALL + 900), 3600)) == 900


@in_virtual_time
async def test_a_jwt_that_has_expired_by_its_own_exp_is_dead_on_arrival() -> None:
    world = World()
    world.endpoint.otherwise = lambda: issued(signed(exp=int(WALL) - 1), 3600, server_time=WALL)
    with pytest.raises(TokenUnavailable) as caught:
        await world.source().token(PATIENCE)
    assert caught.value.error == "expired_on_arrival"


@in_virtual_time
async def test_a_jwt_without_exp_lives_as_stated() -> None:
    assert await lifetime_of(issued(signed(), 3600, server_time=WALL)) == 3600


@pytest.mark.parametrize(
    "payload",
    [
        b'{"exp": "tomorrow"}',
        b'{"exp": null}',
        b'{"exp": true}',
        b'{"exp": [1]}',
        b'{"exp": NaN}',
        b'{"exp": ' + b"9" * 400 + b"}",
        b'{"exp": 1e400}',
        b"{}",
        b"[]",
        b"",
        b"\xff\xfe",
        b"[" * 50_000,
        b'{"exp": ' + b"9" * 5000 + b"}",
    ],
    ids=lambda payload: repr(payload)[:20],
)
@in_virtual_time
async def test_an_exp_that_says_nothing_usable_is_not_believed(payload: bytes) -> None:
    assert await lifetime_of(issued(handmade(payload), 3600, server_time=WALL)) == 3600


@pytest.mark.parametrize("token", ["opaque", "a.b", "a.b.c", "..", "a..c", "a.b.c.d.e", "!.!.!"])
@in_virtual_time
async def test_a_token_that_is_no_jwt_lives_as_stated(token: str) -> None:
    assert await lifetime_of(issued(token, 3600, server_time=WALL)) == 3600


@in_virtual_time
async def test_no_signature_is_needed_to_believe_an_earlier_exp() -> None:
    unsigned = jwt.encode({"exp": WALL + 900}, "", algorithm="none")
    forged = handmade(json.dumps({"exp": WALL + 800}).encode())
    assert await lifetime_of(issued(unsigned, 3600, server_time=WALL)) == 900
    assert await lifetime_of(issued(forged, 3600, server_time=WALL)) == 800
