"""Tokens by their clients' keys: as many as fit, each while it lives."""

from __future__ import annotations

import asyncio

from proxy.core.tokens import Token
from proxy.oauth.cache import TokenCache
from tests.oauth.virtual_time import VirtualClock, in_virtual_time


def token(clock: VirtualClock, name: str, lifetime: float = 3600.0) -> Token:
    return Token(name, clock.look(), lifetime, 60.0)


@in_virtual_time
async def test_a_token_is_found_by_its_key_and_by_no_other() -> None:
    clock = VirtualClock()
    cache = TokenCache(clock)
    kept = token(clock, "a")
    cache.put("key", kept)
    assert cache.get("key") is kept
    assert cache.get("yek") is None
    assert len(cache) == 1


@in_virtual_time
async def test_a_newer_token_takes_the_place_of_the_old() -> None:
    clock = VirtualClock()
    cache = TokenCache(clock)
    cache.put("key", token(clock, "old"))
    newer = token(clock, "new")
    cache.put("key", newer)
    assert cache.get("key") is newer
    assert len(cache) == 1


@in_virtual_time
async def test_a_discarded_token_is_gone_and_may_be_discarded_again() -> None:
    clock = VirtualClock()
    cache = TokenCache(clock)
    cache.put("key", token(clock, "a"))
    cache.discard("key")
    cache.discard("key")
    assert cache.get("key") is None


@in_virtual_time
async def test_a_token_is_kept_until_it_expires() -> None:
    clock = VirtualClock()
    cache = TokenCache(clock)
    cache.put("key", token(clock, "a", 100.0))
    await asyncio.sleep(99.9)
    assert cache.get("key") is not None
    await asyncio.sleep(0.2)
    assert cache.get("key") is None
    assert len(cache) == 0


@in_virtual_time
async def test_time_before_a_token_was_put_in_counts_too() -> None:
    clock = VirtualClock()
    cache = TokenCache(clock)
    late = token(clock, "a", 100.0)
    clock.step(50.0)
    await asyncio.sleep(20.0)
    cache.put("key", late)
    await asyncio.sleep(29.0)
    assert cache.get("key") is late
    await asyncio.sleep(2.0)
    assert cache.get("key") is None


@in_virtual_time
async def test_a_sleeping_machine_keeps_no_token_beyond_its_life() -> None:
    clock = VirtualClock()
    cache = TokenCache(clock)
    cache.put("key", token(clock, "a"))
    clock.suspend(3600.0)
    assert cache.get("key") is None


@in_virtual_time
async def test_a_wall_clock_set_back_keeps_no_token_beyond_its_life() -> None:
    clock = VirtualClock()
    cache = TokenCache(clock)
    cache.put("key", token(clock, "a"))
    clock.step(-3600.0)
    await asyncio.sleep(3601.0)
    assert cache.get("key") is None


@in_virtual_time
async def test_no_more_tokens_are_kept_than_fit_and_the_least_used_goes_first() -> None:
    clock = VirtualClock()
    cache = TokenCache(clock, size=3)
    for name in "abc":
        cache.put(name, token(clock, name))
    cache.get("a")
    cache.put("d", token(clock, "d"))
    assert [name for name in "abcd" if cache.get(name) is not None] == ["a", "c", "d"]
    for index in range(100):
        cache.put(str(index), token(clock, "x"))
    assert len(cache) == 3


@in_virtual_time
async def test_a_token_that_has_expired_makes_room_before_any_other() -> None:
    clock = VirtualClock()
    cache = TokenCache(clock, size=2)
    cache.put("old", token(clock, "old"))
    cache.put("short", token(clock, "short", 10.0))
    await asyncio.sleep(11.0)
    cache.put("new", token(clock, "new"))
    assert cache.get("old") is not None
    assert cache.get("new") is not None
